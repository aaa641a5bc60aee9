"""Scores of graph completion (ranks) and of generalised zero-shot classification (seen and unseen classes)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hf_labels.metrics.functional.zero_shot import harmonic_mean


def realistic_ranks(scores: Any, targets: Any, filters: Sequence[Iterable[int]] | None = None) -> np.ndarray:
    """Rank of each target among the candidates: `#better + (#equal with itself + 1) / 2`.

    Args:
        scores (`(N, E)`): Higher is better.
        targets (`(N,)` integers): The right candidate.
        filters (N collections of integers, *optional*): Other right candidates of each row, which do not count.

    Returns:
        `np.ndarray` of shape `(N,)`, in [1, E]. Equal scores share their mean rank, so that constant scores give
        (E + 1) / 2 and not 1.

    Raises:
        ValueError: Lengths differ, a target is not a candidate, or its score is NaN; names the row.
    """
    table, right = np.array(scores, dtype=np.float64), np.asarray(targets, dtype=np.int64)
    if table.ndim != 2 or right.shape != (len(table),) or (filters is not None and len(filters) != len(table)):
        raise ValueError(f"There must be one target (and filter) per row, got {table.shape} and {right.shape}.")
    bad = np.flatnonzero((right < 0) | (right >= table.shape[1]))
    if len(bad):
        raise ValueError(f"Target {right[bad[0]]} of row {bad[0]} is not one of {table.shape[1]} candidates.")
    bad = np.flatnonzero(np.isnan(table).any(1))
    if len(bad):
        raise ValueError(f"Row {bad[0]} of the scores holds NaN.")
    rows = np.arange(len(table))
    own = table[rows, right]
    for row, others in enumerate(filters or ()):
        table[row, list(others)] = -np.inf
    table[rows, right] = own
    equal = (table == own[:, None]) & ~(np.isneginf(table) & (np.arange(table.shape[1]) != right[:, None]))
    return (table > own[:, None]).sum(1) + (equal.sum(1) + 1) / 2


def kg_ranking_scores(ranks: Any, hits_at: Sequence[int] = (1, 3, 10)) -> dict[str, float]:
    """Mean reciprocal rank, mean rank, and the share of ranks up to k.

    Args:
        ranks (array of any shape): From [`realistic_ranks`].
        hits_at (sequence of `int`, *optional*, defaults to `(1, 3, 10)`)

    Returns:
        `dict[str, float]`: `mrr`, `mean_rank`, `hits@k` for each k, `n`.

    Raises:
        ValueError: Without a rank, or for one under 1.
    """
    found = np.asarray(ranks, dtype=np.float64).ravel()
    if not len(found) or not (found >= 1).all():
        raise ValueError("There must be at least one rank, and ranks start at 1.")
    hits = {f"hits@{k}": float((found <= k).mean()) for k in hits_at}
    return {"mrr": float((1 / found).mean()), "mean_rank": float(found.mean()), **hits, "n": len(found)}


def gzsl_scores(predictions: Iterable[Any], references: Iterable[Any], seen_labels: Iterable[Any]) -> dict[str, float]:
    """Accuracy on seen and on unseen classes, each the mean over its classes, and their harmonic mean.

    Args:
        predictions, references (N labels): Compared as text.
        seen_labels (labels): Those with training examples; all others are unseen.

    Returns:
        `dict[str, float]`: `seen`, `unseen`, `harmonic_mean` (`2 s u / (s + u)`, 0 if both are 0), and the rows
        `n_seen`, `n_unseen`. A group without a row scores 0.

    Raises:
        ValueError: Lengths differ, or there is nothing to score.
    """
    guess, gold = [str(one) for one in predictions], [str(one) for one in references]
    if len(guess) != len(gold):
        raise ValueError(f"There are {len(guess)} predictions and {len(gold)} references; each row needs both.")
    if not gold:
        raise ValueError("There is nothing to score: no predictions and no references.")
    known = {str(label) for label in seen_labels}
    hits: dict[str, list[bool]] = {}
    for one, right in zip(guess, gold, strict=True):
        hits.setdefault(right, []).append(one == right)
    groups = [
        [float(np.mean(row)) for label, row in hits.items() if (label in known) is seen] for seen in (True, False)
    ]
    seen, unseen = (float(np.mean(group)) if group else 0.0 for group in groups)
    rows = sum(len(row) for label, row in hits.items() if label in known)
    found = {"seen": seen, "unseen": unseen, "harmonic_mean": harmonic_mean(seen, unseen)}
    return found | {"n_seen": rows, "n_unseen": len(gold) - rows}


def seen_unseen_curve(scores: Any, labels: Any, seen: Any) -> dict[str, Any]:
    """What a constant that is taken off the scores of seen classes does (calibrated stacking).

    Args:
        scores (`(N, C)`), labels (`(N,)` integers): Of examples of seen and unseen classes.
        seen (`(C,)` bool): Which classes are seen.

    Returns:
        `dict`: `constants`, `seen`, `unseen` (arrays), `ausuc` (area under unseen against seen), `best` (the constant
        with the highest harmonic mean) and its `harmonic_mean`.

    Raises:
        ValueError: If all classes are seen, or none.

    Source: Chao et al., ECCV 2016. Cost O(N C + N log N).
    """
    table, right, mask = np.asarray(scores, dtype=np.float64), np.asarray(labels), np.asarray(seen, dtype=bool)
    if mask.all() or not mask.any():
        raise ValueError("The curve needs seen and unseen classes.")
    inside, outside = np.where(mask, table, -np.inf), np.where(mask, -np.inf, table)
    gap = inside.max(1) - outside.max(1)  # a larger constant moves the row to the unseen classes
    is_seen = mask[right]
    good = np.where(is_seen, inside.argmax(1) == right, outside.argmax(1) == right)
    weight = 1.0 / np.bincount(right, minlength=table.shape[1])[right]  # accuracy is the mean over classes
    parts = [weight / max(len(np.unique(right[group])), 1) for group in (is_seen, ~is_seen)]
    order = np.argsort(gap, kind="stable")
    steps = gap[order]
    lost = np.cumsum(np.where(is_seen & good, parts[0], 0.0)[order])
    won = np.cumsum(np.where(~is_seen & good, parts[1], 0.0)[order])
    middle = np.append((steps[1:] + steps[:-1]) / 2, steps[-1] + 1.0)
    last = np.append(np.diff(steps) > 0, True)  # equal gaps move together
    constants = np.concatenate([[steps[0] - 1.0], middle[last]])
    seen_curve = np.concatenate([[lost[-1]], lost[-1] - lost[last]])
    unseen_curve = np.concatenate([[0.0], won[last]])
    both = [harmonic_mean(float(s), float(u)) for s, u in zip(seen_curve, unseen_curve, strict=True)]
    top = int(np.argmax(both))
    area = float(np.trapezoid(unseen_curve[::-1], seen_curve[::-1]))
    found = {"constants": constants, "seen": seen_curve, "unseen": unseen_curve, "ausuc": area}
    return found | {"best": float(constants[top]), "harmonic_mean": both[top]}
