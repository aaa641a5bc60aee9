"""How good pseudo-labels are, where the truth is known."""

from typing import Any

import numpy as np


def pseudo_label_quality(labels: Any, truth: Any, selected: Any = None) -> dict[str, Any]:
    """Precision and coverage of pseudo-labels.

    Args:
        labels (`(N,)` integers): Pseudo-labels; -1 = none.
        truth (`(N,)` integers): True class ids; -1 = unknown, such rows do not count.
        selected (`(N,)` bool or row positions, *optional*): Which labels are used; all by default.

    Returns:
        `dict`: `precision` (share of right labels among the used ones, NaN if none is used), `coverage` (share of
        rows with a known truth whose label is used), `n_selected`, and `class_coverage_min` (the smallest coverage of
        a true class: a selection that leaves a class out has 0).

    Raises:
        ValueError: If lengths differ or no truth is known.
    """
    labels, truth = np.asarray(labels), np.asarray(truth)
    if labels.shape != truth.shape or labels.ndim != 1:
        raise ValueError(f"`labels` and `truth` must be (N,) both, got {labels.shape} and {truth.shape}.")
    used = labels >= 0
    if selected is not None:
        chosen = np.zeros(len(labels), dtype=bool)
        chosen[np.asarray(selected)] = True
        used &= chosen
    known = truth >= 0
    if not known.any():
        raise ValueError("No row of `truth` is known (all are -1): there is nothing to compare with.")
    used &= known
    by_class = [float(used[truth == label].mean()) for label in np.unique(truth[known])]
    return {
        "precision": float((labels == truth)[used].mean()) if used.any() else float("nan"),
        "coverage": float(used[known].mean()),
        "n_selected": int(used.sum()),
        "class_coverage_min": min(by_class),
    }
