"""The mathematics of latent label shift: cluster shares by domain, their factors, and posteriors. NumPy throughout.

Letters: N rows, r domains, m clusters, K classes; X (m, r) = p(cluster | domain), C (m, K) = p(cluster | class),
W (K, r) = p(class | domain), A (r, K) = p(domain | class) under equally large domains.

Source: Roberts et al., NeurIPS 2022, arXiv:2207.13179, section 4 and algorithm 1.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import to_numpy

SOLVERS = ("clip", "nnls", "pinv")
FACTORIZATIONS = ("nmf", "anchor")
_TINY = 1e-8


class NotIdentifiedError(ValueError):
    """The data cannot tell so many classes apart: too few domains, or mixtures that do not differ enough."""


@dataclass(frozen=True)
class Identification:
    """Whether the domains say enough about K classes.

    Parameters:
        num_classes (`int`): K.
        singular_values (`tuple[float, ...]`): Of X, descending; K of them must stand out.
        noise_level (`float`): 95 % quantile of the K-th singular value if there were only K - 1 classes, for as many
            rows; 0 when it was not simulated.
        rank_p_value (`float`): Share of those simulations whose K-th singular value is at least the observed one. NaN
            when it was not simulated.
        condition (`float`): Condition number of W, infinite when its rank is below K.
        residual (`float`): Frobenius norm of X - C W.
    """

    num_classes: int
    singular_values: tuple[float, ...]
    noise_level: float
    rank_p_value: float
    condition: float
    residual: float

    @property
    def full_rank(self) -> bool:
        """W has rank K, and X is more than K - 1 classes and noise would give (p at most 0.05)."""
        return np.isfinite(self.condition) and not self.rank_p_value > 0.05


def cluster_domain_matrix(clusters: Any, domains: Any, num_clusters: int, num_domains: int) -> np.ndarray:
    """X: share of each cluster among the rows of each domain.

    Args:
        clusters, domains (integer arrays of shape `(N,)`): Ids from 0.
        num_clusters, num_domains (`int`): m and r.

    Returns:
        `np.ndarray` of shape `(m, r)`, float64: Columns sum to 1.

    Raises:
        ValueError: If shapes differ, an id is out of range, or a domain has no row.
    """
    cluster, domain = _ids(clusters, num_clusters, "clusters"), _ids(domains, num_domains, "domains")
    if cluster.shape != domain.shape:
        raise ValueError(f"There are {len(cluster)} `clusters` and {len(domain)} `domains`.")
    counts = np.bincount(cluster * num_domains + domain, minlength=num_clusters * num_domains)
    table = counts.reshape(num_clusters, num_domains).astype(np.float64)
    sizes = table.sum(0)
    if not sizes.all():
        raise ValueError(f"Domain {int((sizes == 0).argmax())} has no row. Number the domains 0 to r - 1, all in use.")
    return table / sizes


def _ids(values: Any, number: int, name: str) -> np.ndarray:
    ids = to_numpy(values, name)
    if ids.ndim != 1:
        raise ValueError(f"`{name}` must be ids of shape (N,), got shape {ids.shape}.")
    bad = ~((ids >= 0) & (ids < number)) | (ids != np.floor(ids))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"`{name}` must be ids in [0, {number}), got {ids[row]} at row {row}.")
    return ids.astype(np.int64)


def rescale_factors(cluster_factor: Any, domain_factor: Any) -> tuple[np.ndarray, np.ndarray]:
    """Make distributions of non-negative factors: columns of both sum to 1, and C W keeps its column directions.

    `s_k = sum_c C[c, k]`; C is divided by it, W multiplied; then the columns of W are divided by their sums.

    Args:
        cluster_factor (array of shape `(m, K)`), domain_factor (array of shape `(K, r)`): Not negative.

    Returns:
        `(C, W)`: p(cluster | class) `(m, K)` and p(class | domain) `(K, r)`.

    Raises:
        NotIdentifiedError: If a class has no cluster, or a domain no class (a column of zeros).
    """
    left, right = np.asarray(cluster_factor, dtype=np.float64), np.asarray(domain_factor, dtype=np.float64)
    scale = left.sum(0)
    if not (scale > 0).all():
        raise NotIdentifiedError(f"Class {int((scale <= 0).argmax())} of the factors has no cluster.")
    right = right * scale[:, None]
    total = right.sum(0)
    if not (total > 0).all():
        raise NotIdentifiedError(f"Domain {int((total <= 0).argmax())} has no class in the factors.")
    return left / scale, right / total


def nmf_factors(
    matrix: Any, num_classes: int, init: str = "random", seed: int = 0, max_iter: int = 200, tol: float = 1e-4
) -> tuple[np.ndarray, np.ndarray, float]:
    """One non-negative factorisation of X (scikit-learn's, Frobenius norm), rescaled to distributions.

    Args:
        matrix (array of shape `(m, r)`): X.
        num_classes (`int`): K, at most m and r.
        init (`str`, *optional*, defaults to `"random"`): scikit-learn's, or `"anchor"` ([`anchor_factors`]).
        seed, max_iter, tol: As in `sklearn.decomposition.NMF`; the defaults are those of the reference code.

    Returns:
        `(C, W, residual)`: `(m, K)`, `(K, r)`, and the Frobenius norm of what the unscaled factors leave of X.

    Raises:
        NotIdentifiedError: If a class comes out empty: [`rescale_factors`].
    """
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    table = np.asarray(matrix, dtype=np.float64)
    start = {}
    if init == "anchor":
        left, right = anchor_factors(table, num_classes)
        start = {"W": np.ascontiguousarray(right.T), "H": np.ascontiguousarray(left.T)}
    how = "custom" if start else init
    model = NMF(num_classes, init=how, random_state=seed, max_iter=max_iter, tol=tol)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        of_domains = model.fit_transform(np.ascontiguousarray(table.T), **start)
    left, right = model.components_.T, of_domains.T
    residual = float(np.linalg.norm(table - left @ right))
    return *rescale_factors(left, right), residual


def anchor_factors(matrix: Any, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors from anchor clusters, such that only one class has rows there: a start for [`nmf_factors`].

    The rows of X, scaled to sum 1, lie in the hull of those of the anchors. Successive projections pick the K corners;
    C follows by non-negative least squares.

    Args:
        matrix (array of shape `(m, r)`): X.
        num_classes (`int`): K.

    Returns:
        `(C, W)` of shapes `(m, K)` and `(K, r)`, above 0, not scaled.
    """
    from scipy.optimize import nnls

    table = np.asarray(matrix, dtype=np.float64)
    mass = table.sum(1)
    rows = table / np.maximum(mass, _TINY)[:, None]
    left_over = np.where(mass[:, None] > 0.05 * np.median(mass), rows, 0)  # clusters of few rows are noise
    chosen: list[int] = []
    for _ in range(num_classes):
        corner = int((left_over**2).sum(1).argmax())
        length = np.linalg.norm(left_over[corner])
        if length > _TINY:
            direction = left_over[corner] / length
            left_over = left_over - np.outer(left_over @ direction, direction)
        chosen.append(corner)
    corners = rows[chosen]
    left = np.array([nnls(corners.T, row)[0] for row in table])
    return np.maximum(left, _TINY), np.maximum(corners, _TINY)


def factorize(
    matrix: Any,
    num_classes: int,
    restarts: int = 10,
    seed: int = 0,
    max_iter: int = 2000,
    tol: float = 1e-6,
    method: str = "nmf",
) -> tuple[np.ndarray, np.ndarray, float]:
    """The best of several non-negative factorisations: from anchors, from the SVD, and from random starts.

    The smallest residual counts. Factorisations are not unique: of those that fit as well (2 % of the residual, or
    0.001 of X) it is the one whose mixtures span the smallest volume. With anchors the true one does so.

    Args:
        matrix (array of shape `(m, r)`): X, columns sum to 1.
        num_classes (`int`): K.
        restarts (`int`, *optional*, defaults to 10): Starts in all.
        seed, max_iter, tol: As in [`nmf_factors`].
        method (`str`, *optional*, defaults to `"nmf"`): `"anchor"`: [`anchor_factors`] as they are, nothing iterated.

    Returns:
        `(C, W, residual)` as [`nmf_factors`].

    Raises:
        NotIdentifiedError: If K is above m or r, or every start left a class empty.

    Source: section 4 of the paper (Factorize). The reference code takes one random start.
    """
    table = np.asarray(matrix, dtype=np.float64)
    if num_classes > min(table.shape):
        raise NotIdentifiedError(
            f"{num_classes} classes need as many clusters and domains, there are {table.shape[0]} and "
            f"{table.shape[1]}. Ask for fewer classes, or add domains."
        )
    if method == "anchor":
        left, right = anchor_factors(table, num_classes)
        return *rescale_factors(left, right), float(np.linalg.norm(table - left @ right))
    found, error = [], None
    for number in range(max(restarts, 1)):
        init = ("anchor", "nndsvda")[number] if number < 2 else "random"
        try:
            found.append(nmf_factors(table, num_classes, init, seed + number, max_iter, tol))
        except NotIdentifiedError as problem:
            error = problem
    if not found:
        raise NotIdentifiedError(
            f"No factorisation into {num_classes} classes was found: {error} Ask for fewer classes."
        ) from error
    most = 1.02 * min(one[2] for one in found) + 1e-3 * np.linalg.norm(table)
    return min((one for one in found if one[2] <= most), key=lambda one: np.linalg.det(one[1] @ one[1].T))


def identification(
    matrix: Any, mixtures: Any, residual: float = 0.0, counts: Any = None, simulations: int = 200, seed: int = 0
) -> Identification:
    """Measure whether X carries K classes: rank and condition of W, and a test of the rank of X against noise.

    X of K - 1 classes has K - 1 singular values and noise. The noise is simulated: X, cut to rank K - 1, is the truth,
    from which as many rows as there are in each domain are drawn. Clusters are taken as given, though they were found
    on these rows: the test errs on the side of finding classes.

    Args:
        matrix (array of shape `(m, r)`): X.
        mixtures (array of shape `(K, r)`): W.
        residual (`float`, *optional*): Kept in the result.
        counts (array of shape `(r,)`, *optional*): Rows of each domain. Without them X is taken as exact.
        simulations (`int`, *optional*, defaults to 200), seed (`int`, *optional*)
    """
    table, weights = np.asarray(matrix, dtype=np.float64), np.asarray(mixtures, dtype=np.float64)
    number = len(weights)
    values = np.linalg.svd(table, compute_uv=False)
    deficient = np.linalg.matrix_rank(weights) < number or _exact_rank(values) < number
    level, p_value = 0.0, float("nan")
    if counts is not None and number > 1 and simulations > 0 and not deficient:
        drawn = _noise(table, number - 1, np.asarray(counts, dtype=np.int64), simulations, seed)
        level = float(np.quantile(drawn, 0.95))
        p_value = float((1 + (drawn >= values[number - 1]).sum()) / (1 + simulations))
    condition = float("inf") if deficient else float(np.linalg.cond(weights))
    return Identification(number, tuple(map(float, values)), level, p_value, condition, float(residual))


def _exact_rank(values: np.ndarray) -> int:
    return int((values > 1e-10 * values[0]).sum())


def _noise(table: np.ndarray, rank: int, counts: np.ndarray, simulations: int, seed: int) -> np.ndarray:
    """Singular value number `rank` of X with `rank` classes and sampled rows, once for each simulation."""
    left, values, right = np.linalg.svd(table, full_matrices=False)
    low = scaled(np.clip((left[:, :rank] * values[:rank]) @ right[:rank], 0, None).T)
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.multinomial(n, p, simulations) / n for n, p in zip(counts, low, strict=True)], 2)
    return np.linalg.svd(drawn, compute_uv=False)[:, rank]


def domain_given_class(mixtures: Any) -> np.ndarray:
    """A: p(domain | class) of equally large domains, `A[d, y] = W[y, d] / sum_d' W[y, d']`.

    Args:
        mixtures (array of shape `(K, r)`): W = p(class | domain).

    Returns:
        `np.ndarray` of shape `(r, K)`: Columns sum to 1; a class that no domain has gives a column of zeros.
    """
    weights = np.asarray(mixtures, dtype=np.float64)
    total = weights.sum(1, keepdims=True)
    return (weights / np.where(total > 0, total, _TINY)).T


def class_posterior(domain_probs: Any, domain_class: Any, solver: str = "clip") -> np.ndarray:
    """q = p(class | x) under the uniform mixture of the domains: the solution of `p(d | x) = A q`.

    Args:
        domain_probs (array of shape `(N, r)`): p(d | x) of equally large domains.
        domain_class (array of shape `(r, K)`): A.
        solver (`str`, *optional*, defaults to `"clip"`): `"clip"`: pseudo-inverse, negative parts set to 0, scaled to
            sum 1; `"nnls"`: non-negative least squares, scaled; `"pinv"`: the reference code's, neither clipped nor
            scaled.

    Returns:
        `np.ndarray` of shape `(N, K)`: Rows sum to 1 (except for `"pinv"`); uniform where nothing is above 0.

    Raises:
        ValueError: For another solver.

    Source: section 4 (Adjust), p_d(y | x) of equation 5; clipping is ours.
    """
    if solver not in SOLVERS:
        raise ValueError(f"`solver` must be one of {', '.join(SOLVERS)}, got {solver!r}.")
    probs, table = np.asarray(domain_probs, dtype=np.float64), np.asarray(domain_class, dtype=np.float64)
    found = probs @ np.linalg.pinv(table).T
    if solver == "pinv":
        return found
    if solver == "nnls":
        from scipy.optimize import nnls

        for row in np.flatnonzero((found < 0).any(1)):  # elsewhere least squares is not negative already
            found[row] = nnls(table, probs[row])[0]
    return scaled(np.clip(found, 0, None))


def domain_posterior(posterior: Any, domain_class: Any, domains: Any, clip: bool = True) -> np.ndarray:
    """p(class | x, domain), proportional to `q_y A[d, y]`.

    Args:
        posterior (array of shape `(N, K)`): q, from [`class_posterior`].
        domain_class (array of shape `(r, K)`): A.
        domains (integer array of shape `(N,)`): Ids.
        clip (`bool`, *optional*, defaults to `True`): `False` only divides by the sum, whatever its sign: with
            `solver="pinv"` the reference code's numbers.

    Returns:
        `np.ndarray` of shape `(N, K)`: Rows sum to 1. With `clip`, where q says nothing about the classes of the
            domain (all products 0), q counts as uniform.
    """
    table = np.asarray(domain_class, dtype=np.float64)
    product = np.asarray(posterior, dtype=np.float64) * table[np.asarray(domains)]
    if not clip:
        return product / product.sum(1, keepdims=True)
    return scaled(product, table[np.asarray(domains)])


def unseen_mixture(posterior: Any, mixtures: Any, steps: int = 200, tol: float = 1e-8) -> np.ndarray:
    """The mixture of a domain that was not there in training, by expectation maximisation on q of its rows.

    Args:
        posterior (array of shape `(N, K)`): q of rows of the new domain.
        mixtures (array of shape `(K, r)`): W of the known domains, whose mean is the prior of q.
        steps (`int`, *optional*, defaults to 200), tol (`float`, *optional*): Stops when nothing moves by more.

    Returns:
        `np.ndarray` of shape `(K,)`: p(class), sums to 1.

    Source: Saerens et al. 2002, for the step; not in the paper.
    """
    rows, prior = np.asarray(posterior, dtype=np.float64), np.asarray(mixtures, dtype=np.float64).mean(1)
    mixture = prior / prior.sum()
    for _ in range(steps):
        new = reweighted(rows, prior, mixture).mean(0)
        moved = np.abs(new - mixture).max()
        mixture = new
        if moved <= tol:
            break
    return mixture


def reweighted(posterior: np.ndarray, prior: np.ndarray, mixture: np.ndarray) -> np.ndarray:
    """q under the mixture `(K,)` in place of the prior `(K,)`: proportional to `q_y mixture_y / prior_y`."""
    ratio = np.divide(mixture, prior, out=np.zeros_like(mixture), where=prior > 0)
    return scaled(posterior * ratio, np.broadcast_to(mixture, posterior.shape))


def scaled(rows: np.ndarray, fallback: np.ndarray | None = None) -> np.ndarray:
    """Rows divided by their sums; rows of zeros become those of `fallback`, or uniform."""
    total = rows.sum(1, keepdims=True)
    empty = ~(total > 0)
    out = rows / np.where(empty, 1, total)
    if empty.any():
        other = np.full(rows.shape, 1 / rows.shape[1]) if fallback is None else scaled(np.asarray(fallback))
        out = np.where(empty, other, out)
    return out
