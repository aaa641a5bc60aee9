"""Columns of labels in the one form that the checks read; what cannot be read is told, not raised.

Hard labels become class ids with -1 for missing, multi labels rows of 1, 0 and -1 (unknown), answers of annotators
rows of ids with -1 (no answer).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.doctor.report import Finding
from hf_labels.labels.columns import class_names, read_column, write_column
from hf_labels.labels.convert import crowd_to_hard
from hf_labels.labels.encode import align_labels, encode_labels, label_texts
from hf_labels.labels.kinds import kind_of

MAX_CLASSES = 10_000
_NUMBERS = ("bool", "int", "uint", "float", "null", "string", "large_string")


def is_readable(feature: Any) -> bool:
    """Whether a column holds numbers or texts, or lists of them."""
    inner = getattr(feature, "feature", feature)
    if isinstance(inner, dict | list | tuple) or type(inner).__name__ == "ClassLabel":
        return not isinstance(inner, dict | list | tuple)
    return type(inner).__name__ == "Value" and str(inner.dtype).rstrip("0123456789") in _NUMBERS


def table_of(column: Any) -> np.ndarray | None:
    """Cells `(N, width)` of a column of lists, NaN for a missing cell or row; None for rows of several lengths."""
    if column.lengths is None or column.is_text:
        return None
    full = column.lengths > 0
    if not full.any() or len(np.unique(column.lengths[full])) != 1:
        return None
    table = np.full((len(full), int(column.lengths.max())), np.nan)
    table[full] = np.where(column.null, np.nan, column.values).reshape(int(full.sum()), -1)
    return table


def ids_of(data: Any, column: str) -> np.ndarray:
    """Class ids of a column `(N,)`, -1 for missing."""
    found = read_column(data, column)
    return np.where(found.null | (found.values < 0), -1, found.values).astype(np.int64)


def are_distributions(rows: np.ndarray) -> np.ndarray:
    """Which rows are finite, not negative, and sum to 1 within 0.001."""
    good = np.isfinite(rows).all(1) & (np.nan_to_num(rows) >= 0).all(1)
    return good & (np.abs(np.where(good[:, None], rows, 0.0).sum(1) - 1) <= 1e-3)


def told(level: str, title: str, *details: str) -> Finding:
    return Finding("", level, title, details=details)


def is_whole(column: Any) -> bool:
    """Ids that an empty cell among them, or the program that wrote them, has made floats."""
    values = column.values[~column.null] if column.lengths is None else np.empty(0)
    return bool(len(values)) and bool(np.isfinite(values).all()) and bool((values == np.round(values)).all())


def set_of_ids(column: Any) -> bool:
    """Lists of class ids, no id twice in a row: sets, and not the tags of a sequence."""
    if column.lengths is None or column.is_text or column.values.dtype.kind not in "iu" or column.null.any():
        return False
    if not len(column.values) or column.values.min() < 0 or column.values.max() >= MAX_CLASSES:
        return False
    rows = np.repeat(np.arange(len(column.lengths)), np.maximum(column.lengths, 0))
    return len(np.unique(rows * MAX_CLASSES + column.values)) == len(rows)


def are_binary(column: Any) -> bool:
    """Rows of 1, 0 and -1 or None (unknown), all of one length."""
    table = table_of(column)
    return table is not None and column.names is None and bool(np.isin(table[~np.isnan(table)], (-1, 0, 1)).all())


def multi_rows(parts: Sequence[Any], name: str) -> tuple[list[Any], tuple[str, ...]] | None:
    """Multi labels, as 0/1 rows, sets of names or sets of ids, as rows of 1, 0 and -1 over the same columns.

    Returns:
        The parts with the column replaced, and its names; None if it does not hold multi labels.
    """
    import datasets

    columns = [read_column(part, name) for part in parts]
    first = columns[0]
    table = table_of(first)
    if first.lengths is None or any((one.lengths is None or one.is_text != first.is_text) for one in columns[1:]):
        return None
    names: tuple[str, ...]
    if first.is_text:
        names = tuple(sorted({text for part in parts for text in label_texts(part, name)}))
        if not 0 < len(names) <= MAX_CLASSES:
            return None
        tables = [read_column(encode_labels(part, name, names), name).matrix() for part in parts]
    elif table is not None and are_binary(first):
        found = [table_of(one) for one in columns]
        if any(one is None or one.shape[1] != table.shape[1] for one in found):
            return None
        tables = [np.where(np.isnan(one), -1, one) for one in found if one is not None]
        names = tuple(str(number) for number in range(table.shape[1]))
    elif all(set_of_ids(one) for one in columns):
        count = max(int(one.values.max()) + 1 for one in columns)
        names = class_names(parts[0], name) or tuple(str(number) for number in range(count))
        if count > len(names):
            return None
        tables = [np.zeros((one.num_rows, len(names))) for one in columns]
        for one, rows in zip(columns, tables, strict=True):
            rows[np.repeat(np.arange(one.num_rows), np.maximum(np.asarray(one.lengths), 0)), one.values] = 1
    else:
        return None
    changed = []
    for part, one, rows in zip(parts, columns, tables, strict=True):
        lengths = np.asarray(one.lengths)
        rows = np.where((lengths < 0)[:, None], -1, rows).astype(np.int8)
        changed.append(write_column(part, name, rows, datasets.List(datasets.Value("int8"), length=rows.shape[1])))
    return changed, names


def masked(data: Any, name: str) -> tuple[np.ndarray, str]:
    """Multi labels `(N, K)`, -1 where `label_mask` is 0 too; and what is wrong with the mask, `""` for nothing."""
    table = read_column(data, name).matrix().astype(np.int64)
    if "label_mask" not in data.column_names:
        return table, ""
    if not is_readable(data.features["label_mask"]):
        return table, "Column `label_mask` holds no rows of 0 and 1; it was not used"
    mask = table_of(read_column(data, "label_mask"))
    if mask is None or mask.shape != table.shape:
        return (
            table,
            f"Column `label_mask` must have {table.shape[1]} values in each row, as `{name}`; it was not used",
        )
    return np.where(mask == 1, table, -1), ""


def crowd_rows(data: Any, name: str) -> tuple[Any, list[Finding]]:
    """Answers of annotators as rows of one length; None and short rows are filled with -1.

    Returns:
        The data, or None where the column holds no answers that can be read; and what was told.
    """
    import datasets

    column = read_column(data, name)
    need = "expected a list of class ids in each row, one for each annotator, -1 = no answer"
    if column.lengths is None:
        hint = "For one answer per row name the columns of the table `task`, `worker` and `label`."
        return None, [told("problem", f"Column `{name}` holds one value per row; {need}", hint)]
    if column.is_text:
        return data, []
    notes = []
    lengths = np.maximum(column.lengths, 0)
    if len(np.unique(lengths[lengths > 0])) > 1:
        row = int(np.flatnonzero((lengths > 0) & (lengths != lengths.max()))[0])
        why = f"Row {row} has {lengths[row]}, the longest {lengths.max()}. A place in the list is no annotator here; "
        why += "fill up with -1 in the place of who did not answer."
        notes.append(told("problem", f"Rows of `{name}` have different numbers of answers", why))
    values = np.where(column.null, -1, column.values).astype(np.float64)
    bad = ~np.isfinite(values) | (values != np.round(values)) | (values < -1) | (values >= 2**53)
    if bad.any():
        cell = int(bad.argmax())
        title = f"{int(bad.sum())} answers in `{name}` are no class ids: {values[cell]:g} at row {column.row_of(cell)}"
        notes.append(told("problem", title, "They count as not given. Ids are 0, 1, 2, ...; -1 = did not answer."))
    ids = np.where(bad, -1, values).astype(np.int64)
    if ids.max(initial=-1) >= MAX_CLASSES:
        known = ids >= 0
        ids[known] = np.unique(ids[known], return_inverse=True)[1]
    table = np.full((len(lengths), max(int(lengths.max(initial=0)), 1)), -1, dtype=np.int64)
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    table[np.repeat(np.arange(len(lengths)), lengths), place] = ids
    inner = datasets.ClassLabel(names=list(column.names)) if column.names else datasets.Value("int64")
    return write_column(data, name, table, datasets.List(inner, length=table.shape[1])), notes


def hard_of(data: Any, name: str, kind: str) -> np.ndarray | None:
    """Class ids of the most probable class, or of the majority, -1 for none; None if rows are no such labels."""
    column = read_column(data, name)
    rows = table_of(column)
    if rows is None:
        return None
    if kind == "soft":
        return np.where(are_distributions(rows), np.nan_to_num(rows).argmax(1), -1).astype(np.int64)
    answers = np.where(np.isnan(rows), -1, rows).astype(np.int64)
    return crowd_to_hard(answers, int(answers.max(initial=1)) + 1, "missing")


def encode_hard(parts: dict[str, Any], name: str) -> dict[str, Any]:
    """Names, or numbers that are no ids from 0 on, as class ids that mean the same in all parts."""
    import datasets

    return dict(encode_labels(datasets.DatasetDict(parts), name))


def is_sparse(column: Any) -> bool:
    """Ids of a hard column that are so large that they can only be names."""
    values = column.values[~column.null]
    top = int(values.max()) + 1 if len(values) else 0
    return column.names is None and (top > MAX_CLASSES or top > 2 * len(np.unique(values)) + 100)


def with_names(data: Any, name: str) -> Any:
    """A `ClassLabel` column as the texts of its names, None for missing."""
    import datasets
    import pyarrow as pa

    known = class_names(data, name)
    if not known:
        return data
    ids = ids_of(data, name)
    texts = [None if k < 0 else known[k] for k in ids.tolist()]
    return write_column(data, name, pa.array(texts, pa.string()), datasets.Value("string"))


def match(data: Any, other: Any, name: str, split: str, evaluated: str) -> tuple[Any, Any, Finding | None]:
    """Class ids of both splits mean the same: those of the examined rows, then what only the others have."""
    own, theirs = class_names(data, name), class_names(other, name)
    if not own or not theirs or own == theirs:
        return data, other, None
    both = [*own, *(one for one in theirs if one not in own)]
    why = (
        f"{split}: {_few(own)}; {evaluated}: {_few(theirs)}. They are compared by name here, a Trainer compares ids: "
    )
    why += f"align_labels(data, {name!r}, names) of hf_labels.labels.kinds makes them one."
    order = "in another order" if set(own) == set(theirs) else "others"
    note = told("problem", f"The names of `{name}` in `{evaluated}` are {order} than in `{split}`", why)
    return align_labels(data, name, both), align_labels(other, name, both), note


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def kind_here(column: Any) -> str | None:
    """Kind of a column by its content; a None among the rows does not hide that rows have one length."""
    if column.lengths is None or column.is_text:
        return kind_of(column)
    rows = table_of(column)
    if rows is not None and column.values.dtype.kind == "f" and not np.isin(rows[~np.isnan(rows)], (-1, 0, 1)).all():
        known = rows[~np.isnan(rows).any(1)]
        return "soft" if len(known) and are_distributions(known).mean() > 0.5 else "value"
    return "sequence"
