"""How well frozen features fit labels, before anything is trained, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.labels.task_similarity import task_similarity

_DESCRIPTION = """\
PARC: do rows that a frozen model finds alike have the same label? 100 times the Spearman correlation of the pairwise
dissimilarities of features and of labels. For choosing a pretrained model without training it.
"""

_INPUTS = """\
Args:
    predictions: features of the model, n rows of d numbers.
    references: class ids, or n rows of 0 and 1.
    n_dims (int, optional): principal components kept, 32 by default; None keeps all.
Returns:
    parc (-100 to 100, higher is better), n (rows).
"""

_CITATION = """\
@inproceedings{bolya2021scalable,
  title={Scalable Diverse Model Selection for Accessible Transfer Learning},
  author={Bolya, Daniel and Mittapalli, Rohit and Hoffman, Judy},
  booktitle={Advances in Neural Information Processing Systems},
  year={2021}
}
"""


class Parc(evaluate.Metric):
    """Similarity of features and labels; see [`~hf_labels.labels.task_similarity.parc`]."""

    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": rows, "references": datasets.Value("int64")}),
                datasets.Features({"predictions": rows, "references": datasets.List(datasets.Value("int64"))}),
            ],
            reference_urls=["https://arxiv.org/abs/2111.06977"],
        )

    def _compute(self, predictions: Any, references: Any, n_dims: int | None = 32) -> dict[str, float]:
        return {"parc": task_similarity(predictions, references, n_dims=n_dims), "n": len(predictions)}
