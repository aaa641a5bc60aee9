"""Validity and size of conformal prediction sets whose members are label sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import check_finite, check_multi_hot, first_bad, place, to_numpy

MAX_LABELS = 16
"""Largest number of labels whose full powerset is accepted."""


def conformal_sets(
    sizes: Sequence[int | str],
    covered: Any,
    epsilon: float,
    num_labels: int | None = None,
    truncated: Any = None,
    allow_truncated: bool = False,
) -> dict[str, Any]:
    """Scores of prediction sets of which only the size and a covered flag are known.

    | key | range, direction | meaning |
    | --- | --- | --- |
    | `error_rate`, `coverage` | 0..1, at most eps / at least 1 - eps | rows whose set lacks / has the true label set |
    | `validity_gap` | -1..1, at most 0 | `error_rate - epsilon` |
    | `validity_stderr` | 0..0.5 | binomial standard error of the gap, `sqrt(epsilon (1 - epsilon) / n)` |
    | `mean_size`, `median_size`, `size_q90`, `size_q95` | 0..2^L, lower | label sets in a prediction set |
    | `excess` | 0..2^L, lower | mean number of label sets other than the true one |
    | `share_empty`, `share_singleton`, `share_everything` | 0..1 | share of sets of size 0, 1, 2^L |
    | `n_truncated` | count | rows whose size is only a lower bound |

    Quantiles are by nearest rank.

    Args:
        sizes (list of `int` of length n): Label sets in each prediction set. Python integers, or decimal text,
            stay exact at any size.
        covered (array-like of shape `(n,)`, bool or 0/1): Whether the true label set is in the prediction set.
        epsilon (`float`): Significance of the sets, in (0, 1).
        num_labels (`int`, *optional*): L; needed for `share_everything`, which is NaN without it.
        truncated (array-like of shape `(n,)`, bool, *optional*): Sets that were cut off, so that their size is a
            lower bound.
        allow_truncated (`bool`, *optional*, defaults to `False`): Report `mean_size` and `excess` as lower bounds;
            they are NaN otherwise when a set is truncated. Median, quantiles and shares are lower bounds then in any
            case.

    Returns:
        `dict[str, float | int]`: The keys above.

    Raises:
        ValueError: For lengths that disagree, no rows, sizes that are negative, not whole or above 2^L, a covered
            empty set, or `epsilon` outside (0, 1).

    Source: criteria of Vovk et al. 2016 (arXiv:1603.04416).
    """
    epsilon = _check_epsilon(epsilon)
    counts = [_whole(size, row) for row, size in enumerate(sizes)]
    rows = len(counts)
    if not rows:
        raise ValueError("`sizes` is empty.")
    inside = _flags(covered, rows, "covered")
    cut = np.zeros(rows, dtype=bool) if truncated is None else _flags(truncated, rows, "truncated")
    everything = None if num_labels is None else 2**num_labels
    for row, size in enumerate(counts):
        if everything is not None and size > everything:
            raise ValueError(f"`sizes` is {size} at row {row}, above 2^{num_labels} label sets.")
        if size == 0 and inside[row]:
            raise ValueError(f"`covered` is true at row {row}, whose prediction set is empty.")
    ordered, hits = sorted(counts), int(inside.sum())
    exact = allow_truncated or not cut.any()
    error = 1 - hits / rows
    return {
        "error_rate": error,
        "coverage": hits / rows,
        "validity_gap": error - epsilon,
        "validity_stderr": math.sqrt(epsilon * (1 - epsilon) / rows),
        "mean_size": _quotient(sum(counts), rows) if exact else math.nan,
        "median_size": _median(ordered),
        "size_q90": ordered[-(-rows * 9 // 10) - 1],
        "size_q95": ordered[-(-rows * 19 // 20) - 1],
        "excess": _quotient(sum(counts) - hits, rows) if exact else math.nan,
        "share_empty": counts.count(0) / rows,
        "share_singleton": counts.count(1) / rows,
        "share_everything": math.nan if everything is None else counts.count(everything) / rows,
        "n_truncated": int(cut.sum()),
    }


def conformal_pvalues(
    pvalues: Any, labels: Any, epsilons: float | Sequence[float] = (0.05, 0.1, 0.2), non_empty: bool = False
) -> dict[str, Any]:
    """Scores of the p-values of every label set. The prediction set at `epsilon` is `{Y : p(Y) > epsilon}`.

    Adds to the keys of [`conformal_sets`], each of which comes as `eps_<epsilon>_<key>`:

    | key | range, direction | meaning |
    | --- | --- | --- |
    | `s_criterion` | 0..2^L, lower | mean sum of the p-values |
    | `observed_fuzziness` | 0..2^L, lower | mean sum of the p-values of the label sets other than the true one |
    | `ks_distance` | 0..1 | largest distance of the distribution of the true sets' p-values from the uniform one |
    | `ks_excess` | 0..1, lower | the same, only where p-values are too small; above noise it refutes validity |
    | `credibility` | 0..1 | mean largest p-value |
    | `confidence` | 0..1, higher | mean of 1 - second largest p-value |
    | `forced_accuracy` | 0..1, higher | rows whose label set of largest p-value (the first, on ties) is true |

    Args:
        pvalues (array-like of shape `(n, 2^L)`): Columns in lexicographic order: the first label is the most
            significant bit.
        labels (array-like of shape `(n, L)`): True label sets, 0/1, with L at most 16.
        epsilons (`float` or list of `float`, *optional*, defaults to `(0.05, 0.1, 0.2)`): Significances in (0, 1).
        non_empty (`bool`, *optional*, defaults to `False`): Put the label set of largest p-value into an empty
            prediction set.

    Returns:
        `dict[str, float | int]`.

    Raises:
        ValueError: For shapes that disagree, more than 16 labels, no rows, p-values outside [0, 1] or not finite,
            labels other than 0 and 1, or `epsilons` outside (0, 1).

    Source: criteria of Vovk et al. 2016 (arXiv:1603.04416); set rule of mulaconf 0.3.0, which fills empty sets by
        default.
    """
    truth, _ = check_multi_hot(labels, "labels", unknown=False)
    rows, num_labels = truth.shape
    if not 1 <= num_labels <= MAX_LABELS:
        raise ValueError(
            f"The full powerset is taken for 1 to {MAX_LABELS} labels, got {num_labels}. "
            "Use `conformal_sets` with sizes."
        )
    p = to_numpy(pvalues, "pvalues")
    if p.shape != (rows, 2**num_labels) or not rows:
        raise ValueError(f"`pvalues` must have shape ({rows}, 2^{num_labels}) and at least one row, got {p.shape}.")
    p = p.astype(np.float64)
    check_finite(p, "pvalues")
    bad = (p < 0) | (p > 1)
    if bad.any():
        index = first_bad(bad)
        raise ValueError(f"`pvalues` must be in [0, 1], got {p[index]} at {place(index)}.")
    levels = [epsilons] if isinstance(epsilons, int | float | np.floating) else list(epsilons)
    if not levels:
        raise ValueError("`epsilons` is empty.")

    true_column = truth.astype(np.int64) @ (1 << np.arange(num_labels)[::-1])
    true_p, best = p[np.arange(rows), true_column], p.argmax(axis=1)
    two = np.partition(p, p.shape[1] - 2, axis=1)[:, -2:]
    above = np.sort(true_p) - np.arange(rows) / rows
    below = np.arange(1, rows + 1) / rows - np.sort(true_p)
    result: dict[str, Any] = {
        "s_criterion": float(p.sum(axis=1).mean()),
        "observed_fuzziness": float((p.sum(axis=1) - true_p).mean()),
        "ks_distance": float(max(above.max(), below.max())),
        "ks_excess": float(max(below.max(), 0.0)),
        "credibility": float(two[:, 1].mean()),
        "confidence": float(1 - two[:, 0].mean()),
        "forced_accuracy": float((best == true_column).mean()),
    }
    for level in levels:
        epsilon = _check_epsilon(level)
        sizes, inside = (p > epsilon).sum(axis=1), true_p > epsilon
        if non_empty:
            inside = inside | ((sizes == 0) & (best == true_column))
            sizes = np.maximum(sizes, 1)
        scores = conformal_sets(sizes.tolist(), inside, epsilon, num_labels)
        result |= {f"eps_{epsilon}_{key}": value for key, value in scores.items() if key != "n_truncated"}
    return result


def _check_epsilon(epsilon: Any) -> float:
    if isinstance(epsilon, bool) or not 0 < float(epsilon) < 1:
        raise ValueError(f"`epsilon` must be in (0, 1), got {epsilon}.")
    return float(epsilon)


def _whole(size: Any, row: int) -> int:
    """A size as a Python int; text is read as a decimal number."""
    try:
        value = int(size)
        if not isinstance(size, str) and value != size:
            raise ValueError("not whole")
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"`sizes` must hold whole numbers, got {size!r} at row {row}.") from error
    if value < 0:
        raise ValueError(f"`sizes` must not be negative, got {value} at row {row}.")
    return value


def _flags(flags: Any, rows: int, name: str) -> np.ndarray:
    array = to_numpy(flags, name)
    if array.shape != (rows,):
        raise ValueError(f"`{name}` must have shape ({rows},), got {array.shape}.")
    bad = ~np.isin(array, (0, 1))
    if bad.any():
        raise ValueError(f"`{name}` must be true or false, got {array[bad][0]} at row {int(bad.argmax())}.")
    return array.astype(bool)


def _quotient(top: int, bottom: int) -> float:
    """Correctly rounded quotient of integers; infinity beyond the largest float."""
    try:
        return top / bottom
    except OverflowError:
        return math.inf


def _median(ordered: list[int]) -> int | float:
    """Middle of sorted integers: exact when whole, else the half as a float."""
    total = ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]
    return total // 2 if total % 2 == 0 else _quotient(total, 2)
