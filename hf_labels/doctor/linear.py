"""Probabilities out of sample in seconds: linear discriminants on frozen features, cross-fitted."""

from __future__ import annotations

import numpy as np

FOLDS = 5
SHRINKS = (0.01, 0.1, 0.3, 0.7)
SURE, LEAST_SURE = 0.1, 500  # share of the rows that the features are surest of, and how many are wanted


def cross_fitted(features: np.ndarray, y: np.ndarray, folds: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Probabilities `(N, K)` of each row by linear discriminants of the other folds, in seconds for 20 000 rows.

    Args:
        features (`(N, d)`), y (`(N,)` integers): All K classes with two rows at least.
        folds, seed (`int`, *optional*): Every class is spread over the folds.

    The pooled covariance is shrunk towards a multiple of the identity; how far, and one temperature for all rows, are
    those of the lowest log loss out of sample. A head that has learned wrong labels by heart finds fewer of them, one
    that is too stiff takes hard rows for wrong ones.
    """
    from hf_labels.metrics.functional import temperature_scaling

    count = int(y.max()) + 1
    x = np.asarray(features, dtype=np.float64)
    part = parts_of(y, folds, np.random.default_rng(seed))
    logits = {shrink: np.empty((len(x), count)) for shrink in SHRINKS}
    for fold in range(folds):
        held = part == fold
        train, own = x[~held], y[~held]
        sizes = np.bincount(own, minlength=count)
        sums = np.zeros((count, x.shape[1]))
        np.add.at(sums, own, train)
        means = sums / np.maximum(sizes, 1)[:, None]
        apart = train - means[own]
        values, vectors = np.linalg.eigh(apart.T @ apart / max(len(train) - count, 1))
        values = np.maximum(values, 0.0)
        turned, rows = means @ vectors, x[held] @ vectors
        prior = np.log(np.maximum(sizes, 1e-12) / len(train))
        for shrink, table in logits.items():
            inverse = 1 / ((1 - shrink) * values + shrink * max(values.mean(), 1e-12))
            table[held] = rows @ (turned * inverse).T - 0.5 * (turned**2 * inverse).sum(1) + prior
    best, found = np.inf, np.empty(0)
    for table in logits.values():
        scaled = table / temperature_scaling(table, y, 1e-4, 1e6, warn=False)
        scaled -= scaled.max(1, keepdims=True)
        probs = np.exp(scaled)
        probs /= probs.sum(1, keepdims=True)
        loss = float(-np.log(np.maximum(probs[np.arange(len(y)), y], 1e-12)).mean())
        if loss < best:
            best, found = loss, probs
    return found


def parts_of(y: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each row; the rows of a class are dealt out in turn."""
    part, start = np.empty(len(y), np.int64), 0
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        part[rows] = (np.arange(len(rows)) + start) % folds
        start += len(rows)
    return part


def informed(probs: np.ndarray, y: np.ndarray) -> bool:
    """Whether probabilities out of sample are surely better than the shares of the classes, by their log loss."""
    own = np.log(np.maximum(probs[np.arange(len(y)), y], 1e-12))
    gain = own - np.log(np.bincount(y) / len(y))[y]
    return bool(gain.mean() > 2 * gain.std() / np.sqrt(len(y)))


def discriminants(
    features: np.ndarray, table: np.ndarray, folds: int = FOLDS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """As [`cross_fitted`] for multi labels: each label by itself, all on one covariance.

    Args:
        features (`(N, d)`), table (`(N, K)`): 1, 0 or -1 (unknown). Each label is there in some rows, and not in some.

    Returns:
        Probability of each label `(N, K)`, and for each label whether it is surely better than its share `(K,)`.

    The direction of a discriminant of two classes is the same for the pooled and for the total covariance, and the
    total one is the same for all labels. Scale and offset are those of a logistic regression on the score.
    """
    x, known = np.asarray(features, dtype=np.float64), table >= 0
    truth, sizes = table == 1, known.sum(0)
    share = truth.sum(0) / sizes
    surprise = -np.log(np.where(truth, share, 1 - share))  # of a cell, when only the shares are known
    best, found, useful = np.inf, np.empty(table.shape), np.empty(table.shape[1], bool)
    for scores in _scores(x, table, folds, seed):
        probs = _calibrated(scores, truth, known)
        losses = -np.log(np.maximum(np.where(truth, probs, 1 - probs), 1e-12))
        gain = np.where(known, surprise - losses, 0.0)
        mean = gain.sum(0) / sizes
        spread = np.sqrt(np.where(known, (gain - mean) ** 2, 0.0).sum(0) / sizes)
        loss = float((np.where(known, losses, 0.0).sum(0) / sizes).mean())
        if loss < best:
            best, found, useful = loss, probs, mean > 2 * spread / np.sqrt(sizes)
    return found, useful


def _calibrated(scores: np.ndarray, truth: np.ndarray, known: np.ndarray, steps: int = 30) -> np.ndarray:
    """Logistic regressions of each column of `truth` on the same column of `scores`, all at once (Newton steps)."""
    sizes = known.sum(0)
    middle = np.where(known, scores, 0.0).sum(0) / sizes
    width = np.sqrt(np.where(known, (scores - middle) ** 2, 0.0).sum(0) / sizes)
    x = (scores - middle) / np.maximum(width, 1e-12)
    share = truth.sum(0) / sizes
    slope, offset = np.zeros(len(share)), np.log(share / (1 - share))
    for _ in range(steps):
        probs = 1 / (1 + np.exp(-np.clip(slope * x + offset, -40, 40)))
        miss, weight = np.where(known, probs - truth, 0.0), np.where(known, probs * (1 - probs), 0.0) + 1e-12
        first, second = (miss * x).sum(0) + 1e-4 * slope, miss.sum(0)  # a slope of no end where a label is told surely
        a, b, c = (weight * x * x).sum(0) + 1e-4, (weight * x).sum(0), weight.sum(0)
        size = a * c - b * b
        by, at = (c * first - b * second) / size, (a * second - b * first) / size
        short = np.minimum(1.0, 2 / np.maximum(np.maximum(np.abs(by), np.abs(at)), 1e-12))
        slope, offset = slope - short * by, offset - short * at
        if max(np.abs(by).max(), np.abs(at).max()) < 1e-6:
            break
    return 1 / (1 + np.exp(-np.clip(slope * x + offset, -40, 40)))


def _scores(x: np.ndarray, table: np.ndarray, folds: int, seed: int) -> list[np.ndarray]:
    """Out-of-sample scores `(N, K)`, one table for each of `SHRINKS`."""
    has, lacks = (table == 1).astype(np.float64), (table == 0).astype(np.float64)
    rarest = np.where(has > 0, has.sum(0), np.inf).argmin(1)  # rows of the rarest labels are spread over the folds
    part = parts_of(np.where(has.any(1), rarest, table.shape[1]), folds, np.random.default_rng(seed))
    found = [np.empty(table.shape) for _ in SHRINKS]
    for fold in range(folds):
        held = part == fold
        middle = x[~held].mean(0)
        train, positive, negative = x[~held] - middle, has[~held], lacks[~held]
        values, vectors = np.linalg.eigh(train.T @ train / len(train))
        values = np.maximum(values, 0.0)
        sizes = np.maximum(positive.sum(0), 1), np.maximum(negative.sum(0), 1)
        means = (positive.T @ train / sizes[0][:, None]) @ vectors, (negative.T @ train / sizes[1][:, None]) @ vectors
        apart, between, rows = means[0] - means[1], (means[0] + means[1]) / 2, (x[held] - middle) @ vectors
        for shrink, scores in zip(SHRINKS, found, strict=True):
            weights = apart / ((1 - shrink) * values + shrink * max(values.mean(), 1e-12))
            scores[held] = rows @ weights.T - (between * weights).sum(1) + np.log(sizes[0] / sizes[1])
    return found


def surest(guess: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Rows `(N,)` bool whose label the features tell best: of each guessed class a tenth, of small data more.

    What another label is there is noise, or else a hard row that looks easy: fewer of these than in all rows.
    """
    share = float(np.clip(LEAST_SURE / max(len(guess), 1), SURE, 0.5))
    order = np.lexsort((-confidence, guess))
    sizes = np.bincount(guess)
    place = np.empty(len(guess), np.int64)
    place[order] = np.arange(len(guess)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place < np.ceil(share * sizes)[guess]
