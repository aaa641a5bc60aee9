"""Zero-shot classes from a knowledge graph: groups of ancestors, propagation weights and maps in closed form (NumPy).

Source: the survey of Chen et al., Proceedings of the IEEE 2023, arXiv:2112.10006, by paradigm: ESZSL (Romera-Paredes
and Torr, ICML 2015), ridge maps both ways (Shigeto et al., 2015), DGP (Kampffmeyer et al., CVPR 2019).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


def checked_edges(edges: Any, num_nodes: int) -> np.ndarray:
    """`(child, parent)` pairs as an int64 array `(E, 2)`.

    Raises:
        ValueError: If a pair is not two node numbers below `num_nodes`; names it.
    """
    array = np.asarray(edges, dtype=np.int64).reshape(-1, 2) if len(edges) else np.empty((0, 2), np.int64)
    bad = np.flatnonzero(((array < 0) | (array >= num_nodes)).any(1))
    if len(bad):
        raise ValueError(f"Edge {bad[0]} is {array[bad[0]].tolist()}, but nodes are numbered 0 to {num_nodes - 1}.")
    return array


def distance_groups(edges: Any, num_nodes: int, lim: int = 4) -> list[np.ndarray]:
    """Pairs of node and ancestor by their distance upwards (DGP, section 3.3).

    Args:
        edges (`(E, 2)` integers): Child and parent.
        num_nodes (`int`): n.
        lim (`int`, *optional*, defaults to 4): Longer distances are counted as this one.

    Returns:
        `lim + 1` arrays `(P, 2)` of (node, ancestor), sorted; group 0 is every node with itself. With cycles each pair
        stands in the group of its shortest way; a warning names a node on one.

    Raises:
        ValueError: For `lim` under 1, or an edge to no node.
    """
    from scipy import sparse
    from scipy.sparse import csgraph

    if lim < 1:
        raise ValueError(f"`lim` must be at least 1, got {lim}.")
    pairs = checked_edges(edges, num_nodes)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    up = sparse.csr_matrix((np.ones(len(pairs), np.int32), (pairs[:, 0], pairs[:, 1])), (num_nodes, num_nodes))
    up.data[:] = 1
    parts, owner = csgraph.connected_components(up, connection="strong")
    if parts < num_nodes:
        node = int(np.flatnonzero(np.bincount(owner)[owner] > 1)[0])
        logger.warning("The graph has a cycle through node %d: its members are ancestors of each other.", node)
    reached = sparse.identity(num_nodes, np.int32, format="csr")
    step, groups = reached, [_pairs(reached)]
    further: list[list[np.ndarray]] = [[] for _ in range(lim)]
    for distance in range(1, num_nodes + 1):
        step = step @ up
        step.data[:] = 1
        step = step - step.multiply(reached)
        step.eliminate_zeros()
        if not step.nnz:
            break
        further[min(distance, lim) - 1].append(_pairs(step))
        reached = reached + step
    for found in further:
        merged = np.concatenate(found) if found else np.empty((0, 2), np.int64)
        groups.append(merged[np.lexsort((merged[:, 1], merged[:, 0]))])
    return groups


def _pairs(matrix: Any) -> np.ndarray:
    coo = matrix.tocoo()
    found = np.stack([coo.row, coo.col], 1).astype(np.int64)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def normalise_in(pairs: Any, num_nodes: int, reverse: bool = False) -> Any:
    """`D^-1 A^T` of the pairs (u, v): row v averages all u that point to it; rows without any stay 0.

    Args:
        pairs (`(P, 2)` integers): For (node, ancestor) row v averages its descendants.
        num_nodes (`int`): n.
        reverse (`bool`, *optional*, defaults to `False`): Of (v, u) instead: row u averages its ancestors.

    Returns:
        `scipy.sparse.csr_matrix` `(n, n)`, float64; rows sum to 1 or 0. Pairs that come twice count once.
    """
    from scipy import sparse

    array = np.unique(checked_edges(pairs, num_nodes), axis=0)
    source, target = (array[:, 1], array[:, 0]) if reverse else (array[:, 0], array[:, 1])
    counts = np.bincount(target, minlength=num_nodes)
    return sparse.csr_matrix((1.0 / counts[target], (target, source)), (num_nodes, num_nodes))


def normalise_symmetric(pairs: Any, num_nodes: int) -> Any:
    """`D^-1/2 A D^-1/2` of the undirected graph of the pairs with self loops (GCNZ)."""
    from scipy import sparse

    array = checked_edges(pairs, num_nodes)
    own = np.stack([np.arange(num_nodes)] * 2, 1)
    array = np.unique(np.concatenate([array, array[:, ::-1], own]), axis=0)
    root = np.sqrt(np.bincount(array[:, 0], minlength=num_nodes))
    values = 1.0 / (root[array[:, 0]] * root[array[:, 1]])
    return sparse.csr_matrix((values, (array[:, 0], array[:, 1])), (num_nodes, num_nodes))


def check_ridge(**terms: float) -> None:
    """Ridge terms must be above 0, or the systems may be singular.

    Raises:
        ValueError: Names the term.
    """
    for name, value in terms.items():
        if not value > 0:
            raise ValueError(f"`{name}` must be above 0 (the system may be singular without it), got {value}.")


def check_matrix(values: Any, name: str, width: int | None = None) -> np.ndarray:
    """A finite float64 matrix.

    Raises:
        ValueError: Another shape, no row, or NaN or infinity; names row and repair.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not len(array) or (width is not None and array.shape[1] != width):
        wanted = "(N, D)" if width is None else f"(N, {width})"
        raise ValueError(f"`{name}` must have the shape {wanted} with at least one row, got {array.shape}.")
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if len(bad):
        raise ValueError(
            f"Row {bad[0]} of `{name}` holds NaN or infinity ({len(bad)} such rows). Remove or fill them."
        )
    return array


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows of length 1; zero rows stay zero."""
    return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)


def ridge_map(features: Any, targets: Any, strength: float = 1.0) -> np.ndarray:
    """`W = (X^T X + strength I)^-1 X^T T`, the ridge regression from features `(N, D)` to targets `(N, d)`.

    Args:
        features, targets: Finite matrices with one row per example (or class).
        strength (`float`, *optional*, defaults to 1.0): Above 0.

    Returns:
        `np.ndarray` of shape `(D, d)`. Cost O(N min(N, D)^2).
    """
    check_ridge(strength=strength)
    x, t = check_matrix(features, "features"), check_matrix(targets, "targets")
    if len(x) != len(t):
        raise ValueError(f"There are {len(x)} rows of features and {len(t)} of targets.")
    if x.shape[1] > len(x):  # the same map from a smaller system
        return x.T @ np.linalg.solve(x @ x.T + strength * np.eye(len(x)), t)
    return np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ t)


def eszsl_map(features: Any, labels: Any, semantics: Any, gamma: float = 1.0, strength: float = 1.0) -> np.ndarray:
    """`V = (X^T X + gamma I)^-1 X^T Z S (S^T S + strength I)^-1` of ESZSL; a class scores `x V s`.

    Args:
        features (`(N, D)`): X.
        labels (`(N,)` integers): Rows of `semantics`; Z is +1 there and -1 elsewhere.
        semantics (`(S, d)`): Of the seen classes.
        gamma, strength (`float`, *optional*, defaults to 1.0): Above 0.

    Returns:
        `np.ndarray` of shape `(D, d)`.
    """
    check_ridge(gamma=gamma, strength=strength)
    x, s = check_matrix(features, "features"), check_matrix(semantics, "semantics")
    signs = np.full((len(x), len(s)), -1.0)
    signs[np.arange(len(x)), np.asarray(labels)] = 1.0
    left = np.linalg.solve(x.T @ x + gamma * np.eye(x.shape[1]), x.T @ signs @ s)
    return np.linalg.solve(s.T @ s + strength * np.eye(s.shape[1]), left.T).T


def class_means(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Mean features `(C, D)` of each class; rows of classes without an example are 0."""
    sums = np.zeros((num_classes, features.shape[1]))
    np.add.at(sums, labels, features)
    return sums / np.maximum(np.bincount(labels, minlength=num_classes), 1)[:, None]


def pooled_covariance(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Covariance `(D, D)` around the class means, pooled over the classes (divisor N - C, at least 1)."""
    apart = features - class_means(features, labels, num_classes)[labels]
    return apart.T @ apart / max(len(features) - len(np.unique(labels)), 1)


def blend_prototypes(means: Any, counts: Any, prior: Any, kappa: float) -> np.ndarray:
    """Few-shot prototypes with a prior from the graph: `(n mu + kappa g) / (n + kappa)` for each class.

    Args:
        means (`(C, D)`): mu, means of the labelled examples.
        counts (`(C,)`): n; 0 gives the prior, many give the mean.
        prior (`(C, D)`): g, what the graph predicts.
        kappa (`float`): Examples that the prior is worth, 0 or more; `inf` gives the prior.

    Raises:
        ValueError: For a negative `kappa`, or 0 where a class has no example.
    """
    counts, prior = np.asarray(counts, dtype=np.float64)[:, None], np.asarray(prior, dtype=np.float64)
    if not kappa >= 0:
        raise ValueError(f"`kappa` must be 0 or more, got {kappa}.")
    if np.isinf(kappa):
        return prior.copy()
    if kappa == 0 and (counts == 0).any():
        raise ValueError(f"Class {int(np.argmin(counts))} has no example: `kappa` must be above 0.")
    return (counts * np.asarray(means, dtype=np.float64) + kappa * prior) / (counts + kappa)


def choose_kappa(
    features: np.ndarray,
    labels: np.ndarray,
    semantics: np.ndarray,
    shots: int,
    *,
    strength: float = 1.0,
    options: Sequence[float] = (0.3, 1.0, 3.0, 10.0, 30.0),
    seed: int = 0,
) -> tuple[float, dict[float, float]]:
    """The worth of the prior, by leaving out one seen class at a time: its prototype is predicted from the others.

    Args:
        features (`(N, D)`), labels (`(N,)`), semantics (`(S, d)`): Of the seen classes.
        shots (`int`): Examples that a new class will have.
        strength (`float`, *optional*): Of the ridge map from semantics to means.
        options (sequence of `float`, *optional*): To choose from.
        seed (`int`, *optional*): Which examples are the shots.

    Returns:
        The best option, and the accuracy of each on the other examples of the left-out classes.

    Raises:
        ValueError: If no class has more examples than `shots`, or there are fewer than three classes.
    """
    count = len(semantics)
    means = unit_rows(class_means(features, labels, count))
    usable = [c for c in range(count) if (labels == c).sum() > shots]
    if count < 3 or not usable or shots < 1:
        raise ValueError(f"`kappa` needs three classes, of which one has more than {shots} examples, and a shot.")
    rng, hits, total = np.random.default_rng(seed), dict.fromkeys(options, 0), 0
    for c in usable:
        others = np.delete(np.arange(count), c)
        prior = unit_rows(semantics[[c]] @ ridge_map(semantics[others], means[others], strength))
        rows = rng.permutation(np.flatnonzero(labels == c))
        mean = unit_rows(features[rows[:shots]].mean(0, keepdims=True))
        rest, rival = features[rows[shots:]], (features[rows[shots:]] @ means[others].T).max(1)
        total += len(rest)
        for kappa in options:
            own = unit_rows(blend_prototypes(mean, [shots], prior, kappa))
            hits[kappa] += int(((rest @ own.T)[:, 0] > rival).sum())
    scores = {kappa: hits[kappa] / total for kappa in options}
    return max(scores, key=lambda kappa: scores[kappa]), scores
