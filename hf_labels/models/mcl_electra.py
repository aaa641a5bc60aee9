"""MCL: ELECTRA pre-training with five courses instead of one, and the way back to a stock ELECTRA encoder.

Source: Chen et al. 2023, arXiv:2305.03981; see [`hf_labels.losses.mcl_electra`] for what is our own definition. The
published checkpoint (fairseq, relative positions, a sentencepiece vocabulary of its own) does not fit the ELECTRA
architecture of `transformers` and is not converted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForPreTraining,
    AutoTokenizer,
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.utils import ModelOutput

from hf_labels.losses.mcl_electra import check_courses, total_loss
from hf_labels.losses.mcl_electra_noise import Generator, RowNoise, as_noise
from hf_labels.models.mcl_electra_config import (
    MCLElectraConfig,
    check_vocabulary,
    scheduled_courses,
    tokenizer_ids,
)
from hf_labels.models.mcl_electra_passes import Terms, batch_counts, run_courses


@dataclass
class MCLElectraOutput(ModelOutput):
    """Output of [`MCLElectraForPreTraining`].

    Parameters:
        loss (`Tensor` of shape `()`): `sum_c w_c (L_G^c + lambda L_D^c)`.
        logits (`Tensor` of shape `(B, T)`): The discriminator's scores of "replaced" in the first course that ran.
        labels (`Tensor` of shape `(B, T)`): Its labels there, -100 where it is not judged.
        attention_mask (`Tensor` of shape `(B, T)`): Of that course, whose rows may be longer than the input.
        gen_losses, disc_losses, label_balance, accuracy (`dict[str, Tensor]`): Scalars by course. `label_balance` is
            the share of label 1 among the judged tokens.
        terms (`Terms`): Sums and counts from which the losses were made.
        disc_tokens (`Tensor` of shape `()`): Tokens that the discriminator read, over all its passes.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    labels: Tensor | None = None
    attention_mask: Tensor | None = None
    gen_losses: dict[str, Tensor] | None = None
    disc_losses: dict[str, Tensor] | None = None
    label_balance: dict[str, Tensor] | None = None
    accuracy: dict[str, Tensor] | None = None
    terms: Terms | None = None
    disc_tokens: Tensor | None = None


class MCLElectraForPreTraining(PreTrainedModel):
    """A generator that corrupts text and a discriminator that finds out where, in up to five courses.

    Make one from a config ([`MCLElectraConfig.for_tokenizer`]) or from two stock checkpoints ([`from_electra`]); what
    you keep in the end is the stock encoder of [`export_discriminator`]. `save_pretrained` and `from_pretrained` keep
    both networks, to train on; `push_to_hub` pushes the discriminator unless told otherwise.
    """

    config_class = MCLElectraConfig
    config: MCLElectraConfig
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    forwards: Tensor

    def __init__(self, config: MCLElectraConfig):
        super().__init__(config)
        self.generator = ElectraForMaskedLM(config.generator_config)
        self.discriminator = ElectraForPreTraining(config.discriminator_config)
        # Counts training forwards for the schedule when no trainer names the courses; saved, so a resumed run goes on.
        self.register_buffer("forwards", torch.zeros((), dtype=torch.int64))
        if config.shares_embeddings:
            equal = {
                "word_embeddings": True,
                "position_embeddings": config.generator_config.max_position_embeddings
                == config.discriminator_config.max_position_embeddings,
                "token_type_embeddings": config.generator_config.type_vocab_size
                == config.discriminator_config.type_vocab_size,
            }
            self._tied_weights_keys = {
                f"generator.electra.embeddings.{name}.weight": f"discriminator.electra.embeddings.{name}.weight"
                for name, same in equal.items()
                if same
            }
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self:
            init.zeros_(self.forwards)

    def get_input_embeddings(self) -> nn.Module:
        return self.discriminator.get_input_embeddings()

    @classmethod
    def from_electra(
        cls, generator: Any, discriminator: Any, *, tokenizer: Any = None, **settings: Any
    ) -> "MCLElectraForPreTraining":
        """Start from stock ELECTRA checkpoints.

        Args:
            generator, discriminator: Hub id or folder, or a loaded `ElectraForMaskedLM` / `ElectraForPreTraining`.
            tokenizer (*optional*): Id or tokenizer; by default that of the discriminator's id or folder.
            settings: Fields of [`MCLElectraConfig`], for example `courses`.

        Raises:
            ValueError: Vocabularies that differ, a tokenizer without mask token, or no tokenizer to be found.
            OSError: If a checkpoint cannot be loaded.
        """
        if tokenizer is None and not isinstance(discriminator, (str, Path)):
            raise ValueError("Loaded models do not know their special tokens: pass `tokenizer=` too.")
        source = discriminator if tokenizer is None else tokenizer
        if isinstance(source, (str, Path)):
            source = AutoTokenizer.from_pretrained(source)
        parts = []
        for kind, given in ((ElectraForMaskedLM, generator), (ElectraForPreTraining, discriminator)):
            parts.append(kind.from_pretrained(given) if isinstance(given, (str, Path)) else given)
        config = MCLElectraConfig(
            generator_config=ElectraConfig(**parts[0].config.to_dict()),
            discriminator_config=ElectraConfig(**parts[1].config.to_dict()),
            **{**tokenizer_ids(source), **settings},
        )
        check_vocabulary(source, config)
        model = cls(config)
        # The discriminator last: where the networks share embeddings its own stay.
        model.generator.load_state_dict(parts[0].state_dict())
        model.discriminator.load_state_dict(parts[1].state_dict())
        return model

    def prepare(self, input_ids: Tensor, attention_mask: Tensor | None, special_tokens_mask: Tensor | None = None):
        """Attention mask and maskable positions of a batch, both bool (B, T).

        Raises:
            ValueError: Rows longer than the networks read.
        """
        config = self.config
        if input_ids.shape[1] > config.row_limit:
            raise ValueError(
                f"Rows of {input_ids.shape[1]} tokens, the networks read {config.row_limit}. Truncate the texts with "
                f"`tokenizer(..., truncation=True, max_length={config.row_limit})`."
            )
        if attention_mask is None:
            pad = config.pad_token_id
            attention_mask = torch.ones_like(input_ids) if pad is None else (input_ids != pad)
        mask = attention_mask.bool()
        special = torch.isin(input_ids, torch.tensor(config.special_token_ids, device=input_ids.device))
        if special_tokens_mask is not None:
            special = special | special_tokens_mask.bool()
        return mask, mask & ~special

    def counts(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, special_tokens_mask: Tensor | None = None
    ):
        """Places that the losses of the first courses average over; see [`batch_counts`]."""
        mask, maskable = self.prepare(input_ids, attention_mask, special_tokens_mask)
        return batch_counts(maskable, mask, self.config.mask_prob, self.config.row_limit)

    def _courses(self, courses: Sequence[str] | None) -> tuple[str, ...]:
        if courses is not None:
            return check_courses(list(courses))
        config = self.config
        if not self.training or config.course_schedule == "joint":
            return tuple(config.courses)
        step = int(self.forwards)
        self.forwards += 1
        return scheduled_courses(config.courses, config.course_schedule, step)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        special_tokens_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        courses: Sequence[str] | None = None,
        generator: Generator = None,
        return_loss: bool = True,
        return_dict: bool | None = None,
    ) -> MCLElectraOutput | tuple:
        """Corrupt a batch, judge it, and give the loss of the courses.

        Args:
            input_ids (`Tensor` of shape `(B, T)`): Clean text, with its special tokens.
            attention_mask (`Tensor` of shape `(B, T)`, *optional*): 1 = token; pads are found by id when left out.
            special_tokens_mask (`Tensor` of shape `(B, T)`, *optional*): 1 = never corrupt, besides the special ids.
            token_type_ids (`Tensor` of shape `(B, T)`, *optional*): Segments.
            courses (`Sequence[str]`, *optional*): Only these; by default those of the config and its schedule. In
                eval mode a schedule does not count: all courses run.
            generator (`torch.Generator` or `RowNoise`, *optional*): Random numbers. By default the global generator
                while training; in eval mode numbers that depend on each text alone, so that results repeat.
            return_loss (`bool`, *optional*, defaults to `True`): Tells a stock `Trainer` that there is a loss without
                labels; the loss is always returned.

        Returns:
            `MCLElectraOutput`. A batch without any maskable token has loss 0.

        Raises:
            ValueError: An unknown course, or rows that are too long (for insertion, those that cannot be cut).
        """
        active, input_ids = self._courses(courses), input_ids.long()
        mask, maskable = self.prepare(input_ids, attention_mask, special_tokens_mask)
        if generator is None and not self.training:
            generator = RowNoise(input_ids, mask, 0)
        batch = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "maskable": maskable,
            "token_type_ids": token_type_ids,
        }
        terms, passes = run_courses(self, active, batch, as_noise(generator, input_ids))
        gen = {name: total / terms.gen_counts[name].clamp_min(1) for name, total in terms.gen_sums.items()}
        disc = {name: total / terms.disc_counts[name].clamp_min(1) for name, total in terms.disc_sums.items()}
        loss = total_loss(gen, disc, self.config.course_weights, self.config.disc_weight)
        if not gen and torch.is_grad_enabled():  # every parameter has a gradient in every step (DDP waits for it)
            loss = loss + 0.0 * sum(p.flatten()[0] for p in self.generator.parameters() if p.requires_grad)
        shown = passes[0]
        output = MCLElectraOutput(
            loss=loss,
            logits=shown.logits,
            labels=shown.labels.masked_fill(~shown.where, -100),
            attention_mask=shown.attention_mask,
            gen_losses=gen,
            disc_losses=disc,
            label_balance=terms.balance,
            accuracy=terms.accuracy,
            terms=terms,
            disc_tokens=torch.stack([p.attention_mask.sum() for p in passes]).sum(),
        )
        return output.to_tuple() if return_dict is False else output

    # What users keep

    @torch.no_grad()
    def export_discriminator(self, with_head: bool = False) -> PreTrainedModel:
        """A copy of the discriminator as a stock model, with no trace of this package.

        Args:
            with_head (`bool`, *optional*, defaults to `False`): `False` gives the encoder (`ElectraModel`), which
                `AutoModelForSequenceClassification` and its like load; `True` an `ElectraForPreTraining` with its
                head, to pre-train further.
        """
        copy = ElectraForPreTraining(ElectraConfig(**_plain(self.config.discriminator_config)))
        copy.load_state_dict(self.discriminator.state_dict())
        model: Any = copy if with_head else copy.electra
        return model.to(self.device, self.dtype).eval()

    @torch.no_grad()
    def export_generator(self) -> ElectraForMaskedLM:
        """A copy of the generator as a stock masked language model."""
        copy: Any = ElectraForMaskedLM(ElectraConfig(**_plain(self.config.generator_config)))
        copy.load_state_dict(self.generator.state_dict())
        return copy.to(self.device, self.dtype).eval()

    def push_to_hub(self, repo_id: str, *, part: str = "discriminator", **kwargs: Any) -> Any:  # type: ignore[override]
        """Push a stock model.

        Args:
            repo_id (`str`): `user/name`.
            part (`str`, *optional*, defaults to `"discriminator"`): `"discriminator"` (the encoder), `"generator"` (a
                masked language model) or `"both"` (this model, which needs `hf_labels` to load).
            kwargs: As in `PreTrainedModel.push_to_hub`.

        Raises:
            ValueError: For another `part`.
        """
        if part == "both":
            push: Any = super().push_to_hub
            return push(repo_id, **kwargs)
        if part not in ("discriminator", "generator"):
            raise ValueError(f"`part` must be 'discriminator', 'generator' or 'both', got {part!r}.")
        model: Any = self.export_discriminator() if part == "discriminator" else self.export_generator()
        return model.push_to_hub(repo_id, **kwargs)


def _plain(config: Any) -> dict[str, Any]:
    hidden = ("_name_or_path", "architectures", "model_type", "transformers_version", "dtype")
    return {name: value for name, value in config.to_dict().items() if name not in hidden}


AutoConfig.register(MCLElectraConfig.model_type, MCLElectraConfig, exist_ok=True)
AutoModelForPreTraining.register(MCLElectraConfig, MCLElectraForPreTraining, exist_ok=True)
