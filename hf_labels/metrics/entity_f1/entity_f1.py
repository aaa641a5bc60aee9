"""F1 of whole entities, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import entities

_DESCRIPTION = """\
Precision, recall and F1 of whole named entities: type, first and last word must be right. Tags are read as seqeval
reads them by default (an I- may begin an entity); needs neither seqeval nor a network. With the tags of source
entities also the rate at which they are taken for target entities.
"""

_INPUTS = """\
Args:
    predictions, references: lists of tags, O, B-X or I-X, one list per sentence.
    sources (lists of tags, optional): source entities in the same words; adds source_as_target_rate.
Returns:
    precision, recall, f1, macro_f1 (0 to 1, higher is better), per_type (the same and counts for each type); with
    sources source_as_target_rate (0 to 1, lower is better) and n_source_entities.
"""


class EntityF1(evaluate.Metric):
    """Entity F1; see [`~hf_labels.metrics.functional.entity_f1`]."""

    def _info(self) -> evaluate.MetricInfo:
        tags = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": tags, "references": tags}),
            reference_urls=["https://arxiv.org/abs/2401.10472"],
        )

    def _compute(self, predictions: Any, references: Any, sources: Any = None) -> dict[str, Any]:
        scores: dict[str, Any] = entities.entity_f1(predictions, references)
        return scores if sources is None else scores | entities.source_as_target_rate(predictions, references, sources)
