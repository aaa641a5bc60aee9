"""The one place that checks and converts label kinds.

A label kind says what a column of a `datasets.Dataset` means (`KINDS`). Every trainer and tool checks its columns here
**once, before training**; the errors name column, row and repair.

    check_column(dataset, "hard")                       # `labels`: class ids, -1 = missing
    check_column(dataset, "soft", "teacher_probs")      # any other column
    dataset = convert_column(dataset, "crowd", "soft")  # vote shares of `annotator_labels` -> `soft_labels`

A missing class is -1 in a data set (the only negative number that `ClassLabel` accepts) and -100 in a batch
(`mask_missing`). Streams (`IterableDataset`) cannot be checked before training: `check_column` looks at their first
1000 rows, `check_stream` checks the others as they are read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hf_labels.labels import checks
from hf_labels.labels.checks import IGNORE_INDEX, MISSING, SUM_TOLERANCE, Found, Limits
from hf_labels.labels.columns import (
    Column,
    MissingColumnError,
    class_names,
    column_names,
    from_values,
    read_column,
    require_columns,
)
from hf_labels.labels.convert import (
    convert_column,
    crowd_to_hard,
    crowd_to_soft,
    hard_to_multi,
    hard_to_soft,
    mask_missing,
    multi_to_soft,
    normalize_soft,
    soft_to_hard,
)
from hf_labels.labels.encode import align_labels, encode_labels, repair_column

logger = logging.getLogger(__name__)

__all__ = [
    "IGNORE_INDEX",
    "KINDS",
    "MISSING",
    "SUM_TOLERANCE",
    "ColumnReport",
    "LabelKind",
    "MissingColumnError",
    "align_labels",
    "check_column",
    "check_same_label_space",
    "check_stream",
    "check_values",
    "class_names",
    "convert_column",
    "crowd_to_hard",
    "crowd_to_soft",
    "encode_labels",
    "find_kinds",
    "hard_to_multi",
    "hard_to_soft",
    "mask_missing",
    "multi_to_soft",
    "normalize_soft",
    "repair_column",
    "require_columns",
    "soft_to_hard",
]
STREAM_ROWS = 1000
_UNKNOWN = "Add training rows of it, drop such rows, or encode both with one list of names."


@dataclass(frozen=True)
class LabelKind:
    """One row of the table of label kinds.

    Parameters:
        name: Key in `KINDS`.
        column: The usual column.
        dtype, shape: What a cell holds.
        missing: How a missing label is written.
    """

    name: str
    column: str
    dtype: str
    shape: str
    missing: str


KINDS: dict[str, LabelKind] = {
    kind.name: kind
    for kind in (
        LabelKind("hard", "labels", "ClassLabel or int", "()", "-1 in data, -100 in a batch"),
        LabelKind("value", "labels", "float", "() or (D,)", "row dropped or refused, never NaN"),
        LabelKind("multi", "labels", "0 or 1", "(K,)", "`label_mask` (K,), 1 = observed"),
        LabelKind("soft", "soft_labels", "float32, sums to 1", "(K,)", "an all-zero row is refused"),
        LabelKind("crowd", "annotator_labels", "int", "(A,)", "-1 = did not answer"),
        LabelKind("bag", "bag_id", "int, with a table bag -> proportions (K,)", "()", "-1 = in no bag"),
        LabelKind("text", "label_text", "str", "()", "an empty text is refused"),
        LabelKind("sequence", "labels", "int token ids", "(T,)", "-100"),
    )
}
_CHECKS: dict[str, Callable[[Column, str, Limits], Found]] = {
    "hard": checks.check_hard,
    "value": checks.check_value,
    "multi": checks.check_multi,
    "soft": checks.check_soft,
    "crowd": checks.check_crowd,
    "bag": checks.check_bag,
    "text": checks.check_text,
    "sequence": checks.check_sequence,
}


@dataclass(frozen=True)
class ColumnReport:
    """What `check_column` found.

    Parameters:
        column, kind: What was checked.
        num_rows: Rows that were looked at.
        num_labels: K; for `value` the number of targets D, for `sequence` the largest id + 1 unless given;
            `None` for text.
        num_missing: Missing labels: rows (hard, multi without any observed label, bag) or cells (crowd, sequence).
        names: Class names of a `ClassLabel`, else `None`.
        counts: Rows per class (hard, soft by the largest entry, multi: positives, crowd: answers), else `None`.
        complete: False for a stream, of which only the first rows were seen.
    """

    column: str
    kind: str
    num_rows: int
    num_labels: int | None
    num_missing: int
    names: tuple[str, ...] | None = None
    counts: tuple[int, ...] | None = None
    complete: bool = True

    @property
    def empty_classes(self) -> tuple[int, ...]:
        """Classes without a row."""
        return tuple(i for i, count in enumerate(self.counts or ()) if count == 0)


def _need_kind(kind: str) -> LabelKind:
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, got {kind!r}.")
    return KINDS[kind]


def check_column(
    dataset: Any,
    kind: str,
    column: str | None = None,
    *,
    num_labels: int | None = None,
    optional_missing: bool = True,
    bag_table: Any = None,
    min_classes: int = 1,
    normalize: bool = False,
    mask_column: str = "label_mask",
) -> ColumnReport:
    """Check that a column holds labels of one kind. Vectorised: a million class ids take a few hundredths of a second.

    Args:
        dataset (`datasets.Dataset`, `datasets.IterableDataset` or mapping of arrays): Not changed. Any format may be
            set; other columns are not read, so images are not decoded. Of a stream the first 1000 rows are checked.
        kind (`str`): Key of `KINDS`.
        column (`str`, *optional*): Defaults to the usual column of the kind.
        num_labels (`int`, *optional*): K. Taken from a `ClassLabel`, else from the data, when not given.
        optional_missing (`bool`, *optional*, defaults to `True`): Whether the kind's missing marker may occur.
        bag_table: For `bag`: mapping bag id -> proportions (K,), or array (bags, K) whose row number is the bag id.
        min_classes (`int`, *optional*, defaults to `1`): Classes that must occur (hard, soft, crowd); 2 for training.
        normalize (`bool`, *optional*, defaults to `False`): Accept soft rows and proportions of any positive sum, for
            a caller that normalises them (`normalize_soft`).
        mask_column (`str`, *optional*, defaults to `"label_mask"`): For `multi`: used when the data set has it.

    Returns:
        `ColumnReport`

    Raises:
        MissingColumnError: (a `KeyError`) The column does not exist; lists the existing ones.
        TypeError: Text, floats or True/False where class ids are expected, or `dataset` has no columns.
        ValueError: Anything else: empty data set, None or NaN, id out of range, ragged rows, rows that do not sum
            to 1, all-zero or negative rows, bag without proportions, no answer of any annotator, one class only.
    """
    name = column or _need_kind(kind).column
    _need_kind(kind)
    is_stream = not hasattr(dataset, "__len__") and hasattr(dataset, "take")
    col = read_column(dataset, name, STREAM_ROWS)
    mask = None
    if kind == "multi" and mask_column in column_names(dataset):
        mask = read_column(dataset, mask_column, STREAM_ROWS)
    limits = Limits(num_labels, optional_missing, min_classes, normalize, mask, bag_table)
    return _report(col, kind, name, limits, complete=not is_stream)


def check_values(
    values: Any, kind: str, *, column: str | None = None, mask: Any = None, **options: Any
) -> ColumnReport:
    """Check labels that are in an array, tensor or list; `options` as in `check_column`.

    Args:
        values: `(N,)`, `(N, K)` or a list of lists.
        kind (`str`): Key of `KINDS`.
        column (`str`, *optional*): Name for the messages; defaults to the usual column of the kind.
        mask: For `multi`: `(N, K)`, 1 = observed.
    """
    name = column or _need_kind(kind).column
    mask_col = None if mask is None else from_values(mask, "`label_mask`")
    limits = Limits(mask=mask_col, **options)
    return _report(from_values(values, f"Column `{name}`"), kind, name, limits)


def _report(col: Column, kind: str, name: str, limits: Limits, complete: bool = True) -> ColumnReport:
    if col.num_rows == 0:
        raise ValueError(f"Column `{name}` is empty: the data set has 0 rows. Check the file, split or filter.")
    found = _CHECKS[kind](col, name, limits)
    return ColumnReport(
        name, kind, col.num_rows, found.num_labels, found.num_missing, col.names, found.counts, complete
    )


def check_stream(dataset: Any, kind: str, column: str | None = None, **options: Any) -> Any:
    """The same stream, each batch of 1000 rows checked as it is read; errors name the row in the stream.

    Args:
        dataset (`datasets.IterableDataset`): Not changed.
        kind, column, options: As in `check_column`; give `num_labels`, which cannot be inferred from a part.

    Raises:
        ValueError, TypeError, MissingColumnError: While the stream is read.
    """
    name = column or _need_kind(kind).column

    def check(batch: Mapping[str, Any], rows: list[int]) -> dict[str, Any]:
        try:
            check_column(dict(batch), kind, name, **options)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{error} (Rows are counted from row {rows[0]} of the stream.)") from None
        return {}

    return dataset.map(check, batched=True, batch_size=STREAM_ROWS, with_indices=True)


def find_kinds(dataset: Any) -> dict[str, str]:
    """Kinds of the label columns, by name and content; columns that are no labels are left out.

    `labels` may be hard, value, multi or sequence: a list of fixed length that holds only 0, 1 and -1 is `multi`, of
    other integers `sequence`, of other floats `value`.

    Args:
        dataset: As in `check_column`.

    Returns:
        `dict[str, str]`: column -> kind.
    """
    fixed = {"soft_labels": "soft", "annotator_labels": "crowd", "bag_id": "bag"}
    fixed |= {"label_text": "text", "label_descriptions": "text"}
    kinds: dict[str, str] = {}
    for name in column_names(dataset):
        if name in fixed:
            kinds[name] = fixed[name]
        elif name == "labels":
            kind = kind_of(read_column(dataset, name, STREAM_ROWS))
            if kind:
                kinds[name] = kind
        elif class_names(dataset, name) is not None:
            kinds[name] = "hard" if read_column(dataset, name, STREAM_ROWS).lengths is None else "multi"
    return kinds


def kind_of(col: Column) -> str | None:
    """Kind that the content of a column suggests; `None` when it is text or empty."""
    if col.is_text or col.num_rows == 0:
        return "text" if col.is_text and col.lengths is None else None
    if col.lengths is None:
        whole = col.values.dtype.kind in "iub" or col.names is not None
        return "hard" if whole else "value"
    even = bool((col.lengths == col.lengths[0]).all())
    if even and len(col.values) and np.isin(col.values, (0, 1, MISSING)).all():
        return "multi"
    if col.values.dtype.kind == "f":
        rows = col.matrix() if even and len(col.values) else None
        sums = rows is not None and (rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=SUM_TOLERANCE)
        return "soft" if sums else "value"
    return "sequence"


def check_same_label_space(train: Any, evaluation: Any, column: str = "labels", *, kind: str | None = None) -> None:
    """Check that training and evaluation data mean the same by a class id.

    Args:
        train (`datasets.Dataset`): Defines the label space.
        evaluation (`datasets.Dataset` or dict of them): Must have its names in its order, or only ids
            (widths, texts) that it has.
        column (`str`, *optional*, defaults to `"labels"`).
        kind (`str`, *optional*): Found from the content when not given.

    Raises:
        ValueError: Names differ, are in another order, an id or text is unknown in training, or the widths differ.
        MissingColumnError: One of them lacks the column.
    """
    if isinstance(evaluation, Mapping) and all(hasattr(part, "column_names") for part in evaluation.values()):
        for part in evaluation.values():
            check_same_label_space(train, part, column, kind=kind)
        return
    one, two = read_column(train, column, STREAM_ROWS), read_column(evaluation, column, STREAM_ROWS)
    if one.names is not None and two.names is not None:
        _compare_names(one.names, two.names, column)
        return
    kind = kind or kind_of(one)
    if one.is_text != two.is_text:
        kinds = ["text" if col.is_text else "numbers" for col in (one, two)]
        raise ValueError(
            f"Column `{column}` holds {kinds[0]} in training and {kinds[1]} in evaluation (row 0). "
            f'Encode both with one list of names: `encode_labels(DatasetDict(...), "{column}")`.'
        )
    if one.is_text:
        _compare_texts(one, two, column)
    elif kind in ("multi", "soft") and one.lengths is not None and two.lengths is not None:
        if len(one.lengths) and len(two.lengths) and one.lengths[0] != two.lengths[0]:
            raise ValueError(
                f"Column `{column}` has {one.lengths[0]} labels in training and {two.lengths[0]} in evaluation "
                "(row 0). Build both with one list of labels."
            )
    elif kind == "hard":
        top = len(one.names) if one.names is not None else int(one.values.max(initial=MISSING)) + 1
        if (cell := checks._first(two.values >= top)) is not None:
            raise ValueError(
                f"Column `{column}` has class {two.values[cell]} at row {two.row_of(cell)} of the evaluation "
                f"data, training has {top} classes. {_UNKNOWN}"
            )


def _compare_names(one: tuple[str, ...], two: tuple[str, ...], column: str) -> None:
    if one == two:
        return
    extra, lacking = [n for n in two if n not in one], [n for n in one if n not in two]
    if not extra and not lacking:
        place = next(i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
        raise ValueError(
            f"Column `{column}` has the same names in another order: id {place} is {one[place]!r} in training and "
            f"{two[place]!r} in evaluation (from row 0 on). "
            f'Align it: `align_labels(evaluation, "{column}", {list(one)!r})`.'
        )
    what = [f"only in evaluation: {', '.join(extra[:5])}"] if extra else []
    what += [f"only in training: {', '.join(lacking[:5])}"] if lacking else []
    raise ValueError(
        f"Column `{column}` has {len(one)} classes in training and {len(two)} in evaluation ({'; '.join(what)}). "
        f'Align it: `align_labels(evaluation, "{column}", names)` with the names of the training data.'
    )


def _compare_texts(one: Column, two: Column, column: str) -> None:
    texts = [pa.array(col.values, type=pa.large_string()) for col in (one, two)]
    bad = ~np.asarray(pc.is_in(texts[1], value_set=pc.unique(texts[0]))) & ~two.null
    if (cell := checks._first(bad)) is not None:
        raise ValueError(
            f"Column `{column}` has {str(two.values[cell])[:40]!r} at row {two.row_of(cell)} of the evaluation "
            f"data, which no training row has. {_UNKNOWN}"
        )
