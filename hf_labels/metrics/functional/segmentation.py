"""Segmentation: the confusion of pixels, and mean intersection over union."""

from typing import Any

import numpy as np


def pixel_confusion(predictions: Any, labels: Any, num_labels: int, ignore_index: int = 255) -> np.ndarray:
    """Pixels of each true class (row) by predicted class (column). Sums over batches.

    Args:
        predictions (array of shape `(..., H, W)`, integer): Class ids in `[0, C)`.
        labels (array of the same shape, integer): Class ids; `ignore_index` and negative ones do not count.
        num_labels (`int`): C.
        ignore_index (`int`, *optional*, defaults to 255)

    Returns:
        `np.ndarray` of shape `(C, C)`, int64.

    Raises:
        ValueError: If the shapes disagree or an id that counts is out of range.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape:
        raise ValueError(
            f"`predictions` and `labels` must have one shape, got {predictions.shape} and {labels.shape}."
        )
    counts = (labels != ignore_index) & (labels >= 0)
    true, found = labels[counts].astype(np.int64), predictions[counts].astype(np.int64)
    for name, values in (("labels", true), ("predictions", found)):
        if len(values) and not 0 <= values.min() <= values.max() < num_labels:
            raise ValueError(f"`{name}` must be in [0, {num_labels}), got {values.min()} to {values.max()}.")
    return np.bincount(true * num_labels + found, minlength=num_labels**2).reshape(num_labels, num_labels)


def segmentation_scores(confusion: Any) -> dict[str, float]:
    """Scores of a confusion matrix.

    Args:
        confusion (array of shape `(C, C)`): From [`pixel_confusion`].

    Returns:
        `dict[str, float]`: `mean_iou`, mean over the classes that occur (in labels or predictions) of intersection
        over union; `mean_accuracy`, over the classes with labels; `overall_accuracy`. In [0, 1]; NaN without a pixel.
    """
    table = np.asarray(confusion, dtype=np.float64)
    right, true, found = np.diag(table), table.sum(1), table.sum(0)
    union = true + found - right
    if not table.sum():
        return dict.fromkeys(("mean_iou", "mean_accuracy", "overall_accuracy"), float("nan"))
    return {
        "mean_iou": float((right[union > 0] / union[union > 0]).mean()),
        "mean_accuracy": float((right[true > 0] / true[true > 0]).mean()),
        "overall_accuracy": float(right.sum() / table.sum()),
    }
