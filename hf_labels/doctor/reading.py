"""What a data set holds: splits, inputs, labels of each kind, encoded and ready to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_labels.data.load import load_data, parse_list_cells, pick_split
from hf_labels.labels.columns import class_names, read_column, require_columns
from hf_labels.labels.kinds import encode_labels, find_kinds, kind_of

TEXTS = ("text", "sentence", "content", "document", "review", "question", "title", "tweet")
LABELS = ("labels", "label", "class", "category", "target")
PROBS = ("pred_probs", "probs", "probabilities")
BAGS = ("bag_proportion", "proportion", "proportions", "bag_count")
EVALUATION = ("validation", "valid", "dev", "eval", "test")
MAX_CLASSES = 1000


@dataclass
class Patient:
    """A data set, read.

    Parameters:
        source (`str`): What the user gave. split (`str`): Of the rows that are examined.
        data (`datasets.Dataset`), evaluation (`datasets.Dataset`, *optional*), evaluated (`str`): Its split.
        kinds (`dict[str, str]`): Label column -> kind. text, image (`str`, *optional*): Columns of the input.
        label (`str`, *optional*): Column of hard or multi labels, which most checks are about.
        encoded (`bool`): It held names or numbers that are no ids. parsed (`bool`): Lists were read from texts.
    """

    source: str
    split: str
    data: Any
    evaluation: Any = None
    evaluated: str = ""
    kinds: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    image: str | None = None
    label: str | None = None
    probs: str | None = None
    proportion: str | None = None
    encoded: bool = False
    parsed: bool = False

    def column_of(self, kind: str) -> str | None:
        return next((name for name, found in self.kinds.items() if found == kind), None)

    @property
    def hard(self) -> np.ndarray | None:
        """Class ids `(N,)`, -1 = missing; None without hard labels."""
        return None if self.label is None or self.kinds[self.label] != "hard" else ids_of(self.data, self.label)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes; ids as text without any."""
        assert self.label is not None
        known = class_names(self.data, self.label)
        if known:
            return tuple(known)
        labels = read_column(self.data, self.label)
        count = int(labels.lengths.max()) if labels.lengths is not None else int(labels.values.max()) + 1
        return tuple(str(number) for number in range(count))

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {"rows": f"{len(self.data)} of split `{self.split}`"}
        if self.evaluation is not None:
            found["evaluation"] = f"{len(self.evaluation)} of split `{self.evaluated}`"
        found["input"] = self.text or self.image or "not found"
        found["labels"] = {name: kind for name, kind in self.kinds.items()} or "none found"
        return found


def ids_of(data: Any, column: str) -> np.ndarray:
    """Class ids of a column `(N,)`, -1 for missing."""
    found = read_column(data, column)
    return np.where(found.null, -1, found.values).astype(np.int64)


def read_patient(
    source: Any,
    *,
    split: str | None = None,
    eval_split: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    probs_column: str | None = None,
    config: str | None = None,
) -> Patient:
    """Load and recognise.

    Args:
        source: Hub id, folder or file; a `datasets.Dataset`, or a dict of splits.
        split, eval_split (`str`, *optional*): Rows to examine (`train`, or the first split), and rows to compare with.
        text_column, label_column, probs_column (`str`, *optional*): Where name and content do not tell.

    Raises:
        KeyError: If a named column or split is missing.
        ValueError, OSError: As in [`~hf_labels.data.load.load_data`].
    """
    import datasets

    if isinstance(source, datasets.Dataset):
        parts: Any = {str(source.split or "train"): source}
    else:
        parts = source if isinstance(source, Mapping) else load_data(source, config=config)
    name = source if isinstance(source, str) else "YOUR_DATASET"
    split = split or ("train" if "train" in parts else next(iter(parts)))
    data = pick_split(parts, split, name)
    other = eval_split or next((one for one in EVALUATION if one in parts and one != split), None)
    evaluation = pick_split(parts, other, name) if other else None
    found = Patient(
        name, split, parse_list_cells(data), None if evaluation is None else parse_list_cells(evaluation), other or ""
    )
    found.parsed = found.data is not data
    require_columns(data, [one for one in (text_column, label_column, probs_column) if one])
    found.kinds = dict(find_kinds(found.data))
    found.probs = probs_column or next((one for one in PROBS if one in data.column_names), None)
    found.proportion = next((one for one in BAGS if one in data.column_names), None)
    found.label = _label_column(found, label_column)
    others = {found.label, *found.kinds}
    found.text = text_column or _text_column(found.data, others)
    found.image = next((n for n, f in data.features.items() if isinstance(f, datasets.Image)), None)
    return found


def _label_column(found: Patient, wanted: str | None) -> str | None:
    """The column of hard or multi labels; names become ids in both splits."""
    names = [wanted] if wanted else [*LABELS, *found.kinds]
    for name in names:
        if name is None or name not in found.data.column_names:
            continue
        kind = found.kinds.get(name) or kind_of(read_column(found.data, name))
        if kind == "text" or (kind == "value" and wanted == name):
            _encode(found, name)
            kind = "hard"
        if kind in ("hard", "multi"):
            found.kinds[name] = kind
            return name
        if kind:
            found.kinds[name] = kind
    return None


def _encode(found: Patient, name: str) -> None:
    import datasets

    distinct = len(set(found.data[name][:]))
    if distinct > min(MAX_CLASSES, max(len(found.data) // 2, 2)):
        raise ValueError(
            f"Column {name!r} holds {distinct} different values in {len(found.data)} rows: no classes. Name the "
            "column of the labels with --label_column."
        )
    parts = {"examined": found.data}
    if found.evaluation is not None and name in found.evaluation.column_names:
        parts["other"] = found.evaluation
    done = encode_labels(datasets.DatasetDict(parts), name)
    found.data, found.evaluation = done["examined"], done.get("other", found.evaluation)
    found.encoded = True


def _text_column(data: Any, others: set[str | None]) -> str | None:
    texts = [
        name
        for name, feature in data.features.items()
        if getattr(feature, "dtype", None) in ("string", "large_string") and name not in others
    ]
    named = next((name for name in TEXTS if name in texts), None)
    if named or not texts:
        return named
    lengths = {name: sum(len(str(cell)) for cell in data[name][:200]) for name in texts}
    return max(texts, key=lambda name: lengths[name])
