"""Retrieval by label sets, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import retrieval

_DESCRIPTION = """\
Do the nearest gallery items carry the labels of the query? Best label IoU among the k nearest, and mean average
precision of the ranked gallery.
"""

_INPUTS = """\
Args:
    predictions: query vectors.
    references: 0/1 label sets of the queries.
    gallery_embeddings: vectors to search.
    gallery_labels: their 0/1 label sets.
    k (int or list of int, defaults to 1, 3, 5): cut-offs.
    exclude: for each query, gallery rows that it may not find.
    metric (str, defaults to "euclidean"): or "cosine".
    require_exact_match (bool, defaults to False): skip queries whose label set is not in the gallery.
    empty_iou (float, defaults to 0): IoU of two empty sets.
    relevance (str or float, defaults to "exact"): or "any", a number t for IoU of at least t, None for no
        retrieval_map.
    label_subset: class ids that count.
Returns:
    iou_at_K and retrieval_map (0 to 1, higher is better), n_queries, n_skipped, n_without_relevant (counts).
"""

_CITATION = """\
@inproceedings{alfassy2019laso,
  title={LaSO: Label-Set Operations Networks for Multi-Label Few-Shot Learning},
  author={Alfassy, Amit and Karlinsky, Leonid and Aides, Amit and Shtok, Joseph and Harary, Sivan and Feris, Rogerio
  and
    Giryes, Raja and Bronstein, Alex M.},
  booktitle={Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year={2019}
}
"""


class LabelSetRetrieval(evaluate.Metric):
    """Label-set retrieval; see [`~hf_labels.metrics.functional.label_set_retrieval`] for the formulas."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://arxiv.org/abs/1902.09811"],
        )

    def _compute(
        self, predictions: Any, references: Any, gallery_embeddings: Any, gallery_labels: Any, **options: Any
    ) -> dict[str, Any]:
        scores = retrieval.label_set_retrieval(predictions, gallery_embeddings, references, gallery_labels, **options)
        return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in scores.items()}
