"""Accuracy of found classes after the best match with the true ones, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import matching

_DESCRIPTION = """\
Accuracy of classes that were found without labels: each is matched with one true class so that most rows agree.
"""

_INPUTS = """\
Args:
    predictions: ids of found classes, or rows of K scores.
    references: true class ids; rows with a negative one do not count.
    num_classes (int): K; the largest id + 1 by default.
    with_matching (bool, defaults to False): add the match.
Returns:
    matched_accuracy (0 to 1, higher is better), n (rows that count), on demand matching (a list).
"""


class MatchedAccuracy(evaluate.Metric):
    """Matched accuracy; see [`~hf_labels.metrics.functional.matched_accuracy`]."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": datasets.List(datasets.Value("float64")), "references": label}),
                datasets.Features({"predictions": label, "references": label}),
            ],
            reference_urls=["https://arxiv.org/abs/2207.13179"],
        )

    def _compute(
        self, predictions: Any, references: Any, num_classes: int | None = None, with_matching: bool = False
    ) -> dict[str, Any]:
        scores: dict[str, Any] = matching.matched_accuracy(predictions, references, num_classes, with_matching)
        return scores
