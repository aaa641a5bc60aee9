"""Aggregators of crowd annotations that count votes, and ways to mix several aggregations.

Sources: Dawid and Skene 1979 for the setting; WaWA and zero-based skill as in the public library crowd-kit;
mixtures of Wright and Augenstein, arXiv:2212.09409.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.labels.crowd import CrowdAnnotations


def normalize(counts: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; a row without votes is uniform."""
    totals = counts.sum(1, keepdims=True)
    return np.where(totals > 0, counts / np.where(totals > 0, totals, 1.0), 1 / counts.shape[1])


def normalized_votes(data: CrowdAnnotations) -> np.ndarray:
    """Vote shares, `(T, K)`."""
    return normalize(data.counts())


def softmax_votes(data: CrowdAnnotations) -> np.ndarray:
    """Softmax of the vote counts, `(T, K)`."""
    counts = data.counts()
    shares = np.exp(counts - counts.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def majority_vote(data: CrowdAnnotations) -> tuple[np.ndarray, np.ndarray]:
    """Most frequent label of each item, `(T,)` (the smallest id wins ties), and agreement of each worker, `(W,)`."""
    labels = data.counts().argmax(1)
    return labels, agreement(data, labels)


def agreement(data: CrowdAnnotations, labels: np.ndarray) -> np.ndarray:
    """Share of each worker's annotations that equal the label of the item, `(W,)`; 0 for a worker without any."""
    hits = np.bincount(data.worker, weights=labels[data.item] == data.label, minlength=data.num_workers)
    return hits / np.maximum(np.bincount(data.worker, minlength=data.num_workers), 1)


def weighted_votes(data: CrowdAnnotations, skill: np.ndarray) -> np.ndarray:
    """Votes weighted by the skill of the worker, in shares; plain shares for an item whose voters all have skill 0."""
    counts = data.counts(skill[data.worker])
    silent = counts.sum(1) <= 0
    if silent.any():
        counts[silent] = data.counts()[silent]
    return normalize(counts)


def wawa(data: CrowdAnnotations) -> tuple[np.ndarray, np.ndarray]:
    """Worker agreement with aggregate: votes weighted by agreement with the majority.

    Returns:
        `(soft, skill)`: `(T, K)` and `(W,)`.
    """
    skill = majority_vote(data)[1]
    return weighted_votes(data, skill), skill


def zero_based_skill(
    data: CrowdAnnotations,
    n_iter: int = 100,
    lr_init: float = 1.0,
    lr_steps_to_reduce: int = 20,
    lr_reduce_factor: float = 0.5,
    eps: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray]:
    """Votes weighted by a skill that moves towards the agreement with the weighted votes.

    Args:
        n_iter (`int`, *optional*, defaults to 100): Rounds.
        lr_init, lr_steps_to_reduce, lr_reduce_factor: Step, multiplied by the factor every so many rounds.
        eps (`float`, *optional*): The first skill is 1/K plus this, K labels that occur.

    Returns:
        `(soft, skill)`: `(T, K)` and `(W,)`.
    """
    skill = np.full(data.num_workers, 1 / len(np.unique(data.label)) + eps)
    rate = lr_init
    for number in range(1, n_iter + 1):
        if number % lr_steps_to_reduce == 0:
            rate *= lr_reduce_factor
        labels = data.counts(skill[data.worker]).argmax(1)
        skill = skill + rate * (agreement(data, labels) - skill)
    return weighted_votes(data, skill), skill


# Several aggregations


def _stacked(distributions: Any) -> np.ndarray:
    stack = np.asarray(distributions, dtype=np.float64)
    if stack.ndim != 3 or not len(stack):
        raise ValueError(f"`distributions` must be (M, T, K) with M >= 1, got {stack.shape}.")
    return stack


def average(distributions: Any, weights: Sequence[float] | None = None) -> np.ndarray:
    """Mean of M aggregations `(M, T, K)`, `(T, K)`; the paper's proposal.

    Args:
        weights (sequence of M `float`, *optional*): Normalised here.

    Raises:
        ValueError: For other shapes, or weights that are negative or all 0.
    """
    stack = _stacked(distributions)
    if weights is None:
        return stack.mean(0)
    shares = np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(stack),) or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"`weights` must be {len(stack)} numbers of at least 0 with a positive sum, got {weights!r}.")
    return np.tensordot(shares / shares.sum(), stack, 1)


def conflation(distributions: Any) -> np.ndarray:
    """Normalised product of M aggregations, `(T, K)`; uniform where every label has a probability of 0."""
    with np.errstate(divide="ignore"):
        logs = np.log(_stacked(distributions)).sum(0)
    best = logs.max(1, keepdims=True)
    product = np.where(np.isfinite(best), np.exp(logs - np.where(np.isfinite(best), best, 0.0)), 0.0)
    return normalize(product)


def jensen_shannon_centroid(
    distributions: Any, weights: Sequence[float] | None = None, max_iter: int = 1000, tol: float = 1e-10
) -> np.ndarray:
    """The distribution with the least mean Jensen-Shannon divergence to M aggregations, row by row, `(T, K)`.

    Concave-convex fixed point of Nielsen, arXiv:1912.00610, algorithm 1, in the coordinates of the first K - 1 labels.
    """
    stack = _stacked(distributions)
    shares = np.full(len(stack), 1 / len(stack)) if weights is None else np.asarray(weights, dtype=np.float64)
    shares = shares / shares.sum()
    parts = stack[..., :-1]
    theta, todo = np.tensordot(shares, parts, 1), np.arange(stack.shape[1])
    for _ in range(max_iter):
        if not len(todo):
            break
        middle = (theta[todo] + parts[:, todo]) / 2
        with np.errstate(divide="ignore"):
            logs = np.log(middle / np.maximum(1 - middle.sum(-1, keepdims=True), 1e-8))
        mean = np.exp(np.tensordot(shares, np.maximum(logs, -745.0), 1))
        new = mean / (1 + mean.sum(-1, keepdims=True))
        moved = np.abs(new - theta[todo]).sum(-1)
        theta[todo] = new
        todo = todo[moved >= tol]
    return np.concatenate([theta, np.maximum(1 - theta.sum(-1, keepdims=True), 0)], -1)
