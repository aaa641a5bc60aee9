"""Accuracy on texts of seen and of unseen labels, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import zero_shot

_DESCRIPTION = """\
Accuracy of zero-shot classification on texts whose label had training texts (seen) and on those whose label had none
(unseen), with their harmonic mean. From "Benchmarking Zero-shot Text Classification" (topic task).
"""

_INPUTS = """\
Args:
    predictions, references: one label (name or id) per text.
    seen_labels: the labels with training texts.
    labels: all labels; references outside them are refused.
    none_label: what "no label" is called; counts as unseen.
Returns:
    seen_accuracy, unseen_accuracy, accuracy, harmonic_mean (0 to 1, higher is better), none_rate, n_seen, n_unseen.
"""


class ZeroShotAccuracy(evaluate.Metric):
    """Zero-shot accuracy; see [`~hf_labels.metrics.functional.zero_shot_accuracy`]."""

    def _info(self) -> evaluate.MetricInfo:
        kinds = (datasets.Value("string"), datasets.Value("int64"))  # the first that fits
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[datasets.Features({"predictions": kind, "references": kind}) for kind in kinds],
            reference_urls=["https://arxiv.org/abs/1909.00161"],
        )

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        scores: dict[str, Any] = zero_shot.zero_shot_accuracy(predictions, references, **options)
        return scores
