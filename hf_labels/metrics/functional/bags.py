"""How well the mean prediction of a bag fits its known share."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import to_numpy


def bag_proportion_error(predictions: Any, references: Any, bag_ids: Any) -> dict[str, Any]:
    """Mean over bags of `|mean prediction - share|`.

    Args:
        predictions (`(N,)` or `(N, K)`): Probability of the positive class, or of each class; or labels 0 and 1.
        references (`(N,)` or `(N, K)`): Share of the row's bag, the same for all its rows; or labels of rows,
            whose mean is the share.
        bag_ids (`(N,)` integers): Bag of each row; rows with a negative one do not count.

    Returns:
        `dict`: `bag_proportion_error` in [0, 1], lower is better: of K columns half the sum of the distances
            (total variation); `n`, the bags.

    Raises:
        ValueError: If shapes differ, there is no bag, or a value is outside [0, 1].

    Example:
        >>> bag_proportion_error([0.5, 0.5, 1.0, 0.0], [0, 1, 1, 1], [0, 0, 1, 1])
        {'bag_proportion_error': 0.25, 'n': 2}

    Source: Havaldar et al., arXiv:2310.08056 judge by AUC; this is what can be measured without instance labels.
    """
    probs = to_numpy(predictions, "predictions").astype(np.float64)
    shares = to_numpy(references, "references").astype(np.float64)
    bag = to_numpy(bag_ids, "bag_ids")
    if probs.shape != shares.shape or probs.ndim not in (1, 2) or bag.shape != probs.shape[:1]:
        raise ValueError(
            "`predictions` and `references` must have one shape, (N,) or (N, K), and `bag_ids` (N,); got "
            f"{probs.shape}, {shares.shape} and {bag.shape}."
        )
    for name, values in (("predictions", probs), ("references", shares)):
        if not ((values >= -1e-6) & (values <= 1 + 1e-6)).all():
            raise ValueError(f"`{name}` must be in [0, 1]. Give probabilities or shares, not logits or counts.")
    inside = bag >= 0
    if not inside.any():
        raise ValueError("No row is in a bag: all `bag_ids` are negative.")
    gap = (probs - shares)[inside].reshape(int(inside.sum()), -1)
    _, place, sizes = np.unique(bag[inside], return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(place, weights=column) / sizes for column in gap.T], 1)
    errors = np.abs(means).sum(1) / (1 if means.shape[1] == 1 else 2)
    return {"bag_proportion_error": float(errors.mean()), "n": len(sizes)}
