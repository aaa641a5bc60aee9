"""What each label kind allows, one function per kind. Called by `hf_labels.labels.kinds.check_column` only.

Every message names the column, the first bad row and the repair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_labels.labels.columns import Column, from_values

MISSING = -1
IGNORE_INDEX = -100
SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Limits:
    """What the caller demands of a column, beyond its kind."""

    num_labels: int | None = None
    optional_missing: bool = True
    min_classes: int = 1
    normalize: bool = False
    mask: Column | None = None
    bag_table: Any = None


@dataclass(frozen=True)
class Found:
    """What a check found out."""

    num_labels: int | None
    num_missing: int = 0
    counts: tuple[int, ...] | None = None


def _first(bad: Any) -> int | None:
    """Flat number of the first True, `None` when there is none."""
    place = int(np.argmax(bad)) if bad.size else 0
    return place if bad.size and bad[place] else None


def _refuse_text(col: Column, name: str, wanted: str) -> None:
    if col.is_text:
        row = col.row_of(0) if len(col.values) else 0
        text = str(col.values[0])[:40] if len(col.values) else ""
        raise TypeError(
            f"Column `{name}` holds text ({text!r} at row {row}), expected {wanted}. "
            f'Encode it: `encode_labels(dataset, "{name}")`.'
        )


def _refuse_null(col: Column, name: str, kind: str, repair: str) -> None:
    if col.lengths is not None and (row := _first(col.lengths < 0)) is not None:
        raise ValueError(f"Column `{name}` has None at row {row}, expected a list ({kind}). {repair}")
    if (cell := _first(col.null)) is not None:
        count = int(col.null.sum())
        more = f" ({count} such cells)" if count > 1 else ""
        raise ValueError(f"Column `{name}` has None or NaN at row {col.row_of(cell)}{more}. {repair}")


def _need_scalar(col: Column, name: str, kind: str, repair: str) -> None:
    if col.lengths is not None:
        raise ValueError(f"Column `{name}` holds lists, expected one {kind} per row. {repair}")


def _need_list(col: Column, name: str, kind: str, repair: str) -> None:
    if col.lengths is None:
        raise ValueError(f"Column `{name}` holds one value per row, expected {kind}. {repair}")


def _need_width(col: Column, name: str, width: int | None, what: str, repair: str) -> int:
    """One length for all rows; the given one if there is one."""
    assert col.lengths is not None
    present = col.lengths[col.lengths >= 0]
    want = width if width is not None else (int(present[0]) if len(present) else 0)
    row = _first((col.lengths >= 0) & (col.lengths != want))
    if row is not None:
        source = "expected" if width is not None else "row 0 has"
        raise ValueError(f"Column `{name}` has {int(col.lengths[row])} {what} at row {row}, {source} {want}. {repair}")
    return want


def _label_count(col: Column, name: str, limits: Limits) -> int | None:
    """K from the argument or the names, which must agree."""
    known = len(col.names) if col.names is not None else None
    if known is not None and limits.num_labels is not None and known != limits.num_labels:
        raise ValueError(
            f"Column `{name}` is a ClassLabel of {known} names, but num_labels={limits.num_labels}. "
            f"Use num_labels={known}, or a model with {known} labels."
        )
    return limits.num_labels if limits.num_labels is not None else known


def _need_integers(col: Column, name: str) -> None:
    kind = col.values.dtype.kind
    if kind == "b":
        raise TypeError(
            f"Column `{name}` holds True/False, expected integer class ids. "
            f'Cast it: `dataset.cast_column("{name}", ClassLabel(names=["no", "yes"]))`.'
        )
    if kind == "f":
        values = col.values[~col.null]
        cell = _first((col.values != np.round(col.values)) & ~col.null)
        if cell is not None:
            raise ValueError(
                f"Column `{name}` has {col.values[cell]:g} at row {col.row_of(cell)}, which is no class id. "
                "Numbers to predict are kind `value`; probabilities are kind `soft` (column `soft_labels`)."
            )
        example = f" ({values[0]:g})" if len(values) else ""
        raise TypeError(
            f"Column `{name}` has type {col.values.dtype}{example} from row 0 on, expected integer class ids. "
            f'Cast it: `encode_labels(dataset, "{name}")` or `repair_column(dataset, "hard", "{name}")`.'
        )


def _id_range(col: Column, name: str, num_labels: int | None, missing: str) -> int:
    """Ids are in [0, K) or -1; gives K, the largest id + 1 when it is not known."""
    values = col.values
    low = _first(values < MISSING)
    if low is not None:
        hint = (
            f'-100 belongs in a batch: `repair_column(dataset, "hard", "{name}")`. '
            if values[low] == IGNORE_INDEX
            else ""
        )
        limit = f"in [0, {num_labels})" if num_labels is not None else "0 or larger"
        raise ValueError(
            f"Column `{name}` must be {limit}, got {values[low]} at row {col.row_of(low)}. {hint}{missing}"
        )
    if num_labels is None:
        return int(values.max(initial=MISSING)) + 1
    high = _first(values >= num_labels)
    if high is not None:
        raise ValueError(
            f"Column `{name}` must be in [0, {num_labels}), got {values[high]} at row {col.row_of(high)}. "
            f"Use num_labels={int(values.max()) + 1} or more if the class exists. {missing}"
        )
    return num_labels


def _need_classes(name: str, num_labels: int, counts: np.ndarray, limits: Limits) -> None:
    if num_labels < 2:
        raise ValueError(
            f"Column `{name}` knows one class only ({num_labels} label, all rows from row 0 on). "
            "A classifier needs at least two: check the column, or pass num_labels."
        )
    present = int((counts > 0).sum())
    if present < limits.min_classes:
        only = ", ".join(str(i) for i in np.flatnonzero(counts)[:5])
        raise ValueError(
            f"Column `{name}` has rows of {present} class(es) only (id {only}, from row 0 on), at least "
            f"{limits.min_classes} of {num_labels} are needed. Check that the data set was not sorted and then cut."
        )


def check_hard(col: Column, name: str, limits: Limits) -> Found:
    _refuse_text(col, name, "class ids")
    _need_scalar(
        col,
        name,
        "class id",
        "Several labels per row are kind `multi`, several annotators kind `crowd`, probabilities `soft`.",
    )
    _refuse_null(col, name, "class id", f'Use -1 for a missing label: `repair_column(dataset, "hard", "{name}")`.')
    _need_integers(col, name)
    num_labels = _id_range(col, name, _label_count(col, name, limits), "Use -1 for a missing label.")
    missing = col.values == MISSING
    if missing.any() and not limits.optional_missing:
        raise ValueError(
            f"Column `{name}` has no label (-1) at row {_first(missing)} ({int(missing.sum())} such rows), "
            f'every row needs one. Drop them: `dataset.filter(lambda x: x != -1, input_columns="{name}")`.'
        )
    if missing.all():
        raise ValueError(f"Column `{name}` has no label at all: every row from row 0 on is -1. Label some rows first.")
    counts = np.bincount(col.values[~missing].astype(np.int64), minlength=num_labels)
    _need_classes(name, num_labels, counts, limits)
    return Found(num_labels, int(missing.sum()), tuple(int(c) for c in counts))


def check_value(col: Column, name: str, limits: Limits) -> Found:
    _refuse_text(col, name, "numbers")
    repair = f'Drop such rows: `repair_column(dataset, "value", "{name}")`.'
    _refuse_null(col, name, "numbers", repair)
    if col.values.dtype.kind == "f" and (cell := _first(~np.isfinite(col.values))) is not None:
        raise ValueError(f"Column `{name}` has an infinite value at row {col.row_of(cell)}. {repair}")
    if col.lengths is None:
        if limits.num_labels not in (None, 1):
            raise ValueError(
                f"Column `{name}` holds one number per row (row 0), but num_labels={limits.num_labels}. "
                "Use num_labels=1."
            )
        return Found(1)
    return Found(_need_width(col, name, limits.num_labels, "numbers", "Every row needs the same number of targets."))


def check_multi(col: Column, name: str, limits: Limits) -> Found:
    encode = f'Make a 0/1 vector of label names or ids: `encode_labels(dataset, "{name}")`.'
    _refuse_text(col, name, "0/1 vectors")
    _need_list(col, name, "a 0/1 vector (K,)", encode)
    repair = f'Mark unknown entries: `repair_column(dataset, "multi", "{name}")` adds `label_mask` (1 = observed).'
    _refuse_null(col, name, "0/1 vector", repair)
    if col.names is not None and (row := _first(col.lengths != len(col.names))) is not None:
        raise ValueError(f"Column `{name}` holds lists of class ids (row {row}), not 0/1 vectors. {encode}")
    width = _need_width(col, name, _label_count(col, name, limits), "entries", encode)
    cell = _first((col.values != 0) & (col.values != 1) & (col.values != MISSING))
    if cell is not None:
        raise ValueError(f"Column `{name}` must be 0 or 1, got {col.values[cell]} at row {col.row_of(cell)}. {encode}")
    observed = np.ones((col.num_rows, width), dtype=bool)
    if limits.mask is not None:
        observed = _mask_matrix(limits.mask, col.num_rows, width)
    values = col.matrix() if width else col.values.reshape(col.num_rows, 0)
    unknown = _first(((values == MISSING) & observed).reshape(-1))
    if unknown is not None:
        raise ValueError(f"Column `{name}` has -1 (unknown) at row {col.row_of(unknown)}. {repair}")
    if width < 2:
        raise ValueError(f"Column `{name}` has vectors of {width} label(s) from row 0 on, expected at least 2.")
    hidden = int((~observed).any(axis=1).sum())
    if hidden and not limits.optional_missing:
        row = _first((~observed).any(axis=1))
        raise ValueError(
            f"Column `label_mask` hides labels of `{name}` at row {row}, every entry must be observed here."
        )
    counts = ((values == 1) & observed).sum(axis=0)
    return Found(width, int((~observed).all(axis=1).sum()), tuple(int(c) for c in counts))


def _mask_matrix(mask: Column, rows: int, width: int) -> np.ndarray:
    name = "label_mask"
    repair = "Use 1 = observed, 0 = unknown, one entry per label."
    _need_list(mask, name, "a 0/1 vector (K,)", repair)
    _refuse_null(mask, name, "0/1 vector", repair)
    _need_width(mask, name, width, "entries", repair)
    if (cell := _first((mask.values != 0) & (mask.values != 1))) is not None:
        raise ValueError(
            f"Column `{name}` must be 0 or 1, got {mask.values[cell]} at row {mask.row_of(cell)}. {repair}"
        )
    return mask.values.reshape(rows, width) == 1


def check_soft(col: Column, name: str, limits: Limits) -> Found:
    _refuse_text(col, name, "probabilities")
    hard = f'Turn class ids into rows: `convert_column(dataset, "hard", "soft", column="{name}")`.'
    _need_list(col, name, "a row of probabilities (K,)", hard)
    _refuse_null(col, name, "probabilities", "Fill it, or drop the row.")
    width = _need_width(col, name, _label_count(col, name, limits), "probabilities", "Every row needs one per class.")
    if width < 2:
        raise ValueError(f"Column `{name}` has rows of {width} class(es) from row 0 on, expected at least 2.")
    rows = check_distributions(col.matrix(), f"Column `{name}`", limits.normalize, name)
    _need_classes(name, width, (rows > 0).sum(axis=0), limits)  # a class occurs when it has any mass
    counts = np.bincount(rows.argmax(axis=1), minlength=width)
    return Found(width, 0, tuple(int(c) for c in counts))


def check_distributions(
    rows: np.ndarray, where: str, normalize: bool = False, name: str = "soft_labels"
) -> np.ndarray:
    """Rows are finite, not negative, not all zero and sum to 1 within 1e-3 (any positive sum when `normalize`).

    Raises:
        ValueError: naming the first bad row.
    """
    rows = np.asarray(rows)
    if (cell := _first(~np.isfinite(rows).reshape(-1))) is not None:
        raise ValueError(
            f"{where} has a value that is not finite at row {cell // rows.shape[1]}. Fill it, or drop the row."
        )
    if (row := _first((rows < 0).any(axis=1))) is not None:
        raise ValueError(
            f"{where} has a negative probability ({rows[row].min():g}) at row {row}. "
            "If these are logits, apply softmax."
        )
    sums = rows.sum(axis=1, dtype=np.float64)
    if (row := _first(sums == 0)) is not None:
        raise ValueError(f"{where} is all zero at row {row}: no label. Drop the row, or give it a distribution.")
    if not normalize and (row := _first(np.abs(sums - 1) > SUM_TOLERANCE)) is not None:
        raise ValueError(
            f"{where} sums to {sums[row]:.4g} at row {row}, expected 1. "
            f'Normalise it: `repair_column(dataset, "soft", "{name}")`.'
        )
    return rows


def check_crowd(col: Column, name: str, limits: Limits) -> Found:
    _refuse_text(col, name, "lists of class ids")
    pad = f'`repair_column(dataset, "crowd", "{name}")` pads with -1 (did not answer).'
    _need_list(col, name, "one class id per annotator (A,)", "One label per row is kind `hard` (column `labels`).")
    _refuse_null(col, name, "class ids of annotators", f"Use -1 for no answer: {pad}")
    _need_width(col, name, None, "annotators", pad)
    _need_integers(col, name)
    num_labels = _id_range(col, name, _label_count(col, name, limits), "Use -1 for no answer.")
    answered = (col.matrix() if col.lengths is not None and col.lengths[0] else np.zeros((col.num_rows, 1)) - 1) >= 0
    if (row := _first(~answered.any(axis=1))) is not None:
        raise ValueError(
            f"Column `{name}` has no answer of any annotator at row {row} ({int((~answered.any(axis=1)).sum())} such "
            f'rows). Drop them, or `convert_column(dataset, "crowd", "soft", on_empty="uniform")`.'
        )
    if not limits.optional_missing and (row := _first(~answered.all(axis=1))) is not None:
        raise ValueError(
            f"Column `{name}` lacks an answer (-1) at row {row}, every annotator must have answered here."
        )
    counts = np.bincount(col.values[col.values >= 0].astype(np.int64), minlength=num_labels)
    _need_classes(name, num_labels, counts, limits)
    return Found(num_labels, int((~answered).sum()), tuple(int(c) for c in counts))


def check_bag(col: Column, name: str, limits: Limits) -> Found:
    _refuse_text(col, name, "integer bag ids")
    _need_scalar(col, name, "bag id", "A row belongs to one bag.")
    _refuse_null(col, name, "bag id", "Use -1 for a row that is in no bag.")
    if col.values.dtype.kind not in "iu":
        raise TypeError(f"Column `{name}` has type {col.values.dtype} from row 0 on, expected integer bag ids.")
    table = limits.bag_table
    if table is None:
        raise ValueError(
            f"Column `{name}` (row 0 on) needs a table of the label proportions of each bag. Pass "
            "`bag_table={bag id: [share of class 0, share of class 1, ...]}`."
        )
    ids = np.array(list(table) if isinstance(table, Mapping) else range(len(table)), dtype=np.int64)
    shares = from_values(list(table.values()) if isinstance(table, Mapping) else table, "`bag_table`")
    _need_list(shares, "bag_table", "a row of proportions (K,) per bag", "Give one share per class.")
    _refuse_null(shares, "bag_table", "proportions", "Give one share per class.")
    width = _need_width(shares, "bag_table", limits.num_labels, "proportions", "Every bag needs one share per class.")
    check_distributions(shares.matrix(), "`bag_table`", limits.normalize, "bag_table")
    outside = col.values == MISSING
    if (row := _first(outside)) is not None and not limits.optional_missing:
        raise ValueError(f"Column `{name}` is -1 (no bag) at row {row}, every row must be in a bag here.")
    if (row := _first(~np.isin(col.values, ids) & ~outside)) is not None:
        raise ValueError(
            f"Column `{name}` has bag {col.values[row]} at row {row}, which `bag_table` lacks. "
            "Add its proportions, or use -1 for a row in no bag."
        )
    return Found(width, int(outside.sum()))


def blank_texts(col: Column) -> np.ndarray:
    """Cells of a text column that hold nothing but white space."""
    return np.asarray(pc.equal(pc.utf8_trim_whitespace(pa.array(col.values, type=pa.large_string())), ""))


def check_text(col: Column, name: str, limits: Limits) -> Found:
    if not col.is_text and len(col.values) and not col.null.all():
        raise TypeError(f"Column `{name}` has type {col.values.dtype} from row 0 on, expected text.")
    repair = f'Drop such rows: `repair_column(dataset, "text", "{name}")`.'
    _refuse_null(col, name, "text", repair)
    if (cell := _first(blank_texts(col))) is not None:
        raise ValueError(f"Column `{name}` has an empty text at row {col.row_of(cell)}. {repair}")
    return Found(None)


def check_sequence(col: Column, name: str, limits: Limits) -> Found:
    _refuse_text(col, name, "lists of token ids")
    _need_list(col, name, "a list of token ids (T,)", "One label per row is kind `hard`.")
    _refuse_null(col, name, "token ids", "Use -100 for a token that does not count.")
    _need_integers(col, name)
    bad = (col.values < 0) & (col.values != IGNORE_INDEX)
    num_labels = _label_count(col, name, limits)
    if num_labels is not None:
        bad |= col.values >= num_labels
    if (cell := _first(bad)) is not None:
        limit = f"in [0, {num_labels})" if num_labels is not None else "0 or larger"
        raise ValueError(
            f"Column `{name}` must be {limit}, got {col.values[cell]} at row {col.row_of(cell)}. "
            "Use -100 for a token that does not count."
        )
    ignored = col.values == IGNORE_INDEX
    if not limits.optional_missing and (cell := _first(ignored)) is not None:
        raise ValueError(f"Column `{name}` has -100 at row {col.row_of(cell)}, every token needs a label here.")
    if ignored.all():
        raise ValueError(f"Column `{name}` has no label at all: every token from row 0 on is -100.")
    return Found(num_labels if num_labels is not None else int(col.values.max()) + 1, int(ignored.sum()))
