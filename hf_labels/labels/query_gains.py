"""What a student is unsure about: gains of rows, and the usual ways to choose queries by them."""

import math
from typing import Any

import numpy as np


def margin_gain(probs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Margin between the two largest probabilities, and the gain `1 - margin`.

    Args:
        probs (array of shape `(n, C)`): Student probabilities; rows sum to 1.

    Returns:
        `tuple`: Margin and gain, both of shape `(n,)`, in [0, 1]. With a single class the margin is 1, the gain 0.

    Raises:
        ValueError: If a row is no distribution; names it.
    """
    values = check_probs(probs)
    if values.shape[1] == 1:
        return np.ones(len(values)), np.zeros(len(values))
    top = np.partition(values, values.shape[1] - 2, axis=1)
    margin = top[:, -1] - top[:, -2]
    return margin, 1.0 - margin


def entropy_gain(probs: Any) -> np.ndarray:
    """Entropy of each row over that of the uniform distribution, in [0, 1]; arguments as in [`margin_gain`]."""
    values = check_probs(probs)
    if values.shape[1] == 1:
        return np.zeros(len(values))
    entropy = -(values * np.log(np.where(values > 0, values, 1.0))).sum(1)
    return np.clip(entropy / math.log(values.shape[1]), 0.0, 1.0)


def check_probs(probs: Any, tolerance: float = 1e-3) -> np.ndarray:
    """Probabilities as float64 `(n, C)`. Raises `ValueError` naming the first row that is no distribution."""
    values = np.asarray(probs, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"`probs` must have shape (n, C), got {values.shape}.")
    wrong = ~np.isfinite(values).all(1) | (values < 0).any(1) | ~(np.abs(values.sum(1) - 1) <= tolerance)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"`probs` must be probabilities; row {row} sums to {values[row].sum():.4g} (smallest "
            f"{values[row].min():.3g}). Apply a softmax to logits first."
        )
    return values


def top_gains(gains: Any, budget: int) -> np.ndarray:
    """The `budget` rows of largest gain, sorted by row; among equals the first. All rows when there are fewer."""
    return np.sort(np.argsort(-np.asarray(gains, dtype=np.float64), kind="stable")[:budget])


def k_center_greedy(features: Any, budget: int, covered: Any = None) -> np.ndarray:
    """Core set: rows that, one after the other, are farthest from all rows chosen or covered before.

    Args:
        features (array of shape `(n, d)`): One vector per row.
        budget (`int`): Rows to choose; all when there are fewer.
        covered (array of shape `(m, d)`, *optional*): Vectors of rows that have labels already. Without any, the row
            nearest to the mean comes first.

    Returns:
        `np.ndarray` of shape `(min(budget, n),)`, int64: Row numbers in the order of their choice.

    Raises:
        ValueError: If the shapes disagree or a vector is not finite; names the row.

    Cost O(n d (m + budget)).
    Source: Sener and Savarese, arXiv:1708.00489, algorithm 1.
    """
    vectors = _vectors(features, "features")
    known = np.empty((0, vectors.shape[1])) if covered is None else _vectors(covered, "covered")
    if known.shape[1] != vectors.shape[1]:
        raise ValueError(f"`features` have width {vectors.shape[1]}, `covered` has {known.shape[1]}.")
    chosen: list[int] = []
    nearest = np.full(len(vectors), np.inf)
    for vector in known:
        nearest = np.minimum(nearest, ((vectors - vector) ** 2).sum(1))
    for _ in range(min(budget, len(vectors))):
        if not chosen and not len(known):
            row = int(((vectors - vectors.mean(0)) ** 2).sum(1).argmin())
        else:
            row = int(nearest.argmax())
        chosen.append(row)
        nearest = np.minimum(nearest, ((vectors - vectors[row]) ** 2).sum(1))
        nearest[row] = -np.inf
    return np.array(chosen, dtype=np.int64)


def _vectors(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"`{name}` must have shape (rows, width), got {array.shape}.")
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if len(bad):
        raise ValueError(f"`{name}` holds NaN or infinity at row {bad[0]}.")
    return array
