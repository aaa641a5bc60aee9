"""Label corruption for experiments: what people's labels look like, made from clean ones with a known truth.

    noisy = label_noise(labels, 0.4, num_labels=10, seed=0)      # noisy.labels, noisy.changed, noisy.transition
    crowd = simulated_annotators(labels, accuracies=[0.9, 0.7, 0.6], num_labels=10, seed=0)

All functions take and give plain arrays, never change their input, and give the same answer for the same seed. Rows
whose label is missing (-1) stay missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_labels.labels.kinds import MISSING, check_values


@dataclass(frozen=True)
class NoisyLabels:
    """Labels with errors, and the truth about them.

    Parameters:
        labels (`np.ndarray` of shape `(n,)`): Class ids after the corruption.
        changed (`np.ndarray` of shape `(n,)`, bool): Rows whose label is not the given one any more.
        transition (`np.ndarray` of shape `(K, K)`): Measured p(noisy | clean), a row per clean class; a class without
            rows has its 1 on the diagonal.
    """

    labels: np.ndarray
    changed: np.ndarray
    transition: np.ndarray


def label_noise(
    labels: Any,
    rate: float,
    *,
    num_labels: int,
    seed: int,
    kind: str = "symmetric",
    transition: Any = None,
    features: Any = None,
) -> NoisyLabels:
    """Replace labels by wrong ones.

    Args:
        labels (array of shape `(n,)`): Class ids, -1 = missing.
        rate: Share of the labelled rows that are changed, 0 to 1. `symmetric` and `asymmetric` change exactly
            `round(rate * n)` rows; for `instance` it is the mean of the rates of the rows.
        num_labels: Number of classes K, at least 2.
        seed: Seed of the draw.
        kind (`str`, *optional*, defaults to `"symmetric"`): `symmetric`: every other class is as likely.
            `asymmetric`: a class turns into the classes of `transition`, by default into the next one (pair flip).
            `instance`: depends on the features of the row (Xia et al. 2020, arXiv:2006.07836, algorithm 2).
        transition (array of shape `(K, K)`, *optional*): For `asymmetric`: how a changed label of class i is drawn;
            only the entries off the diagonal count, a row of zeros means that the class is never changed.
        features (array of shape `(n, d)`, *optional*): For `instance`.

    Returns:
        `NoisyLabels`

    Raises:
        ValueError: For a rate outside [0, 1], one class, an unknown kind, or arguments that do not fit it.
    """
    clean = _ids(labels, num_labels)
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"`rate` is {rate}, expected a share of rows between 0 and 1.")
    if num_labels < 2:
        raise ValueError(f"`num_labels` is {num_labels}; one class has no wrong labels.")
    rng = _generator(seed)
    known = np.flatnonzero(clean != MISSING)
    noisy = clean.copy()
    if kind == "instance":
        noisy[known] = _instance_noise(clean[known], rate, num_labels, features, known, rng)
    elif kind in ("symmetric", "asymmetric"):
        flips = _flips(kind, transition, num_labels)
        able = known[flips[clean[known]].sum(1) > 0]
        count = min(round(rate * len(known)), len(able))
        rows = rng.choice(able, size=count, replace=False) if count else able[:0]
        noisy[rows] = _draw(flips[clean[rows]], rng)
    else:
        raise ValueError(f"`kind` is {kind!r}, expected 'symmetric', 'asymmetric' or 'instance'.")
    counts = np.zeros((num_labels, num_labels))
    np.add.at(counts, (clean[known], noisy[known]), 1)
    empty = counts.sum(1) == 0
    counts[empty, empty] = 1
    return NoisyLabels(noisy, noisy != clean, counts / counts.sum(1, keepdims=True))


def _ids(labels: Any, num_labels: int) -> np.ndarray:
    ids = np.asarray(labels)
    if ids.ndim != 1:
        raise ValueError(f"`labels` has shape {ids.shape}, expected one class id per row (n,).")
    check_values(ids, "hard", num_labels=num_labels)
    return ids.astype(np.int64)


def _generator(seed: int) -> np.random.Generator:
    """Apart from `default_rng(seed)`, from which callers may have drawn the very data that is corrupted here."""
    return np.random.default_rng([seed, 0x1ABE15])


def _draw(shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One column per row, drawn with the row's shares, (n, K) -> (n,)."""
    edges = np.cumsum(shares, 1)
    return (rng.random((len(shares), 1)) * edges[:, -1:] >= edges).sum(1).clip(max=shares.shape[1] - 1)


def _flips(kind: str, transition: Any, num_labels: int) -> np.ndarray:
    if kind == "symmetric":
        if transition is not None:
            raise ValueError("`transition` belongs to `kind='asymmetric'`.")
        return 1.0 - np.eye(num_labels)
    if transition is None:
        return np.roll(np.eye(num_labels), 1, axis=1)
    flips = np.array(transition, dtype=np.float64)
    if flips.shape != (num_labels, num_labels) or not np.isfinite(flips).all() or (flips < 0).any():
        raise ValueError(f"`transition` must be a ({num_labels}, {num_labels}) array without negative entries.")
    np.fill_diagonal(flips, 0.0)
    return flips


def _instance_noise(
    clean: np.ndarray, rate: float, num_labels: int, features: Any, rows: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Rates of rows are normal around `rate` (standard deviation 0.1, within [0, 1]); features choose the class."""
    if features is None:
        raise ValueError("`kind='instance'` needs `features` (n, d).")
    table = np.asarray(features, dtype=np.float64)
    if table.ndim != 2 or len(table) <= rows.max(initial=-1) or not np.isfinite(table).all():
        raise ValueError(f"`features` has shape {table.shape}, expected finite numbers (n, d), one row per label.")
    table = table[rows]
    rates = rng.normal(rate, 0.1, len(clean))
    while (outside := (rates < 0) | (rates > 1)).any():
        rates[outside] = rng.normal(rate, 0.1, int(outside.sum()))
    directions = rng.standard_normal((num_labels, table.shape[1], num_labels))
    scores = np.empty((len(clean), num_labels))
    for label in range(num_labels):
        scores[clean == label] = table[clean == label] @ directions[label]
    own = np.arange(len(clean)), clean
    scores[own] = -np.inf
    shares = np.exp(scores - scores.max(1, keepdims=True))
    shares *= (rates / shares.sum(1))[:, None]
    shares[own] = 1.0 - rates
    return _draw(shares, rng)


def partial_labels(labels: Any, extra: float, *, num_labels: int, seed: int) -> np.ndarray:
    """Candidate sets: the true class and each other class with probability `extra`.

    Args:
        labels (array of shape `(n,)`): Class ids. A row with -1 has every class as a candidate.
        extra: Probability of each wrong candidate, 0 to below 1.
        num_labels: Number of classes K.
        seed: Seed of the draw.

    Returns:
        `np.ndarray` of shape `(n, K)`, float32: 1 for a candidate.
    """
    clean = _ids(labels, num_labels)
    if not 0.0 <= extra < 1.0:
        raise ValueError(f"`extra` is {extra}, expected a probability from 0 to below 1.")
    sets = _generator(seed).random((len(clean), num_labels)) < extra
    known = clean != MISSING
    sets[known, clean[known]] = True
    sets[~known] = True
    return sets.astype(np.float32)


def positive_only(labels: Any, *, seed: int, keep: float | None = None) -> np.ndarray:
    """Which entries of multi-label rows somebody has looked at, if people name only what is there.

    Args:
        labels (array of shape `(n, K)`): 0 or 1.
        keep (`float`, *optional*): Share of the positive labels that are named; by default one of every row.
        seed: Seed of the draw.

    Returns:
        `np.ndarray` of shape `(n, K)`, float32: The `label_mask`, 1 = observed; it is 1 on positive labels only.
    """
    table = np.asarray(labels)
    if table.ndim != 2:
        raise ValueError(f"`labels` has shape {table.shape}, expected 0 or 1 per label (n, K).")
    check_values(table, "multi")
    positive = table == 1
    draw = np.where(positive, _generator(seed).random(table.shape), -1.0)
    if keep is None:
        seen = np.zeros_like(positive)
        rows = np.flatnonzero(positive.any(1))
        seen[rows, draw[rows].argmax(1)] = True
        return seen.astype(np.float32)
    if not 0.0 <= keep <= 1.0:
        raise ValueError(f"`keep` is {keep}, expected a share of labels between 0 and 1.")
    return (positive & (draw < keep)).astype(np.float32)


def long_tail(labels: Any, imbalance: float, *, num_labels: int, seed: int) -> np.ndarray:
    """Rows of a long-tailed subset: class k keeps `n_max * imbalance ** (-k / (K - 1))` rows (arXiv:1901.05555).

    Args:
        labels (array of shape `(n,)`): Class ids; rows with -1 are left out.
        imbalance: Size of the largest class over that of the smallest, at least 1.
        num_labels: Number of classes K.
        seed: Seed of the draw.

    Returns:
        `np.ndarray`, int64: Row numbers, ascending; at least one of every class that has any.
    """
    clean = _ids(labels, num_labels)
    if imbalance < 1:
        raise ValueError(f"`imbalance` is {imbalance}, expected largest class / smallest class, at least 1.")
    rng = _generator(seed)
    top = np.bincount(clean[clean != MISSING], minlength=num_labels).max(initial=0)
    kept = []
    for label in range(num_labels):
        rows = np.flatnonzero(clean == label)
        size = max(1, round(top * imbalance ** (-label / max(num_labels - 1, 1))))
        kept.append(rng.permutation(rows)[:size])
    return np.sort(np.concatenate(kept)).astype(np.int64)


def make_bags(labels: Any, size: int, *, num_labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bags of random rows that are known by their label proportions only.

    Args:
        labels (array of shape `(n,)`): Class ids; rows with -1 are in no bag.
        size: Rows of a bag. Rows that do not fill a last bag are in no bag.
        num_labels: Number of classes K.
        seed: Seed of the draw.

    Returns:
        `bag_id` (n,) int64 with -1 for no bag, and the proportions (bags, K) float64.
    """
    clean = _ids(labels, num_labels)
    known = np.flatnonzero(clean != MISSING)
    if not 1 <= size <= len(known):
        raise ValueError(f"`size` is {size}, expected 1 to {len(known)} rows, the number of labelled rows.")
    bags = len(known) // size
    rows = _generator(seed).permutation(known)[: bags * size].reshape(bags, size)
    ids = np.full(len(clean), MISSING, dtype=np.int64)
    ids[rows] = np.arange(bags)[:, None]
    return ids, np.eye(num_labels)[clean[rows]].mean(1)


def simulated_annotators(
    labels: Any,
    *,
    num_labels: int,
    seed: int,
    accuracies: Sequence[float] | None = None,
    confusions: Any = None,
    answers: int | None = None,
) -> np.ndarray:
    """Answers of annotators with known accuracies or confusion matrices.

    Args:
        labels (array of shape `(n,)`): True class ids; nobody answers for a row with -1.
        num_labels: Number of classes K.
        accuracies (`Sequence[float]`, *optional*): Share of right answers per annotator; errors are spread evenly.
        confusions (array of shape `(A, K, K)`, *optional*): p(answer | truth) per annotator instead.
        answers (`int`, *optional*): How many randomly chosen annotators answer for a row. All by default.
        seed: Seed of the draw.

    Returns:
        `np.ndarray` of shape `(n, A)`, int64: `annotator_labels`, -1 = did not answer.
    """
    clean = _ids(labels, num_labels)
    if (accuracies is None) == (confusions is None):
        raise ValueError("Pass one of `accuracies` and `confusions`.")
    if accuracies is not None:
        right = np.asarray(accuracies, dtype=np.float64)
        if right.ndim != 1 or not ((right >= 0) & (right <= 1)).all():
            raise ValueError("`accuracies` must hold one share of right answers between 0 and 1 per annotator.")
        eye = np.eye(num_labels)
        tables = right[:, None, None] * eye + (1 - right)[:, None, None] * (1 - eye) / max(num_labels - 1, 1)
    else:
        tables = np.asarray(confusions, dtype=np.float64)
        sums_to_one = tables.ndim == 3 and np.allclose(tables.sum(-1), 1, atol=1e-6)
        if not sums_to_one or tables.shape[1:] != (num_labels, num_labels) or (tables < 0).any():
            raise ValueError(f"`confusions` must have shape (A, {num_labels}, {num_labels}) with rows that sum to 1.")
    people = len(tables)
    if answers is not None and not 1 <= answers <= people:
        raise ValueError(f"`answers` is {answers}, expected 1 to {people}, the number of annotators.")
    rng = _generator(seed)
    known = clean != MISSING
    out = np.full((len(clean), people), MISSING, dtype=np.int64)
    for person, table in enumerate(tables):
        out[known, person] = _draw(table[clean[known]], rng)
    if answers is not None and answers < people:
        silent = rng.random(out.shape).argsort(1)[:, answers:]
        np.put_along_axis(out, silent, MISSING, 1)
    return out
