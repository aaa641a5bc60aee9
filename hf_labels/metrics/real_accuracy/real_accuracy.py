"""Accuracy against sets of valid labels, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import real

_DESCRIPTION = """\
ReaL accuracy: the top prediction is right when it is among the labels that are valid for the image. For test sets with
several correct labels per example (ImageNet-ReaL, multi-object scenes).
"""

_INPUTS = """\
Args:
    predictions: class ids, or rows of C scores.
    references: rows of C labels, 0 or 1; or lists of valid class ids, with num_classes. Rows without a valid label do
        not count.
    num_classes (int): C, when the references are lists of class ids.
Returns:
    real_accuracy (0 to 1, higher is better), n_judged (count of examples with a valid label).
"""


class RealAccuracy(evaluate.Metric):
    """Accuracy against sets of labels; see [`~hf_labels.metrics.functional.real_accuracy`]."""

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": datasets.List(datasets.Value("float64")), "references": labels}),
                datasets.Features({"predictions": datasets.Value("int64"), "references": labels}),
            ],
            reference_urls=["https://arxiv.org/abs/2006.07159"],
        )

    def _compute(self, predictions: Any, references: Any, num_classes: int | None = None) -> dict[str, Any]:
        scores: dict[str, Any] = real.real_accuracy(predictions, references, num_classes)
        return scores
