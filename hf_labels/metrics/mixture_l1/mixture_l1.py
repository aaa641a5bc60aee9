"""Error of estimated class shares of domains, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import matching as functional

_DESCRIPTION = """\
Error of estimated class shares of domains: sum of the absolute differences over classes and domains, after the best
match of the classes.
"""

_INPUTS = """\
Args:
    predictions: one row per class with its estimated shares in the r domains; columns sum to 1.
    references: the same of the true shares.
    matching (list of int): true class of each estimated one; the match with the smallest error by default.
    with_matching (bool, defaults to False): add the match.
Returns:
    mixture_l1 (0 to 2 r, lower is better), mixture_l1_per_domain (the same divided by r), on demand matching.
"""


class MixtureL1(evaluate.Metric):
    """Error of mixtures; see [`~hf_labels.metrics.functional.mixture_l1`]."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://arxiv.org/abs/2207.13179"],
        )

    def _compute(
        self, predictions: Any, references: Any, matching: Any = None, with_matching: bool = False
    ) -> dict[str, Any]:
        scores: dict[str, Any] = functional.mixture_l1(predictions, references, matching, with_matching)
        return scores
