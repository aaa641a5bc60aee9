"""Accuracy against sets of valid labels: "ReaL" accuracy."""

from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import to_numpy


def real_accuracy(predictions: Any, references: Any, num_classes: int | None = None) -> dict[str, float | int]:
    """Share of examples whose top class is among the labels that are valid for it.

    Args:
        predictions (array of shape `(N,)`, class ids, or `(N, C)`, scores): What the model says.
        references (array of shape `(N, C)`, 0 or 1; or N lists of class ids with `num_classes`): Valid labels. An
            example without one does not count.
        num_classes (`int`, *optional*): C, when the references are lists of class ids.

    Returns:
        `dict`: `real_accuracy` in [0, 1], higher is better; `n_judged`: examples with a valid label.

    Raises:
        ValueError: If lengths or classes differ, an id is not in [0, C), scores are not finite, or no example has a
            valid label.

    Example:
        >>> real_accuracy([1, 2, 0], [[1, 3], [0], []], num_classes=4)
        {'real_accuracy': 0.5, 'n_judged': 2}

    Source: Beyer et al., arXiv:2006.07159, section 3.
    """
    found = to_numpy(predictions, "predictions")
    valid = _valid(references, num_classes)
    classes = valid.shape[1]
    if len(found) != len(valid):
        raise ValueError(f"There are {len(found)} predictions and {len(valid)} references.")
    if found.ndim == 2:
        top = _top_of_scores(found, classes)
    elif found.ndim == 1:
        top = found.astype(np.int64)
        wrong = np.flatnonzero((top != found) | (top < 0) | (top >= classes))
        if len(wrong):
            raise ValueError(f"`predictions` must be ids in [0, {classes}), got {found[wrong[0]]} at row {wrong[0]}.")
    else:
        raise ValueError(f"`predictions` must be class ids (N,) or scores (N, C), got shape {found.shape}.")
    judged = valid.any(1)
    if not judged.any():
        raise ValueError("No example has a valid label: there is nothing to judge.")
    right = valid[np.arange(len(valid)), top] & judged
    return {"real_accuracy": float(right.sum() / judged.sum()), "n_judged": int(judged.sum())}


def _top_of_scores(scores: np.ndarray, classes: int) -> np.ndarray:
    if scores.shape[1] != classes:
        raise ValueError(f"`predictions` have {scores.shape[1]} classes, `references` {classes}.")
    wrong = np.flatnonzero(~np.isfinite(scores).all(1))
    if len(wrong):
        raise ValueError(f"`predictions` must be finite; row {wrong[0]} is not.")
    return scores.argmax(1)


def _valid(references: Any, num_classes: int | None) -> np.ndarray:
    """Valid labels as bool (N, C)."""
    if num_classes is None:
        hot = to_numpy(references, "references")
        if hot.ndim != 2 or not np.isin(hot, (0, 1)).all():
            raise ValueError(
                f"`references` must be 0 and 1 of shape (N, C), got shape {hot.shape}. For lists of class ids pass "
                "`num_classes`."
            )
        return hot.astype(bool)
    valid = np.zeros((len(references), num_classes), dtype=bool)
    for row, ids in enumerate(references):
        labels = to_numpy(ids, f"references[{row}]").reshape(-1).astype(np.int64)
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong):
            raise ValueError(f"`references` must be ids in [0, {num_classes}), got {wrong[0]} at row {row}.")
        valid[row, labels] = True
    return valid
