"""What a data set holds: splits, inputs, labels of each kind, encoded and ready to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_labels.data.load import load_data, parse_list_cells, pick_split
from hf_labels.doctor import columns
from hf_labels.doctor.columns import ids_of, told
from hf_labels.doctor.report import Finding
from hf_labels.labels.columns import class_names, read_column, require_columns, write_column
from hf_labels.labels.encode import label_texts
from hf_labels.labels.kinds import find_kinds

TEXTS = ("text", "sentence", "content", "document", "review", "question", "title", "tweet")
LABELS = ("labels", "label", "class", "category", "target", "tags", "topics", "categories", "intent", "emotion")
PROBS = ("pred_probs", "probs", "probabilities")
BAGS = ("bag_proportion", "proportion", "proportions", "bag_count")
WORKERS = ("worker", "annotator", "rater", "worker_id", "annotator_id", "rater_id")
ITEMS = ("task", "item", "unit", "task_id", "item_id", "unit_id")
EVALUATION = ("validation", "valid", "dev", "eval", "test")
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
        names (`tuple[str, ...]`): Of its classes, those of the evaluation rows too; ids as text without any.
        derived (`str`, *optional*): Column of soft labels or answers of annotators that `label` was made from.
        answers (`tuple[str, str]`, *optional*): Columns of item and annotator, when a row is one answer.
        steps (`set[str]`): What was done to read the labels, which a command has to do too: `"lists"` (read from
            texts), `"encode"` (names, or numbers that are no ids), `"nulls"` (None among them), `"bad soft"`.
        notes (`list[Finding]`): What was told while reading.
    """

    source: str
    split: str
    data: Any
    evaluation: Any = None
    evaluated: str = ""
    config: str | None = None
    kinds: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    image: str | None = None
    label: str | None = None
    names: tuple[str, ...] = ()
    probs: str | None = None
    proportion: str | None = None
    derived: str | None = None
    answers: tuple[str, str] | None = None
    steps: set[str] = field(default_factory=set)
    notes: list[Finding] = field(default_factory=list)

    def column_of(self, kind: str) -> str | None:
        return next((name for name, found in self.kinds.items() if found == kind), None)

    @property
    def hard(self) -> np.ndarray | None:
        """Class ids `(N,)`, -1 = missing; None without hard labels."""
        return None if self.label is None or self.kinds[self.label] != "hard" else ids_of(self.data, self.label)

    @property
    def multi(self) -> np.ndarray | None:
        """Multi labels `(N, K)`, -1 = unknown; None without any."""
        if self.label is None or self.kinds[self.label] != "multi":
            return None
        return columns.masked(self.data, self.label)[0]

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
        ValueError, TypeError, OSError: If a named column cannot be what it is named for, the two splits or columns are
            one, or as in [`~hf_labels.data.load.load_data`].
    """
    import datasets

    if isinstance(source, datasets.Dataset):
        parts: Any = {str(source.split or "train"): source}
    else:
        parts = source if isinstance(source, Mapping) else load_data(source, config=config)
    name = source if isinstance(source, str) else "YOUR_DATASET"
    split = split or ("train" if "train" in parts else next(iter(parts)))
    data = pick_split(parts, split, name)
    if not len(data):
        raise ValueError(f"Split `{split}` of {name!r} has 0 rows: there is nothing to examine.")
    other = eval_split or next((one for one in EVALUATION if one in parts and one != split), None)
    if other == split:
        raise ValueError(f"`split` and `eval_split` are both {split!r}: a split has nothing to tell about itself.")
    evaluation = pick_split(parts, other, name) if other else None
    if evaluation is not None and not len(evaluation):
        evaluation = other = None
    found = Patient(name, split, parse_list_cells(data), evaluation, other or "", config)
    if evaluation is not None:
        found.evaluation = parse_list_cells(evaluation)
    if found.data is not data:
        found.steps.add("lists")
    for column, option in ((text_column, "text"), (label_column, "label"), (probs_column, "probs")):
        if column:
            require_columns(data, [column], f"--{option}_column")
    if label_column and label_column == text_column:
        raise ValueError(f"`text_column` and `label_column` are both {label_column!r}. Name two columns.")
    found.probs = probs_column or next((one for one in PROBS if one in data.column_names), None)
    found.proportion = next((one for one in BAGS if one in data.column_names), None)
    _find_labels(found, label_column, text_column)
    found.text = text_column or _text_column(found.data, {found.label, *found.kinds, *(found.answers or ())})
    found.image = next((n for n, f in data.features.items() if isinstance(f, datasets.Image)), None)
    return found


def _find_labels(found: Patient, wanted: str | None, text: str | None) -> None:
    """The label columns, their kinds, and the one that most checks are about."""
    for name in [one for one, feature in found.data.features.items() if not columns.is_readable(feature)]:
        if name == wanted:
            kind = found.data.features[name]
            raise TypeError(f"Column `{name}` holds {kind}; expected numbers or texts, or one list of them per row.")
        if name in (*LABELS, "soft_labels", "annotator_labels", "bag_id"):
            title = (
                f"Column `{name}` was not read as labels: its cells are neither numbers nor texts nor lists of them"
            )
            found.notes.append(told("warning", title))
    readable = [name for name, feature in found.data.features.items() if columns.is_readable(feature)]
    found.kinds = dict(find_kinds(found.data.select_columns(readable))) if readable else {}
    crowd = found.column_of("crowd")
    if crowd:
        _read_crowd(found, crowd)
    found.label = _label_column(found, wanted, text, readable)
    if found.label is None:
        _derive(found)
    elif found.kinds[found.label] == "hard":
        item = next((name for name in ITEMS if name in readable), None)
        worker = next((name for name in WORKERS if name in readable), None)
        found.answers = (item, worker) if item and worker and found.label not in (item, worker) else None
    if found.label is not None and not found.names:
        found.names = _names_of(found, found.label)


def _names_of(found: Patient, label: str) -> tuple[str, ...]:
    known = class_names(found.data, label)
    if known:
        return known
    parts = [part for part in (found.data, found.evaluation) if part is not None and label in part.column_names]
    return tuple(str(number) for number in range(max(int(ids_of(part, label).max()) for part in parts) + 1))


def _read_crowd(found: Patient, name: str) -> None:
    data, notes = columns.crowd_rows(found.data, name)
    found.notes += notes
    if data is None:
        del found.kinds[name]
        return
    column = read_column(found.data, name)
    if column.null.any() or len(np.unique(np.asarray(column.lengths))) > 1 or column.values.dtype.kind == "f":
        found.steps.add("nulls")
    found.data = data
    if found.evaluation is not None and name in found.evaluation.column_names:
        other = columns.crowd_rows(found.evaluation, name)[0] if _reads(found.evaluation, name) else None
        found.evaluation = found.evaluation.remove_columns(name) if other is None else other


def _reads(data: Any, name: str) -> bool:
    return name in data.column_names and columns.is_readable(data.features[name])


def _label_column(found: Patient, wanted: str | None, text: str | None, readable: list[str]) -> str | None:
    """The column of hard or multi labels, in the form that the checks read, in both splits."""
    for name in [wanted] if wanted else [*LABELS, *found.kinds]:
        if name not in readable or name == text or found.kinds.get(name) in ("crowd", "bag", "text"):
            continue
        column = read_column(found.data, name)
        kind = found.kinds.get(name)
        if kind is None or kind in ("sequence", "multi", "value"):
            kind = columns.kind_here(column)
        if column.lengths is not None and kind != "soft":
            kind = "multi" if _read_multi(found, name) else kind
        elif kind == "text" or (kind == "value" and (wanted == name or columns.is_whole(column))):
            kind = "hard" if _encode(found, name, wanted == name) else None
        elif kind == "hard" and columns.is_sparse(column):
            kind = "hard" if _encode(found, name, True) else None
        if kind in ("hard", "multi"):
            found.kinds[name] = kind
            if kind == "hard":
                _match(found, name)
            return name
        if kind:
            found.kinds[name] = kind
    return None


def _read_multi(found: Patient, name: str) -> bool:
    """Multi labels of both splits, if they are such; the evaluation column goes where it cannot be compared."""
    own = read_column(found.data, name)
    both = found.evaluation is not None and _reads(found.evaluation, name)
    done = columns.multi_rows([found.data, found.evaluation], name) if both else None
    if done is None:
        done = columns.multi_rows([found.data], name)
        if done is not None and found.evaluation is not None and name in found.evaluation.column_names:
            _leave_out(found, name, "other kinds of labels, or another number of them")
    if done is None:
        return False
    (found.data, *others), found.names = done
    if others:
        found.evaluation = others[0]
    if not columns.are_binary(own):
        found.steps.add("encode")
    return True


def _leave_out(found: Patient, name: str, why: str) -> None:
    title = f"Column `{name}` of `{found.evaluated}` holds {why} than that of `{found.split}`; it was not compared"
    found.notes.append(told("problem", title, "Write the labels of both splits in one way."))
    found.evaluation = found.evaluation.remove_columns(name)


def _match(found: Patient, name: str) -> None:
    """Class ids of both splits mean the same."""
    evaluation = found.evaluation
    if read_column(found.data, name).null.any():
        found.steps.add("nulls")
    if evaluation is None or name not in evaluation.column_names:
        return
    column = read_column(evaluation, name) if _reads(evaluation, name) else None
    if column is None or column.lengths is not None or column.is_text:
        return _leave_out(found, name, "other kinds of cells")
    if column.values.dtype.kind == "f" and not (columns.is_whole(column) or column.null.all()):
        return _leave_out(found, name, "numbers with fractions, other ones")
    if columns.is_sparse(column) and class_names(found.data, name) is None:
        return _leave_out(found, name, "far larger ids")
    found.data, found.evaluation, note = columns.match(found.data, evaluation, name, found.split, found.evaluated)
    found.notes += [note] if note else []


def _derive(found: Patient) -> None:
    """Hard labels from soft ones or from answers of annotators, for the checks that need one class per row."""
    import datasets

    column = found.column_of("soft") or found.column_of("crowd")
    if column is None:
        return
    label = next(name for name in ("labels", "hard_labels", "_labels") if name not in found.data.column_names)
    parts = {"data": found.data, "evaluation": found.evaluation}
    made = {}
    for role, part in parts.items():
        if part is not None and _reads(part, column) and label not in part.column_names:
            ids = columns.hard_of(part, column, found.kinds[column])
            if ids is None and role == "data":
                return
            if ids is not None:
                made[role] = ids
    count = max(int(ids.max(initial=0)) for ids in made.values()) + 1
    for role, ids in made.items():
        setattr(found, role, write_column(parts[role], label, ids, datasets.ClassLabel(num_classes=count)))
    if found.kinds[column] == "soft" and (made["data"] < 0).any():
        found.steps.add("bad soft")
    found.label, found.derived = label, column
    found.kinds[label] = "hard"


def _encode(found: Patient, name: str, wanted: bool) -> bool:
    """Names, or numbers that are no ids, as class ids; False if they are too many to be classes."""
    column = read_column(found.data, name)
    distinct = len(np.unique(column.values[~column.null]))
    if distinct > min(columns.MAX_CLASSES, max(len(found.data) // 2, 20)):
        title = f"Column {name!r} holds {distinct} different values in {len(found.data)} rows: no classes"
        repair = "Name the column of the labels with --label_column; values that are classes all the same "
        repair += "must be ids first (encode_labels of hf_labels.labels.kinds)."
        if wanted:
            raise ValueError(f"{title}. {repair}")
        found.notes.append(told("warning", title, repair))
        return False
    if not distinct:
        return True
    parts = {"examined": found.data}
    evaluation = found.evaluation
    if evaluation is not None and _reads(evaluation, name):
        evaluation = columns.with_names(evaluation, name) if column.is_text else evaluation
        if read_column(evaluation, name).is_text == column.is_text and read_column(evaluation, name).lengths is None:
            parts["other"] = evaluation
        else:
            _leave_out(found, name, "other kinds of cells")
    if not column.is_text and (column.values != np.round(column.values)).any():
        row = int((column.values != np.round(column.values)).argmax())
        value = column.values[row]
        raise ValueError(
            f"Column `{name}` has {value:g} at row {row}: numbers, not classes. Name a column of classes."
        )
    if not label_texts(found.data, name):  # only empty texts
        return False
    done = columns.encode_hard(parts, name)
    found.data, found.evaluation = done["examined"], done.get("other", found.evaluation)
    found.steps.add("encode")
    return True


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
