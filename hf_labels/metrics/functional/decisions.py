"""Multi-label decisions: OF1 and CF1, F1 of other averages, Hamming loss, set accuracy, and a threshold tuned on
validation."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import check_k, check_multilabel, to_numpy, top_k_mask

_TUNED = ("OF1", "CF1", "macro_f1")


def _ratio(top: Any, bottom: Any) -> Any:
    """`top / bottom` with 0/0 = 0."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=np.asarray(bottom) != 0)


def _f1_from_counts(
    correct: np.ndarray, predicted: np.ndarray, true: np.ndarray, reference_op: bool = False
) -> dict[str, np.ndarray]:
    """Overall and per-class scores from counts of shape `(C,)` or `(C, G)`; the class axis is the first."""
    shape = np.broadcast_shapes(correct.shape, predicted.shape, true.shape)
    correct, predicted, true = (np.broadcast_to(array, shape) for array in (correct, predicted, true))
    counted = np.maximum(predicted, 1) if reference_op else predicted
    overall_precision = _ratio(correct.sum(0), counted.sum(0))
    overall_recall = _ratio(correct.sum(0), true.sum(0))
    exists = true > 0
    class_precision = _ratio((_ratio(correct, predicted) * exists).sum(0), exists.sum(0))
    class_recall = _ratio(_ratio(correct, true).sum(0), exists.sum(0))
    return {
        "OP": overall_precision,
        "OR": overall_recall,
        "OF1": _ratio(2 * overall_precision * overall_recall, overall_precision + overall_recall),
        "CP": class_precision,
        "CR": class_recall,
        "CF1": _ratio(2 * class_precision * class_recall, class_precision + class_recall),
        "macro_f1": _ratio(2 * correct, predicted + true).mean(0),
        "micro_f1": _ratio(2 * correct.sum(0), predicted.sum(0) + true.sum(0)),
    }


def multilabel_f1(
    predictions: Any,
    references: Any,
    threshold: Any = 0.5,
    top_k: int | None = None,
    from_logits: bool = False,
    reference_op: bool = False,
    num_classes: int | None = None,
) -> dict[str, float | int]:
    """Precision, recall and F1 of multi-label decisions.

    With `Nc` correct, `Np` predicted and `Ng` true positives of a class. Every number is in [0, 1]; higher is better
    except for `hamming_loss`.

    | key | meaning |
    | --- | --- |
    | `OP`, `OR`, `OF1` | `sum Nc / sum Np`, `sum Nc / sum Ng`, their harmonic mean |
    | `CP`, `CR`, `CF1` | mean over classes of `Nc / max(Np, 1)` and `Nc / Ng`; harmonic mean **of those means** |
    | `macro_f1` | mean over all classes of each class's F1: another number than `CF1` |
    | `micro_f1` | F1 of all cells; equals `OF1` unless `reference_op` |
    | `samples_f1` | mean over samples of each sample's F1 |
    | `jaccard_samples` | mean over samples of intersection over union; 1 when both sets are empty |
    | `subset_accuracy` | share of samples without a wrong cell |
    | `hamming_loss` | share of wrong cells, lower is better |
    | `n_classes_without_positive` | classes without a known positive (count); they are left out of `CP`, `CR`, `CF1` |

    A ratio 0/0 is 0. Samples without a known cell are left out of the means over samples.

    Args:
        predictions (array-like of shape `(N, C)`): Probabilities, or logits with `from_logits`.
        references (array-like of shape `(N, C)`): 0, 1, and -1 or NaN for unknown; or N lists of ids with
            `num_classes`.
        threshold (`float` or array-like of shape `(C,)`, *optional*, defaults to `0.5`): Positive means score >=
            threshold, after the sigmoid. Tune it with [`best_threshold`] on validation rows. Not used with `top_k`.
        top_k (`int`, *optional*): Positive are the k largest scores of each sample; equal scores: the lower class.
        from_logits (`bool`, *optional*, defaults to `False`): Apply a sigmoid first.
        reference_op (`bool`, *optional*, defaults to `False`): Count one prediction for each class without any
            inside `OP`, as published code does. It lowers `OP` and `OF1` a little.
        num_classes (`int`, *optional*): Says that `references` are lists of class ids.

    Returns:
        `dict[str, float | int]`: The keys above.

    Raises:
        ValueError: For shapes that disagree, no rows, NaN or infinite scores, references other than 0, 1, -1, NaN, a
            bad `threshold`, or `top_k` outside [1, C].
        IndexError: If a class id is out of range.

    Cost O(N C). Source: definitions of Zhu et al. 2017 (arXiv:1702.05891); quirk and top 3 of the code
    TAKELAMAG/PU-MLC.
    """
    scores, truth, known = check_multilabel(predictions, references, num_classes)
    decided = _decide(scores, threshold, top_k, from_logits)
    if not known.all():
        decided = decided & known
    both = decided & truth
    correct, predicted, true = (array.sum(axis=0) for array in (both, decided, truth))
    result: dict[str, float | int] = {
        name: float(value) for name, value in _f1_from_counts(correct, predicted, true, reference_op).items()
    }
    filled = known.any(axis=1)
    hit, size = both.sum(axis=1)[filled], (decided.sum(axis=1) + truth.sum(axis=1))[filled]
    union, wrong = size - hit, size - 2 * hit
    rows = max(len(hit), 1)
    return result | {
        "samples_f1": float(_ratio(2 * hit, size).sum() / rows),
        "jaccard_samples": float((_ratio(hit, union) + (union == 0)).sum() / rows),
        "subset_accuracy": float((wrong == 0).sum() / rows),
        "hamming_loss": float(wrong.sum() / max(int(known.sum()), 1)),
        "n_classes_without_positive": int((true == 0).sum()),
    }


def _decide(scores: np.ndarray, threshold: Any, top_k: int | None, from_logits: bool) -> np.ndarray:
    """Decisions of shape `(N, C)`, bool."""
    if top_k is not None:
        return top_k_mask(scores, check_k(top_k, scores.shape[1], "the number of classes")[0])
    limit = to_numpy(threshold, "threshold")
    if limit.shape not in ((), (scores.shape[1],)):
        raise ValueError(f"`threshold` must be a number or have shape ({scores.shape[1]},), got shape {limit.shape}.")
    if np.isnan(limit).any():
        raise ValueError("`threshold` must not be NaN.")
    return _sigmoid(scores) >= limit if from_logits else scores >= limit


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return expit(scores.astype(np.float64, copy=False))


def best_threshold(
    predictions: Any,
    references: Any,
    grid: Any = None,
    metric: str = "OF1",
    from_logits: bool = False,
    per_class: bool = False,
) -> float | np.ndarray:
    """Threshold with the best F1 on **validation** rows. The best over test thresholds is not a result: do not
    report it.

    Args:
        predictions (array-like of shape `(N, C)`): Probabilities, or logits with `from_logits`, of validation rows.
        references (array-like of shape `(N, C)`): 0, 1, and -1 or NaN for unknown.
        grid (array-like of shape `(G,)`, *optional*): Thresholds to try; 0.05, 0.10, ... 0.95 by default.
        metric (`str`, *optional*, defaults to `"OF1"`): `"OF1"`, `"CF1"` or `"macro_f1"`. Not used with `per_class`.
        from_logits (`bool`, *optional*, defaults to `False`): Apply a sigmoid first.
        per_class (`bool`, *optional*, defaults to `False`): Tune one threshold for each class, by its own F1.

    Returns:
        `float`, or `np.ndarray` of shape `(C,)` with `per_class`. Among equals the one nearest to 0.5, then the
        lowest.

    Raises:
        ValueError: As [`multilabel_f1`]; for an empty or not finite `grid`, or an unknown `metric`.

    All thresholds are counted in one pass: cost O(N C log G), memory O(N C).
    """
    if metric not in _TUNED:
        raise ValueError(f"`metric` must be one of {', '.join(_TUNED)}, got {metric!r}.")
    levels = np.arange(1, 20) / 20 if grid is None else np.unique(to_numpy(grid, "grid").astype(np.float64))
    if levels.ndim != 1 or not len(levels) or not np.isfinite(levels).all():
        raise ValueError("`grid` must be a flat list of finite thresholds with at least one element.")
    scores, truth, known = check_multilabel(predictions, references)
    scores = _sigmoid(scores) if from_logits else scores
    # A score passes the first `passed` thresholds: count cells by that number, then add up from the top.
    passed = np.searchsorted(levels, scores, side="right") + np.arange(scores.shape[1]) * (len(levels) + 1)
    shape = (scores.shape[1], len(levels) + 1)

    def counts(cells: np.ndarray) -> np.ndarray:
        histogram = np.bincount(passed[cells], minlength=shape[0] * shape[1]).reshape(shape)
        return histogram[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]

    correct, predicted, true = counts(truth), counts(known), truth.sum(axis=0)[:, None]
    preference = np.argsort(np.abs(levels - 0.5), kind="stable")
    if per_class:
        f1 = _ratio(2 * correct, predicted + true)
        return levels[preference[f1[:, preference].argmax(axis=1)]]
    return float(levels[preference[_f1_from_counts(correct, predicted, true)[metric][preference].argmax()]])


__all__ = ["best_threshold", "multilabel_f1"]
