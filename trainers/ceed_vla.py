"""Consistency distillation: teach a decoder to reach its own fixed point from any guess in one or two passes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from hf_labels.data.rng import derive_seed, isolated_rng
from hf_labels.generation.custom_generate import save_custom_generate
from hf_labels.labels.kinds import IGNORE_INDEX
from hf_labels.losses.ceed_vla import (
    anchor_loss,
    consistency_loss,
    consistency_mask,
    decoded_distance,
    mixed_labels,
    token_distance,
)
from hf_labels.losses.mcl_electra_noise import RowNoise
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
from hf_labels.trainers.ceed_vla_data import AnchorCollator, DataCollatorForJacobi, check_tokens, join_rows

_EVALUATION = 2**31  # the step number of evaluation draws: none that training reaches


@dataclass
class ConsistencyDistillationTrainingArguments(LabelTrainingArguments):
    """Arguments of [`ConsistencyDistillationTrainer`].

    Parameters:
        ar_weight (`float`, *optional*, defaults to `1.0`):
            Weight of the autoregressive anchor (omega in the paper). 0 leaves it out.
        max_label_distance (`float`, *optional*, defaults to `0.1`):
            Up to this distance between the teacher's decode and the ground truth the anchor uses the teacher's
            (delta_max in the paper, which gives no number: tune it). Infinite: always the teacher; below 0: never.
        ar_label_smoothing (`float`, *optional*, defaults to `0.0`):
            Label smoothing of the anchor, in `[0, 1)`.
        ar_scope (`str`, *optional*, defaults to `"block"`):
            Tokens that the anchor trains: `"block"`, or `"sequence"` with the prompt.
        divergence (`str`, *optional*, defaults to `"ce"`):
            `"ce"` or `"kl"`; the same gradients, both are logged.
        preset (`str`, *optional*):
            `"cllm"` sets the anchor of Consistency LLM: weight 10, smoothing 0.1, whole sequence.
        lora_rank (`int`, *optional*, defaults to `0`):
            Train LoRA adapters of this rank on all linear layers (32 in the code of the paper). 0: all weights.
        lora_alpha (`int`, *optional*, defaults to `16`):
            Alpha of the adapters.
        lora_dropout (`float`, *optional*, defaults to `0.05`):
            Dropout of the adapters, in `[0, 1)`.
        save_custom_generate (`bool`, *optional*, defaults to `False`):
            Save Jacobi decoding as `custom_generate` beside the model.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: `learning_rate` 2e-5, `lr_scheduler_type`
    > cosine, `warmup_steps` 0.03, `num_train_epochs` 1.
    """

    ar_weight: float = field(default=1.0, metadata={"help": "Weight of the autoregressive anchor; 0 or more."})
    max_label_distance: float = field(
        default=0.1, metadata={"help": "Up to this distance the anchor uses the teacher's tokens; inf: always."}
    )
    ar_label_smoothing: float = field(default=0.0, metadata={"help": "Label smoothing of the anchor, in [0, 1)."})
    ar_scope: Literal["block", "sequence"] = field(
        default="block", metadata={"help": "Tokens that the anchor trains: block, or sequence with the prompt."}
    )
    divergence: Literal["ce", "kl"] = field(default="ce", metadata={"help": "ce or kl; the same gradients."})
    preset: Literal["cllm"] | None = field(default=None, metadata={"help": "cllm: the anchor of Consistency LLM."})
    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA adapters; 0 trains all weights."})
    lora_alpha: int = field(default=16, metadata={"help": "Alpha of the adapters; above 0."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout of the adapters, in [0, 1)."})
    save_custom_generate: bool = field(default=False, metadata={"help": "Save Jacobi decoding beside the model."})
    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.03, metadata={"help": "Warm-up: steps, or a share of them below 1."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the trajectories."})

    def __post_init__(self):
        if self.preset not in (None, "cllm"):
            raise ValueError(f"`preset` must be 'cllm' or None, got {self.preset!r}.")
        if self.preset == "cllm":
            self.ar_weight, self.ar_label_smoothing, self.ar_scope = 10.0, 0.1, "sequence"
        super().__post_init__()
        for name, allowed in (("ar_scope", ("block", "sequence")), ("divergence", ("ce", "kl"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        for name in ("ar_label_smoothing", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)}.")
        if not self.ar_weight >= 0 or self.lora_rank < 0:
            raise ValueError(f"`ar_weight` and `lora_rank` must be 0 or more, got {self.ar_weight}, {self.lora_rank}.")
        if math.isnan(self.max_label_distance):
            raise ValueError("`max_label_distance` must be a number, got NaN.")


class ConsistencyDistillationTrainer(LabelTrainer):
    """Distils a decoder-only model on its own Jacobi trajectories ([`collect_jacobi_trajectories`]).

    | input | shape | use |
    | --- | --- | --- |
    | `prompt_ids` | (P,) | the prompt |
    | `trajectory` | (K + 1, n) | iterates from the guess to the fixed point |
    | `fixed_point` | (n,) | the teacher's decode |
    | `labels` | (n,), -100 = none | ground truth, for mixed labels |
    | further columns | | inputs of the model at the prompt, such as `pixel_values` |

    `loss = consistency + ar_weight * anchor`. For each record and visit an iterate y^(j), j < K, is drawn; its
    predictions are pulled to those on the fixed point, a constant of the same weights. A record that had converged at
    once (K = 0) has only the anchor. The anchor is the cross-entropy with [`mixed_labels`] of the record, or, with
    `anchor_dataset`, with fresh ground-truth rows.

    One forward with gradients runs the iterate and the anchor's rows together; a second one without gradients runs the
    fixed points that are not among the anchor's rows. Logits are made for the block only. Means are over the tokens of
    a whole update. The iterate drawn depends on the seed, the step and the record alone, so resumed, accumulated and
    distributed runs equal a plain one.

    Logged: `consistency_ce`, `consistency_kl`, `ar`, `teacher_labels` (share of rows with the teacher's tokens).

    Args:
        model, args, data_collator, ...: As for `Trainer`. The model may be a `PeftModel`.
        decode_labels (`Callable`, *optional*): Token ids `(m,)` to numbers `(m,)`: `max_label_distance` is then the
            mean absolute difference in their unit; else the share of different tokens.
        label_token_ids (sequence of `int`, *optional*): The ids that can occur in an answer. Losses are over these
            alone, which is faster with a large vocabulary; decode with the same restriction in mind.
        anchor_dataset (`Dataset`, *optional*): Rows with `prompt_ids` and `labels` for the anchor, one per record of a
            batch; they replace the record's own labels.
        peft_config (`PeftConfig`, *optional*): Adapters to train; `args.lora_rank` is a shortcut.

    Raises:
        TypeError: If `args` are of another class.
        KeyError: A column is missing: `labels` too, when `max_label_distance` is finite.
        ValueError: Empty data, iterates of another length than the fixed point, or a token outside the vocabulary or
            `label_token_ids` (row named); an encoder-decoder model.

    Source: Song et al. 2025, CEED-VLA, arXiv:2506.13725; Kou et al. 2024, Consistency LLM, arXiv:2403.00835, whose
    code runs two backward passes with the same sum.
    """

    _slug = "ceed_vla"
    _required_columns = ("prompt_ids", "trajectory", "fixed_point")
    _extra_columns = ("labels", "index", "block", "block_mask", "trajectory_length")
    args: ConsistencyDistillationTrainingArguments

    def __init__(
        self,
        model: Any = None,
        args: ConsistencyDistillationTrainingArguments | None = None,
        data_collator: Any = None,
        *rest: Any,
        decode_labels: Callable[[Tensor], Any] | None = None,
        label_token_ids: Sequence[int] | None = None,
        anchor_dataset: Any = None,
        peft_config: Any = None,
        **kwargs: Any,
    ):
        args = ConsistencyDistillationTrainingArguments() if args is None else args
        if not isinstance(args, ConsistencyDistillationTrainingArguments):
            name = type(args).__name__
            raise TypeError(f"`args` must be ConsistencyDistillationTrainingArguments, got {name}.")
        if model is not None and getattr(model.config, "is_encoder_decoder", False):
            raise ValueError("Consistency distillation needs a decoder-only model; this one is encoder-decoder.")
        model = _with_adapters(model, args, peft_config)
        if data_collator is None:
            own_positions = model is not None and any(hasattr(part, "get_rope_index") for part in model.modules())
            data_collator = DataCollatorForJacobi(position_ids=not own_positions)
        super().__init__(model, args, data_collator, *rest, **kwargs)
        self.distance = token_distance if decode_labels is None else decoded_distance(decode_labels)
        self._lookup: Tensor | None = None
        self.label_token_ids = None
        if label_token_ids is not None:
            self.label_token_ids = torch.tensor(sorted(set(map(int, label_token_ids))))
            if args.ar_scope == "sequence":
                raise ValueError("`label_token_ids` needs `ar_scope='block'`: prompts hold other tokens.")
        self.anchor_dataset = anchor_dataset
        if anchor_dataset is not None and args.ar_weight:
            self.add_stream("anchor", anchor_dataset, data_collator=AnchorCollator(data_collator))

    @property
    def bare_model(self) -> Any:
        """The model without wrappers of training."""
        return self.accelerator.unwrap_model(self.model)

    def num_classes(self) -> None:
        return None

    def required_columns(self) -> list[str]:
        mixed = self.args.ar_weight and self.anchor_dataset is None and not math.isinf(self.args.max_label_distance)
        return [*self._required_columns, *(["labels"] if mixed else [])]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`; checks the tokens of the trajectories first."""
        vocabulary = self.bare_model.get_input_embeddings().weight.shape[0]
        for name, data in (("train_dataset", self.train_dataset), ("anchor_dataset", self.anchor_dataset)):
            check_tokens(data, name, vocabulary, self.label_token_ids)
        return super().train(*args, **kwargs)

    # One batch

    def drawn(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The iterates of this visit `(B, n)`, and the tokens whose prediction counts `(B, n)`."""
        fixed, lengths = inputs["fixed_point"], inputs["trajectory_length"]
        step = self.state.global_step if self._eval_rows is None else _EVALUATION
        noise = RowNoise(inputs["input_ids"], inputs["attention_mask"], derive_seed(self.args.seed, step))
        j = (noise.uniform(1).squeeze(1) * lengths).long()
        guess = inputs["trajectory"][torch.arange(len(j), device=j.device), j]
        pad = getattr(self.bare_model.config.get_text_config(), "pad_token_id", None)
        return guess, consistency_mask(guess, fixed, pad, inputs["block_mask"].bool())

    def count_items(self, inputs):
        anchor = self._anchor(inputs)
        return {"consistency": self.drawn(inputs)[1].sum(), "ar": 0 if anchor is None else anchor[1].sum()}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        n = inputs["fixed_point"].shape[1]
        guess, mask = self.drawn(inputs)
        anchor = self._anchor(inputs)
        own = self._with_block(inputs, guess)
        parts = [own] if anchor is None else [own, anchor[0]]
        keep = n if anchor is None else max(n, anchor[2].shape[1])
        logits = self._logits(model, join_rows(parts), keep + 1)
        rows = len(guess)
        student = self._narrow(logits[:rows, -n - 1 : -1])
        teacher = self._teacher_logits(model, inputs, logits[rows:], anchor, n)
        ce = consistency_loss(student, teacher, mask, reduction="sum")
        kl = consistency_loss(student, teacher, mask, "kl", reduction="sum")
        count = mask.sum()
        loss = self.mean_over_update(ce if self.args.divergence == "ce" else kl, "consistency", count)
        shown = {
            "consistency_ce": ce.detach() / count.clamp_min(1),
            "consistency_kl": kl.detach() / count.clamp_min(1),
        }
        if anchor is not None:
            _, counts, targets, near = anchor
            wide = self._narrow(logits[rows:, -targets.shape[1] - 1 : -1])
            total = anchor_loss(wide, self._narrow_labels(targets), self.args.ar_label_smoothing, reduction="sum")
            loss = loss + self.args.ar_weight * self.mean_over_update(total, "ar", counts.sum())
            shown["ar"] = total.detach() / counts.sum().clamp_min(1)
            if near is not None:
                shown["teacher_labels"] = near.float().mean()
        self.log_terms(**shown)
        return (loss, {"logits": logits[:rows, -n - 1 : -1]}) if return_outputs else loss

    def _anchor(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], Tensor, Tensor, Tensor | None] | None:
        """Inputs, tokens that count, targets `(B, T)` with -100, and which rows have the teacher's tokens."""
        if not self.args.ar_weight or (self.anchor_dataset is not None and "anchor" not in inputs):
            return None  # an evaluation set has no anchor rows
        if "anchor" in inputs:
            batch = inputs["anchor"]
            batch = {name: value.to(inputs["input_ids"].device) for name, value in batch.items()}
            tokens, near, block_mask = batch["fixed_point"], None, batch["block_mask"].bool()
        else:
            batch, block_mask = inputs, inputs["block_mask"].bool()
            labels = inputs.get("labels")
            tokens, near = mixed_labels(inputs["fixed_point"], labels, self.args.max_label_distance, self.distance)
        targets = tokens.masked_fill(~block_mask, IGNORE_INDEX)
        fed = self._with_block(batch, tokens.clamp_min(0))
        if self.args.ar_scope == "sequence":
            prompt = fed["input_ids"][:, : -tokens.shape[1]]
            seen = fed["attention_mask"][:, : -tokens.shape[1]].bool()
            seen = seen & (seen.cumsum(dim=1) > 1)  # nothing predicts the first token
            targets = torch.cat([prompt.masked_fill(~seen, IGNORE_INDEX), targets], dim=1)[:, 1:]
        return fed, targets != IGNORE_INDEX, targets, near

    def _with_block(self, inputs: Mapping[str, Any], block: Tensor) -> dict[str, Any]:
        """Inputs of the model with another block at their end."""
        fed = self.model_inputs(inputs)
        fed["input_ids"] = torch.cat([inputs["input_ids"][:, : -block.shape[1]], block], dim=1)
        return fed

    def _teacher_logits(self, model, inputs, anchor_logits, anchor, n) -> Tensor:
        """Logits on the fixed points, detached; rows that the anchor has run are not run again."""
        fixed = inputs["fixed_point"]
        shared = anchor is not None and anchor[3] is not None
        known = anchor[3] if shared else torch.zeros(len(fixed), dtype=torch.bool, device=fixed.device)
        if self.accelerator.num_processes > 1:
            known = torch.zeros_like(known)  # every process runs the same number of forwards
        own = anchor_logits[:, -n - 1 : -1].detach() if shared else None
        if own is not None and bool(known.all()):
            return self._narrow(own)
        fed = self._with_block(inputs, fixed)
        some = ~known if all(len(value) == len(fixed) for value in fed.values()) else torch.ones_like(known)
        fed = {name: value[some] for name, value in fed.items()} if not bool(some.all()) else fed
        with torch.no_grad():
            found = self._logits(model, fed, n + 1)[:, -n - 1 : -1]
        if len(found) == len(fixed):
            return self._narrow(found)
        assert own is not None  # only rows that the anchor has run were left out
        whole = own.clone()
        whole[some] = found.to(whole.dtype)
        return self._narrow(whole)

    def _logits(self, model: Any, fed: dict[str, Any], keep: int) -> Tensor:
        base = self.bare_model
        base = base.get_base_model() if hasattr(base, "get_base_model") else base
        if base._supports_logits_to_keep():
            fed = {**fed, "logits_to_keep": keep}
        return model(**fed, use_cache=False).logits

    def _narrow(self, logits: Tensor) -> Tensor:
        if self.label_token_ids is None:
            return logits
        return logits.index_select(-1, self.label_token_ids.to(logits.device))

    def _narrow_labels(self, labels: Tensor) -> Tensor:
        if self.label_token_ids is None:
            return labels
        at = torch.searchsorted(self.label_token_ids.to(labels.device), labels.clamp_min(0))
        return at.masked_fill(labels == IGNORE_INDEX, IGNORE_INDEX)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Loss; as predictions the tokens that one pass makes of the drawn iterates, as labels the fixed points."""
        self._eval_rows = len(inputs["input_ids"])
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        loss = loss.detach().mean()
        if prediction_loss_only:
            return loss, None, None
        labels = inputs["fixed_point"].masked_fill(~inputs["block_mask"].bool(), IGNORE_INDEX)
        return loss, outputs["logits"].argmax(dim=-1), labels

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.save_custom_generate:
            save_custom_generate(output_dir or self.args.output_dir or ".", card=False)

    def card_facts(self, finetuned_from: str | None = None) -> dict[str, Any]:
        """The anchor, and how the model can be decoded."""
        anchor = "ground-truth rows" if self.anchor_dataset is not None else "mixed labels"
        return {"extra": {"anchor": anchor if self.args.ar_weight else "none"}}


def _with_adapters(model: Any, args: ConsistencyDistillationTrainingArguments, peft_config: Any) -> Any:
    if peft_config is None and args.lora_rank:
        from peft import LoraConfig

        peft_config = LoraConfig(
            r=args.lora_rank,
            lora_alpha=args.lora_alpha,
            lora_dropout=args.lora_dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
    if peft_config is None or model is None:
        return model
    from peft import get_peft_model

    with isolated_rng(args.seed):  # the same adapters for the same seed
        return get_peft_model(model, peft_config)
