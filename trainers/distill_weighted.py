"""`WeightedDistillTrainer`: few labels, and a weighted mixture of source models on everything else."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.data.streams import is_map_style
from hf_labels.labels.columns import require_columns
from hf_labels.labels.kinds import IGNORE_INDEX, check_column
from hf_labels.losses.soft_targets import SoftTargets
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments

SOURCES_FILE = "distill_sources.json"
_LABELS = ("labels", "label", "label_ids")
STREAM = "distill"


@dataclass
class WeightedDistillTrainingArguments(LabelTrainingArguments):
    """Arguments of [`WeightedDistillTrainer`].

    Parameters:
        label_weight (`float`, *optional*, defaults to `0.8`):
            Weight of the cross-entropy with labels, in [0, 1]; the sources get the rest (lambda in the paper). With
            few labels try 0.3 to 0.5.
        distill_temperature (`float`, *optional*, defaults to `1.0`):
            Divides the student's logits in the term of the sources.
        distill_ratio (`float`, *optional*, defaults to `1.0`):
            Distillation rows in a batch for each labelled row.
        include_labeled (`bool`, *optional*, defaults to `True`):
            The labelled rows are distilled too.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none.
    """

    label_weight: float = field(
        default=0.8, metadata={"help": "Weight of the cross-entropy with labels, in [0, 1]; the sources get the rest."}
    )
    distill_temperature: float = field(
        default=1.0, metadata={"help": "Divides the student's logits in the term of the sources; above 0."}
    )
    distill_ratio: float = field(default=1.0, metadata={"help": "Distillation rows per labelled row; above 0."})
    include_labeled: bool = field(default=True, metadata={"help": "The labelled rows are distilled too."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_weight <= 1:
            raise ValueError(f"`label_weight` must be in [0, 1], got {self.label_weight}.")
        for name in ("distill_temperature", "distill_ratio"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}.")


class WeightedDistillTrainer(LabelTrainer):
    """`label_weight * CE(labels) + (1 - label_weight) * CE(mixture of the sources)`.

    | input | shape | use |
    | --- | --- | --- |
    | `labels` | (B,), -100 = missing | cross-entropy |
    | `distill` | a second batch, with `index` or `soft_labels` (U, N) | soft cross-entropy |

    One epoch is one pass over the labelled rows; each of their batches comes with a batch of distillation rows, which
    start again when they end. Both go through the student in one forward when their shapes agree. Evaluation is plain
    cross-entropy with `labels`.

    DistillNearest is the same with all weight on one source. Saved models have `distill_sources.json` next to them:
    ids, revisions, similarities and weights.

    Args:
        model, args, ...: As for `Trainer`; `args` is [`WeightedDistillTrainingArguments`]; `train_dataset` holds the
            labelled rows.
        unlabeled_dataset (`datasets.Dataset`, *optional*): Rows without labels (a column `labels` is not read).
            Without them the labelled rows are distilled.
        soft_labels ([`SoftLabelStore`], *optional*): From [`SourceBank.pseudo_labels`], found by `index`. Without
            it the rows must have `soft_labels`.

    Raises:
        TypeError: If `args` are others; from `train()`, if the data is streamed.
        ValueError, KeyError: From `train()`, before the first step: for labels that do not fit, rows without a soft
            label, or soft labels of another number of classes than the student.

    Source: Borup et al., arXiv:2304.12314. From memory, there is no code: the default of `label_weight`, and that
    labelled rows are distilled too.
    """

    args: WeightedDistillTrainingArguments
    _slug = "distill_weighted"
    _label_kinds: ClassVar[Mapping[str, str]] = {"labels": "hard"}
    _extra_columns: ClassVar[tuple[str, ...]] = ("index", "soft_labels")

    def __init__(
        self,
        model: Any = None,
        args: WeightedDistillTrainingArguments | None = None,
        data_collator: Any = None,
        *rest: Any,
        unlabeled_dataset: Any = None,
        soft_labels: SoftLabelStore | None = None,
        **kwargs: Any,
    ) -> None:
        args = WeightedDistillTrainingArguments() if args is None else args
        if not isinstance(args, WeightedDistillTrainingArguments):
            raise TypeError(f"`args` must be WeightedDistillTrainingArguments, got {type(args).__name__}.")
        super().__init__(model, args, data_collator, *rest, **kwargs)
        self.unlabeled_dataset, self.soft_label_store = unlabeled_dataset, soft_labels

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        data: Any = self.train_dataset
        if not self.streams and data is not None and (not is_map_style(data) or len(data)):
            self.add_stream(STREAM, self._distillation_rows(), ratio=self.args.distill_ratio)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels, second = inputs.get("labels"), inputs.get(STREAM)
        mine = self.model_inputs(inputs)
        if second is None:
            outputs = model(**mine)
            total, count = _cross_entropy(outputs["logits"], labels)
            loss = self.mean_over_update(total, "labels", count)
            return (loss, outputs) if return_outputs else loss
        outputs, logits, other = self._both(model, mine, self.model_inputs(second))
        args, targets = self.args, self._targets(second)
        total, count = _cross_entropy(logits, labels)
        hard = self.mean_over_update(total, "labels", count)
        soft = targets.loss(other, temperature=args.distill_temperature, reduction="sum")
        soft = self.mean_over_update(soft, STREAM, targets.count())
        self.log_terms(hard=hard, distill=soft)
        loss = args.label_weight * hard + (1 - args.label_weight) * soft
        return (loss, outputs) if return_outputs else loss

    def count_items(self, inputs: dict[str, Any]) -> dict[str, int | Tensor]:
        """Labelled rows, and distillation rows."""
        counts: dict[str, int | Tensor] = {"labels": (inputs["labels"] != IGNORE_INDEX).sum()}
        second = inputs.get(STREAM)
        if second is not None:
            counts[STREAM] = len(next(value for value in second.values() if torch.is_tensor(value)))
        return counts

    def _both(self, model: Any, first: dict[str, Any], second: dict[str, Any]) -> tuple[Any, Tensor, Tensor]:
        """Outputs, and logits of both batches: one forward when they can be joined, else two."""
        one, two = ({n: v.shape[1:] for n, v in batch.items() if torch.is_tensor(v)} for batch in (first, second))
        if one == two and len(one) == len(first) == len(second):
            rows = len(next(iter(first.values())))
            outputs = model(**{name: torch.cat([first[name], second[name]]) for name in first})
            return outputs, outputs["logits"][:rows], outputs["logits"][rows:]
        outputs = model(**first)
        return outputs, outputs["logits"], model(**second)["logits"]

    def _targets(self, second: Mapping[str, Any]) -> SoftTargets:
        if self.soft_label_store is not None:
            return self.soft_label_store(second)
        return SoftTargets(probs=second["soft_labels"])

    def _distillation_rows(self) -> Any:
        """Unlabelled and (unless told otherwise) labelled rows, checked."""
        more: Any = self.unlabeled_dataset
        for part in (more, self.train_dataset):
            if part is not None and not (is_map_style(part) and hasattr(part, "with_format")):
                raise TypeError(f"Rows to distil must come as a `datasets.Dataset`, got {type(part).__name__}.")
        parts = [more] if more is not None and len(more) else []
        if self.args.include_labeled or not parts:
            parts.append(self.train_dataset)
        key = "index" if self.soft_label_store is not None else "soft_labels"
        classes = self.num_classes()
        for part in parts:
            require_columns(part, [key])
            if self.soft_label_store is None:
                check_column(part, "soft", num_labels=classes)
            else:
                self.soft_label_store.check_examples(part.with_format(None)["index"][:])
        if self.soft_label_store is not None:
            self.soft_label_store.check_model(self.accelerator.unwrap_model(self.model).config)
        return DistillationRows([self._tidy(part) for part in parts], key)

    def _tidy(self, part: Any) -> Any:
        """Without columns that nothing reads; a lazy transform may read any of them."""
        return part if part.format["type"] == "custom" else self._remove_unused_columns(part, "distillation rows")

    def card_facts(self, finetuned_from: str | None = None) -> dict[str, Any]:
        """The sources and their weights."""
        sources = self._sources()
        if not sources:
            return {}
        return {"extra": {"sources": ", ".join(f"{s['id']} ({s['weight']:.3g})" for s in sources["sources"])}}

    def _sources(self) -> dict[str, Any] | None:
        store = self.soft_label_store
        return None if store is None else store.info.extra.get("distill_sources")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        sources = self._sources()
        if sources:
            path = Path(output_dir or self.args.output_dir or ".") / SOURCES_FILE
            draft = path.with_suffix(".part")
            draft.write_text(json.dumps(sources, indent=2) + "\n", encoding="utf-8")
            os.replace(draft, path)


class DistillationRows(Dataset):
    """Rows of data sets one after the other, without labels, and with those columns that all of them have.

    Args:
        parts (sequence of `datasets.Dataset`): Each keeps its own format or lazy transform.
        key (`str`): The column of the soft labels, `index` or `soft_labels`; the other one is dropped.
    """

    def __init__(self, parts: Sequence[Any], key: str) -> None:
        self.parts = list(parts)
        self.ends = list(accumulate(len(part) for part in parts))
        first = [part[0] for part in parts]
        self.names = [name for name in first[0] if name not in _LABELS and all(name in row for row in first)]
        self.names = [name for name in self.names if name not in {"index", "soft_labels"} - {key}]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for part, end in zip(self.parts, self.ends, strict=True):
            mine = [row for row in rows if end - len(part) <= row < end]
            if mine:
                values = part.__getitems__([row - end + len(part) for row in mine])
                found.update(zip(mine, values, strict=True))
        return [{name: found[row][name] for name in self.names} for row in rows]


def _cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the rows that have a label, and their number."""
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total, (labels != IGNORE_INDEX).sum()
