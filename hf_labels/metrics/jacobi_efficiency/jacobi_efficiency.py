"""Passes of a block decoder and its agreement with autoregressive decoding, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import jacobi

_DESCRIPTION = """\
How many forward passes a block decoder (Jacobi decoding) needed, and how far its tokens are those of autoregressive
decoding.
"""

_INPUTS = """\
Args:
    predictions: new tokens of each answer, without prompt and padding.
    references: new tokens of autoregressive decoding of the same model on the same prompts.
    forward_passes (list of int): passes of each answer, prefill and confirming passes included.
    iterations (list of float, optional): passes per block.
Returns:
    forward_passes (mean), forward_passes_p50, forward_passes_p95, mean_iterations (lower is better), tokens_per_pass,
    pass_speedup, exact_match_with_ar, token_match_with_ar (higher is better), n.
"""

_CITATION = """\
@article{song2025ceedvla,
  title={{CEED-VLA}: Consistency Vision-Language-Action Model with Early-Exit Decoding},
  author={Song, Wenxuan and others},
  journal={arXiv preprint arXiv:2506.13725},
  year={2025}
}
"""


class JacobiEfficiency(evaluate.Metric):
    """Efficiency of block decoding; see [`~hf_labels.metrics.functional.jacobi_efficiency`]."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=["https://arxiv.org/abs/2506.13725"],
        )

    def _compute(
        self, predictions: Any, references: Any, forward_passes: Any, iterations: Any = None
    ) -> dict[str, float]:
        return jacobi.jacobi_efficiency(predictions, references, forward_passes, iterations)
