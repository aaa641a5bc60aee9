"""Retrieval by label sets: do the nearest gallery items carry the labels of the query?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import check_ids, check_k, check_multi_hot, check_scores, top_k_columns
from hf_labels.metrics.functional.multilabel import _average_precision


@dataclass
class _Side:
    """Embeddings (n, d) in float64, label sets (n, C) as float32 of 0 and 1, and set sizes (n,)."""

    embeddings: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray


def label_iou(first: Any, second: Any, empty_iou: float = 0.0) -> np.ndarray:
    """Intersection over union of label sets, pair by pair: `inter / (union + 1e-6)`.

    Args:
        first (array-like of shape `(A, C)`): 0/1 label sets.
        second (array-like of shape `(B, C)`): 0/1 label sets.
        empty_iou (`float`, *optional*, defaults to `0.0`): Value for two empty sets.

    Returns:
        `np.ndarray` of shape `(A, B)`: In [0, 1).

    Raises:
        ValueError: If the label sets are not 0/1 or have different widths.

    Source: code of LaSO (Alfassy et al. 2019, arXiv:1902.09811).
    """
    rows, columns = _label_sets(first, "first"), _label_sets(second, "second")
    if rows.shape[1] != columns.shape[1]:
        raise ValueError(f"`first` and `second` must have one width, got {rows.shape} and {columns.shape}.")
    return _iou(rows @ columns.T, rows.sum(axis=1), columns.sum(axis=1), empty_iou)


def _iou(inter: np.ndarray, rows: np.ndarray, columns: np.ndarray, empty_iou: float) -> np.ndarray:
    union = rows[:, None].astype(np.float64) + columns[None] - inter
    result = inter / (union + 1e-6)
    if empty_iou:
        result[union == 0] = empty_iou
    return result


def _label_sets(labels: Any, name: str) -> np.ndarray:
    return check_multi_hot(labels, name, unknown=False)[0].astype(np.float32)


def label_set_retrieval(
    query_embeddings: Any,
    gallery_embeddings: Any,
    query_labels: Any,
    gallery_labels: Any,
    k: int | Sequence[int] = (1, 3, 5),
    exclude: Sequence[Sequence[int]] | None = None,
    metric: str = "euclidean",
    require_exact_match: bool = False,
    empty_iou: float = 0.0,
    relevance: str | float | None = "exact",
    label_subset: Sequence[int] | None = None,
    per_query: bool = False,
    max_cells: int = 4_000_000,
) -> dict[str, Any]:
    """How well the nearest gallery items match the label set of each query.

    Every score is in [0, 1], higher is better.

    | key | meaning |
    | --- | --- |
    | `iou_at_<k>` | mean over queries of the best label IoU among the k nearest |
    | `retrieval_map` | mean over queries of the average precision of the relevant items in the ranked gallery |
    | `n_queries` | queries that count (count) |
    | `n_skipped` | queries left out: no exact match, nothing to find, no label in the subset (count) |
    | `n_without_relevant` | counted queries without a relevant item; left out of `retrieval_map` only (count) |
    | `iou`, `query_index` | with `per_query`: array `(n_queries, len(k))` and the numbers of those queries |

    Args:
        query_embeddings (array-like of shape `(Q, d)`): Query vectors.
        gallery_embeddings (array-like of shape `(G, d)`): Vectors to search.
        query_labels (array-like of shape `(Q, C)`): 0/1 label sets; unknown cells are refused, a set must be whole.
        gallery_labels (array-like of shape `(G, C)`): 0/1 label sets.
        k (`int` or list of `int`, *optional*, defaults to `(1, 3, 5)`): Cut-offs, at most G.
        exclude (list of Q lists of `int`, *optional*): Gallery rows that a query may not find (its own sources).
        metric (`str`, *optional*, defaults to `"euclidean"`): `"euclidean"` or `"cosine"`. Ties: the lower gallery
            row.
        require_exact_match (`bool`, *optional*, defaults to `False`): Skip queries whose exact label set does not
            occur in what they may find (the LaSO protocol).
        empty_iou (`float`, *optional*, defaults to `0.0`): IoU of two empty sets.
        relevance (`str`, `float` or `None`, *optional*, defaults to `"exact"`): What `retrieval_map` looks for:
            `"exact"` the same label set, `"any"` at least one shared label, a number t in (0, 1] IoU >= t, `None` no
            `retrieval_map`.
        label_subset (`list[int]`, *optional*): Only these classes count (few-shot retrieval); queries without any
            are skipped.
        per_query (`bool`, *optional*, defaults to `False`): Add `iou` and `query_index`.
        max_cells (`int`, *optional*, defaults to `4_000_000`): Most distances held at once; about 40 bytes each.

    Returns:
        `dict[str, float | int | np.ndarray]`: Scores are NaN when no query counts.

    Raises:
        ValueError: For shapes that disagree, empty inputs, NaN or infinite vectors, zero vectors with cosine, labels
            other than 0 and 1, or bad arguments.
        IndexError: If `exclude` or `label_subset` is out of range.

    Cost O(Q G (d + C + log G)), memory O(max_cells). Source: test_retrieval.py of LaSO (arXiv:1902.09811).
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"`metric` must be 'euclidean' or 'cosine', got {metric!r}.")
    is_share = isinstance(relevance, int | float) and not isinstance(relevance, bool)
    if relevance not in ("exact", "any", None) and not (is_share and 0 < float(relevance) <= 1):
        raise ValueError(f"`relevance` must be 'exact', 'any', a number in (0, 1] or None, got {relevance!r}.")
    query, gallery = _sides(query_embeddings, gallery_embeddings, query_labels, gallery_labels, label_subset)
    queries, items = len(query.sizes), len(gallery.sizes)
    cutoffs = check_k(k, items, "the gallery size")
    hidden = _check_exclude(exclude, queries, items)
    _prepare(query, gallery, metric)

    found: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    precisions: list[float] = []
    for rows, near, inter in _chunks(query, gallery, hidden, max_cells):
        sizes, open_cells = query.sizes[rows], np.isfinite(near)
        exact = (inter == sizes[:, None]) & (inter == gallery.sizes) & open_cells
        counts = open_cells.any(axis=1)
        if require_exact_match:
            counts &= exact.any(axis=1)
        if label_subset is not None:
            counts &= sizes > 0
        iou = np.where(open_cells, _iou(inter, sizes, gallery.sizes, empty_iou), -np.inf)
        nearest = top_k_columns(near, max(cutoffs))
        best = np.maximum.accumulate(np.take_along_axis(iou, nearest, axis=1), axis=1)
        found.append(best[counts][:, np.array(cutoffs) - 1])
        indices.append(np.arange(queries)[rows][counts])
        if relevance is not None:
            relevant = _relevant(relevance, exact, inter, sizes, gallery.sizes, empty_iou) & open_cells
            for row in np.flatnonzero(counts):
                visible = open_cells[row]
                precisions.append(_average_precision(near[row][visible], relevant[row][visible]))
    return _summary(cutoffs, np.concatenate(found), np.concatenate(indices), precisions, queries, relevance, per_query)


def _summary(
    cutoffs: tuple[int, ...],
    iou: np.ndarray,
    index: np.ndarray,
    precisions: list[float],
    queries: int,
    relevance: str | float | None,
    per_query: bool,
) -> dict[str, Any]:
    result: dict[str, Any] = {
        f"iou_at_{cutoff}": float(iou[:, column].mean()) if len(iou) else math.nan
        for column, cutoff in enumerate(cutoffs)
    }
    if relevance is not None:
        valid = [value for value in precisions if not math.isnan(value)]
        result["retrieval_map"] = float(np.mean(valid)) if valid else math.nan
        result["n_without_relevant"] = len(precisions) - len(valid)
    result |= {"n_queries": len(iou), "n_skipped": queries - len(iou)}
    return result | ({"iou": iou, "query_index": index} if per_query else {})


def _sides(
    query_embeddings: Any, gallery_embeddings: Any, query_labels: Any, gallery_labels: Any, label_subset: Any
) -> tuple[_Side, _Side]:
    sides, names = [], ("query", "gallery")
    for name, vectors, labels in zip(
        names, (query_embeddings, gallery_embeddings), (query_labels, gallery_labels), strict=True
    ):
        embeddings = check_scores(vectors, f"{name}_embeddings").astype(np.float64)
        sets = _label_sets(labels, f"{name}_labels")
        if len(sets) != len(embeddings):
            raise ValueError(f"`{name}_labels` has {len(sets)} rows and `{name}_embeddings` has {len(embeddings)}.")
        if label_subset is not None:
            sets = sets[:, check_ids(label_subset, sets.shape[1], "label_subset")]
        sides.append(_Side(embeddings, sets, sets.sum(axis=1)))
    query, gallery = sides
    for what, first, second in (
        ("embeddings", query.embeddings, gallery.embeddings),
        ("labels", query.labels, gallery.labels),
    ):
        if first.shape[1] != second.shape[1]:
            raise ValueError(
                f"`query_{what}` and `gallery_{what}` must have one width, got {first.shape} and {second.shape}."
            )
    return query, gallery


def _check_exclude(exclude: Sequence[Sequence[int]] | None, queries: int, items: int) -> list[np.ndarray] | None:
    if exclude is None:
        return None
    if len(exclude) != queries:
        raise ValueError(f"`exclude` must have one list for each of the {queries} queries, got {len(exclude)}.")
    return [check_ids(np.unique(ids), items, f"exclude[{row}]") for row, ids in enumerate(exclude)]


def _prepare(query: _Side, gallery: _Side, metric: str) -> None:
    """Makes nearness a dot product: unit vectors for cosine, centred vectors (less cancellation) for the distance."""
    if metric == "cosine":
        for name, side in (("query", query), ("gallery", gallery)):
            norm = np.linalg.norm(side.embeddings, axis=1, keepdims=True)
            if not norm.all():
                raise ValueError(
                    f"`{name}_embeddings` has a zero vector at row {int(norm[:, 0].argmin())}: no cosine."
                )
            side.embeddings /= norm
    else:
        centre = gallery.embeddings.mean(axis=0)
        query.embeddings -= centre
        gallery.embeddings -= centre


def _chunks(
    query: _Side, gallery: _Side, hidden: list[np.ndarray] | None, max_cells: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yields the query rows, their nearness to every gallery row (larger is nearer, -inf is hidden), and
    intersections.

    Both metrics order by `q.g - |g|^2 / 2`: for a fixed query that is minus half the squared distance plus a constant.
    """
    half = (gallery.embeddings**2).sum(axis=1) / 2
    step = max(1, max_cells // len(gallery.sizes))
    for start in range(0, len(query.sizes), step):
        rows = slice(start, min(start + step, len(query.sizes)))
        near = query.embeddings[rows] @ gallery.embeddings.T - half
        if hidden is not None:
            for row, ids in enumerate(hidden[rows]):
                near[row, ids] = -np.inf
        yield rows, near, query.labels[rows] @ gallery.labels.T


def _relevant(
    relevance: str | float,
    exact: np.ndarray,
    inter: np.ndarray,
    sizes: np.ndarray,
    gallery_sizes: np.ndarray,
    empty_iou: float,
) -> np.ndarray:
    """Relevant cells, bool. A share is compared without the 1e-6 of the IoU, so that 1.0 means the same set."""
    if relevance == "exact":
        return exact
    if relevance == "any":
        return inter > 0
    union = sizes[:, None].astype(np.float64) + gallery_sizes - inter
    return np.where(union > 0, inter / np.maximum(union, 1) >= float(relevance), empty_iou >= float(relevance))
