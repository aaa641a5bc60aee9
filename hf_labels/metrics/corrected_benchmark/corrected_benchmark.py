"""Accuracy before and after a test set is corrected, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import corrected as functional

_DESCRIPTION = """\
Accuracy by the labels of a test set as published and after its errors are corrected. For benchmarks in which label
errors were found and checked by people.
"""

_INPUTS = """\
Args:
    predictions: class ids, or rows of K scores.
    references: class ids as published.
    corrected: class ids after the correction, -1 for errors whose true label is not known.
Returns:
    original_accuracy, corrected_accuracy, benign_accuracy, correctable_accuracy (0 to 1, higher is better),
    noise_prevalence (correctable errors among the rows with a known label), n_correctable, n_unknown.
"""


class CorrectedBenchmark(evaluate.Metric):
    """Accuracy on a corrected test set; see [`~hf_labels.metrics.functional.corrected_benchmark`]."""

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": datasets.List(datasets.Value("float64")), "references": labels}),
                datasets.Features({"predictions": labels, "references": labels}),
            ],
            reference_urls=["https://arxiv.org/abs/2103.14749"],
        )

    def _compute(self, predictions: Any, references: Any, corrected: Any) -> dict[str, Any]:
        scores: dict[str, Any] = functional.corrected_benchmark(predictions, references, corrected)
        return scores
