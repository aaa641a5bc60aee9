"""Calibration errors, proper scores and accuracy of predicted class probabilities, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional.calibration import calibration_scores

_DESCRIPTION = """\
Does "0.9 confident" mean right nine times in ten? ECE, adaptive ECE, classwise ECE, maximum error, over- and
under-confidence, negative log-likelihood, Brier score and accuracy of predicted class probabilities.
"""

_INPUTS = """\
Args:
    predictions: rows of C probabilities (or logits, with from_logits=True); or one P(class 1) a row for a binary task.
    references: class ids in [0, C); a row with -100 does not count.
    n_bins (int, defaults to 15): number of bins.
    from_logits (bool, defaults to False): apply a softmax first.
    aece_mode (str, defaults to "equal_count"): or "reference", the edges of the RankMixup code.
    per_bin (bool, defaults to False): add count, acc, conf and edges of the bins, for a reliability diagram.
Returns:
    ece, mce, aece, classwise_ece, oe, ue (0 to 1, lower is better), nll (0 or more, lower), brier (0 to 2, lower),
    accuracy (0 to 1, higher), n_ignored (count).
"""

_CITATION = """\
@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={Proceedings of the 34th International Conference on Machine Learning},
  year={2017}
}
"""


class Calibration(evaluate.Metric):
    """Calibration of a classifier; see [`~hf_labels.metrics.functional.calibration_scores`] for the formulas."""

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": datasets.List(datasets.Value("float64")), "references": label}),
                datasets.Features({"predictions": datasets.Value("float64"), "references": label}),
            ],
            reference_urls=["https://arxiv.org/abs/1706.04599", "https://arxiv.org/abs/1904.01685"],
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        n_bins: int = 15,
        from_logits: bool = False,
        aece_mode: str = "equal_count",
        per_bin: bool = False,
    ) -> dict[str, Any]:
        scores = calibration_scores(predictions, references, n_bins, from_logits, aece_mode, per_bin)
        if per_bin:
            scores["per_bin"] = {name: array.tolist() for name, array in scores["per_bin"].items()}
            scores["classwise_ece_per_class"] = scores["classwise_ece_per_class"].tolist()
        return scores
