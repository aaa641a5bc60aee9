"""Encode names and numbers as class ids, align ids with names, and repair columns. All vectorised."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_labels.labels import checks
from hf_labels.labels.checks import IGNORE_INDEX, MISSING
from hf_labels.labels.columns import Column, column_names, read_column, write_column
from hf_labels.labels.convert import normalize_soft


def _splits(dataset: Any, change: Callable[[Any], Any]) -> Any | None:
    """The change applied to each split when it is a dict of splits, else `None`."""
    if isinstance(dataset, Mapping) and dataset and all(hasattr(part, "column_names") for part in dataset.values()):
        kind: Any = type(dataset)
        return kind({key: change(part) for key, part in dataset.items()})
    return None


def label_texts(dataset: Any, column: str) -> list[str]:
    """Distinct texts of a column (over all splits), sorted; the names of a `ClassLabel`; distinct numbers as text."""
    parts = list(dataset.values()) if isinstance(dataset, Mapping) and _splits(dataset, lambda p: p) else [dataset]
    columns = [read_column(part, column) for part in parts]
    for col in columns:
        if col.names is not None:
            return list(col.names)
    seen: set[Any] = set()
    for col in columns:
        cells = pa.array(col.values[~col.null])
        seen.update(value.strip() if isinstance(value, str) else value for value in pc.unique(cells).to_pylist())
    seen -= {"", MISSING, IGNORE_INDEX}
    if any(isinstance(value, float) and not value.is_integer() for value in seen):
        raise ValueError(f"Column `{column}` holds fractions, which are no class labels. Use kind `value` or `soft`.")
    return [value if isinstance(value, str) else str(int(value)) for value in sorted(seen)]


def encode_labels(dataset: Any, column: str, names: Sequence[str] | None = None) -> Any:
    """Class names or numbers -> a `ClassLabel` column; lists of them -> a 0/1 vector column (kind `multi`).

    None, NaN, empty text and -1 become -1 (missing). Ids and True/False of the column are read as their own text
    (`"0"`, `"1"`) unless `names` has as many names as there are ids.

    Args:
        dataset (`datasets.Dataset` or `DatasetDict`): Not changed. All splits of a dict get the same names.
        column (`str`): The column; it is replaced in the copy.
        names (sequence of `str`, *optional*): The classes in order; defaults to the distinct values, sorted.

    Raises:
        ValueError: A text is not in `names` (with row and closest name), names are double or empty, or there are none.
    """
    import datasets

    chosen = [str(name) for name in names] if names is not None else label_texts(dataset, column)
    doubles = sorted({name for name in chosen if chosen.count(name) > 1})
    if doubles or any(not name.strip() for name in chosen):
        raise ValueError(f"`names` must be distinct and not empty, got {', '.join(doubles) or 'an empty name'}.")
    if not chosen:
        raise ValueError(f"Column `{column}` has no label at all: every row is empty. Label some rows first.")
    parts = _splits(dataset, lambda part: encode_labels(part, column, chosen))
    if parts is not None:
        return parts
    col = read_column(dataset, column)
    ids = _encode(col, column, chosen)
    if col.lengths is None:
        return write_column(dataset, column, ids, datasets.ClassLabel(names=chosen))
    lengths = np.maximum(col.lengths, 0)
    rows = np.zeros((col.num_rows, len(chosen)), dtype=np.float32)
    owner = np.repeat(np.arange(col.num_rows), lengths)
    rows[owner[ids >= 0], ids[ids >= 0]] = 1
    return write_column(dataset, column, rows, datasets.List(datasets.Value("float32"), length=len(chosen)))


def _encode(col: Column, column: str, names: list[str]) -> np.ndarray:
    """Flat ids of flat cells."""
    if not col.is_text:
        values = np.where(col.null, MISSING, col.values).astype(np.float64)
        values = np.where(values == IGNORE_INDEX, MISSING, values)
        ids = values.astype(np.int64)
        bad = (values != ids) | (ids < MISSING)
        if not bad.any() and (col.names is not None or ids.max(initial=-1) < len(names)):
            return ids
        texts = pa.array([None if v == MISSING else str(v) for v in ids.tolist()], type=pa.string())
        if bad.any():
            cell = int(np.argmax(bad))
            raise ValueError(
                f"Column `{column}` has {values[cell]:g} at row {col.row_of(cell)}, which is no class label."
            )
    else:
        texts = pc.utf8_trim_whitespace(pa.array(col.values, type=pa.large_string()))
        texts = pc.if_else(pc.or_(pa.array(col.null), pc.equal(texts, "")), pa.scalar(None, texts.type), texts)
    found = pc.index_in(texts, value_set=pa.array(names, type=texts.type), skip_nulls=True)
    unknown = np.asarray(pc.and_(pc.is_null(found), pc.is_valid(texts)))
    if unknown.any():
        cell = int(np.argmax(unknown))
        text = texts[cell].as_py()
        close = difflib.get_close_matches(text, names, n=1)
        raise ValueError(
            f"Column `{column}` has {text[:40]!r} at row {col.row_of(cell)}, which is not among the {len(names)} "
            f"names: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."
            + (f" Did you mean {close[0]!r}?" if close else " Add it to the names, or drop such rows.")
        )
    return np.asarray(found.fill_null(MISSING), dtype=np.int64)


def align_labels(dataset: Any, column: str, names: Sequence[str]) -> Any:
    """A copy whose `ClassLabel` ids follow `names`; -1 stays.

    Raises:
        ValueError: The column has no names, or a row has a class that `names` lacks.
    """
    import datasets

    col = read_column(dataset, column)
    if col.names is None or col.lengths is not None:
        raise ValueError(
            f'Column `{column}` is no ClassLabel. Encode it: `encode_labels(dataset, "{column}", names)`.'
        )
    place = {name: i for i, name in enumerate(names)}
    table = np.array([place.get(name, -2) for name in col.names] + [MISSING])
    ids = table[col.values]
    if (ids == -2).any():
        row = int(np.argmax(ids == -2))
        raise ValueError(
            f"Column `{column}` has class {col.names[col.values[row]]!r} at row {row}, which the wanted names lack. "
            "Add the name, or drop such rows."
        )
    return write_column(dataset, column, ids, datasets.ClassLabel(names=list(names)))


def repair_column(dataset: Any, kind: str, column: str | None = None) -> Any:
    """The repair that the errors of `check_column` name. A copy; rows are dropped only for `value` and `text`.

    hard: None, NaN and -100 become -1, whole floats and True/False integers. value: rows with None, NaN or infinity
    are dropped. multi: None, NaN and -1 become 0 with `label_mask` 0. soft: rows are divided by their sum. crowd: None
    becomes -1, short rows are padded with -1. text: rows with None or an empty text are dropped.

    Raises:
        ValueError: For a kind that has no repair, or data that it cannot help.
    """
    import datasets

    from hf_labels.labels.kinds import KINDS, _need_kind

    _need_kind(kind)
    name = column or KINDS[kind].column
    col = read_column(dataset, name)
    if kind == "hard":
        fixed = _encode(col, name, list(col.names) if col.names else [str(i) for i in range(_top(col))])
        return write_column(dataset, name, fixed, dataset.features[name] if col.names else datasets.Value("int64"))
    if kind in ("value", "text"):
        good = _good_rows(col, kind)
        return dataset.select(np.flatnonzero(good)) if not good.all() else dataset
    if kind == "soft":
        width = checks._need_width(col, name, None, "probabilities", "Every row needs one per class.")
        return write_column(
            dataset, name, normalize_soft(col.matrix()), datasets.List(datasets.Value("float32"), length=width)
        )
    if kind == "multi":
        width = checks._need_width(col, name, None, "entries", "Every row needs one per label.")
        hidden = (col.null | (col.values == MISSING)).reshape(-1, width)
        seen = np.where(hidden, 0, col.matrix()).astype(np.float32)
        mask = (~hidden).astype(np.float32)
        if "label_mask" in column_names(dataset):
            mask *= read_column(dataset, "label_mask").matrix() != 0
        feature = datasets.List(datasets.Value("float32"), length=width)
        return write_column(write_column(dataset, name, seen, feature), "label_mask", mask, feature)
    if kind == "crowd":
        if col.lengths is None:
            raise ValueError(f"Column `{name}` holds one value per row, expected one class id per annotator (A,).")
        lengths = np.maximum(col.lengths, 0)
        table = np.full((col.num_rows, max(int(lengths.max(initial=0)), 1)), MISSING, dtype=np.int64)
        place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        table[np.repeat(np.arange(col.num_rows), lengths), place] = np.where(col.null, MISSING, col.values)
        inner = datasets.ClassLabel(names=list(col.names)) if col.names else datasets.Value("int64")
        return write_column(dataset, name, table, datasets.List(inner, length=table.shape[1]))
    raise ValueError(f"Kind {kind!r} has no automatic repair: change column `{name}` as the error says.")


def _top(col: Column) -> int:
    return int(col.values.max(initial=0)) + 1 if not col.is_text else 0


def _good_rows(col: Column, kind: str) -> np.ndarray:
    if kind == "text":
        bad = col.null | checks.blank_texts(col)
    else:
        bad = col.null | ~np.isfinite(col.values.astype(np.float64))
    if col.lengths is None:
        return ~bad
    good = col.lengths >= 0
    owner = np.repeat(np.arange(col.num_rows), np.maximum(col.lengths, 0))
    good[owner[bad]] = False
    return good
