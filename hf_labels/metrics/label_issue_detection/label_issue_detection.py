"""How well suspected label errors are the true ones, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import intervals

_DESCRIPTION = """\
Precision, recall and F1 of flagged rows against the rows whose label is known to be wrong, and the average precision
of a ranking by suspicion. For label tools such as confident learning and language-model judges.
"""

_INPUTS = """\
Args:
    predictions: flags (0 and 1), or scores, high = suspicious.
    references: 1 where the label is wrong, else 0.
    threshold (float): scores of at least this are flags; needed for precision, recall and f1 of scores.
Returns:
    precision, recall, f1 (0 to 1, higher is better), n_flagged, n_errors; for scores auprc.
"""


class LabelIssueDetection(evaluate.Metric):
    """Found label errors; see [`~hf_labels.metrics.functional.label_issue_detection`]."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("float64"), "references": datasets.Value("int64")}
            ),
            reference_urls=["https://arxiv.org/abs/2103.14749", "https://arxiv.org/abs/2410.18889"],
        )

    def _compute(self, predictions: Any, references: Any, threshold: float | None = None) -> dict[str, Any]:
        scores: dict[str, Any] = intervals.label_issue_detection(predictions, references, threshold)
        return scores
