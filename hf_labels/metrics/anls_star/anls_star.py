"""ANLS* of extracted structures, as an `evaluate` module."""

import json
from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import edit_distance as functional

_DESCRIPTION = """\
ANLS* of structures: how near the JSON that was read from a document is to the right one. Leaves are compared like in
ANLS, dicts key by key, lists by the best matching of their elements; missing and invented parts cost their leaves.
"""

_INPUTS = """\
Args:
    predictions: one JSON text per document.
    references: one JSON text per document; {"__any_of__": [...]} holds alternatives.
    threshold (float, optional): a leaf less similar than this scores 0; 0.5 by default.
    count_empty_hallucinations (bool, optional): an invented key with an empty value costs; True by default.
    per_document (bool, optional): also give the score of each document.
Returns:
    anls_star (0 to 1, higher is better), n (documents), unreadable (predictions that are no JSON; they count as
    nothing extracted); with per_document scores.
"""

_CITATION = """\
@article{peer2024anls,
  title={ANLS* -- A Universal Document Processing Metric for Generative Large Language Models},
  author={Peer, David and Sch{\\"o}pf, Philemon and Nebendahl, Volckmar and Rietzler, Alexander and others},
  journal={arXiv:2402.03848},
  year={2024}
}
"""


class AnlsStar(evaluate.Metric):
    """ANLS*; see [`~hf_labels.metrics.functional.anls_star`]."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://arxiv.org/abs/2402.03848"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        threshold: float = 0.5,
        count_empty_hallucinations: bool = True,
        per_document: bool = False,
    ) -> dict[str, Any]:
        golds = []
        for row, text in enumerate(references):
            try:
                golds.append(functional.from_json_values(json.loads(text)))
            except (TypeError, ValueError) as error:
                raise ValueError(f"Reference {row} is not JSON: {error}.") from error
        guesses, unreadable = [], 0
        for text in predictions:
            try:
                guesses.append(json.loads(text))
            except (TypeError, ValueError):
                guesses.append(None)
                unreadable += 1
        if not golds:
            raise ValueError("There is no document: the mean of nothing is not a number.")
        scores = [
            functional.anls_star(guess, gold, threshold, count_empty_hallucinations)
            for guess, gold in zip(guesses, golds, strict=True)
        ]
        found: dict[str, Any] = {"anls_star": sum(scores) / len(scores), "n": len(scores), "unreadable": unreadable}
        return found | ({"scores": scores} if per_document else {})
