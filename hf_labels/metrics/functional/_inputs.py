"""Checks and conversions of metric inputs. NumPy only; a torch tensor is recognised by its methods, never imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

UNKNOWN = -1
"""Reference value of a cell whose label is not known; NaN means the same."""


def to_numpy(values: Any, name: str) -> np.ndarray:
    """Returns `values` (list, array, pandas object, torch tensor on any device) as a numeric array.

    Raises:
        ValueError: If the rows have different lengths, or an element is not a number.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    elif hasattr(values, "to_numpy"):
        values = values.to_numpy()
    elif isinstance(values, list | tuple) and values and hasattr(values[0], "detach"):
        values = [to_numpy(value, name) for value in values]
    try:
        array = np.asarray(values.tolist() if isinstance(values, np.ndarray) and values.dtype == object else values)
        array = array.astype(np.float64) if array.dtype == object else array  # None, from a null, becomes NaN
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` is not a rectangular array of numbers. {_ragged(values) or error}") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(f"`{name}` must hold numbers, got dtype {array.dtype}.")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _ragged(values: Any) -> str:
    """Names the first row whose width differs from that of row 0; empty text when the rows agree."""
    widths = [len(row) if hasattr(row, "__len__") else 0 for row in values]
    for index, width in enumerate(widths):
        if width != widths[0]:
            return f"Row {index} has {width} values, row 0 has {widths[0]}."
    return ""


def first_bad(mask: np.ndarray) -> tuple[int, ...]:
    """Index of the first true cell of `mask` in row order."""
    return tuple(int(part) for part in np.unravel_index(int(mask.argmax()), mask.shape))


def place(index: tuple[int, ...]) -> str:
    """`(row, class)` in words, for error messages."""
    return f"row {index[0]}" + (f", class {index[1]}" if len(index) > 1 else "")


def check_finite(array: np.ndarray, name: str) -> None:
    """Raises ValueError naming the first row (and class) of a NaN or an infinity."""
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if not finite.all():
        index = first_bad(~finite)
        raise ValueError(f"`{name}` must be finite, got {array[index]} at {place(index)}.")


def check_scores(predictions: Any, name: str = "predictions") -> np.ndarray:
    """Returns scores as a finite float array of shape `(N, C)`; float32 stays float32."""
    scores = to_numpy(predictions, name)
    if scores.ndim != 2:
        raise ValueError(f"`{name}` must have shape (N, C), got shape {scores.shape}.")
    if scores.shape[0] == 0 or scores.shape[1] == 0:
        raise ValueError(f"`{name}` is empty: shape {scores.shape}.")
    scores = scores if scores.dtype.kind == "f" else scores.astype(np.float64)
    check_finite(scores, name)
    return scores


def multi_hot(ids: Any, num_classes: int, name: str = "references") -> np.ndarray:
    """Turns lists of class ids into a 0/1 matrix.

    Args:
        ids: N lists of class ids in `[0, num_classes)`; an empty list is a row without labels.
        num_classes (`int`): Width of the result.

    Returns:
        `np.ndarray` of shape `(N, num_classes)`, int8.

    Raises:
        IndexError: If an id is outside `[0, num_classes)`.
        ValueError: If an id is not a whole number, or `num_classes` is below 1.
    """
    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1, got {num_classes}.")
    rows = [np.asarray(row, dtype=np.float64).ravel() for row in ids]
    result = np.zeros((len(rows), num_classes), dtype=np.int8)
    lengths = [len(row) for row in rows]
    if sum(lengths) == 0:
        return result
    where, flat = np.repeat(np.arange(len(rows)), lengths), np.concatenate(rows)
    fractional = flat != np.floor(flat)
    if fractional.any():
        at = int(fractional.argmax())
        raise ValueError(f"`{name}` must hold class ids, got {flat[at]} at row {where[at]}.")
    outside = (flat < 0) | (flat >= num_classes)
    if outside.any():
        at = int(outside.argmax())
        raise IndexError(f"`{name}` has class id {int(flat[at])} at row {where[at]}; ids are 0 to {num_classes - 1}.")
    result[where, flat.astype(np.int64)] = 1
    return result


def check_multi_hot(references: Any, name: str = "references", unknown: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Returns `(positive, known)`, two bool arrays of shape `(N, C)`.

    -1 and NaN are unknown cells (`known` is false there) where `unknown` allows them.

    Raises:
        ValueError: For another shape, another value, or an unknown cell that is not allowed.
    """
    labels = to_numpy(references, name)
    if labels.ndim != 2:
        raise ValueError(f"`{name}` must be multi-hot of shape (N, C), got shape {labels.shape}.")
    if labels.dtype == bool:
        return labels, np.ones(labels.shape, dtype=bool)
    positive = labels == 1
    known = positive | (labels == 0)
    if not known.all():
        missing = (labels == UNKNOWN) | np.isnan(labels) if labels.dtype.kind == "f" else labels == UNKNOWN
        bad = ~known if not unknown else ~(known | missing)
        if bad.any():
            index = first_bad(bad)
            allowed = "0, 1, or -1/NaN for unknown" if unknown else "0 or 1"
            raise ValueError(f"`{name}` must be {allowed}, got {labels[index]} at {place(index)}.")
    return positive, known


def check_multilabel(
    predictions: Any, references: Any, num_classes: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checks one pair of multi-label inputs.

    Args:
        predictions: Scores or logits, `(N, C)`.
        references: Multi-hot `(N, C)` with -1 or NaN for unknown; with `num_classes`, N lists of class ids instead.
        num_classes (`int`, *optional*): Says that `references` are lists of ids.

    Returns:
        `(scores, positive, known)`: float, bool and bool arrays of shape `(N, C)`.

    Raises:
        ValueError: For shapes that disagree, no rows, NaN or infinite scores, references other than 0, 1, -1, NaN.
        IndexError: If a class id is out of range.
    """
    scores = check_scores(predictions)
    labels = references if num_classes is None else multi_hot(references, num_classes)
    positive, known = check_multi_hot(labels)
    if scores.shape != positive.shape:
        hint = " Pass `num_classes` if the references are lists of class ids." if num_classes is None else ""
        raise ValueError(
            f"`predictions` and `references` must have one shape, got {scores.shape} and {positive.shape}.{hint}"
        )
    return scores, positive, known


def check_ids(ids: Any, num_classes: int, name: str) -> np.ndarray:
    """Returns a list of distinct class ids as int64 `(M,)`.

    Raises:
        IndexError: If an id is outside `[0, num_classes)`.
        ValueError: If an id occurs twice or is not an integer.
    """
    array = np.asarray(ids)
    array = array.astype(np.int64) if array.size == 0 else array
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"`{name}` must be a flat list of class ids, got {ids!r}.")
    outside = (array < 0) | (array >= num_classes)
    if outside.any():
        raise IndexError(f"`{name}` has class id {int(array[outside][0])}; ids are 0 to {num_classes - 1}.")
    if len(np.unique(array)) != len(array):
        raise ValueError(f"`{name}` names a class twice: {array.tolist()}.")
    return array.astype(np.int64)


def check_k(k: int | Sequence[int], most: int, what: str) -> tuple[int, ...]:
    """Returns the cut-offs `k` as a tuple of ints in `[1, most]`, or raises ValueError."""
    values = (k,) if isinstance(k, int | np.integer) else tuple(k)
    for value in values:
        if isinstance(value, bool) or int(value) != value or not 1 <= value <= most:
            raise ValueError(f"`k` must be whole numbers from 1 to {most} ({what}), got {value}.")
    if not values:
        raise ValueError("`k` is empty.")
    return tuple(int(value) for value in values)


def top_k_mask(scores: np.ndarray, k: int) -> np.ndarray:
    """Marks the `k` largest scores of each row; equal scores go to the lower column. Cost O(N C).

    Args:
        scores (`np.ndarray` of shape `(N, C)`): Not changed.
        k (`int`): From 1 to C.

    Returns:
        `np.ndarray` of shape `(N, C)`, bool, with exactly `k` true cells in each row.
    """
    columns = scores.shape[1]
    kth = np.partition(scores, columns - k, axis=1)[:, columns - k, None]
    chosen = scores >= kth
    tied = np.flatnonzero(chosen.sum(axis=1) > k)
    if len(tied):
        above, equal = scores[tied] > kth[tied], scores[tied] == kth[tied]
        room = k - above.sum(axis=1, keepdims=True)
        chosen[tied] = above | (equal & (equal.cumsum(axis=1) <= room))
    return chosen


def top_k_columns(scores: np.ndarray, k: int) -> np.ndarray:
    """Columns of the `k` largest scores of each row, best first, ties by lower column: int64 `(N, k)`."""
    columns = np.nonzero(top_k_mask(scores, k))[1].reshape(len(scores), k)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)
