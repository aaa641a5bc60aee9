"""Exact statistics of successes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Exact 95% interval (Clopper-Pearson) of a success rate.

    Example:
        >>> tuple(round(100 * bound, 1) for bound in interval(197, 200))
        (95.7, 99.7)
    """
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> dict[str, Any]:
    """Exact McNemar test of two decoders on the same goals: how often only one of them succeeds.

    Example:
        >>> mcnemar([True, True, False], [True, False, False])
        {'both': 1, 'only_a': 1, 'only_b': 0, 'neither': 1, 'p': 1.0}
    """
    from scipy.stats import binomtest

    if len(a) != len(b):
        raise ValueError(f"Pairs need the same goals, got {len(a)} and {len(b)} outcomes.")
    pairs = [(bool(x), bool(y)) for x, y in zip(a, b, strict=True)]
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    return {"both": both, "only_a": only_a, "only_b": only_b, "neither": neither, "p": p}


def rate(outcomes: Sequence[bool]) -> dict[str, Any]:
    """Successes, trials, rate and exact interval."""
    low, high = interval(sum(outcomes), len(outcomes))
    return {
        "successes": int(sum(outcomes)),
        "trials": len(outcomes),
        "rate": sum(outcomes) / len(outcomes),
        "ci95": [low, high],
    }
