"""Agreement of annotators: Fleiss' and Cohen's kappa, pairwise agreement, weighted F1, votes of a crowd."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


def _ratings(annotations: Any, num_classes: int | None, raters: int = 2) -> tuple[np.ndarray, int]:
    try:
        table = np.asarray(annotations)
    except ValueError:
        table = np.empty(0, dtype=object)
    if table.ndim != 2 or table.dtype.kind not in "iub" or not len(table):
        raise ValueError(
            "`annotations` must be class ids (n, R), one row per item and as many raters for each (n, R), got "
            f"{'rows of different lengths' if table.dtype == object else f'shape {table.shape}'}."
        )
    if table.shape[1] < raters:
        raise ValueError(f"Agreement needs at least {raters} raters, got {table.shape[1]}.")
    table = table.astype(np.int64)
    count = int(table.max()) + 1 if num_classes is None else num_classes
    wrong = np.argwhere((table < 0) | (table >= count))
    if len(wrong):
        row, rater = wrong[0]
        raise ValueError(
            f"`annotations` must be in [0, {count}), got {table[row, rater]} at row {row}, rater {rater}."
        )
    return table, count


def _counts(table: np.ndarray, classes: int) -> np.ndarray:
    """How many raters gave each class to each item, (n, C)."""
    counts = np.zeros((len(table), classes))
    np.add.at(counts, (np.arange(len(table))[:, None], table), 1)
    return counts


def _answers(annotations: Any, num_classes: int | None, missing: int | None) -> np.ndarray:
    """Counts `(n, C)` of the answers to each item; with missing ones items of fewer than two answers are left out."""
    if missing is None:
        return _counts(*_ratings(annotations, num_classes))
    table = np.asarray(annotations)
    there = table != missing
    if table.ndim != 2 or not there.any():
        raise ValueError(f"`annotations` must be class ids (n, R) with at least one answer, got shape {table.shape}.")
    classes = int(table[there].max()) + 1 if num_classes is None else num_classes
    filled, _ = _ratings(np.where(there, table, 0), classes)
    counts = np.zeros((len(table), classes))
    items, raters = np.nonzero(there)
    np.add.at(counts, (items, filled[items, raters]), 1)
    counts = counts[there.sum(1) >= 2]
    if not len(counts):
        raise ValueError("No item has two answers: there is no agreement to measure.")
    return counts


def _agreeing(counts: np.ndarray) -> float:
    raters = counts.sum(1)
    return float((((counts**2).sum(1) - raters) / (raters * (raters - 1))).mean())


def pairwise_agreement(annotations: Any, num_classes: int | None = None, missing: int | None = None) -> float:
    """Mean over the items of the share of pairs of raters that agree, in [0, 1].

    Args:
        annotations (array of shape `(n, R)`): Class ids, R >= 2.
        num_classes (`int`, *optional*): C; the largest id + 1 by default.
        missing (`int`, *optional*): What stands for no answer, usually -1. Items with fewer than two answers are left
            out.
    """
    return _agreeing(_answers(annotations, num_classes, missing))


def fleiss_kappa(annotations: Any, num_classes: int | None = None, missing: int | None = None) -> float:
    """Fleiss' kappa: agreement beyond chance, `(P - Pe) / (1 - Pe)`, with the classes' shares over all raters.

    Args:
        annotations (array of shape `(n, R)`): Class ids, R >= 2.
        num_classes (`int`, *optional*): C; the largest id + 1 by default.
        missing (`int`, *optional*): As in [`pairwise_agreement`].

    Returns:
        `float`: At most 1; 0 is chance; NaN, with a warning, where all ratings are of one class.

    Example:
        >>> round(fleiss_kappa([[0, 0], [1, 1], [0, 1]]), 4)
        0.3333
    """
    counts = _answers(annotations, num_classes, missing)
    shares = counts.sum(0) / counts.sum()
    chance = float((shares**2).sum())
    if chance >= 1.0:
        logger.warning("All ratings are of one class: kappa is not defined.")
        return float("nan")
    return (_agreeing(counts) - chance) / (1 - chance)


def cohen_kappa(one: Any, two: Any, num_classes: int | None = None) -> float:
    """Cohen's kappa of two raters; unlike Fleiss' with the shares of each rater. NaN where both are constant.

    Args:
        one, two (arrays of shape `(n,)`): Class ids.
        num_classes (`int`, *optional*): C; the largest id + 1 by default.
    """
    first, second = np.asarray(one), np.asarray(two)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"Both raters must have one class id per item, got {first.shape} and {second.shape}.")
    table, classes = _ratings(np.stack([first, second], axis=1), num_classes)
    joint = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(joint, (table[:, 0], table[:, 1]), 1)
    count, chance = len(table), int(joint.sum(0) @ joint.sum(1))  # whole numbers: sums of shares may miss 1
    return (int(np.trace(joint)) * count - chance) / (count**2 - chance) if chance < count**2 else float("nan")


def weighted_f1_matrix(annotations: Any, num_classes: int | None = None) -> np.ndarray:
    """F1 of each rater (columns) against each rater as the truth (rows), classes weighted by the truth.

    Args:
        annotations (array of shape `(n, R)`): Class ids.
        num_classes (`int`, *optional*): C; the largest id + 1 by default.

    Returns:
        `np.ndarray` of shape `(R, R)`: In [0, 1], 1 on the diagonal, not symmetric.
    """
    table, classes = _ratings(annotations, num_classes, raters=1)
    hot = np.eye(classes)[table]  # (n, R, C)
    sizes = hot.sum(0)  # (R, C)
    hits = np.einsum("nic,njc->ijc", hot, hot)
    total = sizes[:, None] + sizes[None]
    f1 = np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)
    return np.asarray((f1 * sizes[:, None]).sum(-1) / len(table))


def majority_vote(annotations: Any, num_classes: int | None = None) -> np.ndarray:
    """The class that most raters gave to each item, the lowest among equals: (n,)."""
    table, classes = _ratings(annotations, num_classes, raters=1)
    return _counts(table, classes).argmax(1)


def strict_vote(annotations: Any, positive: int = 1) -> np.ndarray:
    """1 where all raters gave the class `positive`, else 0: (n,)."""
    table, _ = _ratings(annotations, None, raters=1)
    return (table == positive).all(1).astype(np.int64)


def agreement(sources: Mapping[str, Any], num_classes: int | None = None, rows: Any = None) -> dict[str, Any]:
    """How well the raters of each source agree, and the sources with each other.

    Args:
        sources (mapping): Name -> class ids `(n,)` or `(n, R)` of the same items. A source of several raters meets the
            others with its majority.
        num_classes (`int`, *optional*): C; the largest id + 1 by default.
        rows (`(n,)` bool or row positions, *optional*): Only these items, such as the disputed ones: kappa is lower
            there, for the classes are chosen.

    Returns:
        `dict`: `within` (name -> `fleiss_kappa`, `pairwise_agreement`, `raters`; sources of several raters), `names`,
        and between all sources `weighted_f1` (matrix) and `cohen_kappa` (matrix).

    Raises:
        ValueError: For no source, or sources of different items.
    """
    if not sources:
        raise ValueError("`sources` is empty: give the ratings of at least one source.")
    tables = {name: np.asarray(values) for name, values in sources.items()}
    sizes = {name: len(table) for name, table in tables.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"The sources must rate the same items, got {sizes} of them.")
    tables = {name: (t if t.ndim == 2 else t[:, None]) for name, t in tables.items()}
    if rows is not None:
        tables = {name: table[np.asarray(rows)] for name, table in tables.items()}
    count = max(int(table.max()) for table in tables.values()) + 1 if num_classes is None else num_classes
    within = {
        name: {
            "fleiss_kappa": fleiss_kappa(table, count),
            "pairwise_agreement": pairwise_agreement(table, count),
            "raters": table.shape[1],
        }
        for name, table in tables.items()
        if table.shape[1] > 1
    }
    votes = np.stack([majority_vote(table, count) for table in tables.values()], axis=1)
    pairs = [[cohen_kappa(votes[:, i], votes[:, j], count) for j in range(len(tables))] for i in range(len(tables))]
    between = {"weighted_f1": weighted_f1_matrix(votes, count).tolist(), "cohen_kappa": pairs}
    return {"within": within, "names": list(tables), **between}
