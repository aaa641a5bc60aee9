"""Ranks of graph completion, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import kg_ranking

_DESCRIPTION = """\
Mean reciprocal rank, mean rank and hits at k of the right entity among all. Ties share their mean rank; other right
entities can be filtered out.
"""

_INPUTS = """\
Args:
    predictions: one score per candidate and row, higher is better.
    references: the right candidate of each row, by number.
    filters (lists of numbers, optional): other right candidates of each row.
    hits_at (numbers, optional): defaults to 1, 3, 10.
Returns:
    mrr, hits@k (0 to 1, higher is better), mean_rank (lower is better), n.
"""


class KgRanking(evaluate.Metric):
    """Ranks of graph completion; see [`~hf_labels.metrics.functional.realistic_ranks`]."""

    def _info(self) -> evaluate.MetricInfo:
        scores = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": scores, "references": datasets.Value("int64")}),
            reference_urls=["https://arxiv.org/abs/2112.10006"],
        )

    def _compute(
        self, predictions: Any, references: Any, filters: Any = None, hits_at: Any = (1, 3, 10)
    ) -> dict[str, float]:
        return kg_ranking.kg_ranking_scores(kg_ranking.realistic_ranks(predictions, references, filters), hits_at)
