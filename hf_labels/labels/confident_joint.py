"""Counts and noise matrices of confident learning.

Source: Northcutt, Jiang and Chuang, "Confident Learning", JAIR 2021 (section 3), with the rounding and the lower
bounds of the public library, so that counts agree with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = 1e-6
"""Margin of the thresholds, and bonus of the given label in ties."""
NEVER = 2.0
"""Threshold of a class without a labelled row: no probability reaches it."""
_BLOCK = 1 << 18  # probabilities per block: temporaries stay in the cache


def blocks(pred_probs: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of a table in float64, a few at a time."""
    size = max(1, _BLOCK // pred_probs.shape[1])
    for start in range(0, len(pred_probs), size):
        rows = slice(start, min(start + size, len(pred_probs)))
        yield rows, np.asarray(pred_probs[rows], dtype=np.float64)


def class_thresholds(labels: np.ndarray, own: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean probability of a class over the rows that are labelled with it, `(K,)`; 2 for a class without rows.

    Args:
        labels (`np.ndarray` of shape `(N,)`), own (`np.ndarray` of shape `(N,)`): Given labels, and their probability.
        num_classes (`int`): K.
    """
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=own, minlength=num_classes)
    return np.maximum(np.where(counts > 0, sums / np.maximum(counts, 1), NEVER), 2 * TOLERANCE)


@dataclass(frozen=True)
class Scan:
    """What one pass over the probabilities finds, per row.

    Parameters:
        own (`np.ndarray` of shape `(N,)`): Probability of the given label.
        top (`np.ndarray` of shape `(N,)`): Most probable label.
        agrees (`np.ndarray` of shape `(N,)`, bool): The given label is the most probable one; it wins ties.
        guess (`np.ndarray` of shape `(N,)`): Confident guess of the true label; -1 where no class is confident.
        thresholds (`np.ndarray` of shape `(K,)`): See [`class_thresholds`].
    """

    own: np.ndarray
    top: np.ndarray
    agrees: np.ndarray
    guess: np.ndarray
    thresholds: np.ndarray


def scan(labels: np.ndarray, pred_probs: np.ndarray) -> Scan:
    """One pass over `pred_probs` `(N, K)`; see [`Scan`]."""
    size, classes = pred_probs.shape
    own = pred_probs[np.arange(size), labels].astype(np.float64)
    thresholds = class_thresholds(labels, own, classes)
    limits = thresholds - TOLERANCE
    top, guess, best = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64), np.empty(size)
    for rows, probs in blocks(pred_probs):
        first = probs.argmax(1)
        top[rows], best[rows] = first, probs[np.arange(len(probs)), first]
        # Several confident classes: the most probable of all classes, as in the reference. So a confident top is the
        # guess; otherwise the guess is the only confident class, or again the top.
        found, unsure = first.copy(), np.flatnonzero(best[rows] < limits[first])
        confident = probs[unsure] >= limits
        count = np.count_nonzero(confident, axis=1)
        found[unsure[count == 0]] = -1
        found[unsure[count == 1]] = confident[count == 1].argmax(1)
        guess[rows] = found
    lifted = own + TOLERANCE
    agrees = (top == labels) | (lifted > best) | ((lifted == best) & (labels < top))
    return Scan(own, top, agrees, guess, thresholds)


def best_other(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Largest value of each row outside of its label's column, `(N,)`."""
    out = np.empty(len(probs))
    for rows, part in blocks(probs):
        rest = part.copy()
        rest[np.arange(len(rest)), labels[rows]] = -np.inf
        out[rows] = rest.max(1)
    return out


def count_pairs(labels: np.ndarray, guess: np.ndarray, num_classes: int) -> np.ndarray:
    """The confident joint `(K, K)`: rows given, columns guessed; the diagonal is at least 1.

    Args:
        labels, guess (`np.ndarray` of shape `(N,)`): Rows with a guess below 0 are not counted.
        num_classes (`int`): K.
    """
    sure = guess >= 0
    pairs = np.bincount(labels[sure] * num_classes + guess[sure], minlength=num_classes**2)
    counts = pairs.reshape(num_classes, num_classes)
    np.fill_diagonal(counts, np.maximum(counts.diagonal(), 1))
    return counts


def round_keeping_sum(values: Any) -> np.ndarray:
    """Integers near `values` `(K,)` whose sum is the rounded sum."""
    exact = np.asarray(values, dtype=np.float64)
    out = np.round(exact)
    target = round(float(exact.sum()))
    while (difference := int(target - out.sum())) != 0:
        step = 1 if difference > 0 else -1
        order = np.argsort(exact - out)  # the order of ties is that of the reference
        if step > 0:
            order = order[::-1]
        out[order[: min(abs(difference), len(out))]] += step
    return out.astype(np.int64)


def round_keeping_rows(table: np.ndarray) -> np.ndarray:
    """[`round_keeping_sum`] of every row."""
    return np.stack([round_keeping_sum(row) for row in table])


def calibrate_joint(counts: np.ndarray, label_counts: np.ndarray) -> np.ndarray:
    """Counts `(K, K)` scaled so that row k sums to the number of rows with label k; integers."""
    scaled = counts / np.maximum(counts.sum(1, keepdims=True), 1e-100) * label_counts[:, None]
    scaled = scaled / scaled.sum() * label_counts.sum()
    return round_keeping_rows(scaled)


@dataclass(frozen=True)
class NoiseEstimate:
    """How labels go wrong.

    Parameters:
        prior (`np.ndarray` of shape `(K,)`): p(true = k).
        noise (`np.ndarray` of shape `(K, K)`): p(given = i | true = j), columns sum to 1.
        inverse (`np.ndarray` of shape `(K, K)`): p(true = i | given = j), columns sum to 1.
    """

    prior: np.ndarray
    noise: np.ndarray
    inverse: np.ndarray


def estimate_noise(counts: np.ndarray, label_counts: np.ndarray) -> NoiseEstimate:
    """Prior and noise matrices of a confident joint.

    Args:
        counts (`np.ndarray` of shape `(K, K)`): Rows given, columns true.
        label_counts (`np.ndarray` of shape `(K,)`): Rows per given label.
    """
    table = np.asarray(counts, dtype=np.float64)
    given = np.asarray(label_counts, dtype=np.float64)
    noise = table / np.maximum(table.sum(0, keepdims=True), TOLERANCE)
    inverse = (table / np.maximum(table.sum(1, keepdims=True), TOLERANCE)).T
    prior = inverse.diagonal() / np.maximum(noise.diagonal(), TOLERANCE) * given / given.sum()
    prior = np.clip(prior, TOLERANCE, 1.0)
    return NoiseEstimate(prior / prior.sum(), _clip_noise(noise), _clip_noise(inverse))


def _clip_noise(matrix: np.ndarray) -> np.ndarray:
    """Off the diagonal in [0, 0.9999], columns sum to 1."""
    out = np.clip(matrix, 0.0, 0.9999)
    np.fill_diagonal(out, matrix.diagonal())
    return out / np.maximum(out.sum(0, keepdims=True), TOLERANCE)


def prune_counts(
    calibrated: np.ndarray,
    label_counts: np.ndarray,
    frac_noise: float = 1.0,
    min_examples_per_class: int = 1,
    num_to_remove_per_class: Any = None,
) -> np.ndarray:
    """How many rows to flag: `(K, K)`, rows true, columns given; the diagonal counts the rows that stay.

    Args:
        calibrated (`np.ndarray` of shape `(K, K)`): Calibrated joint, rows given, columns true.
        label_counts (`np.ndarray` of shape `(K,)`): Rows per given label.
        frac_noise (`float`, *optional*, defaults to 1.0): Share of the estimated errors that is flagged.
        min_examples_per_class (`int`, *optional*, defaults to 1): Rows that a class keeps.
        num_to_remove_per_class (array of shape `(K,)`, *optional*): Rows to flag per given class instead.

    Raises:
        ValueError: If rows are to be removed from a class without any estimated error.
    """
    counts = calibrated.T.astype(np.float64)
    diagonal = counts.diagonal().copy()
    kept = np.maximum(diagonal, min_examples_per_class)
    others = np.maximum(np.count_nonzero(counts, axis=0) - 1.0, 1.0)
    counts = np.maximum(counts - (kept - diagonal) / others, 0.0)
    np.fill_diagonal(counts, kept)
    reduced = counts * frac_noise
    np.fill_diagonal(reduced, kept)
    np.fill_diagonal(reduced, kept + (counts - reduced).sum(0))
    out = round_keeping_rows(np.trunc(reduced))
    if num_to_remove_per_class is None:
        return out
    wanted = np.asarray(num_to_remove_per_class, dtype=np.float64)
    shares = out / np.maximum(out.sum(1), 1e-100)
    noise = shares.sum(1) - shares.diagonal()
    empty = np.flatnonzero((noise <= 0) & (wanted > 0))
    if len(empty):
        raise ValueError(
            f"`num_to_remove_per_class` asks for {int(wanted[empty[0]])} rows of class {empty[0]}, in which no error "
            "is estimated. Set it to 0 there."
        )
    spread = shares * (wanted / np.where(noise > 0, noise, 1.0))[:, None]
    np.fill_diagonal(spread, label_counts - wanted)
    return round_keeping_rows(spread)
