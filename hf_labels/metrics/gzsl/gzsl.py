"""Accuracy on seen and unseen classes, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import kg_ranking

_DESCRIPTION = """\
Generalised zero-shot classification: accuracy on seen and on unseen classes, each the mean over its classes, and their
harmonic mean.
"""

_INPUTS = """\
Args:
    predictions, references: one class per row, text.
    seen_labels: classes with training examples.
Returns:
    seen, unseen, harmonic_mean (0 to 1, higher is better); n_seen, n_unseen.
"""


class Gzsl(evaluate.Metric):
    """Generalised zero-shot accuracy; see [`~hf_labels.metrics.functional.gzsl_scores`]."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://arxiv.org/abs/2112.10006"],
        )

    def _compute(self, predictions: Any, references: Any, seen_labels: Any) -> dict[str, float]:
        return kg_ranking.gzsl_scores(predictions, references, seen_labels)
