"""`CrowdLabelTrainer`: from the annotations of several people to a model, four ways to learn from them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_labels.labels.columns import write_column
from hf_labels.labels.crowd_soft_labels import METHODS, aggregate_annotations
from hf_labels.labels.kinds import IGNORE_INDEX, check_column
from hf_labels.losses.soft_targets import SoftTargets
from hf_labels.models.crowd_soft_labels import SOFT_HEAD, add_soft_head
from hf_labels.models.heads import find_head
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments
from hf_labels.trainers.soft_labels import cli_setup as soft_setup

OBJECTIVES = ("soft", "majority", "sampled", "multi_task")
CROWD = "annotator_labels"


@dataclass
class CrowdLabelTrainingArguments(SoftLabelTrainingArguments):
    """Arguments of [`CrowdLabelTrainer`].

    Parameters:
        aggregation (`str`, *optional*, defaults to `"average"`):
            How `annotator_labels` become soft labels, a method of
            [`~hf_labels.labels.crowd_soft_labels.aggregate_annotations`]. Data with `soft_labels` are taken as they
            are.
        objective (`str`, *optional*, defaults to `"soft"`):
            `"soft"`: the soft labels. `"majority"`: their most probable label. `"sampled"`: a label drawn from them,
            anew at each step. `"multi_task"`: hard labels for the model's head and soft ones for a second head, which
            is not part of the saved model.
        class_weights (`list[float]`, *optional*):
            K weights: a row counts in the soft loss as much as its most probable (or drawn) label; means divide by
            rows still.

    > [!NOTE] Defaults that differ from [`SoftLabelTrainingArguments`]: `soft_loss` is `"kl"`; with
    > `objective="multi_task"`, `hard_label_weight` is 1 where it is left at 0.
    """

    aggregation: str = field(default="average", metadata={"help": "How annotator_labels become soft labels."})
    objective: Literal["soft", "majority", "sampled", "multi_task"] = field(
        default="soft", metadata={"help": "soft, majority, sampled or multi_task."}
    )
    class_weights: list[float] | None = field(default=None, metadata={"help": "One weight per class; 0 or more."})
    soft_loss: Literal["ce", "kl", "mse"] = field(default="kl", metadata={"help": "kl or ce."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("objective", OBJECTIVES), ("aggregation", METHODS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        weights = self.class_weights
        if weights is not None and not (weights and all(np.isfinite(w) and w >= 0 for w in weights) and any(weights)):
            raise ValueError(f"`class_weights` must be 0 or more, and one of them above it; got {weights}.")
        if self.objective == "multi_task" and self.hard_label_weight == 0:
            self.hard_label_weight = 1.0


class CrowdLabelTrainer(SoftLabelTrainer):
    """Trains any `AutoModelFor{Sequence,Token,Image}Classification` on what several annotators said.

    | column | shape | use |
    | --- | --- | --- |
    | `annotator_labels` | (A,), -1 = did not answer | aggregated when the trainer is made, one data set at a time |
    | `soft_labels` | (K,), or (T, K) for tokens | taken in place of them |
    | `labels` | () | `"multi_task"`: hard labels; without the column the most probable of the soft ones |

    **Evaluation** is that of [`SoftLabelTrainer`]: data with `labels` and without the other columns is scored by plain
    cross-entropy. `"sampled"` and `"soft"` evaluate alike.

    **What is saved** is a stock model, with every objective: the second head of `"multi_task"` is kept in checkpoints
    as method state, and dropped otherwise, since only the first one predicts.

    Args:
        model, args, data_collator, train_dataset, eval_dataset, ...: As for `Trainer`.

    Raises:
        TypeError: If `args` are not `CrowdLabelTrainingArguments`.
        ValueError: For ids that are no class of the model, rows that nobody answered, class weights of another number
            than the classes; for sparse soft labels or a label source with an objective other than `"soft"`; and, with
            `"multi_task"`, for a model in adapters or without a linear head.

    Source: Wright and Augenstein, arXiv:2212.09409, section 3.
    """

    args: CrowdLabelTrainingArguments
    _slug = "crowd_soft_labels"

    def __init__(
        self, model: Any = None, args: CrowdLabelTrainingArguments | None = None, *rest: Any, **kwargs: Any
    ) -> None:
        args = CrowdLabelTrainingArguments() if args is None else args
        if not isinstance(args, CrowdLabelTrainingArguments):
            raise TypeError(f"`args` must be CrowdLabelTrainingArguments, got {type(args).__name__}.")
        super().__init__(model, args, *rest, **kwargs)
        if self.label_source is not None and self.args.objective != "soft":
            raise ValueError("A `label_source` goes with `objective='soft'`; the others need soft labels in the data.")
        classes, weights = self.num_classes(), self.args.class_weights
        if weights is not None and classes is not None and len(weights) != classes:
            raise ValueError(f"`class_weights` has {len(weights)} values, the model has {classes} classes.")
        self.train_dataset = self._aggregated(self.train_dataset)
        self.eval_dataset = self._aggregated(self.eval_dataset)
        self._head: nn.Module | None = None
        if self.args.objective == "multi_task":
            self._add_head()

    def _aggregated(self, data: Any) -> Any:
        """`data` with `soft_labels` in place of `annotator_labels`."""
        if isinstance(data, dict):
            return {name: self._aggregated(part) for name, part in data.items()}
        names = getattr(data, "column_names", None) or ()
        if "soft_label_ids" in names and "soft_labels" not in names and self.args.objective != "soft":
            raise ValueError(
                f"`objective={self.args.objective!r}` needs whole distributions, the data have sparse ones "
                "(`soft_label_ids`). Give `soft_labels`, or `annotator_labels`."
            )
        if CROWD not in names or "soft_labels" in names or not len(data):
            return data
        import datasets

        classes = self.num_classes()
        check_column(data, "crowd", CROWD, num_labels=classes)
        found = aggregate_annotations(
            data,
            self.args.aggregation,
            worker_column=None,
            label_column=CROWD,
            num_labels=classes,
            seed=self.args.seed,
        )
        kind = datasets.List(datasets.Value("float32"), length=found.soft.shape[1])
        return write_column(data.remove_columns(CROWD), "soft_labels", found.soft.astype(np.float32), kind)

    # The second head

    def _add_head(self) -> None:
        model: Any = self.accelerator.unwrap_model(self.model)
        if hasattr(model, "get_base_model"):
            raise ValueError(
                "`objective='multi_task'` trains a second head, which adapters do not keep. Train without adapters, "
                "or with another objective."
            )
        if self._head is None or not hasattr(model, SOFT_HEAD):
            self._head = find_head(model).module
        self.method_state = nn.ModuleDict({SOFT_HEAD: add_soft_head(model)})

    def init_method_state(self) -> None:
        if self.args.objective == "multi_task":
            self._add_head()  # `model_init` has made another model

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self._head is not None:
            whole = self.accelerator.unwrap_model(self.model).state_dict() if state_dict is None else state_dict
            state_dict = {name: value for name, value in whole.items() if not name.startswith(f"{SOFT_HEAD}.")}
        super()._save(output_dir, state_dict)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        missing = load_result.missing_keys
        missing[:] = [name for name in missing if not name.startswith(f"{SOFT_HEAD}.")]  # those are method state
        super()._issue_warnings_after_load(load_result)

    @contextmanager
    def _second_head(self, model: nn.Module) -> Iterator[None]:
        """While this runs, outputs of the model have `soft_logits`: what the second head makes of the first's input.

        They are made in the model's own forward, where autocast is on, and lie in its outputs, where wrappers such as
        DDP look for what will get a gradient.
        """
        if self._head is None:
            yield
            return
        own: Any = self.accelerator.unwrap_model(model)
        made: list[Tensor] = []

        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            made[:] = [getattr(own, SOFT_HEAD)(args[0])]

        def add(module: nn.Module, args: Any, output: Any) -> dict[str, Any]:
            return {**output, "soft_logits": made.pop()}  # a plain dict: classes of outputs have fixed fields

        handles = [self._head.register_forward_pre_hook(read), own.register_forward_hook(add)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def soft_logits(self, outputs: Any, logits: Tensor) -> Tensor:
        """Those of the second head, when there is one."""
        return logits if self._head is None else outputs["soft_logits"]

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        if self._head is not None:
            config = getattr(self.accelerator.unwrap_model(model), "config", None)
            usual = getattr(config, "keys_to_ignore_at_inference", ["past_key_values"])
            ignore_keys = [*(usual if ignore_keys is None else ignore_keys), "soft_logits"]
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    # Targets

    def label_kinds(self) -> dict[str, str]:
        """As in the base; hard labels are made from soft ones where they are missing."""
        kinds = super().label_kinds()
        if "labels" not in (getattr(self.train_dataset, "column_names", None) or ()):
            kinds.pop("labels", None)
        return kinds

    def soft_targets(self, inputs: Mapping[str, Any]) -> SoftTargets | None:
        """Targets of a batch as the objective wants them, weighted by class."""
        targets = super().soft_targets(inputs)
        if targets is None or targets.probs is None:
            return targets
        probs = targets.probs
        changed: dict[str, Any] = {}
        if self.args.class_weights is not None:
            weight = probs.new_tensor(self.args.class_weights)[probs.argmax(-1)]
            changed["weight"] = weight if targets.weight is None else weight * targets.weight
        if self.args.objective == "majority":
            changed["probs"] = F.one_hot(probs.argmax(-1), probs.shape[-1]).to(probs)
        return replace(targets, **changed)

    def _with_labels(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with the hard labels of the first head."""
        if self.args.objective != "multi_task" or "labels" in inputs or "soft_labels" not in inputs:
            return dict(inputs)
        labels = inputs["soft_labels"].argmax(-1)
        if inputs.get("soft_label_mask") is not None:
            labels = labels.masked_fill(~inputs["soft_label_mask"].bool(), IGNORE_INDEX)
        return {**inputs, "labels": labels}

    def count_items(self, inputs: dict[str, Any]) -> dict[str, int | Tensor]:
        return super().count_items(self._with_labels(inputs))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        given = self._with_labels(inputs)
        if self.args.objective == "sampled" and self._eval_rows is None and "soft_labels" in given:
            given["soft_labels"] = draw_labels(given["soft_labels"])
        with self._second_head(model):
            return super().compute_loss(model, given, return_outputs, num_items_in_batch)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        given: Any = eval_dataset if isinstance(eval_dataset, str) else self._aggregated(eval_dataset)
        return super().evaluate(given, ignore_keys, metric_key_prefix)


def draw_labels(probs: Tensor) -> Tensor:
    """One label per row, drawn with its probabilities, as one-hot rows.

    Args:
        probs (`Tensor` of shape `(..., K)`): Rows need not sum to 1 exactly; of a row of zeros the first label is
            taken.

    Returns:
        `Tensor` of shape `(..., K)`. Random numbers come from the host's generator, which checkpoints keep.
    """
    sums = probs.double().cumsum(-1)
    level = torch.rand(probs.shape[:-1], dtype=torch.float64).to(probs.device).unsqueeze(-1) * sums[..., -1:]
    drawn = (sums <= level).sum(-1).clamp_max(probs.shape[-1] - 1)
    drawn = torch.where(sums[..., -1] > 0, drawn, torch.zeros_like(drawn))
    return F.one_hot(drawn, probs.shape[-1]).to(probs)


CLI_KINDS = {CROWD: "crowd", "labels": "hard"}


def cli_setup(script_args: Any, training_args: CrowdLabelTrainingArguments, dataset: Mapping[str, Any]) -> Any:
    """The trainer of `hf-labels train crowd_soft_labels`: lists of answers, a text column, any sequence model.

    Raises:
        ValueError, OSError: As `hf-labels train soft_labels`.
    """
    return soft_setup(script_args, training_args, dataset, CrowdLabelTrainer, [CROWD])
