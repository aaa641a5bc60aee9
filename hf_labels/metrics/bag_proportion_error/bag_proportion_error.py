"""Distance of predictions from the shares of bags, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import bags

_DESCRIPTION = """\
Mean distance of the mean prediction of a bag from its known share of positives. Needs no label of a row.
"""

_INPUTS = """\
Args:
    predictions: probability of the positive class of each row, or one for each class.
    references: share of the row's bag, or labels of rows, whose mean is the share.
    bag_ids: bag of each row, by number; rows with a negative one do not count.
Returns:
    bag_proportion_error (0 to 1, lower is better), n (the bags).
"""


class BagProportionError(evaluate.Metric):
    """Bag proportion error; see [`~hf_labels.metrics.functional.bag_proportion_error`]."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        forms = [
            datasets.Features({"predictions": number, "references": number}),
            datasets.Features({"predictions": datasets.List(number), "references": datasets.List(number)}),
        ]
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=forms,
            reference_urls=["https://arxiv.org/abs/2310.08056"],
        )

    def _compute(self, predictions: Any, references: Any, bag_ids: Any) -> dict[str, Any]:
        return bags.bag_proportion_error(predictions, references, bag_ids)
