"""Accuracy on a test set before and after its label errors are corrected."""

from __future__ import annotations

from typing import Any

import numpy as np

UNKNOWN = -1


def corrected_benchmark(predictions: Any, references: Any, corrected: Any) -> dict[str, float]:
    """Accuracy by the given and by the corrected labels.

    Args:
        predictions (array of shape `(N,)` or `(N, K)`): Class ids, or scores of which the largest counts.
        references (array of shape `(N,)`): Labels as published.
        corrected (array of shape `(N,)`): Labels after the correction; -1 for errors whose true label is not known.
            These rows do not count in `corrected_accuracy`.

    Returns:
        `dict`: `original_accuracy` (all rows, given labels), `corrected_accuracy` (rows with a known label),
        `benign_accuracy` and `correctable_accuracy` (by corrected labels, NaN without such rows), `noise_prevalence`
        (correctable errors among rows with a known label), `n_correctable`, `n_unknown`.

    Raises:
        ValueError: If shapes differ, there is no row, or no label is known.

    Source: Northcutt, Athalye and Mueller, arXiv:2103.14749, section 5.
    """
    guess = np.asarray(predictions)
    guess = guess.argmax(1) if guess.ndim == 2 else guess
    given, fixed = np.asarray(references), np.asarray(corrected)
    if not guess.shape == given.shape == fixed.shape or given.ndim != 1 or not len(given):
        raise ValueError(
            "`predictions`, `references` and `corrected` must be (N,) with N > 0, got "
            f"{guess.shape}, {given.shape} and {fixed.shape}."
        )
    known = fixed != UNKNOWN
    if not known.any():
        raise ValueError("`corrected` is -1 in all rows; at least one label must be known.")
    wrong = known & (fixed != given)
    benign = known & ~wrong
    right = guess == fixed
    share = [float(right[rows].mean()) if rows.any() else float("nan") for rows in (known, benign, wrong)]
    return {
        "original_accuracy": float((guess == given).mean()),
        "corrected_accuracy": share[0],
        "benign_accuracy": share[1],
        "correctable_accuracy": share[2],
        "noise_prevalence": float(wrong.sum() / known.sum()),
        "n_correctable": int(wrong.sum()),
        "n_unknown": int((~known).sum()),
    }


def accuracy_at_prevalence(benign: float, correctable: float, prevalence: Any) -> Any:
    """Expected corrected accuracy when correctable errors are a share of the rows: `(1 - N) benign + N correctable`.

    Args:
        benign, correctable (`float`): Accuracies by corrected labels, of [`corrected_benchmark`].
        prevalence (`float` or array): N, in [0, 1].
    """
    return (1 - np.asarray(prevalence)) * benign + np.asarray(prevalence) * correctable


def crossing_prevalence(first: dict[str, float], second: dict[str, float]) -> float | None:
    """Noise prevalence from which the order of two models turns around; `None` if it does not above today's.

    Args:
        first, second (`dict`): Of [`corrected_benchmark`], on the same test set.
    """
    benign = first["benign_accuracy"] - second["benign_accuracy"]
    correctable = second["correctable_accuracy"] - first["correctable_accuracy"]
    if benign * correctable <= 0:
        return None
    point = benign / (benign + correctable)
    return float(point) if first["noise_prevalence"] < point <= 1 else None
