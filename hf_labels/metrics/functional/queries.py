"""What was bought from a teacher: the share of wrong labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import to_numpy


def wrong_query_rate(predictions: Any, references: Any) -> dict[str, float | int]:
    """Share of a teacher's answers whose top class is not the true one.

    Args:
        predictions (array of shape `(N,)`, class ids, or `(N, C)`, probabilities): Answers.
        references (array of shape `(N,)`): True class ids; -1 = unknown, does not count.

    Returns:
        `dict`: `wrong_query_rate` in [0, 1], lower is better (NaN without a known label); `n_judged`.

    Raises:
        ValueError: If the shapes disagree.

    Example:
        >>> wrong_query_rate([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 0, -1])
        {'wrong_query_rate': 0.5, 'n_judged': 2}
    """
    answers, truth = to_numpy(predictions, "predictions"), to_numpy(references, "references")
    if truth.ndim != 1 or answers.ndim not in (1, 2) or len(answers) != len(truth):
        raise ValueError(
            f"`predictions` must be (N,) or (N, C) and `references` (N,), got {answers.shape} and {truth.shape}."
        )
    top = answers.argmax(1) if answers.ndim == 2 else answers
    known = truth >= 0
    rate = float((top[known] != truth[known]).mean()) if known.any() else float("nan")
    return {"wrong_query_rate": rate, "n_judged": int(np.count_nonzero(known))}
