"""Marginals of the Gibbs distribution of LLP-BP: belief propagation, its published pairwise form, and enumeration.

`log P(y) = -lambda_b sum_B (sum of y_i in B - c_B)^2 - lambda_s sum_(i,j) s_ij (y_i - y_j)^2 + sum_i h0_i y_i`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from hf_labels.labels.llp_bp_messages import CountFactors, sigmoid

STRONGEST = 34.0  # a pair of more log-odds says that its two are equal, in double precision


@dataclass(frozen=True)
class Marginals:
    """What an inference gives.

    Parameters:
        probs (`(N,)`): p(y_i = 1). log_odds (`(N,)`). residuals (`list[float]`): Largest change of a message in each
            iteration. converged (`bool`): It fell below the tolerance.
    """

    probs: np.ndarray
    log_odds: np.ndarray
    residuals: list[float]
    converged: bool


def _directed(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sources and targets of both directions: e and E + e are the two of one pair."""
    return np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]])


def belief_propagation(
    factors: CountFactors,
    edges: np.ndarray,
    weights: np.ndarray,
    lambda_s: float,
    unary: np.ndarray,
    *,
    max_iter: int = 100,
    damping: float = 0.5,
    tol: float = 1e-4,
    progress: bool = False,
) -> Marginals:
    """Sum-product messages between pairs and from one count factor per bag; exact on trees.

    An iteration takes the messages of the bags first, whole, then those of the pairs, damped: the marginals of a bag
    then always have its sum. With all messages damped at once, as in the published code, strong pairs drag large bags
    to all zeros before the count is heard.

    Args:
        factors ([`~hf_labels.labels.llp_bp_messages.CountFactors`]): Of the bags.
        edges (`(E, 2)` integers), weights (`(E,)`): s_ij.
        lambda_s (`float`), unary (`(N,)`): h0, log-odds that are known beforehand.
        max_iter, damping, tol (*optional*): Stop when no message changes by more than `tol`. Where changes do not fall
            in ten iterations, the damping goes up to 0.8.
        progress (`bool`, *optional*): Show a bar.

    Cost O(N k + messages of the bags) per iteration, memory O(N k).
    """
    source, target = _directed(edges)
    slope = np.tanh(0.5 * np.minimum(lambda_s * np.concatenate([weights, weights]), STRONGEST))
    half = len(edges)
    pair, bag, own = np.zeros(2 * half), np.zeros(len(unary)), unary.astype(np.float64)
    residuals: list[float] = []
    with tqdm(range(max_iter), desc="Belief propagation", disable=not progress) as bar:
        for number in bar:
            new_bag = factors.messages(own)
            change = float(np.abs(new_bag - bag).max(initial=0.0))
            bag = new_bag
            if half:
                cavity = (own + bag)[source]
                cavity[:half] -= pair[half:]
                cavity[half:] -= pair[:half]
                cavity *= 0.5
                step = 2 * np.arctanh(slope * np.tanh(cavity)) - pair  # log of (e^-J + e^h) / (1 + e^(h - J))
                change = max(change, float(np.abs(step).max()))
                step *= 1 - damping
                pair += step
                own = unary + np.bincount(target, weights=pair, minlength=len(unary))
            residuals.append(change)
            bar.set_postfix(residual=f"{change:.1e}")
            if change < tol:
                break
            if damping < 0.8 and number >= 20 and residuals[-1] >= residuals[-11]:
                damping = 0.8
    belief = own + factors.messages(own)
    return Marginals(sigmoid(belief), belief, residuals, bool(residuals and residuals[-1] < tol))


def pairwise_potentials(
    bag: np.ndarray, counts: np.ndarray, edges: np.ndarray, weights: np.ndarray, lambda_b: float, lambda_s: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Ising form of the published code: `(unary (N,), pairs (P, 2), values (P,))` for y_i = 1 and y_i = y_j = 1.

    `unary_i = -lambda_b (1 - 2 c) - lambda_s sum of s_ij`; a pair has `2 lambda_s s_ij` as an edge, `-2 lambda_b` in
    one bag, and the sum as both. Small bags only: n (n - 1) / 2 pairs each.
    """
    unary = np.where(bag >= 0, -lambda_b * (1 - 2 * counts[np.maximum(bag, 0)]), 0.0)
    count = len(bag)
    if len(edges):
        for end in (0, 1):
            unary -= lambda_s * np.bincount(edges[:, end], weights=weights, minlength=count)
    inside = [np.flatnonzero(bag == b) for b in range(len(counts))]
    joined = [np.stack(np.triu_indices(len(members), 1), 1) for members in inside]
    pairs = [members[index] for members, index in zip(inside, joined, strict=True) if len(index)]
    within = np.concatenate(pairs) if pairs else np.empty((0, 2), np.int64)
    codes = np.concatenate([edges[:, 0] * count + edges[:, 1], within[:, 0] * count + within[:, 1]])
    values = np.concatenate([2 * lambda_s * weights, np.full(len(within), -2 * lambda_b)])
    found, place = np.unique(codes, return_inverse=True)
    return unary, np.stack(np.divmod(found, count), 1), np.bincount(place, weights=values, minlength=len(found))


def pairwise_propagation(
    unary: np.ndarray,
    pairs: np.ndarray,
    values: np.ndarray,
    max_iter: int = 100,
    damping: float = 0.5,
    tol: float = 0.0,
) -> Marginals:
    """Loopy sum-product on the pairwise form, as in the published code (100 iterations, damping 0.5).

    Args:
        unary (`(N,)`), pairs (`(P, 2)` integers), values (`(P,)`): From [`pairwise_potentials`].
    """
    source, target = _directed(pairs)
    both, half = np.concatenate([values, values]), len(pairs)
    message, belief = np.zeros(2 * half), unary.astype(np.float64)
    residuals: list[float] = []
    for _ in range(max_iter):
        cavity = belief[source] - np.concatenate([message[half:], message[:half]])
        new = np.logaddexp(0, cavity + both) - np.logaddexp(0, cavity)
        residuals.append(float(np.abs(new - message).max(initial=0.0)))
        message = damping * message + (1 - damping) * new
        belief = unary + np.bincount(target, weights=message, minlength=len(unary))
        if residuals[-1] < tol:
            break
    return Marginals(sigmoid(belief), belief, residuals, bool(residuals and residuals[-1] < max(tol, 1e-4)))


def exact_marginals(
    bag: np.ndarray,
    counts: np.ndarray,
    edges: np.ndarray,
    weights: np.ndarray,
    lambda_b: float,
    lambda_s: float,
    unary: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Marginals `(N,)` and the log partition by enumeration of all 2^N labellings; up to 20 rows.

    The energy is the one at the top of this module, with its squares (the pairwise form leaves constants out).

    Raises:
        ValueError: For more than 20 rows.
    """
    count = len(bag)
    if count > 20:
        raise ValueError(f"Enumeration is for up to 20 rows, got {count}.")
    y = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    log_p = y @ unary
    for number, wanted in enumerate(counts):
        apart = np.square(y[:, bag == number].sum(1) - wanted)
        log_p = log_p - (np.where(apart < 1e-12, 0.0, np.inf) if np.isinf(lambda_b) else lambda_b * apart)
    if len(edges):
        log_p = log_p - lambda_s * (np.square(y[:, edges[:, 0]] - y[:, edges[:, 1]]) @ weights)
    top = log_p.max()
    share = np.exp(log_p - top)
    return share @ y / share.sum(), float(top + np.log(share.sum()))
