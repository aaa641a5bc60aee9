"""95 % intervals of the numbers of the doctor.

Shares have exact ones (Clopper-Pearson). A distance that cannot be negative is too large in every sample, so the
percentiles of resamples would never hold a distance of 0: its lower end comes from how far resamples are from the
sample (triangle inequality), its upper end from their percentile.
"""

from __future__ import annotations

import numpy as np

from hf_labels.metrics.functional import clopper_pearson


def percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value >= 0.001 or value == 0 else f"{100 * value:.2g} %"


def share(count: int, total: int) -> tuple[float, float, float]:
    """Share with its exact 95 % interval; of no rows nothing is known."""
    if not total:
        return 0.0, 0.0, 1.0
    low, high = clopper_pearson(int(count), int(total))
    return count / total, low, high


def shown(count: int, total: int) -> str:
    value, low, high = share(count, total)
    return f"{count} of {total} ({percent(value)}, 95 % interval {percent(low)} to {percent(high)})"


def ratio_interval(counts: np.ndarray, totals: np.ndarray) -> tuple[float, float]:
    """Of the largest share over the smallest, whichever classes these are (Bonferroni over the classes).

    Args:
        counts, totals (`(K,)`): Rows of each class, none of them 0, and of how many.
    """
    ends = [clopper_pearson(int(c), int(n), 0.05 / len(counts)) for c, n in zip(counts, totals, strict=True)]
    low, high = np.array(ends).T
    return max(1.0, float(low.max() / high.min())), float(high.max() / max(low.min(), 1e-12))


def shift_interval(
    one: np.ndarray, other: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Total variation of two tables of counts `(K,)`, with its interval."""
    shares = [counts / counts.sum() for counts in (one, other)]
    value = float(np.abs(shares[0] - shares[1]).sum() / 2)
    size = max(1, 1_000_000 // len(one))
    draws, errors = [], []
    for start in range(0, resamples, size):
        count = min(size, resamples - start)
        drawn = [rng.multinomial(c.sum(), s, size=count) / c.sum() for c, s in zip((one, other), shares, strict=True)]
        apart = drawn[0] - drawn[1]
        draws.append(np.abs(apart).sum(1) / 2)
        errors.append(np.abs(apart - (shares[0] - shares[1])).sum(1) / 2)
    return value, *_ends(value, np.concatenate(draws), np.concatenate(errors))


def gap_interval(
    gaps: np.ndarray, part: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Calibration error, the sum over bins of the absolute mean gap, with its interval.

    Args:
        gaps (`(N,)`): Confidence minus 1 for a right row, minus 0 for a wrong one. part (`(N,)` ids): Bin of each row.
    """
    bins = int(part.max()) + 1
    own = np.bincount(part, weights=gaps, minlength=bins) / len(gaps)
    draws, errors = np.empty(resamples), np.empty(resamples)
    for i in range(resamples):
        rows = rng.integers(len(gaps), size=len(gaps))
        drawn = np.bincount(part[rows], weights=gaps[rows], minlength=bins) / len(gaps)
        draws[i], errors[i] = np.abs(drawn).sum(), np.abs(drawn - own).sum()
    value = float(np.abs(own).sum())
    low, high = _ends(value, draws, errors)
    right = clopper_pearson(round(float((gaps <= 0).sum())), len(gaps))
    mean = float(gaps.mean() + (gaps <= 0).mean())  # mean confidence
    return value, low, max(high, mean - right[0], right[1] - mean)


def kappa_interval(
    table: np.ndarray, classes: int, resamples: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Fleiss' kappa of items with two answers at least, its interval by resampled items, and how often two agree.

    Args:
        table (`(n, R)` ids): -1 = no answer.
    """
    there = table >= 0
    items, _ = np.nonzero(there)
    counts = np.zeros((len(table), classes))
    np.add.at(counts, (items, table[there]), 1)
    raters = counts.sum(1)
    agree = ((counts**2).sum(1) - raters) / (raters * (raters - 1))

    def kappa(times: np.ndarray) -> float:
        shares = times @ counts
        chance = float(((shares / shares.sum()) ** 2).sum())
        return float("nan") if chance >= 1 else (float(times @ agree) / len(table) - chance) / (1 - chance)

    value, pairs = kappa(np.ones(len(table))), float(agree.mean())
    draws = [
        kappa(np.bincount(rng.integers(len(table), size=len(table)), minlength=len(table))) for _ in range(resamples)
    ]
    draws = [one for one in draws if np.isfinite(one)] or [value]
    low, high = (float(end) for end in np.quantile(draws, [0.025, 0.975]))
    if pairs == 1 and np.isfinite(value):  # resamples of no disagreement know none
        shares = counts.sum(0) / counts.sum()
        low = 1 - (1 - clopper_pearson(len(table), len(table))[0]) / (1 - float((shares**2).sum()))
    return value, min(low, value), max(high, value), pairs


def _ends(value: float, draws: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    low, high = value - np.quantile(errors, 0.975), np.quantile(draws, 0.975)
    return max(0.0, float(low)), max(value, float(high))
