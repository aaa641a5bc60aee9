"""What a data set holds: splits, inputs, labels of each kind, encoded and ready to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_labels.data.load import load_data, parse_list_cells, pick_split
from hf_labels.labels.columns import class_names, read_column, require_columns, write_column
from hf_labels.labels.convert import crowd_to_hard
from hf_labels.labels.encode import align_labels, encode_labels, label_texts
from hf_labels.labels.kinds import find_kinds, kind_of

TEXTS = ("text", "sentence", "content", "document", "review", "question", "title", "tweet")
LABELS = ("labels", "label", "class", "category", "target", "tags", "topics", "categories", "intent", "emotion")
PROBS = ("pred_probs", "probs", "probabilities")
BAGS = ("bag_proportion", "proportion", "proportions", "bag_count")
WORKERS = ("worker", "annotator", "rater", "worker_id", "annotator_id", "rater_id")
ITEMS = ("task", "item", "unit", "task_id", "item_id", "unit_id")
EVALUATION = ("validation", "valid", "dev", "eval", "test")
MAX_CLASSES = 10_000
LOOKED_AT = 20_000  # rows in which columns that look like labels are searched


_DISCRETE = ("string", "large_string", "bool", "int8", "int16", "int32", "int64")


@dataclass
class Patient:
    """A data set, read.

    Parameters:
        source (`str`): What the user gave. split (`str`): Of the rows that are examined.
        data (`datasets.Dataset`), evaluation (`datasets.Dataset`, *optional*), evaluated (`str`): Its split.
        kinds (`dict[str, str]`): Label column -> kind. text, image (`str`, *optional*): Columns of the input.
        label (`str`, *optional*): Column of hard or multi labels, which most checks are about.
        encoded (`bool`): It held names or numbers that are no ids. parsed (`bool`): Lists were read from texts.
        derived (`str`, *optional*): Column of soft labels or answers of annotators that `label` was made from.
        answers (`tuple[str, str]`, *optional*): Columns of item and annotator, when a row is one answer.
        set_names (`tuple[str, ...]`): Names of multi labels that were written as sets of names.
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
    derived: str | None = None
    answers: tuple[str, str] | None = None
    set_names: tuple[str, ...] = ()

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
        known = self.set_names or class_names(self.data, self.label)
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
        kinds = {name: kind for name, kind in self.kinds.items()}
        if self.derived and self.label:
            way = "largest of" if kinds[self.derived] == "soft" else "majority of"
            kinds[self.label] = f"hard ({way} {self.derived})"
        found["labels"] = kinds or "none found"
        if self.answers:
            found["one answer per row"] = f"item in {self.answers[0]}, annotator in {self.answers[1]}"
        others = self.candidates()
        if others:
            found["also like labels"] = ", ".join(others)
        return found

    def candidates(self) -> list[str]:
        """Columns that are not used and hold few different values; `--label_column` takes one."""
        used = {*self.kinds, self.text, self.probs, self.proportion, self.label, *(self.answers or ())}
        found = []
        for name, feature in self.data.features.items():
            if name in used or getattr(feature, "dtype", "") not in _DISCRETE:
                continue
            values = [cell for cell in self.data[name][:LOOKED_AT] if cell is not None]
            if 2 <= len(set(values)) <= min(100, len(values) // 4):
                found.append(name)
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
    if found.label is None:
        _derive(found)
    elif found.kinds[found.label] == "hard":
        item = next((name for name in ITEMS if name in data.column_names), None)
        worker = next((name for name in WORKERS if name in data.column_names), None)
        found.answers = (item, worker) if item and worker and found.label not in (item, worker) else None
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
        column = read_column(found.data, name)
        kind = found.kinds.get(name) or kind_of(column)
        if kind is None and column.is_text and column.lengths is not None:
            _encode_sets(found, name)
            kind = "multi"
        elif kind == "text" or (kind == "value" and (wanted == name or _whole(column))):
            _encode(found, name)
            kind = "hard"
        if kind in ("hard", "multi"):
            found.kinds[name] = kind
            _align(found, name)
            return name
        if kind:
            found.kinds[name] = kind
    return None


def _whole(column: Any) -> bool:
    """Ids that an empty cell among them, or the program that wrote them, has made floats."""
    values = column.values[~column.null] if column.lengths is None else np.empty(0)
    return bool(len(values)) and bool((values == np.round(values)).all())


def _align(found: Patient, name: str) -> None:
    """Class ids of both splits mean the same: those of the examined rows, then what only the others have."""
    evaluation = found.evaluation
    if evaluation is None or name not in evaluation.column_names:
        return
    own, other = class_names(found.data, name), class_names(evaluation, name)
    if own and other and own != other and found.kinds[name] == "hard":
        both = [*own, *(one for one in other if one not in own)]
        found.data, found.evaluation = align_labels(found.data, name, both), align_labels(evaluation, name, both)


def _encode_sets(found: Patient, name: str) -> None:
    """Lists of names become 0/1 rows with the same columns in both splits."""
    parts = [part for part in (found.data, found.evaluation) if part is not None and name in part.column_names]
    names = sorted({text for part in parts for text in label_texts(part, name)})
    found.data = encode_labels(found.data, name, names)
    if len(parts) == 2:
        found.evaluation = encode_labels(found.evaluation, name, names)
    found.set_names, found.encoded = tuple(names), True


def _derive(found: Patient) -> None:
    """Hard labels from soft ones or from answers of annotators, for the checks that need one class per row."""
    import datasets

    column = found.column_of("soft") or found.column_of("crowd")
    if column is None or "labels" in found.data.column_names:
        return
    hard = soft_ids if found.kinds[column] == "soft" else _majority
    parts = {"data": found.data, "evaluation": found.evaluation}
    made = {}
    for role, part in parts.items():
        if part is not None and column in part.column_names and "labels" not in part.column_names:
            ids = hard(read_column(part, column))
            if ids is None:
                return
            made[role] = ids
    count = max(int(ids.max(initial=0)) for ids in made.values()) + 1
    for role, ids in made.items():
        setattr(found, role, write_column(parts[role], "labels", ids, datasets.ClassLabel(num_classes=count)))
    found.label, found.derived = "labels", column
    found.kinds["labels"] = "hard"


def soft_ids(column: Any) -> np.ndarray | None:
    """Most probable class of each row, -1 where the row is no distribution; None for rows of several lengths."""
    if column.lengths is None or len(np.unique(column.lengths)) != 1:
        return None
    rows = column.matrix()
    return np.where(are_distributions(rows), np.nan_to_num(rows).argmax(1), -1).astype(np.int64)


def are_distributions(rows: np.ndarray) -> np.ndarray:
    """Which rows are finite, not negative, and sum to 1 within 0.001."""
    good = np.isfinite(rows).all(1) & (rows >= 0).all(1)
    return good & (np.abs(np.where(good[:, None], rows, 0.0).sum(1) - 1) <= 1e-3)


def _majority(column: Any) -> np.ndarray | None:
    if column.lengths is None or len(np.unique(column.lengths)) != 1 or column.values.dtype.kind not in "iu":
        return None
    answers = column.matrix()
    return crowd_to_hard(answers, int(answers.max(initial=0)) + 1, "missing")


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
