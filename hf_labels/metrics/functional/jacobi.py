"""How many passes a block decoder needed, and whether it kept the tokens of the autoregressive one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def jacobi_efficiency(
    predictions: Sequence[Sequence[int]],
    references: Sequence[Sequence[int]],
    forward_passes: Sequence[int],
    iterations: Sequence[float] | None = None,
) -> dict[str, float]:
    """Passes, tokens per pass, and agreement with autoregressive (AR) decoding.

    Args:
        predictions (N sequences of `int`): New tokens of each answer, without prompt and without padding after EOS.
        references (N sequences of `int`): New tokens of AR decoding of the same model on the same prompt.
        forward_passes (N `int`): Passes of each answer, prefill and confirming passes included. Answers that were
            decoded together in one batch share the passes of the batch: give each its number.
        iterations (N numbers, *optional*): Passes per block; the passes of the answer by default.

    Returns:
        `dict`: `forward_passes` (mean), `forward_passes_p50`, `forward_passes_p95`, `tokens_per_pass` (all tokens over
        all passes), `mean_iterations`, `exact_match_with_ar` and `token_match_with_ar` (0 to 1; a missing or surplus
        token is a wrong one), `pass_speedup` (AR passes, one a token, over passes), `n`. NaN without answers.

    Raises:
        ValueError: If the numbers of answers differ, or an answer has tokens but no pass.

    Example:
        >>> scores = jacobi_efficiency([[5, 6, 7, 2]], [[5, 6, 8, 2]], [2])
        >>> scores["tokens_per_pass"], scores["exact_match_with_ar"], scores["token_match_with_ar"]
        (2.0, 0.0, 0.75)

    Source: CEED-VLA (arXiv:2506.13725), which reports mean speed only; percentiles as its reviewers asked.
    """
    passes = np.asarray(forward_passes, dtype=np.float64)
    steps = passes if iterations is None else np.asarray(iterations, dtype=np.float64)
    sizes = {"predictions": len(predictions), "references": len(references), "forward_passes": passes.size}
    sizes["iterations"] = steps.size
    if len(set(sizes.values())) > 1 or passes.ndim > 1 or steps.ndim > 1:
        raise ValueError(f"One entry per answer is needed everywhere, got {sizes}.")
    answers = [_tokens(answer) for answer in predictions]
    wanted = [_tokens(answer) for answer in references]
    for row, answer in enumerate(answers):
        if answer and not passes[row] >= 1:
            raise ValueError(
                f"`forward_passes` must be at least 1 where there are tokens, got {passes[row]} at {row}."
            )
    pairs = list(zip(answers, wanted, strict=True))
    exact = [one == other for one, other in pairs]
    right = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=False))
    total = sum(max(len(one), len(other)) for one, other in pairs)
    made, one_a_token = sum(map(len, answers)), sum(map(len, wanted))
    return {
        "forward_passes": _or_nan(passes, np.mean),
        "forward_passes_p50": _or_nan(passes, np.median),
        "forward_passes_p95": _or_nan(passes, lambda values: np.percentile(values, 95)),
        "tokens_per_pass": float(made / passes.sum()) if passes.sum() else float("nan"),
        "mean_iterations": _or_nan(steps, np.mean),
        "exact_match_with_ar": _or_nan(np.asarray(exact, dtype=np.float64), np.mean),
        "token_match_with_ar": right / total if total else float("nan"),
        "pass_speedup": float(one_a_token / passes.sum()) if passes.sum() else float("nan"),
        "n": len(answers),
    }


def _tokens(answer: Any) -> list[int]:
    return [int(token) for token in (answer.tolist() if hasattr(answer, "tolist") else answer)]


def _or_nan(values: np.ndarray, function: Any) -> float:
    return float(function(values)) if values.size else float("nan")
