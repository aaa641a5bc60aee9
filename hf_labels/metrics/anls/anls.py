"""ANLS of extracted answers, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import edit_distance as functional

_DESCRIPTION = """\
Average normalised Levenshtein similarity: how near answers that were read from documents are to the right ones. Small
slips cost little, an answer that is more than half wrong scores nothing. Case and white space do not count.
"""

_INPUTS = """\
Args:
    predictions: one text per question.
    references: a list of accepted texts per question.
    threshold (float, optional): a normalised distance of at least so much scores 0; 0.5 by default.
    per_question (bool, optional): also give the score of each question.
Returns:
    anls (0 to 1, higher is better), n (questions); with per_question scores.
"""

_CITATION = """\
@inproceedings{biten2019scene,
  title={Scene Text Visual Question Answering},
  author={Biten, Ali Furkan and Tito, Rub{\\`e}n and Mafla, Andr{\\'e}s and Gomez, Lluis and others},
  booktitle={Proceedings of ICCV},
  year={2019}
}
"""


class Anls(evaluate.Metric):
    """ANLS; see [`~hf_labels.metrics.functional.anls`]."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": datasets.List(text)}),
            reference_urls=["https://arxiv.org/abs/1905.13648"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **others: Any) -> None:
        """As in `evaluate`; None and NaN among the predictions count as no answer."""
        if predictions is not None:
            predictions = ["" if one is None or one != one else one for one in predictions]
        super().add_batch(predictions=predictions, references=references, **others)

    def add(self, *, prediction: Any = None, reference: Any = None, **others: Any) -> None:
        """As in `evaluate`; None and NaN count as no answer."""
        empty = prediction is None or prediction != prediction
        super().add(prediction="" if empty else prediction, reference=reference, **others)

    def _compute(
        self, predictions: Any, references: Any, threshold: float = 0.5, per_question: bool = False
    ) -> dict[str, Any]:
        found: dict[str, Any] = functional.anls(predictions, references, threshold)
        if per_question:
            found["scores"] = functional.anls_scores(predictions, references, threshold)
        return found
