"""OF1, CF1 and other scores of multi-label decisions, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import multilabel

_DESCRIPTION = """\
Precision, recall and F1 of multi-label decisions by threshold or top k: overall (OP, OR, OF1), by class (CP, CR, CF1),
macro, micro and sample F1, Jaccard, set accuracy and Hamming loss, with precision and nDCG at k on request.
"""

_INPUTS = """\
Args:
    predictions: rows of C probabilities, or logits with from_logits=True.
    references: rows of C labels, 0 or 1, with -1 or NaN for unknown; or lists of class ids, with num_classes.
    threshold (float or C floats, defaults to 0.5): positive means at or above it.
    top_k (int): positive are the k best scores of each row instead.
    from_logits (bool, defaults to False): apply a sigmoid first.
    reference_op (bool, defaults to False): count one prediction for a class without any inside OP.
    num_classes (int): C, when the references are lists of class ids.
    rank_cutoffs (list of int): adds precision_at_K and ndcg_at_K; needs multi-hot references.
Returns:
    OP, OR, OF1, CP, CR, CF1, macro_f1, micro_f1, samples_f1, jaccard_samples, subset_accuracy (0 to 1, higher is
    better), hamming_loss (0 to 1, lower is better), n_classes_without_positive (count).
"""


class MultilabelF1(evaluate.Metric):
    """Scores of multi-label decisions; see [`~hf_labels.metrics.functional.multilabel_f1`] for the formulas."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://arxiv.org/abs/1702.05891"],
        )

    def _compute(self, predictions: Any, references: Any, rank_cutoffs: Any = (), **options: Any) -> dict[str, Any]:
        scores: dict[str, Any] = multilabel.multilabel_f1(predictions, references, **options)
        if len(rank_cutoffs):
            if options.get("num_classes") is not None:
                raise ValueError("`rank_cutoffs` needs multi-hot references: leave out `num_classes`.")
            scores |= multilabel.precision_at_k(predictions, references, rank_cutoffs)
            scores |= multilabel.ndcg_at_k(predictions, references, rank_cutoffs)
        return scores
