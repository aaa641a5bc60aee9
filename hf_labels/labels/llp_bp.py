"""Labels of instances from counts in bags: near instances have near labels, and bags have their number of positives.

Source: Havaldar, Sharma, Sareen, Shanmugam and Raghuveer, ICLR 2024, arXiv:2310.08056 (LLP-BP).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_labels.labels.llp_bp_graph import knn_graph
from hf_labels.labels.llp_bp_inference import (
    Marginals,
    belief_propagation,
    exact_marginals,
    pairwise_potentials,
    pairwise_propagation,
)
from hf_labels.labels.llp_bp_messages import CountFactors

logger = logging.getLogger(__name__)

MODES = ("counts", "pairwise", "exact")
ROUNDINGS = ("threshold", "top_count")


@dataclass(frozen=True)
class LLPLabels:
    """What belief propagation says of each instance.

    Parameters:
        probs (`np.ndarray` of shape `(N,)`, or `(N, K)` for K classes): p(y_i = 1); of K classes rows sum to 1.
        labels (`np.ndarray` of shape `(N,)`): Pseudo-labels.
        edges (`(E, 2)`), weights (`(E,)`): The graph.
        report (`dict`): `iterations`, `residual`, `converged`, `count_error` (mean distance of the sums of the
            marginals from the counts, per member), `edges`; lists of them for K classes.
    """

    probs: np.ndarray
    labels: np.ndarray
    edges: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    report: dict[str, Any] = field(default_factory=dict)

    def to_dataset(self, dataset: Any) -> Any:
        """The data set with `pseudo_label`, and `soft_labels` (two numbers a row for one count per bag)."""
        soft = self.probs if self.probs.ndim == 2 else np.stack([1 - self.probs, self.probs], 1)
        import datasets

        from hf_labels.labels.columns import write_column

        kind = datasets.List(datasets.Value("float32"), length=soft.shape[1])
        found = write_column(dataset, "soft_labels", soft.astype(np.float32), kind)
        return write_column(found, "pseudo_label", self.labels, datasets.Value("int64"))


def llp_pseudo_labels(
    embeddings: Any,
    bag_ids: Any,
    bag_counts: Any,
    *,
    k: int = 5,
    lambda_b: float = 10.0,
    lambda_s: float = 10.0,
    length_scale: float | str = 1.0,
    standardize: bool = True,
    max_distance: float = 2.0,
    neighbors: str = "exact",
    edges: Any = None,
    weights: Any = None,
    prior: Any = None,
    count_messages: str = "auto",
    mode: str = "counts",
    rounding: str = "threshold",
    tau: float = 0.5,
    max_iter: int = 100,
    damping: float = 0.5,
    tol: float = 1e-4,
    progress: bool = False,
) -> LLPLabels:
    """Pseudo-labels of instances whose labels are known as counts of bags only.

    Args:
        embeddings (`(N, d)`): Of any encoder, or tabular columns; None with `edges`.
        bag_ids (`(N,)`): Bag of each row, any values; -1 or None for a row in no bag (it has its neighbours only).
        bag_counts (mapping of bag to count, or array): Positives of each bag; with an array bags are 0 to B - 1. Rows
            of K counts mean K classes, one against the rest. Proportions that give whole counts are accepted as
            `bag_proportions(...)` makes them; a count that is not whole is a soft target.
        k (`int`, *optional*, defaults to 5): Neighbours; 0 for no graph.
        lambda_b, lambda_s (`float`, *optional*, defaults to 10): Of counts (may be infinite) and of neighbours.
        length_scale, standardize, max_distance, neighbors: Of the graph, see
            [`~hf_labels.labels.llp_bp_graph.knn_graph`].
        edges (`(E, 2)` integers), weights (`(E,)`, *optional*): A graph of your own.
        prior (`(N,)`, or `(N, K)`, *optional*): Log-odds that are known beforehand, of a classifier for example.
        count_messages (`str`, *optional*, defaults to `"auto"`): `"exact"`, `"fourier"`, or one of them by the size of
            the bag; `"gaussian"` is an approximation. See [`~hf_labels.labels.llp_bp_messages.CountFactors`].
        mode (`str`, *optional*, defaults to `"counts"`): `"pairwise"` is the published inference (small bags),
            `"exact"` enumerates (up to 20 rows).
        rounding (`str`, *optional*, defaults to `"threshold"`): `p >= tau`, or `"top_count"`: the c rows of a bag with
            the largest p.
        tau, max_iter, damping, tol (*optional*): See [`~hf_labels.labels.llp_bp_inference.belief_propagation`].
        progress (`bool`, *optional*): Show a bar.

    Returns:
        [`LLPLabels`]: A bag whose count is 0 or its size has labels of 0 or 1 with an infinite `lambda_b`.

    Raises:
        ValueError: A count below 0 or above the size of its bag (names the bag), a bag without a count, a negative
            weight, NaN in the embeddings, `k` not below N, or lengths that differ.
    """
    _check_settings(lambda_b, lambda_s, mode, rounding, count_messages)
    bag, counts, names = read_bags(bag_ids, bag_counts)
    building = {"max_distance": max_distance, "length_scale": length_scale, "standardize": standardize}
    graph = _graph(embeddings, edges, weights, len(bag), k, building | {"neighbors": neighbors})
    columns = counts.T if counts.ndim == 2 else counts[None]
    beliefs = _priors(prior, len(bag), counts)
    running = {"max_iter": max_iter, "damping": damping, "tol": tol, "progress": progress}
    found = []
    for column, unary in zip(columns, beliefs, strict=True):
        check_counts(bag, column, names, whole=bool(np.isinf(lambda_b)))
        if mode == "counts":
            factors = CountFactors(bag, column, lambda_b, count_messages)
            found.append(belief_propagation(factors, *graph, lambda_s, unary, **running))  # type: ignore[arg-type]
        else:
            found.append(_small(mode, bag, column, graph, lambda_b, lambda_s, unary, running))
        if mode == "counts" and not found[-1].converged:
            logger.warning(
                "Messages still change by %.2g after %d iterations: lower `lambda_s`, or raise `max_iter`.",
                found[-1].residuals[-1] if found[-1].residuals else np.nan,
                len(found[-1].residuals),
            )
    reports = _reports(found, bag, columns, graph)
    if counts.ndim == 2:
        table = np.stack([one.probs for one in found], 1)
        table = table / np.maximum(table.sum(1, keepdims=True), 1e-300)
        return LLPLabels(table, table.argmax(1), *graph, reports)
    probs = found[0].probs
    labels = (probs >= tau).astype(np.int64) if rounding == "threshold" else top_counts(probs, bag, counts)
    report = {name: values[0] for name, values in reports.items() if name != "edges"}
    return LLPLabels(probs, labels, *graph, report | {"edges": len(graph[0])})


def _small(
    mode: str,
    bag: np.ndarray,
    counts: np.ndarray,
    graph: tuple[np.ndarray, np.ndarray],
    lambda_b: float,
    lambda_s: float,
    unary: np.ndarray,
    running: dict[str, Any],
) -> Marginals:
    """The published pairwise inference, or enumeration."""
    if mode == "exact":
        probs, _ = exact_marginals(bag, counts, *graph, lambda_b, lambda_s, unary)
        odds = np.log(np.maximum(probs, 1e-300)) - np.log(np.maximum(1 - probs, 1e-300))
        return Marginals(probs, odds, [], True)
    own, pairs, values = pairwise_potentials(bag, counts, *graph, lambda_b, lambda_s)
    return pairwise_propagation(own + unary, pairs, values, running["max_iter"], running["damping"])


def _reports(found: list[Marginals], bag: np.ndarray, columns: np.ndarray, graph: Any) -> dict[str, Any]:
    inside = bag >= 0
    sizes = np.bincount(bag[inside], minlength=columns.shape[1])
    errors = []
    for one, counts in zip(found, columns, strict=True):
        sums = np.bincount(bag[inside], weights=one.probs[inside], minlength=len(counts))
        errors.append(float(np.abs(sums - counts)[sizes > 0].sum() / max(inside.sum(), 1)))
    return {
        "iterations": [len(one.residuals) for one in found],
        "residual": [one.residuals[-1] if one.residuals else 0.0 for one in found],
        "residuals": [one.residuals for one in found],
        "converged": [one.converged for one in found],
        "count_error": errors,
        "edges": len(graph[0]),
    }


def bag_proportions(bag_ids: Any, proportions: Mapping[Any, float] | Any) -> dict[Any, float]:
    """Counts of bags from their proportions: whole where the product is within 1e-6 of a whole number."""
    ids = np.asarray(bag_ids)
    names, sizes = np.unique(ids, return_counts=True)
    found: dict[Any, float] = {}
    for name, size in zip(names.tolist(), sizes.tolist(), strict=True):
        if name in proportions if isinstance(proportions, Mapping) else 0 <= name < len(proportions):
            value = float(proportions[name]) * size
            found[name] = float(round(value)) if abs(value - round(value)) < 1e-6 else value
    return found


def read_bags(bag_ids: Any, bag_counts: Any) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Bag numbers `(N,)` (-1 for none), counts `(B,)` or `(B, K)`, and what the bags are called.

    Raises:
        ValueError: If a bag of a row has no count, or there is no row.
    """
    is_array = isinstance(bag_ids, np.ndarray) or hasattr(bag_ids, "detach")
    ids = np.asarray(bag_ids if is_array else [-1 if one is None else one for one in bag_ids])
    if ids.ndim != 1 or not len(ids):
        raise ValueError(f"`bag_ids` must hold one bag per row, got shape {ids.shape}.")
    outside = ids == -1 if ids.dtype.kind in "iuf" else np.isin(ids, ["-1", "None", ""])
    names, place = np.unique(ids[~outside], return_inverse=True)
    bag = np.full(len(ids), -1, np.int64)
    bag[~outside] = place
    known = bag_counts if isinstance(bag_counts, Mapping) else dict(enumerate(np.asarray(bag_counts, dtype=float)))
    lost = [name for name in names.tolist() if name not in known]
    if lost:
        raise ValueError(f"Bag {lost[0]!r} has rows, but no count in `bag_counts` ({len(lost)} such bags).")
    if len(known) > len(names):
        logger.warning("%d bags of `bag_counts` have no row and are left out.", len(known) - len(names))
    counts = np.array([known[name] for name in names.tolist()], dtype=np.float64)
    return bag, counts if len(names) else np.zeros(0), names.tolist()


def check_counts(bag: np.ndarray, counts: np.ndarray, names: list[Any], whole: bool = False) -> None:
    """Counts must be between 0 and the size of their bag, and whole ones with an infinite `lambda_b` (`whole`).

    Raises:
        ValueError: Names the bag.
    """
    sizes = np.bincount(bag[bag >= 0], minlength=len(counts))
    bad = np.flatnonzero(~((counts >= 0) & (counts <= sizes)))
    if len(bad):
        raise ValueError(
            f"Bag {names[bad[0]]!r} has {sizes[bad[0]]} rows, but a count of {counts[bad[0]]:g} positives. Counts are "
            "between 0 and the size; give proportions through `bag_proportions`."
        )
    bad = np.flatnonzero(np.abs(counts - np.round(counts)) > 1e-6) if whole else bad
    if len(bad):
        raise ValueError(
            f"Bag {names[bad[0]]!r} has the count {counts[bad[0]]:g}; an infinite `lambda_b` needs whole counts. "
            "Use a finite one."
        )


def top_counts(probs: np.ndarray, bag: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """1 for the c rows of each bag with the largest probability (c rounded), 0 for the others; no bag: `p >= .5`."""
    order = np.lexsort((-probs, bag))
    ranked = bag[order]
    start = np.searchsorted(ranked, ranked, side="left")
    inside = ranked >= 0
    wanted = np.where(inside, np.round(counts)[np.maximum(ranked, 0)] if len(counts) else 0, 0)
    labels = np.empty(len(probs), np.int64)
    labels[order] = np.where(inside, np.arange(len(probs)) - start < wanted, probs[order] >= 0.5)
    return labels


def _check_settings(lambda_b: float, lambda_s: float, mode: str, rounding: str, count_messages: str) -> None:
    if not lambda_b > 0 or not lambda_s >= 0:
        raise ValueError(f"`lambda_b` must be above 0 and `lambda_s` 0 or more, got {lambda_b} and {lambda_s}.")
    for name, value, options in (
        ("mode", mode, MODES),
        ("rounding", rounding, ROUNDINGS),
        ("count_messages", count_messages, ("auto", "exact", "saddle", "gaussian")),
    ):
        if value not in options:
            raise ValueError(f"`{name}` must be one of {', '.join(options)}, got {value!r}.")


def _priors(prior: Any, rows: int, counts: np.ndarray) -> np.ndarray:
    """Log-odds `(K, N)` of each class, or `(1, N)`."""
    shape = (rows, counts.shape[1]) if counts.ndim == 2 else (rows,)
    found = np.zeros(shape) if prior is None else np.asarray(prior, dtype=np.float64)
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"`prior` must be finite log-odds of shape {shape}, got shape {found.shape}.")
    return found.T if counts.ndim == 2 else found[None]


def _graph(
    embeddings: Any, edges: Any, weights: Any, count: int, k: int, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    if edges is None:
        if k == 0:
            return np.empty((0, 2), np.int64), np.empty(0)
        if embeddings is None or len(embeddings) != count:
            size = None if embeddings is None else len(embeddings)
            raise ValueError(f"`embeddings` must have one row per bag id ({count}), got {size}.")
        return knn_graph(embeddings, k, **options)
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    strength = np.ones(len(pairs)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(strength) != len(pairs) or (pairs < 0).any() or (pairs >= count).any() or not (strength >= 0).all():
        raise ValueError(f"`edges` must be pairs of rows below {count}, with one weight of 0 or more each.")
    pairs = np.sort(pairs, axis=1)
    codes, first = np.unique(pairs[:, 0] * count + pairs[:, 1], return_index=True)
    kept = first[(codes // count) != (codes % count)]
    return pairs[kept], strength[kept]
