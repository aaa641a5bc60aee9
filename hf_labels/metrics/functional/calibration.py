"""Calibration of a classifier: does "0.9 confident" mean right nine times in ten? NumPy in, Python numbers out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import to_numpy

logger = logging.getLogger(__name__)

IGNORED = -100
"""Label of a row that does not count."""

_CELLS_PER_CHUNK = 1 << 18  # 2 MiB of float64: a chunk and its temporaries stay in the cache of one core
_SUM_TOLERANCE = 1e-3


@dataclass
class _Sums:
    """What one pass over the rows leaves behind."""

    confidence: np.ndarray  # (N,) largest probability of each row
    hit: np.ndarray  # (N,) bool, the largest probability was on the label
    class_gap: np.ndarray  # (C, M) hits minus probability mass of each class and bin
    nll: float
    brier: float


def calibration_scores(
    probs: Any,
    labels: Any,
    n_bins: int = 15,
    from_logits: bool = False,
    aece_mode: str = "equal_count",
    per_bin: bool = False,
) -> dict[str, Any]:
    """Calibration errors, proper scores and accuracy of predicted class probabilities.

    With the confidence of a row = its largest probability (lowest class on ties) and M bins `(b/M, (b+1)/M]`, where
    bin b holds the share `w_b` of the rows, with accuracy `acc_b` and mean confidence `conf_b` (empty bins count 0):

    | key | range | meaning |
    | --- | --- | --- |
    | `ece` | 0..1, lower is better | `sum_b w_b abs(acc_b - conf_b)` |
    | `mce` | 0..1, lower | `max_b abs(acc_b - conf_b)` |
    | `aece` | 0..1, lower | as `ece`, with bins of equal count |
    | `classwise_ece` | 0..1, lower | mean over the C classes of the `ece` of `P(class)` against "is this class" |
    | `oe`, `ue` | 0..1, lower | over- and under-confidence: `sum_b w_b conf_b max(+-(conf_b - acc_b), 0)` |
    | `nll` | 0.., lower, nats | mean `-log P(label)`; probabilities are clipped at 1e-12, logits are not |
    | `brier` | 0..2, lower | mean of the squared error summed over classes (some libraries report half of it) |
    | `accuracy` | 0..1, higher | share of rows whose largest probability is on the label |
    | `n_ignored` | count | rows with label -100, which take no part |

    Args:
        probs (array-like of shape `(N, C)` or `(N,)`): Probabilities, or logits with `from_logits`. One dimension
            means a binary task and holds P(class 1), or its logit.
        labels (array-like of shape `(N,)`, integer): Class ids in `[0, C)`, or -100 for rows that do not count.
        n_bins (`int`, *optional*, defaults to `15`): Number of bins M.
        from_logits (`bool`, *optional*, defaults to `False`): Apply a softmax in float64 first.
        aece_mode (`str`, *optional*, defaults to `"equal_count"`): `"equal_count"` sorts the confidences and cuts them
            with `numpy.array_split` (equal confidences may be cut apart). `"reference"` interpolates quantile edges
            and uses bins `(low, high]`, so the smallest confidence is in no bin, as in the RankMixup code.
        per_bin (`bool`, *optional*, defaults to `False`): Also return `per_bin`, a dict of arrays for a reliability
            diagram (`count` (M,), `acc` (M,) and `conf` (M,), NaN in empty bins, `edges` (M+1,)), and
            `classwise_ece_per_class` (C,).

    Returns:
        `dict[str, float | int | ...]`: The keys above.

    Raises:
        ValueError: If rows do not sum to 1 within 1e-3 (logits?), for NaN or infinite values, labels outside `[0, C)`,
            one class only, no row left, `n_bins` below 1, or shapes that disagree.

    A probability of exactly 0 is in no bin of its class, but its row counts in N. Classes that never occur among the
    labels count in `classwise_ece` (the reference code drops those at the top of the range).
    Cost O(N C) plus a sort of N; memory O(N + C M) besides the input.

    Example:
        >>> calibration_scores([[0.9, 0.1], [0.9, 0.1]], [0, 1], n_bins=10)["ece"]
        0.4

    Source: Guo et al. 2017, arXiv:1706.04599 (ECE, MCE); Nixon et al. 2019, arXiv:1904.01685 (adaptive, classwise);
    Thulasidasan et al. 2019, arXiv:1905.11001 (OE); Noh et al. 2023, arXiv:2308.11990 (RankMixup, its evaluation
    code).
    """
    if isinstance(n_bins, bool) or int(n_bins) != n_bins or n_bins < 1:
        raise ValueError(f"`n_bins` must be a whole number of at least 1, got {n_bins}.")
    if aece_mode not in ("equal_count", "reference"):
        raise ValueError(f"`aece_mode` must be 'equal_count' or 'reference', got {aece_mode!r}.")
    n_bins = int(n_bins)
    values, targets, kept = _check(probs, labels, from_logits)
    sums = _one_pass(values, targets, kept, n_bins, from_logits)
    rows = len(kept)

    index = _bin_index(sums.confidence, n_bins)
    count = np.bincount(index, minlength=n_bins)
    safe = np.maximum(count, 1)
    acc = np.bincount(index, weights=sums.hit, minlength=n_bins) / safe
    conf = np.bincount(index, weights=sums.confidence, minlength=n_bins) / safe
    weight, gap = count / rows, acc - conf
    per_class = np.abs(sums.class_gap).sum(axis=1) / rows
    scores: dict[str, Any] = {
        "ece": float(weight @ np.abs(gap)),
        "mce": float(np.abs(gap).max()),
        "aece": _adaptive_error(sums.confidence, sums.hit, n_bins, aece_mode),
        "classwise_ece": float(per_class.mean()),
        "oe": float((weight * conf) @ np.maximum(-gap, 0)),
        "ue": float((weight * conf) @ np.maximum(gap, 0)),
        "nll": sums.nll / rows,
        "brier": sums.brier / rows,
        "accuracy": float(sums.hit.mean()),
        "n_ignored": len(targets) - rows,
    }
    if per_bin:
        filled = count > 0
        scores["per_bin"] = {
            "count": count,
            "acc": np.where(filled, acc, np.nan),
            "conf": np.where(filled, conf, np.nan),
            "edges": np.arange(n_bins + 1) / n_bins,
        }
        scores["classwise_ece_per_class"] = per_class
    return scores


def _check(probs: Any, labels: Any, from_logits: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Checks shapes and labels. Returns values `(N, C)`, labels `(N,)` and the numbers of the rows that count."""
    values, targets = to_numpy(probs, "predictions"), to_numpy(labels, "references")
    if values.ndim == 1:
        values = _expand_binary(values.astype(np.float64), from_logits)
    if values.ndim != 2:
        raise ValueError(f"`predictions` must have shape (N, C), got {values.shape}.")
    if targets.ndim != 1 or len(targets) != len(values):
        raise ValueError(
            f"`references` must be class ids of shape ({len(values)},), one for each row of `predictions`, got shape "
            f"{targets.shape}."
        )
    if values.shape[1] < 2 and len(values):
        raise ValueError(
            f"`predictions` has shape {values.shape}: one class has no calibration. A binary task can pass P(class 1) "
            f"as shape ({len(values)},)."
        )
    bad = (targets != IGNORED) & ~((targets >= 0) & (targets < values.shape[1]) & (targets == np.floor(targets)))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"`references` must be whole numbers in [0, {values.shape[1]}), got {targets[row]} at row {row}. "
            f"Use {IGNORED} for a row that does not count."
        )
    kept = np.flatnonzero(targets != IGNORED)
    if not len(kept):
        raise ValueError(f"No rows to score: {len(targets)} given, {len(targets)} with label {IGNORED}.")
    return values, targets.astype(np.int64), kept


def _expand_binary(values: np.ndarray, from_logits: bool) -> np.ndarray:
    """P(class 1), or its logit, of shape `(N,)` as two columns."""
    return np.stack([np.zeros_like(values) if from_logits else 1 - values, values], axis=1)


def _one_pass(values: np.ndarray, targets: np.ndarray, kept: np.ndarray, n_bins: int, from_logits: bool) -> _Sums:
    rows, classes = len(kept), values.shape[1]
    confidence, hit = np.empty(rows), np.empty(rows, dtype=bool)
    gap, nll, brier = np.zeros(classes * n_bins), 0.0, 0.0
    offset = np.arange(classes) * n_bins
    everything = rows == len(values)
    step = max(1, _CELLS_PER_CHUNK // classes)
    for start in range(0, rows, step):
        numbers = kept[start : start + step]
        block = values[start : start + step] if everything else values[numbers]
        chunk, log_norm = _chunk_probabilities(block.astype(np.float64), numbers, from_logits)
        label, row = targets[numbers], np.arange(len(numbers))
        guess = chunk.argmax(axis=1)
        on_label = chunk[row, label]
        confidence[start : start + step] = chunk[row, guess]
        hit[start : start + step] = guess == label
        if log_norm is None:
            nll -= float(np.log(np.clip(on_label, 1e-12, None)).sum())
        else:
            nll += float((log_norm - block[row, label]).sum())

        cell = _bin_index(chunk, n_bins) + offset
        gap -= np.bincount(cell.ravel(), weights=chunk.ravel(), minlength=len(gap))  # an exact 0 adds nothing
        positive = on_label > 0
        gap += np.bincount(cell[row, label][positive], minlength=len(gap))

        chunk[row, label] -= 1
        brier += float(np.einsum("rc,rc->", chunk, chunk))
    return _Sums(confidence, hit, gap.reshape(classes, n_bins), nll, brier)


def _chunk_probabilities(
    chunk: np.ndarray, numbers: np.ndarray, from_logits: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Probabilities of a chunk and, for logits, the log of the normaliser of each row. Overwrites `chunk`."""
    total = chunk.sum(axis=1)
    if not np.isfinite(total).all() or from_logits:
        finite = np.isfinite(chunk).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"`predictions` must be finite, got NaN or infinity at row {numbers[int((~finite).argmax())]}."
            )
    if from_logits:
        top = chunk.max(axis=1)
        np.exp(chunk - top[:, None], out=chunk)
        total = chunk.sum(axis=1)
        chunk /= total[:, None]
        return chunk, top + np.log(total)
    bad = (np.abs(total - 1) > _SUM_TOLERANCE) | (chunk.min(axis=1) < -_SUM_TOLERANCE)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(
            f"`predictions` is not a probability vector at row {numbers[at]} (sum {total[at]:.6g}, smallest value "
            f"{chunk[at].min():.6g}): looks like logits; pass from_logits=True."
        )
    return np.maximum(chunk, 0, out=chunk), None


def _bin_index(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Bin of each value: b where `b/M < value <= (b+1)/M`, as `clip(ceil(value * M) - 1, 0, M - 1)`."""
    index = np.ceil(values * n_bins)
    index -= 1
    return np.clip(index, 0, n_bins - 1, out=index).astype(np.int64)


def _adaptive_error(confidence: np.ndarray, hit: np.ndarray, n_bins: int, mode: str) -> float:
    order = np.argsort(confidence, kind="stable")
    conf, rows = confidence[order], len(confidence)
    gap = np.concatenate([[0.0], np.cumsum(hit[order] - conf)])
    if mode == "equal_count":
        size, extra = divmod(rows, n_bins)
        cuts = np.concatenate([[0], np.cumsum(np.full(n_bins, size) + (np.arange(n_bins) < extra))])
    else:
        edges = np.interp(np.linspace(0, rows, n_bins + 1), np.arange(rows), conf)
        cuts = np.searchsorted(conf, edges, side="right")
    return float(np.abs(gap[cuts[1:]] - gap[cuts[:-1]]).sum() / rows)


def temperature_scaling(
    logits: Any, labels: Any, min_temperature: float = 1e-2, max_temperature: float = 1e2, warn: bool = True
) -> float:
    """Fits the temperature T that minimises the NLL of `softmax(logits / T)`. Fit on validation rows, never on test
    rows.

    Dividing by one T > 0 leaves every argmax, and so the accuracy, as it is. The NLL is convex in 1/T; its slope,
    the mean of (expected logit - logit of the label), is brought to 0 by root finding.

    Args:
        logits (array-like of shape `(N, C)` or `(N,)`): Logits of validation rows; one dimension holds the logit of
            class 1.
        labels (array-like of shape `(N,)`, integer): Class ids in `[0, C)`, or -100 for rows that do not count.
        min_temperature (`float`, *optional*, defaults to `0.01`): Smallest T that may be returned. The optimum is
            there when every validation row is classified correctly.
        max_temperature (`float`, *optional*, defaults to `100.0`): Largest T; the optimum is there when the logits say
            nothing about the labels.
        warn (`bool`, *optional*, defaults to `True`): Say so when the optimum is at a bound.

    Returns:
        `float`: T; above 1 the model was over-confident. Use as `calibration_scores(logits / T, labels,
            from_logits=True)`.

    Raises:
        ValueError: As [`calibration_scores`] for bad logits and labels; if the bounds are not `0 < min < max`.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2 (they use a gradient method; the optimum is the same).
    """
    if not 0 < min_temperature < max_temperature < np.inf:
        raise ValueError(f"Need 0 < min_temperature < max_temperature, got {min_temperature} and {max_temperature}.")
    from scipy.optimize import brentq

    values, targets, kept = _check(logits, labels, from_logits=True)
    values, targets = values[kept].astype(np.float64), targets[kept]
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise ValueError(f"`predictions` must be finite, got NaN or infinity at row {kept[int((~finite).argmax())]}.")
    values -= values.max(axis=1, keepdims=True)
    on_label = values[np.arange(len(targets)), targets].mean()

    def slope(inverse: float) -> float:
        """Slope of the NLL in 1/T; increasing."""
        weight = np.exp(values * inverse)
        return float((np.einsum("rc,rc->r", weight, values) / weight.sum(axis=1)).mean() - on_label)

    low, high = 1 / max_temperature, 1 / min_temperature
    if slope(low) >= 0 or slope(high) <= 0:
        bound = max_temperature if slope(low) >= 0 else min_temperature
        if warn:
            logger.warning("The best temperature is at or beyond the bound %g; returning the bound.", bound)
        return float(bound)
    return float(1 / brentq(slope, low, high, xtol=1e-12, rtol=1e-10))


def calibrated_scores(
    logits: Any, labels: Any, n_splits: int = 5, n_bins: int = 15, seed: int = 0
) -> dict[str, float]:
    """Scores after temperature scaling: fitted on a random half of the rows, measured on the other; means over splits.

    Tells what a model knows when its confidence is repaired first, so that models are compared by more than it.

    Args:
        logits (array-like of shape `(N, C)`), labels (array-like of shape `(N,)`): Rows, at least 4.
        n_splits (`int`, *optional*, defaults to 5): Random halves.
        n_bins (`int`, *optional*, defaults to 15): Bins of the calibration error.
        seed (`int`, *optional*, defaults to 0): Of the halves.

    Returns:
        `dict`: `cll` (calibrated log-likelihood per row, higher is better), `nll`, `ece`, `brier`, `temperature`.

    Raises:
        ValueError: As [`temperature_scaling`]; for fewer than 4 rows.

    Source: Ashukha et al. 2020, arXiv:2002.06470, section 4.2; used by Wright and Augenstein, arXiv:2212.09409.
    """
    values, targets, kept = _check(logits, labels, from_logits=True)
    values, targets = values[kept].astype(np.float64), targets[kept]
    if len(targets) < 4:
        raise ValueError(f"Two halves need at least 4 rows, got {len(targets)}.")
    rng, found = np.random.default_rng(seed), []
    for _ in range(n_splits):
        order = rng.permutation(len(targets))
        fit, rest = np.split(order, [len(order) // 2])
        best = temperature_scaling(values[fit], targets[fit])
        scores = calibration_scores(values[rest] / best, targets[rest], n_bins, from_logits=True)
        found.append([scores["nll"], scores["ece"], scores["brier"], best])
    nll, ece, brier, temperature = np.mean(found, axis=0).tolist()
    return {"cll": -nll, "nll": nll, "ece": ece, "brier": brier, "temperature": temperature}
