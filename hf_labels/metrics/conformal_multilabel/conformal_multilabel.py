"""Validity and size of conformal prediction sets of label sets, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import conformal

_DESCRIPTION = """\
Validity and size of conformal prediction sets whose members are label sets: error rate against the promised level,
mean, median and quantile sizes, and, with p-values of the whole powerset, fuzziness, confidence and credibility.
"""

_INPUTS = """\
Args:
    predictions: either rows of 2^L p-values (lexicographic label sets, first label most significant, L at most 16),
        or one size of a prediction set for each row: an integer of any magnitude.
    references: with p-values, rows of L labels 0 or 1; with sizes, whether the set covers the true label set.
    epsilons (float or list of float): significance levels in (0, 1); with sizes, exactly one, that of the sets.
    non_empty (bool, defaults to False): with p-values, fill an empty set with the best label set.
    num_labels (int): with sizes, L; needed for share_everything.
    truncated, allow_truncated: with sizes, flags of sets that were cut off, and whether to report their mean all the
        same.
Returns:
    error_rate, coverage, validity_gap, validity_stderr, mean_size, median_size, size_q90, size_q95, excess,
    share_empty, share_singleton, share_everything, n_truncated; with p-values each as eps_LEVEL_KEY, and s_criterion,
    observed_fuzziness, ks_distance, ks_excess, credibility, confidence, forced_accuracy.
"""


class ConformalMultilabel(evaluate.Metric):
    """Conformal criteria; see `conformal_sets` and `conformal_pvalues` in [`~hf_labels.metrics.functional`]."""

    def _info(self) -> evaluate.MetricInfo:
        row, flag = datasets.List(datasets.Value("float64")), datasets.Value("bool")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": row, "references": row}),
                datasets.Features({"predictions": datasets.Value("string"), "references": flag}),
            ],
            reference_urls=["https://arxiv.org/abs/1603.04416"],
        )

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """One row; a size of any magnitude is kept as decimal text."""
        text = prediction if hasattr(prediction, "__len__") else _decimal(prediction)
        super().add(prediction=text, reference=reference, **kwargs)

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Rows of p-values, or sizes; a size of any magnitude is kept as decimal text."""
        if predictions is not None and len(predictions) and getattr(predictions, "ndim", 1) == 1:
            if not hasattr(predictions[0], "__len__") or getattr(predictions[0], "shape", None) == ():
                predictions = [_decimal(size) for size in predictions]
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(
        self,
        predictions: Any,
        references: Any,
        epsilons: Any = (0.05, 0.1, 0.2),
        non_empty: bool = False,
        num_labels: int | None = None,
        truncated: Any = None,
        allow_truncated: bool = False,
    ) -> dict[str, Any]:
        if hasattr(references[0], "__len__"):
            return conformal.conformal_pvalues(predictions, references, epsilons, non_empty)
        levels = [epsilons] if isinstance(epsilons, int | float) else list(epsilons)
        if len(levels) != 1:
            raise ValueError(f"Prediction sets belong to one level: pass `epsilons=0.1` or so, got {levels}.")
        return conformal.conformal_sets(predictions, references, levels[0], num_labels, truncated, allow_truncated)


def _decimal(size: Any) -> str:
    return str(size.item() if hasattr(size, "item") else size)
