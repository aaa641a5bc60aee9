"""Exact intervals for a share of errors, and what a corrected test set does to scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def clopper_pearson(errors: int, items: int, alpha: float = 0.05) -> tuple[float, float]:
    """Exact two-sided interval of a share, for a sample from an endless population.

    Args:
        errors, items (`int`): k of n.
        alpha (`float`, *optional*, defaults to 0.05): 1 - coverage.

    Example:
        >>> low, high = clopper_pearson(27, 160)
        >>> round(low, 3), round(high, 3)
        (0.114, 0.236)
    """
    from scipy.stats import beta

    _check(errors, items, alpha)
    low = 0.0 if errors == 0 else float(beta.ppf(alpha / 2, errors, items - errors + 1))
    high = 1.0 if errors == items else float(beta.ppf(1 - alpha / 2, errors + 1, items - errors))
    return low, high


def hypergeometric_interval(errors: int, items: int, population: int, alpha: float = 0.05) -> tuple[float, float]:
    """Exact two-sided interval of the share of errors in a finite population, of which n items were drawn.

    The smallest and the largest number of errors K for which the sample is not too unlikely
    (`P(X >= k | K) > alpha / 2`, `P(X <= k | K) > alpha / 2`), over the population.

    Args:
        errors, items (`int`): k of the n items that were looked at.
        population (`int`): N, at least n.
        alpha (`float`, *optional*, defaults to 0.05): 1 - coverage.
    """
    from scipy.stats import hypergeom

    _check(errors, items, alpha)
    if population < items:
        raise ValueError(f"`population` is {population}, fewer than the {items} items that were looked at.")
    possible = np.arange(errors, population - (items - errors) + 1)
    at_least = hypergeom.sf(errors - 1, population, possible, items) > alpha / 2
    at_most = hypergeom.cdf(errors, population, possible, items) > alpha / 2
    return float(possible[at_least].min()) / population, float(possible[at_most].max()) / population


def _check(errors: int, items: int, alpha: float) -> None:
    if not 0 <= errors <= items or items < 1:
        raise ValueError(f"Need 0 <= errors <= items and at least one item, got {errors} of {items}.")
    if not 0 < alpha < 1:
        raise ValueError(f"`alpha` must be between 0 and 1, got {alpha}.")


def label_issue_detection(predictions: Any, references: Any, threshold: float | None = None) -> dict[str, float]:
    """How well suspected label errors are the true ones.

    Args:
        predictions (array of shape `(n,)`): Flags (bool, or 0 and 1), or scores, high = suspicious.
        references (array of shape `(n,)`): Whether the label is wrong.
        threshold (`float`, *optional*): Scores of at least this are flags. Needed for `precision`, `recall` and `f1`
            of scores.

    Returns:
        `dict`: `precision` (NaN where nothing is flagged), `recall` (NaN where nothing is wrong), `f1`, `n_flagged`,
        `n_errors`; for scores `auprc` (average precision).

    Raises:
        ValueError: If shapes differ, or scores are not finite.
    """
    guess, wrong = np.asarray(predictions), np.asarray(references).astype(bool)
    if guess.shape != wrong.shape or guess.ndim != 1:
        raise ValueError(f"`predictions` and `references` must be (n,) both, got {guess.shape} and {wrong.shape}.")
    out: dict[str, float] = {}
    is_flag = guess.dtype == bool or bool(np.isin(guess, (0, 1)).all())
    if not is_flag or threshold is not None:
        scores = guess.astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise ValueError(f"`predictions` must be finite scores, got {scores[bad[0]]} at row {bad[0]}.")
        from sklearn.metrics import average_precision_score

        out["auprc"] = float(average_precision_score(wrong, scores)) if wrong.any() else float("nan")
        if threshold is None:
            return out | {"n_errors": int(wrong.sum())}
        guess = scores >= threshold
    flags = guess.astype(bool)
    hits = int((flags & wrong).sum())
    precision = hits / int(flags.sum()) if flags.any() else float("nan")
    recall = hits / int(wrong.sum()) if wrong.any() else float("nan")
    total = int(flags.sum()) + int(wrong.sum())
    f1 = 2 * hits / total if total else float("nan")
    counts = {"n_flagged": int(flags.sum()), "n_errors": int(wrong.sum())}
    return {"precision": precision, "recall": recall, "f1": f1, **counts, **out}


def rank_shift(original: Mapping[str, float], corrected: Mapping[str, float]) -> dict[str, Any]:
    """What corrected labels do to scores of models and to their order.

    Args:
        original, corrected (mappings): Model -> score on the original and on the corrected labels, higher is better.

    Returns:
        `dict`: `models` (name -> `original`, `corrected`, `rank_original`, `rank_corrected`, 1 = best) and
        `kendall_tau` of the two orders (NaN for fewer than two models).

    Raises:
        ValueError: If the models differ.
    """
    from scipy.stats import kendalltau, rankdata

    if set(original) != set(corrected) or not original:
        raise ValueError("`original` and `corrected` must score the same models, at least one.")
    names = list(original)
    before, after = (np.array([float(scores[name]) for name in names]) for scores in (original, corrected))
    ranks = [rankdata(-values, method="min").astype(int) for values in (before, after)]
    tau = float(kendalltau(before, after).statistic) if len(names) > 1 else float("nan")
    models = {
        name: {"original": b, "corrected": a, "rank_original": int(r), "rank_corrected": int(s)}
        for name, b, a, r, s in zip(names, before.tolist(), after.tolist(), *ranks, strict=True)
    }
    return {"models": models, "kendall_tau": tau}
