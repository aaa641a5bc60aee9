"""`SoftLabelTrainer`: train any stock classification model on label distributions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.labels.kinds import IGNORE_INDEX, check_values
from hf_labels.losses.soft_targets import SoftTargets
from hf_labels.mixing.labels import BATCH_FIELDS, MixedLabels
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
from hf_labels.trainers.teachers import EMATeacher, FrozenTeacher

LabelSource = Callable[[Mapping[str, Any]], "SoftTargets | Tensor"]


@dataclass
class SoftLabelTrainingArguments(LabelTrainingArguments):
    """Arguments of [`SoftLabelTrainer`].

    Parameters:
        soft_loss (`str`, *optional*, defaults to `"ce"`):
            `"ce"`: cross-entropy; `"kl"`: the same minus the entropy of the target (equal gradients); `"mse"`: squared
            difference of logits, for label sources that return logits.
        temperature (`float`, *optional*, defaults to `1.0`):
            Divides the model's logits in the soft loss, and the target logits of a label source. Probabilities in a
            column are taken as they are.
        scale_by_temperature (`bool`, *optional*, defaults to `False`):
            Multiply the soft loss by `temperature ** 2`, which keeps gradients of one size over temperatures.
        soft_label_weight (`float`, *optional*, defaults to `1.0`):
            Weight of the soft loss.
        hard_label_weight (`float`, *optional*, defaults to `0.0`):
            Weight of the cross-entropy with `labels`; rows with a missing label (-1) do not count.
        residual (`str`, *optional*, defaults to `"smooth"`):
            For sparse soft labels: where the mass that was not stored goes (`smooth`, `renorm` or `none`).

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none.
    """

    soft_loss: Literal["ce", "kl", "mse"] = field(
        default="ce", metadata={"help": "ce, kl or mse (mse needs a label source with logits)."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Divides the logits in the soft loss; above 0."})
    scale_by_temperature: bool = field(default=False, metadata={"help": "Multiply the soft loss by temperature^2."})
    soft_label_weight: float = field(default=1.0, metadata={"help": "Weight of the soft loss; 0 or more."})
    hard_label_weight: float = field(default=0.0, metadata={"help": "Weight of CE with `labels`; 0 or more."})
    residual: Literal["smooth", "renorm", "none"] = field(
        default="smooth", metadata={"help": "Sparse soft labels: smooth, renorm or none."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("soft_loss", ("ce", "kl", "mse")), ("residual", ("smooth", "renorm", "none"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}.")
        for name in ("soft_label_weight", "hard_label_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}.")


class SoftLabelTrainer(LabelTrainer):
    """Soft cross-entropy for any `AutoModelFor{Sequence,Token,Image}Classification`.

    | input | shape | use |
    | --- | --- | --- |
    | `soft_labels` | (B, K), or (B, T, K) with `soft_label_mask` (B, T) | target distributions |
    | `soft_label_ids`, `soft_label_values` | (B, k) | sparse targets; no dense target is built |
    | `labels` | (B,) or (B, T), -100 = missing | hard labels, with `hard_label_weight` |
    | `mix_labels_b`, `mix_lam` | (B,) | from a [`MixCollator`]: second hard label, share of the first |
    | `sample_weight` | (B,), or (B, T) | factor of each row (or token) in the soft loss |

    `loss = soft_label_weight * soft loss + hard_label_weight * CE(labels)`. Both are means over the rows (tokens) that
    count, over the whole update: dividing a batch over accumulation steps or processes changes nothing.

    **Evaluation**: data with soft labels is evaluated with the same loss; data with only `labels` with plain
    cross-entropy, also when training uses a label source; data without any label gives predictions only.
    `compute_metrics` receives `labels` when there are any, else the soft labels.

    The model never sees labels (given float labels it would train one binary loss per class, and write that into its
    `config.problem_type`).

    Args:
        model, args, data_collator, ...: As for `Trainer`; `args` is [`SoftLabelTrainingArguments`].
        label_source (`nn.Module`, [`SoftLabelStore`] or callable, *optional*): Makes the targets of a training batch
            when the data has no `soft_labels`. A module is a teacher: it is frozen, gets those inputs that its
            `forward` names, and its logits are the targets. A store is read by the column `index` (and `view`; label
            maps by `crop`); one of kind `projector` answers with its model. A callable gets the batch and returns
            probabilities (B, K) or [`SoftTargets`].

    Raises:
        TypeError: If `args` are not `SoftLabelTrainingArguments`.
        ValueError, KeyError: From `train()`, before the first step, for soft labels that are missing, not
            distributions, or of another width than the model.

    Subclasses override [`soft_targets`], and [`soft_logits`] where another head learns them.

    Source: Hinton et al., arXiv:1503.02531, section 2; Wright and Augenstein, arXiv:2212.09409 (crowd labels, KL).
    """

    args: SoftLabelTrainingArguments
    _slug = "soft_labels"
    _target_columns = ("soft_labels", "soft_label_ids")
    _extra_columns: ClassVar[tuple[str, ...]] = (
        *(*_target_columns, "soft_label_mask", "soft_label_values", "sample_weight"),
        *("index", "view", "crop", *BATCH_FIELDS),
    )

    def __init__(
        self,
        model: Any = None,
        args: SoftLabelTrainingArguments | None = None,
        data_collator: Any = None,
        *rest: Any,
        label_source: nn.Module | SoftLabelStore | LabelSource | None = None,
        **kwargs: Any,
    ) -> None:
        args = SoftLabelTrainingArguments() if args is None else args
        if not isinstance(args, SoftLabelTrainingArguments):
            raise TypeError(f"`args` must be SoftLabelTrainingArguments, got {type(args).__name__}.")
        super().__init__(model, args, data_collator, *rest, **kwargs)
        if isinstance(label_source, SoftLabelStore) and label_source.info.kind == "projector":
            if label_source.projector is None:
                raise ValueError("The store is a projector without its model. Call `store.attach(model)` first.")
            label_source.check_model(self.accelerator.unwrap_model(self.model).config)
            label_source = label_source.projector
        if isinstance(label_source, nn.Module) and not isinstance(label_source, (FrozenTeacher, EMATeacher)):
            label_source = FrozenTeacher(label_source)
        if isinstance(label_source, FrozenTeacher):
            label_source.place(self.accelerator)
        self.label_source = label_source

    # What a method may change

    def soft_targets(self, inputs: Mapping[str, Any]) -> SoftTargets | None:
        """Targets of a batch: from its columns, else from the label source; `None` when there are none.

        Called with the whole batch before the model sees it, when training and when evaluating.
        """
        weight = inputs.get("sample_weight")
        if "soft_labels" in inputs:
            return SoftTargets(probs=inputs["soft_labels"], mask=self._mask(inputs), weight=weight)
        if "soft_label_ids" in inputs:
            ids, values = inputs["soft_label_ids"], inputs["soft_label_values"]
            return SoftTargets(
                ids=ids, values=values, residual=self.args.residual, mask=inputs.get("soft_label_mask"), weight=weight
            )
        if self.label_source is None or (self._eval_rows is not None and "labels" in inputs):
            return None
        return self._from_source(inputs, weight)

    def soft_logits(self, outputs: Any, logits: Tensor) -> Tensor:
        """What the soft loss compares with the targets, given the model's outputs: their logits."""
        return logits

    def count_items(self, inputs: dict[str, Any]) -> dict[str, int | Tensor]:
        """Rows (tokens) with a soft target in a column, and with a hard label."""
        counts: dict[str, int | Tensor] = {}
        if any(name in inputs for name in self._target_columns):
            targets = self.soft_targets(inputs)
            counts["soft"] = 0 if targets is None else targets.count()
        if "labels" in inputs:
            counts["hard"] = _known(inputs).sum()
        return counts

    # Data flow

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        targets, labels = self.soft_targets(inputs), inputs.get("labels")
        outputs = model(**self.model_inputs(inputs))
        logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs[0]
        args = self.args
        hard_weight = args.hard_label_weight if targets is not None else 1.0
        loss = logits.new_zeros((), dtype=torch.float32)
        if targets is None and labels is None:
            raise ValueError("The batch has neither `soft_labels` nor `labels`, and there is no label source.")
        if targets is not None:
            given = self.soft_logits(outputs, logits)
            total = targets.loss(given, args.soft_loss, args.temperature, args.scale_by_temperature, reduction="sum")
            soft = self.mean_over_update(total, "soft", targets.count())
            loss = loss + args.soft_label_weight * soft
        if labels is not None and hard_weight > 0:
            total, count = _hard_loss(logits, inputs)
            hard = self.mean_over_update(total, "hard", count)
            loss = loss + hard_weight * hard
            if targets is not None:
                self.log_terms(soft=soft, hard=hard)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        wanted, found = self.label_names, [name for name in ("labels", *self._target_columns) if name in inputs]
        if found and not all(name in inputs for name in wanted):
            self.label_names = found[:1]
        try:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        finally:
            self.label_names = wanted

    def _from_source(self, inputs: Mapping[str, Any], weight: Tensor | None) -> SoftTargets:
        with torch.no_grad():
            if isinstance(self.label_source, FrozenTeacher):
                return SoftTargets(logits=self.label_source.logits(inputs), weight=weight)
            if isinstance(self.label_source, EMATeacher):
                return SoftTargets(logits=self.label_source(**self.model_inputs(inputs)).logits, weight=weight)
            assert self.label_source is not None  # `soft_targets` asks only when there is one
            made = self.label_source(inputs)
        return made if isinstance(made, SoftTargets) else SoftTargets(probs=made, weight=weight)

    def _mask(self, inputs: Mapping[str, Any]) -> Tensor | None:
        mask = inputs.get("soft_label_mask")
        if mask is None and inputs["soft_labels"].dim() == 3:
            raise ValueError(
                "Soft labels per token need `soft_label_mask` (B, T). `LabelCollator`, the default collator, makes it."
            )
        return mask

    # Checks before training

    def label_kinds(self) -> dict[str, str]:
        """`soft_labels` when each row has one distribution; `labels` when they count."""
        kinds = {}
        have = getattr(self.train_dataset, "column_names", None) or ()
        sparse = "soft_label_ids" in have and "soft_labels" not in have
        made = self.label_source is not None or getattr(self.data_collator, "store", None) is not None
        made = made or self.args.soft_label_weight == 0  # hard labels only
        if not sparse and not self._per_token() and ("soft_labels" in have or not made):
            kinds["soft_labels"] = "soft"
        if self.args.hard_label_weight > 0 and not self._per_token():
            kinds["labels"] = "hard"
        return kinds

    def required_columns(self) -> list[str]:
        """Columns without which training data is refused."""
        names = super().required_columns()
        if self._per_token() and self.label_source is None:
            names.append("soft_labels")
        if isinstance(self.label_source, SoftLabelStore):
            names.append("index")
        have = getattr(self.train_dataset, "column_names", None) or ()
        return [*names, "soft_label_values"] if "soft_label_ids" in have and "soft_labels" not in have else names

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        data: list[Any] = [self.train_dataset, self.eval_dataset]
        for dataset in data:
            if "soft_labels" in (getattr(dataset, "column_names", None) or ()) and self._per_token() and len(dataset):
                check_token_soft_labels(dataset, self.num_classes())
        self._check_stores()
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _check_stores(self) -> None:
        """Stores fit the model's classes and hold every training example."""
        collated = getattr(self.data_collator, "store", None)
        if collated is not None and self.args.residual != "smooth":
            raise ValueError(
                f"`residual` must be 'smooth' with a store, which applies its own rule; got {self.args.residual!r}."
            )
        data: Any = self.train_dataset
        have = getattr(data, "column_names", None) or ()
        id_column = getattr(self.data_collator, "id_column", "index")
        for store, column in ((self.label_source, "index"), (collated, id_column)):
            if isinstance(store, SoftLabelStore):
                store.check_model(self.accelerator.unwrap_model(self.model).config)
                if column in have:
                    store.check_examples(data[column][:])

    def _per_token(self) -> bool:
        return "ForTokenClassification" in type(self.accelerator.unwrap_model(self.model)).__name__


def _known(inputs: Mapping[str, Any]) -> Tensor:
    """Which hard labels count; of a mixed row both must be known."""
    known = inputs["labels"] != IGNORE_INDEX
    return known & (inputs["mix_labels_b"] != IGNORE_INDEX) if "mix_labels_b" in inputs else known


def _hard_loss(logits: Tensor, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy with the hard labels, mixed or not, and how many count."""
    labels = inputs["labels"]
    if "mix_lam" in inputs:
        return MixedLabels.from_batch_fields(inputs).cross_entropy(logits, reduction="sum"), _known(inputs).sum()
    flat = logits.float().reshape(-1, logits.shape[-1])
    total = F.cross_entropy(flat, labels.reshape(-1), ignore_index=IGNORE_INDEX, reduction="sum")
    return total, (labels != IGNORE_INDEX).sum()


def check_token_soft_labels(dataset: Any, num_labels: int | None) -> None:
    """Check a column `soft_labels` with K values per token; an all-zero token is not labelled.

    Raises:
        ValueError: If a token's values are no distribution over `num_labels` classes, or no token is labelled; names
            the row.
    """
    rows = dataset.with_format("numpy")["soft_labels"][:]
    for number, tokens in enumerate(rows):
        if np.asarray(tokens).ndim != 2:
            raise ValueError(f"Row {number} of column `soft_labels` must hold K values for each token.")
    values = np.concatenate([np.asarray(tokens, dtype=np.float64) for tokens in rows])
    place = np.repeat(np.arange(len(rows)), [len(tokens) for tokens in rows])
    labelled = (values != 0).any(axis=1)
    if not labelled.any():
        raise ValueError("Column `soft_labels` has no labelled token: all values are zero.")
    try:
        check_values(values[labelled], "soft", column="soft_labels", num_labels=num_labels)
    except ValueError:
        for number in np.unique(place[labelled]):  # again, to name the row
            try:
                check_values(values[labelled & (place == number)], "soft", column="soft_labels", num_labels=num_labels)
            except ValueError as error:
                raise ValueError(f"Row {number} of the data set, counting its labelled tokens: {error}") from error
        raise


CLI_KINDS = {"soft_labels": "soft", "labels": "hard"}


def cli_setup(
    script_args: Any,
    training_args: SoftLabelTrainingArguments,
    dataset: Mapping[str, Any],
    trainer_class: type[SoftLabelTrainer] = SoftLabelTrainer,
    columns: Sequence[str] = (),
) -> Any:
    """The trainer of `hf-labels train soft_labels`: any sequence classification model on the text column.

    `columns` are what a subclass, `trainer_class`, reads besides.

    Raises:
        ValueError: If `max_length` is more than the model reads, or the tokenizer cannot pad.
        OSError: If the model cannot be found.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source, names = script_args.model, script_args.label_names
    tokenizer = AutoTokenizer.from_pretrained(source, revision=script_args.model_revision)
    model = AutoModelForSequenceClassification.from_pretrained(
        source,
        revision=script_args.model_revision,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,  # a head for other classes is made anew, and transformers says so
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"The tokenizer of {source} has no padding token. Add one and save the tokenizer.")
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    reads = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or 10**9)
    if script_args.max_length is not None and script_args.max_length > reads:
        raise ValueError(f"`max_length` is {script_args.max_length}, {source} reads at most {reads} tokens.")
    length = script_args.max_length or (reads if reads < 10**6 else None)

    def tokenize(rows: Mapping[str, Any]) -> Any:
        return tokenizer(rows[script_args.text_column], truncation=length is not None, max_length=length)

    keep = {"labels", *trainer_class._extra_columns, *columns}
    parts = {}
    for name, part in dataset.items():
        unused = [column for column in part.column_names if column not in keep] if part is not None else []
        parts[name] = part and part.map(tokenize, batched=True, remove_columns=unused, desc=f"Tokenizing ({name})")
    return trainer_class(
        model, training_args, train_dataset=parts["train"], eval_dataset=parts["eval"], processing_class=tokenizer
    )
