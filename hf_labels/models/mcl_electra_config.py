"""Settings of MCL pre-training: two ELECTRA networks, their courses, and which course runs when."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import ElectraConfig, PreTrainedConfig

from hf_labels.losses.mcl_electra import CORRECTIONS, COURSES, check_courses


@strict
class MCLElectraConfig(PreTrainedConfig):
    """Settings of [`MCLElectraForPreTraining`].

    Parameters:
        generator_config, discriminator_config (`ElectraConfig` or `dict`, *optional*): The two networks; one
            vocabulary. The generator is usually a quarter to a third as wide.
        courses (`list[str]`, *optional*): Out of `rtd` (replaced), `std` (swapped), `itd` (inserted), `re_rtd` and
            `re_std` (corrections); defaults to all. `["rtd"]` is ELECTRA.
        course_weights (`dict[str, float]`, *optional*): w_c, 1 where not given.
        course_schedule (`str`, *optional*, defaults to `"joint"`): `"joint"` learns all courses in every step,
            `"round_robin"` one per step, in turn.
        disc_weight (`float`, *optional*, defaults to 50.0): lambda in the paper, weight of the discriminator's losses.
        mask_prob (`float`, *optional*, defaults to 0.15): p in the paper, share of tokens that is corrupted, in (0,1).
        show_mask_prob (`float`, *optional*, defaults to 1.0): Share of the replaced positions at which the generator
            sees [MASK] and not the token itself (0.85 in ELECTRA's code, 1 in COCO-LM's), in `(0, 1]`.
        std_input (`str`, *optional*, defaults to `"sampled"`): What the discriminator reads of the swap course:
            `"sampled"` (the generator's tokens) or `"swapped"` (the swapped tokens themselves).
        correction_scope (`str`, *optional*, defaults to `"notebook"`): The discriminator corrects itself at
            `"notebook"` positions (false alarms, missed and caught tokens) or at `"all"` tokens.
        tie_word_embeddings (`bool`, *optional*, defaults to `True`): The networks share word, position and segment
            embeddings when their embedding sizes are equal.
        detach_embeddings (`bool`, *optional*, defaults to `False`): The discriminator's loss does not reach the word
            embeddings.
        mask_token_id (`int`, *optional*, defaults to 103), pad_token_id (`int`, *optional*, defaults to 0),
        special_token_ids (`list[int]`, *optional*): Ids that are never corrupted. The defaults are those of
            `google/electra-small-discriminator`; [`~MCLElectraConfig.for_tokenizer`] sets your own.
        initializer_range (`float`, *optional*, defaults to 0.02): For own weights; the networks have their own.
    """

    model_type = "hfl-mcl-electra"
    sub_configs = {"generator_config": ElectraConfig, "discriminator_config": ElectraConfig}
    keys_to_ignore_at_inference = [
        "attention_mask",
        "gen_losses",
        "disc_losses",
        "label_balance",
        "accuracy",
        "terms",
        "disc_tokens",
    ]

    generator_config: Any = None
    discriminator_config: Any = None
    courses: Any = None
    course_weights: Any = None
    course_schedule: str = "joint"
    disc_weight: float | int = 50.0
    mask_prob: float = 0.15
    show_mask_prob: float | int = 1.0
    std_input: str = "sampled"
    correction_scope: str = "notebook"
    tie_word_embeddings: bool = True
    detach_embeddings: bool = False
    mask_token_id: int = 103
    pad_token_id: int | None = 0
    special_token_ids: Any = None
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        self.generator_config = _electra_config(self.generator_config, small=True)
        self.discriminator_config = _electra_config(self.discriminator_config)
        self.courses = list(check_courses(COURSES if self.courses is None else self.courses))
        self.course_weights = dict(self.course_weights or {})
        if self.special_token_ids is None:
            self.special_token_ids = [0, 100, 101, 102, 103]
        self.special_token_ids = sorted({int(i) for i in self.special_token_ids} | {self.mask_token_id})
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        generator, discriminator = self.generator_config, self.discriminator_config
        if generator.vocab_size != discriminator.vocab_size:
            raise ValueError(
                f"Generator and discriminator need one vocabulary, got {generator.vocab_size} and "
                f"{discriminator.vocab_size} tokens. Take two checkpoints of one tokenizer."
            )
        if not 0 <= self.mask_token_id < generator.vocab_size:
            raise ValueError(
                f"`mask_token_id` must be in [0, {generator.vocab_size}), got {self.mask_token_id}. "
                "`MCLElectraConfig.for_tokenizer(tokenizer, ...)` sets it."
            )
        if self.detach_embeddings and not self.shares_embeddings:
            raise ValueError(
                "`detach_embeddings` would leave the discriminator's own word embeddings untrained: it needs "
                "`tie_word_embeddings=True` and equal embedding sizes."
            )
        for name, choices in (
            ("course_schedule", ("joint", "round_robin")),
            ("std_input", ("sampled", "swapped")),
            ("correction_scope", ("notebook", "all")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        for name, weight in self.course_weights.items():
            if name not in COURSES or not weight >= 0:
                raise ValueError(
                    f"`course_weights` maps courses ({', '.join(COURSES)}) to >= 0, got {name!r}: {weight}."
                )
        if not 0 < self.mask_prob < 1 or not 0 < self.show_mask_prob <= 1 or not self.disc_weight >= 0:
            raise ValueError(
                "`mask_prob` must be in (0, 1), `show_mask_prob` in (0, 1] and `disc_weight` >= 0; got "
                f"{self.mask_prob}, {self.show_mask_prob} and {self.disc_weight}."
            )

    @property
    def shares_embeddings(self) -> bool:
        """Whether the two networks share their embedding tables."""
        return bool(
            self.tie_word_embeddings
            and self.generator_config.embedding_size == self.discriminator_config.embedding_size
        )

    @property
    def row_limit(self) -> int:
        """Longest row that both networks can read, in tokens."""
        return min(self.generator_config.max_position_embeddings, self.discriminator_config.max_position_embeddings)

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, generator: Any, discriminator: Any, **settings: Any) -> "MCLElectraConfig":
        """A config with the special ids and the vocabulary size of a tokenizer.

        Args:
            tokenizer: With a mask token.
            generator, discriminator (`dict` or `ElectraConfig`): Sizes of the networks; `vocab_size` and
                `pad_token_id` are taken from the tokenizer when a dict leaves them out.
            settings: Further fields.

        Raises:
            ValueError: If the tokenizer has no mask token, or more tokens than a network.
        """
        ids = tokenizer_ids(tokenizer)
        size = {"vocab_size": len(tokenizer), "pad_token_id": ids["pad_token_id"]}
        parts = [{**size, **part} if isinstance(part, dict) else part for part in (generator, discriminator)]
        config = cls(generator_config=parts[0], discriminator_config=parts[1], **{**ids, **settings})
        check_vocabulary(tokenizer, config)
        return config


def _electra_config(given: Any, small: bool = False) -> Any:
    if isinstance(given, PreTrainedConfig):
        return given
    # The widths of google/electra-small-generator; ElectraConfig's own defaults are the small discriminator.
    sizes = {"num_attention_heads": 1, "hidden_size": 64, "intermediate_size": 256} if small and not given else {}
    return ElectraConfig(**{**sizes, **{k: v for k, v in (given or {}).items() if k != "model_type"}})


def tokenizer_ids(tokenizer: Any) -> dict[str, Any]:
    """`mask_token_id`, `pad_token_id` and `special_token_ids` of a tokenizer.

    Raises:
        ValueError: If it has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise ValueError(
            f"{type(tokenizer).__name__} has no mask token, and the generator fills masks. Add one with "
            '`tokenizer.add_special_tokens({"mask_token": "[MASK]"})` and a row for it in both networks.'
        )
    return {
        "mask_token_id": tokenizer.mask_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "special_token_ids": sorted(tokenizer.all_special_ids),
    }


def check_vocabulary(tokenizer: Any, config: MCLElectraConfig) -> None:
    if len(tokenizer) > config.discriminator_config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, the networks {config.discriminator_config.vocab_size}. "
            "Use the tokenizer of the checkpoints, or larger networks."
        )


def scheduled_courses(courses: Sequence[str], schedule: str, step: int, corrections: bool = True) -> tuple[str, ...]:
    """Courses of one step.

    Args:
        courses: All courses of the run.
        schedule (`str`): `"joint"` or `"round_robin"`.
        step (`int`): Optimizer steps done before.
        corrections (`bool`, *optional*, defaults to `True`): Whether corrections have begun.

    Raises:
        ValueError: If nothing is left to learn.
    """
    open_now = tuple(name for name in courses if corrections or name not in CORRECTIONS)
    if not open_now:
        raise ValueError(f"Only corrections are asked for ({', '.join(courses)}) and they have not begun.")
    return open_now if schedule == "joint" else (open_now[step % len(open_now)],)
