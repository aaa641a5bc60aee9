"""Multi-label ranking and decision metrics. NumPy in, Python numbers in [0, 1] out. Unknown cells are left out one
by one."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import (
    check_ids,
    check_k,
    check_multilabel,
    to_numpy,
    top_k_columns,
)
from hf_labels.metrics.functional.decisions import best_threshold, multilabel_f1

logger = logging.getLogger(__name__)

_CLASSES_PER_BLOCK = 16


def _average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """AP of one ranking; NaN without positives. Samples of equal score form one threshold, as in scikit-learn."""
    wanted = np.sort(scores[positive])
    if not len(wanted):
        return math.nan
    others = np.sort(scores[~positive])
    # A positive of score s counts the precision at threshold s: (positives >= s) / (samples >= s).
    first = np.arange(len(wanted))  # position of the first positive of the same score
    first[1:] *= wanted[1:] != wanted[:-1]
    above = len(wanted) - np.maximum.accumulate(first)
    return float((above / (above + (len(others) - np.searchsorted(others, wanted, side="left")))).mean())


def average_precision(predictions: Any, references: Any, num_classes: int | None = None) -> np.ndarray:
    """Average precision of each class.

    `AP_c` = mean over the positives of c of the precision at their score. Samples with equal scores form one
    threshold, so the result equals `sklearn.metrics.average_precision_score` of each column.

    Args:
        predictions (array-like of shape `(N, C)`): Scores or logits; only their order counts.
        references (array-like of shape `(N, C)`): 0, 1, and -1 or NaN for unknown; or N lists of ids with
            `num_classes`.
        num_classes (`int`, *optional*): Says that `references` are lists of class ids.

    Returns:
        `np.ndarray` of shape `(C,)`: In [0, 1]; NaN for a class without a known positive.

    Raises:
        ValueError: For shapes that disagree, no rows, NaN or infinite scores, references other than 0, 1, -1, NaN.
        IndexError: If a class id is out of range.

    Cost O(C N log N), memory O(N).
    """
    return _per_class(*check_multilabel(predictions, references, num_classes))


def _per_class(scores: np.ndarray, positive: np.ndarray, known: np.ndarray) -> np.ndarray:
    result, whole = np.empty(scores.shape[1]), bool(known.all())
    for start in range(0, scores.shape[1], _CLASSES_PER_BLOCK):
        block = slice(start, start + _CLASSES_PER_BLOCK)
        columns = [np.ascontiguousarray(array[:, block].T) for array in (scores, positive, known)]
        for offset, (score, is_positive, is_known) in enumerate(zip(*columns, strict=True)):
            if not whole:
                score, is_positive = score[is_known], is_positive[is_known]
            result[start + offset] = _average_precision(score, is_positive)
    return result


def _mean(values: np.ndarray) -> float:
    """Mean without the NaN; NaN when nothing is left."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def multilabel_map(
    predictions: Any,
    references: Any,
    train_counts: Any = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    label_subset: Sequence[int] | None = None,
    many: int = 100,
    few: int = 20,
    empty_class: str = "nan",
    num_classes: int | None = None,
    per_class: bool = False,
) -> dict[str, Any]:
    """Mean average precision: over classes, over cells, and over groups of frequent and rare classes.

    Every number is in [0, 1], higher is better; papers multiply by 100.

    | key | meaning |
    | --- | --- |
    | `map` | mean AP of the classes |
    | `micro_map` | AP of all cells in one ranking |
    | `weighted_map` | mean AP weighted by the number of positives |
    | `n_classes_without_positive` | classes whose AP does not exist (count) |
    | `map_many`, `map_medium`, `map_few` | with `train_counts`: at least `many` positives, between, under `few` |
    | `map_shot_mean` | mean of those of the three that are not empty |
    | `map_<name>` | one for each of `groups` |
    | `ap` | with `per_class`: list of C numbers |

    Args:
        predictions (array-like of shape `(N, C)`): Scores or logits; only their order counts.
        references (array-like of shape `(N, C)`): 0, 1, and -1 or NaN for unknown; or N lists of ids with
            `num_classes`.
        train_counts (array-like of shape `(C,)`, *optional*): Positives of each class in the training data.
        groups (`dict[str, list[int]]`, *optional*): Own groups of class ids, such as `{"head": [...], "tail": [...]}`.
        label_subset (`list[int]`, *optional*): Only these classes count. Ids elsewhere still mean the full set.
        many (`int`, *optional*, defaults to `100`): Smallest training count of a many-shot class.
        few (`int`, *optional*, defaults to `20`): A class with a smaller training count is few-shot.
        empty_class (`str`, *optional*, defaults to `"nan"`): `"nan"` leaves classes without a known positive out of
            every mean; `"zero"` gives them AP 0, as the ASL code does.
        num_classes (`int`, *optional*): Says that `references` are lists of class ids.
        per_class (`bool`, *optional*, defaults to `False`): Add `ap`.

    Returns:
        `dict[str, float | int | list[float]]`: An empty group is NaN.

    Raises:
        ValueError: As [`average_precision`]; for counts of the wrong shape or below 0, or `few > many`.
        IndexError: If a class id is out of range.

    Source: AP as scikit-learn; shot groups as COMIC (Zhang et al. 2023), code wannature/COMIC; empty classes:
        Alibaba-MIIL/ASL.
    """
    if empty_class not in ("nan", "zero"):
        raise ValueError(f"`empty_class` must be 'nan' or 'zero', got {empty_class!r}.")
    scores, positive, known = check_multilabel(predictions, references, num_classes)
    classes = scores.shape[1]
    subset = np.arange(classes) if label_subset is None else check_ids(label_subset, classes, "label_subset")
    members = _groups(classes, train_counts, groups, many, few)
    if label_subset is not None:
        if not len(subset):
            raise ValueError("`label_subset` is empty.")
        scores, positive, known = scores[:, subset], positive[:, subset], known[:, subset]

    ap = _per_class(scores, positive, known)
    count = positive.sum(axis=0)
    without = int((count == 0).sum())
    if without:
        logger.warning(
            "%d of %d classes have no known positive: %s.",
            without,
            len(ap),
            "their AP counts as 0" if empty_class == "zero" else "left out of every mean",
        )
    if empty_class == "zero":
        ap = np.where(count == 0, 0.0, ap)
    full = np.full(classes, math.nan)
    full[subset] = ap
    whole = known.all()
    result: dict[str, Any] = {
        "map": _mean(ap),
        "micro_map": _average_precision(scores.ravel() if whole else scores[known], positive[known].ravel()),
        "weighted_map": float((np.nan_to_num(ap) @ count) / count.sum()) if count.sum() else math.nan,
        "n_classes_without_positive": without,
    }
    result |= {f"map_{name}": _mean(full[ids]) for name, ids in members.items()}
    if train_counts is not None:
        result["map_shot_mean"] = _mean(np.array([result[f"map_{name}"] for name in ("many", "medium", "few")]))
    if per_class:
        result["ap"] = ap.tolist()
    return result


def _groups(
    classes: int, train_counts: Any, groups: Mapping[str, Sequence[int]] | None, many: int, few: int
) -> dict[str, np.ndarray]:
    """Class ids of every group, by name."""
    members: dict[str, np.ndarray] = {}
    if train_counts is not None:
        counts = to_numpy(train_counts, "train_counts")
        if counts.shape != (classes,):
            raise ValueError(f"`train_counts` must have shape ({classes},), got {counts.shape}.")
        if not (counts >= 0).all():
            raise ValueError(f"`train_counts` must not be negative or NaN, got {counts[~(counts >= 0)][0]}.")
        if few > many:
            raise ValueError(f"`few` must not be above `many`, got {few} and {many}.")
        members["many"] = np.flatnonzero(counts >= many)
        members["medium"] = np.flatnonzero((counts >= few) & (counts < many))
        members["few"] = np.flatnonzero(counts < few)
    for name, ids in (groups or {}).items():
        if name in members or (members and name == "shot_mean"):
            raise ValueError(f"Group name {name!r} is taken by `train_counts`; rename the group.")
        members[name] = check_ids(ids, classes, f"groups[{name!r}]")
    return members


def episode_map(
    episodes: Iterable[tuple[Any, Any]], label_subset: Sequence[int] | None = None
) -> dict[str, float | int]:
    """Few-shot mAP: mean over episodes with its spread.

    Args:
        episodes (iterable of `(scores, labels)`): Each as the inputs of [`multilabel_map`].
        label_subset (`list[int]`, *optional*): Only these classes count.

    Returns:
        `dict`: `map_mean`, `map_std` (sample standard deviation over episodes; NaN for one episode),
        `map_ci95` (half width of the 95 % interval, `1.96 std / sqrt(E)`), `n_episodes`.

    Raises:
        ValueError: If there is no episode, or an episode has no class with a known positive.
    """
    values = []
    for number, (scores, labels) in enumerate(episodes):
        values.append(multilabel_map(scores, labels, label_subset=label_subset)["map"])
        if math.isnan(values[-1]):
            raise ValueError(f"Episode {number} has no class with a known positive, so no mAP.")
    if not values:
        raise ValueError("`episodes` is empty.")
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return {
        "map_mean": float(np.mean(values)),
        "map_std": spread,
        "map_ci95": 1.96 * spread / math.sqrt(len(values)),
        "n_episodes": len(values),
    }


def precision_at_k(predictions: Any, references: Any, k: int | Sequence[int] = (1, 3, 5)) -> dict[str, float]:
    """Share of true labels among the k best-scored ones, mean over the samples that have a positive.

    Args:
        predictions (array-like of shape `(N, C)`): Scores or logits. Equal scores: the lower class comes first.
        references (array-like of shape `(N, C)`): 0, 1, and -1 or NaN for unknown (such a cell is not ranked).
        k (`int` or list of `int`, *optional*, defaults to `(1, 3, 5)`): Cut-offs, at most C.

    Returns:
        `dict[str, float]`: `precision_at_<k>` in [0, 1], higher is better; NaN when no sample has a positive.

    Raises:
        ValueError: As [`average_precision`]; for k outside [1, C].
    """
    cutoffs, hits, _ = _ranked_hits(predictions, references, k)
    return {f"precision_at_{c}": float(hits[:, :c].sum(axis=1).mean() / c) if len(hits) else math.nan for c in cutoffs}


def ndcg_at_k(predictions: Any, references: Any, k: int | Sequence[int] = (1, 3, 5)) -> dict[str, float]:
    """Normalised discounted cumulative gain of the k best-scored labels, mean over the samples that have a positive.

    Gain `1 / log2(rank + 1)` for each true label, divided by the gain of the best ranking, which has `min(k, P_i)`
    true labels on top. Arguments, ties, errors and range as [`precision_at_k`].

    Returns:
        `dict[str, float]`: `ndcg_at_<k>` in [0, 1], higher is better.
    """
    cutoffs, hits, positives = _ranked_hits(predictions, references, k)
    gain = 1 / np.log2(np.arange(max(cutoffs)) + 2)
    best = np.concatenate([[0.0], np.cumsum(gain)])
    return {
        f"ndcg_at_{c}": float((hits[:, :c] @ gain[:c] / best[np.minimum(positives, c)]).mean())
        if len(hits)
        else math.nan
        for c in cutoffs
    }


def _ranked_hits(
    predictions: Any, references: Any, k: int | Sequence[int]
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Cut-offs; whether the label at each rank is true `(n, max k)`; positives `(n,)`. n: rows with a positive."""
    scores, positive, known = check_multilabel(predictions, references)
    cutoffs = check_k(k, scores.shape[1], "the number of classes")
    total = positive.sum(axis=1)
    rows = total > 0
    scores = np.where(known, scores, -np.inf) if not known.all() else scores
    if not rows.all():
        scores, positive, total = scores[rows], positive[rows], total[rows]
    hits = np.take_along_axis(positive, top_k_columns(scores, max(cutoffs)), axis=1) if len(scores) else positive
    return cutoffs, hits, total


__all__ = [
    "average_precision",
    "best_threshold",
    "episode_map",
    "multilabel_f1",
    "multilabel_map",
    "ndcg_at_k",
    "precision_at_k",
]
