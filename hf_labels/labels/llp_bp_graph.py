"""Graphs for label proportions: pairs of near neighbours and their weights, exact or from random trees."""

from __future__ import annotations

from typing import Any

import numpy as np

LEAF = 512  # rows of a leaf of a random tree, at most
TREES = 4
TREE_WIDTH = 16  # a k-d tree pays up to so many columns; with more the products of all pairs are faster


def knn_graph(
    features: Any,
    k: int = 5,
    max_distance: float = 2.0,
    length_scale: float | str = 1.0,
    standardize: bool = True,
    neighbors: str = "exact",
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of neighbours by cosine, each once, weighted by `exp(-||x_i - x_j|| / length_scale)`.

    Args:
        features (`(N, d)`): Finite.
        k (`int`, *optional*, defaults to 5): Neighbours of each row, itself excluded; below N.
        max_distance (`float`, *optional*, defaults to 2.0): Keep neighbours with a cosine distance below; 2 keeps all.
        length_scale (`float` or `"median"`, *optional*, defaults to 1.0): Of the Matern-1/2 kernel; `"median"` is the
            median distance of the pairs.
        standardize (`bool`, *optional*, defaults to `True`): Centre the columns, divide by their deviation and by
            `sqrt(d)`: without it distances in many dimensions make all weights 0.
        neighbors (`str`, *optional*, defaults to `"exact"`): `"approximate"` looks in the leaves of random trees only.
        seed (`int`, *optional*, defaults to 0): Of those trees.

    Returns:
        `(edges, weights)`: `(E, 2)` with i < j, sorted, and `(E,)`.

    Raises:
        ValueError: NaN or infinity (names the row), `k` not in [1, N), or a bad scale.

    Cost O(N log N) in up to 16 columns (k-d tree), else O(N^2 d) in blocks; approximate: O(N d log N).
    """
    if neighbors not in ("exact", "approximate"):
        raise ValueError(f"`neighbors` must be 'exact' or 'approximate', got {neighbors!r}.")
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"`features` must have the shape (N, d), got {x.shape}.")
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        raise ValueError(f"Row {bad[0]} of `features` holds NaN or infinity. Remove or fill it.")
    if not 1 <= k < len(x):
        raise ValueError(f"`k` must be in [1, {len(x)}), one less than the rows at most, got {k}.")
    if standardize:
        deviation = x.std(0)
        x = (x - x.mean(0)) / np.where(deviation > 1e-12, deviation, 1.0) / np.sqrt(x.shape[1])
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    if neighbors == "approximate" and len(x) > LEAF:
        near, apart = _forest(unit, k, seed)
    else:
        near, apart = _tree(unit, k) if x.shape[1] <= TREE_WIDTH else _blocks(unit, k)
    rows = np.repeat(np.arange(len(x)), k)
    kept = (apart < max_distance).ravel() & (near.ravel() >= 0)
    pairs = np.sort(np.stack([rows[kept], near.ravel()[kept]], 1), axis=1)
    codes = np.unique(pairs[:, 0] * len(x) + pairs[:, 1])
    edges = np.stack(np.divmod(codes, len(x)), 1)
    lengths = np.linalg.norm(x[edges[:, 0]] - x[edges[:, 1]], axis=1)
    if length_scale == "median":
        scale = float(np.median(lengths)) if len(lengths) else 1.0
        scale = scale if scale > 0 else 1.0
    elif isinstance(length_scale, str) or not length_scale > 0:
        raise ValueError(f"`length_scale` must be above 0 or 'median', got {length_scale!r}.")
    else:
        scale = float(length_scale)
    return edges, np.exp(-lengths / scale)


def _tree(unit: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours and cosine distances; on unit rows the nearest by cosine are the nearest by distance."""
    from scipy.spatial import cKDTree

    lengths, near = cKDTree(unit).query(unit, k + 1, workers=-1)
    return _without_self(near, lengths**2 / 2)


def _blocks(unit: np.ndarray, k: int, block: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    import torch

    table = torch.from_numpy(np.ascontiguousarray(unit, dtype=np.float32))
    near = np.empty((len(unit), k + 1), np.int64)
    apart = np.empty((len(unit), k + 1))
    for start in range(0, len(unit), block):
        values, places = (table[start : start + block] @ table.T).topk(k + 1)
        near[start : start + block], apart[start : start + block] = places.numpy(), 1 - values.numpy()
    return _without_self(near, apart)


def _without_self(near: np.ndarray, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the row itself; where equal rows have pushed it out, the last one goes."""
    own = near == np.arange(len(near))[:, None]
    drop = np.where(own.any(1), own.argmax(1), near.shape[1] - 1)
    kept = np.ones(near.shape, bool)
    kept[np.arange(len(near)), drop] = False
    shape = (len(near), near.shape[1] - 1)
    return near[kept].reshape(shape), apart[kept].reshape(shape)


def _forest(unit: np.ndarray, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest rows within the leaves of random trees (halves at the median of a random direction), -1 where none."""
    rng = np.random.default_rng(seed)
    table = np.ascontiguousarray(unit, dtype=np.float32)
    near = np.full((len(table), k), -1, np.int64)
    apart = np.full((len(table), k), np.inf, np.float32)
    for _ in range(TREES):
        for rows in _leaves(table, max(LEAF, 4 * k), rng):
            _merge(table, rows, near, apart)
    return near, apart.astype(np.float64)


def _leaves(table: np.ndarray, most: int, rng: np.random.Generator) -> list[np.ndarray]:
    waiting, found = [np.arange(len(table))], []
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            found.append(rows)
            continue
        one, two = table[rng.choice(rows, 2, replace=False)]  # along a line of two rows: where the data are
        direction = one - two if (one != two).any() else np.asarray(rng.normal(size=table.shape[1]), np.float32)
        along = table[rows] @ direction
        order = np.argpartition(along, len(rows) // 2)
        waiting += [rows[order[: len(rows) // 2]], rows[order[len(rows) // 2 :]]]
    return found


def _merge(table: np.ndarray, rows: np.ndarray, near: np.ndarray, apart: np.ndarray) -> None:
    """Put those of a leaf that are nearer than what is known into the lists of its rows, in place."""
    import torch

    k = near.shape[1]
    own = torch.from_numpy(table[rows])
    gaps = (1 - own @ own.T).fill_diagonal_(torch.inf)
    best, place = gaps.topk(min(k, len(rows)), dim=1, largest=False)
    values = np.concatenate([apart[rows], best.numpy()], 1)
    ids = np.concatenate([near[rows], rows[place.numpy()]], 1)
    values[:, k:][(ids[:, k:, None] == ids[:, None, :k]).any(2)] = np.inf  # known from another tree
    order = np.argsort(values, axis=1, kind="stable")[:, :k]
    apart[rows], near[rows] = np.take_along_axis(values, order, 1), np.take_along_axis(ids, order, 1)
    near[rows] = np.where(np.isinf(apart[rows]), -1, near[rows])
