"""Convert between label kinds, encode text as class ids, and repair columns. Vectorised; inputs are never changed.

Array functions take numpy arrays, tensors or lists and return numpy arrays; `mask_missing` also returns tensors.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from hf_labels.labels import checks
from hf_labels.labels.checks import IGNORE_INDEX, MISSING, Limits
from hf_labels.labels.columns import Column, column_names, read_column, write_column

logger = logging.getLogger(__name__)
OnEmpty = Literal["error", "uniform", "missing"]


def _ids(values: Any, num_labels: int, ndim: int, name: str) -> np.ndarray:
    """Integer ids in [-1, K) of the wanted number of dimensions."""
    ids = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if ids.ndim != ndim:
        raise ValueError(f"`{name}` must have {ndim} dimension(s), got shape {ids.shape}.")
    if ids.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must be integer class ids, got {ids.dtype}.")
    if num_labels < 2:
        raise ValueError(f"`num_labels` must be at least 2, got {num_labels}.")
    outside = (ids < MISSING) | (ids >= num_labels)
    bad = outside.any(axis=1) if ndim == 2 else outside
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"`{name}` must be in [0, {num_labels}) or -1, got {ids[row].tolist()} at row {row}.")
    return ids


def _need_on_empty(on_empty: str, allowed: tuple[str, ...]) -> None:
    if on_empty not in allowed:
        raise ValueError(f"`on_empty` must be {' or '.join(map(repr, allowed))}, got {on_empty!r}.")


def _fill_empty(rows: np.ndarray, on_empty: str, what: str) -> np.ndarray:
    """Rows divided by their sum; all-zero rows become uniform or are refused."""
    totals = rows.sum(axis=1, keepdims=True)
    empty = totals[:, 0] == 0
    if empty.any():
        if on_empty == "error":
            row = int(np.argmax(empty))
            raise ValueError(
                f'{what} at row {row} ({int(empty.sum())} such rows). Drop them, or pass `on_empty="uniform"`.'
            )
        rows = np.where(empty[:, None], 1.0, rows)
        totals = rows.sum(axis=1, keepdims=True)
    return (rows / totals).astype(np.float32)


def hard_to_soft(labels: Any, num_labels: int, smoothing: float = 0.0, on_empty: OnEmpty = "error") -> np.ndarray:
    """One-hot rows, optionally smoothed: `(1 - smoothing) * one_hot + smoothing / K`.

    Args:
        labels: `(N,)` class ids, -1 = missing.
        num_labels (`int`): K.
        smoothing (`float`, *optional*, defaults to `0.0`): In `[0, 1]`.
        on_empty (`str`, *optional*, defaults to `"error"`): A missing label is refused, or becomes `"uniform"`.

    Returns:
        `np.ndarray` of shape `(N, K)`, float32, rows sum to 1.
    """
    _need_on_empty(on_empty, ("error", "uniform"))
    if not 0 <= smoothing <= 1:
        raise ValueError(f"`smoothing` must be in [0, 1], got {smoothing}.")
    ids = _ids(labels, num_labels, 1, "labels")
    rows = np.zeros((len(ids), num_labels))
    known = np.flatnonzero(ids != MISSING)
    rows[known, ids[known]] = 1.0
    rows = _fill_empty(rows, on_empty, "`labels` is missing (-1)")
    return ((1 - smoothing) * rows + smoothing / num_labels).astype(np.float32)


def hard_to_multi(labels: Any, num_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """0/1 vectors with one 1, and the mask of observed entries (all 0 for a missing label).

    Returns:
        Two `np.ndarray` of shape `(N, K)`, float32: labels, label_mask.
    """
    ids = _ids(labels, num_labels, 1, "labels")
    rows = np.zeros((len(ids), num_labels), dtype=np.float32)
    known = np.flatnonzero(ids != MISSING)
    rows[known, ids[known]] = 1
    return rows, np.repeat((ids != MISSING).astype(np.float32)[:, None], num_labels, axis=1)


def soft_to_hard(soft_labels: Any) -> np.ndarray:
    """Class of the largest probability; ties go to the lowest id.

    Args:
        soft_labels: `(N, K)`, rows sum to 1.

    Returns:
        `np.ndarray` of shape `(N,)`, int64.

    Raises:
        ValueError: As `check_column` for kind `soft`, naming the row.
    """
    rows = _two_dimensional(soft_labels, "soft_labels")
    return checks.check_distributions(rows, "`soft_labels`").argmax(axis=1).astype(np.int64)


def normalize_soft(soft_labels: Any) -> np.ndarray:
    """Rows divided by their sum, float32; negative, all-zero and non-finite rows are refused.

    Args:
        soft_labels: `(N, K)`, not negative: counts, scores, percentages.
    """
    rows = checks.check_distributions(_two_dimensional(soft_labels, "soft_labels"), "`soft_labels`", normalize=True)
    return (rows / rows.sum(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)


def _two_dimensional(values: Any, name: str) -> np.ndarray:
    rows = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    if rows.ndim != 2:
        raise ValueError(f"`{name}` must have shape (N, K), got {rows.shape}.")
    return rows


def multi_to_soft(labels: Any, mask: Any = None, on_empty: OnEmpty = "error") -> np.ndarray:
    """Equal shares of the observed positive labels of each row.

    Args:
        labels: `(N, K)`, 0 or 1.
        mask (*optional*): `(N, K)`, 1 = observed; unobserved entries count as 0.
        on_empty (`str`, *optional*, defaults to `"error"`): A row without an observed positive is refused, or
            becomes `"uniform"`.

    Returns:
        `np.ndarray` of shape `(N, K)`, float32, rows sum to 1.
    """
    _need_on_empty(on_empty, ("error", "uniform"))
    rows = _two_dimensional(labels, "labels")
    observed = np.ones_like(rows) if mask is None else _two_dimensional(mask, "label_mask")
    if observed.shape != rows.shape:
        raise ValueError(f"`labels` and `label_mask` must have one shape, got {rows.shape} and {observed.shape}.")
    seen = observed != 0
    bad = (seen & (rows != 0) & (rows != 1)).any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"`labels` must be 0 or 1 where observed, got {rows[row].tolist()} at row {row}.")
    return _fill_empty(np.where(seen, rows, 0.0), on_empty, "`labels` has no positive label")


def _votes(annotator_labels: Any, num_labels: int) -> np.ndarray:
    ids = _ids(annotator_labels, num_labels, 2, "annotator_labels")
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)[ids >= 0]
    flat = rows * num_labels + ids[ids >= 0]
    return np.bincount(flat, minlength=len(ids) * num_labels).reshape(len(ids), num_labels).astype(np.float64)


def crowd_to_soft(annotator_labels: Any, num_labels: int, on_empty: OnEmpty = "error") -> np.ndarray:
    """Shares of the votes; annotators who did not answer do not count.

    Args:
        annotator_labels: `(N, A)` class ids, -1 = did not answer.
        num_labels (`int`): K.
        on_empty (`str`, *optional*, defaults to `"error"`): A row without an answer is refused or becomes `"uniform"`.

    Returns:
        `np.ndarray` of shape `(N, K)`, float32, rows sum to 1.
    """
    _need_on_empty(on_empty, ("error", "uniform"))
    return _fill_empty(_votes(annotator_labels, num_labels), on_empty, "`annotator_labels` has no answer")


def crowd_to_hard(annotator_labels: Any, num_labels: int, on_empty: OnEmpty = "error") -> np.ndarray:
    """Majority vote; ties go to the lowest id.

    Args:
        annotator_labels: `(N, A)` class ids, -1 = did not answer.
        num_labels (`int`): K.
        on_empty (`str`, *optional*, defaults to `"error"`): A row without an answer is refused, or becomes -1
            (`"missing"`).

    Returns:
        `np.ndarray` of shape `(N,)`, int64.
    """
    _need_on_empty(on_empty, ("error", "missing"))
    votes = _votes(annotator_labels, num_labels)
    silent = votes.sum(axis=1) == 0
    if silent.any() and on_empty == "error":
        raise ValueError(
            f"`annotator_labels` has no answer at row {int(np.argmax(silent))} ({int(silent.sum())} such rows). "
            'Drop them, or pass `on_empty="missing"`.'
        )
    return np.where(silent, MISSING, votes.argmax(axis=1)).astype(np.int64)


def mask_missing(labels: Any) -> Any:
    """-1 (missing in a data set) -> -100 (ignored in a batch). A new array, or a new tensor for a tensor."""
    if hasattr(labels, "masked_fill"):
        return labels.masked_fill(labels == MISSING, IGNORE_INDEX)
    array = np.asarray(labels)
    return np.where(array == MISSING, np.array(IGNORE_INDEX, dtype=array.dtype), array)


def _usable(kind: str, dataset: Any, column: str, **limits: Any) -> tuple[Column, int]:
    """The checked column and its K."""
    from hf_labels.labels import kinds

    report = kinds.check_column(dataset, kind, column, **limits)
    return read_column(dataset, column), int(report.num_labels or 0)


WAYS: dict[tuple[str, str], str] = {
    ("hard", "soft"): "one-hot rows",
    ("hard", "multi"): "0/1 vectors and `label_mask`",
    ("hard", "text"): "class names",
    ("soft", "hard"): "largest probability, ties to the lowest id",
    ("multi", "soft"): "equal shares of the positive labels",
    ("crowd", "soft"): "shares of the votes",
    ("crowd", "hard"): "majority vote, ties to the lowest id",
    ("text", "hard"): "ids of the distinct texts, sorted",
}


def convert_column(
    dataset: Any,
    source: str,
    target: str,
    *,
    column: str | None = None,
    target_column: str | None = None,
    num_labels: int | None = None,
    on_empty: OnEmpty = "error",
    smoothing: float = 0.0,
    mask_column: str = "label_mask",
    overwrite: bool = False,
) -> Any:
    """A copy of the data set with labels of another kind. The source column stays, unless both have one name.

    Ways: hard -> soft, multi, text; soft -> hard; multi -> soft; crowd -> soft, hard; text -> hard.

    Args:
        dataset (`datasets.Dataset`): Not changed.
        source, target (`str`): Keys of `KINDS`.
        column, target_column (`str`, *optional*): Default to the usual columns of the kinds.
        num_labels (`int`, *optional*): K, when it cannot be read from a `ClassLabel`.
        on_empty (`str`, *optional*, defaults to `"error"`): Rows without a label are refused, or become `"uniform"`
            (to soft) or `"missing"` (to hard).
        smoothing (`float`, *optional*, defaults to `0.0`): For hard -> soft.
        overwrite (`bool`, *optional*, defaults to `False`): Replace an existing target column.

    Raises:
        ValueError, TypeError, MissingColumnError: As `check_column`; ValueError when there is no such way.
    """
    import datasets

    from hf_labels.labels.kinds import KINDS, _need_kind

    _need_kind(source), _need_kind(target)
    if (source, target) not in WAYS:
        known = ", ".join(f"{a} -> {b}" for a, b in WAYS)
        raise ValueError(f"No way from kind {source!r} to {target!r}; there are: {known}.")
    name = column or KINDS[source].column
    out = target_column or KINDS[target].column
    if out in column_names(dataset) and out != name and not overwrite:
        raise ValueError(f"Column `{out}` exists already. Pass `overwrite=True` or another `target_column`.")
    if source == "text":
        from hf_labels.labels.encode import encode_labels

        col = read_column(dataset, name)
        checks.check_text(col, name, Limits())
        return encode_labels(write_column(dataset, out, pa.array(col.values), datasets.Value("string")), out)
    if source == "crowd" and on_empty != "error":  # the check would refuse the rows that the caller allows
        col = read_column(dataset, name)
        if col.null.any():  # None is no answer
            col = replace(col, values=np.where(col.null, -1, col.values), null=np.zeros_like(col.null))
        count = num_labels or (len(col.names) if col.names else int(col.values.max(initial=0)) + 1)
    else:
        col, count = _usable(source, dataset, name, num_labels=num_labels, optional_missing=target != "text")
    vector: Any = datasets.List(datasets.Value("float32"), length=count)
    if target == "text":
        return write_column(dataset, out, _texts_of(col, name), datasets.Value("string"))
    if target == "multi":
        rows, mask = hard_to_multi(col.values, count)
        return write_column(write_column(dataset, out, rows, vector), mask_column, mask, vector)
    if target == "soft":
        if source == "hard":
            rows = hard_to_soft(col.values, count, smoothing, on_empty)
        elif source == "crowd":
            rows = crowd_to_soft(col.matrix(), count, on_empty)
        else:
            seen = read_column(dataset, mask_column).matrix() if mask_column in column_names(dataset) else None
            rows = multi_to_soft(col.matrix(), seen, on_empty)
        return write_column(dataset, out, rows, vector)
    ids = soft_to_hard(col.matrix()) if source == "soft" else crowd_to_hard(col.matrix(), count, on_empty)
    hard = datasets.ClassLabel(names=list(col.names)) if col.names else datasets.ClassLabel(num_classes=count)
    return write_column(dataset, out, ids, hard)


def _texts_of(col: Column, name: str) -> pa.Array:
    if col.names is None:
        raise ValueError(
            f'Column `{name}` has no class names. Encode it first: `encode_labels(dataset, "{name}", names)`.'
        )
    return pa.array(np.array(col.names, dtype=object)[col.values])
