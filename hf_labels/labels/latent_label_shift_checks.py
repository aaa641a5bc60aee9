"""What a `LatentLabelShift` takes, checked and brought into one form; and what it says about a weak fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_labels.labels.latent_label_shift_factors import Identification, scaled
from hf_labels.metrics.functional._inputs import check_scores, first_bad, place, to_numpy


def why_weak(report: Identification) -> str:
    """What a user is told about a fit whose rank is too low."""
    values = ", ".join(f"{value:.3g}" for value in report.singular_values[: report.num_classes])
    if not np.isfinite(report.condition):
        reason = "the matrix has a lower rank"
    else:
        reason = (
            f"the last of them is what noise gives ({report.noise_level:.3g} in 1 of 20 draws with one class less, "
            f"p = {report.rank_p_value:.2g})"
        )
    return (
        f"The domains do not show {report.num_classes} classes: singular values {values}; {reason}. Ask for fewer "
        "classes, add domains whose shares differ more, or train the classifier of domains better."
    )


def domain_weights(train_counts: Any, width: int) -> np.ndarray | None:
    """Factors `(r,)` that undo unequal domains, from the rows of each; `None` stays `None`."""
    if train_counts is None:
        return None
    counts = to_numpy(train_counts, "train_counts").astype(np.float64)
    if counts.shape != (width,) or not (counts > 0).all() or not np.isfinite(counts).all():
        raise ValueError(f"`train_counts` must be {width} numbers above 0, one for each domain.")
    return counts.mean() / counts


def held_out_rows(held_out: Any, domains: np.ndarray, width: int) -> np.ndarray:
    """Row numbers of the held-out rows, checked.

    Raises:
        ValueError: If the mask has another length, or leaves a domain without a row.
    """
    mask = to_numpy(held_out, "held_out")
    if mask.shape != domains.shape or mask.dtype != bool:
        raise ValueError(f"`held_out` must be {len(domains)} booleans, got {mask.dtype} of shape {mask.shape}.")
    missing = np.flatnonzero(np.bincount(domains[mask], minlength=width) == 0)
    if len(missing):
        raise ValueError(
            f"No held-out row is of domain {missing[0]}. Hold rows of all domains back, or leave `held_out` out."
        )
    return np.flatnonzero(mask)


def balanced(probs: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Rows of probabilities, weighted and scaled to sum 1 again."""
    return probs if weights is None else scaled(probs * weights)


def domain_distributions(outputs: Any, from_logits: bool, width: int | None = None) -> np.ndarray:
    """Distributions over domains `(N, r)`, float64, of probabilities, logits or a `PredictionOutput`, checked.

    Raises:
        ValueError: For another width, numbers that are not finite, and, without `from_logits`, rows that are not
            distributions.
    """
    values = getattr(outputs, "predictions", outputs)
    values = values[0] if isinstance(values, tuple) else values
    if width is not None and getattr(values, "shape", ()) in ((0,), (0, width)):
        return np.zeros((0, width))
    probs = check_scores(values, "domain_probs").astype(np.float64)
    if width is not None and probs.shape[1] != width:
        raise ValueError(f"`domain_probs` has {probs.shape[1]} columns, the fit had {width} domains.")
    if from_logits:
        probs = np.exp(probs - probs.max(1, keepdims=True))
        return probs / probs.sum(1, keepdims=True)
    hint = "If these are logits, fit with `from_logits=True`."
    if (probs < 0).any():
        index = first_bad(probs < 0)
        raise ValueError(f"`domain_probs` must not be negative, got {probs[index]} at {place(index)}. {hint}")
    off = np.abs(probs.sum(1) - 1) > 1e-3
    if off.any():
        row = int(off.argmax())
        raise ValueError(f"Row {row} of `domain_probs` sums to {probs[row].sum():.4g}, expected 1. {hint}")
    return probs
