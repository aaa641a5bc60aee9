"""`jacobi_efficiency` by hand, on ragged answers, and from real decoding."""

import math

import numpy as np
import pytest
import torch
from tiny_decoders import decoder, padded_prompts

from hf_labels.generation import jacobi_generate
from hf_labels.metrics.functional import jacobi_efficiency


def test_numbers_by_hand():
    got = jacobi_efficiency([[5, 6, 7, 2], [8, 9], [4]], [[5, 6, 7, 2], [8, 3, 2], [4]], [2, 3, 1], [2, 1.5, 1])
    assert got["forward_passes"] == 2 and got["forward_passes_p50"] == 2
    assert got["forward_passes_p95"] == pytest.approx(np.percentile([2, 3, 1], 95))
    assert got["tokens_per_pass"] == 7 / 6 and got["pass_speedup"] == 8 / 6
    assert got["mean_iterations"] == 1.5
    assert got["exact_match_with_ar"] == pytest.approx(2 / 3) and got["token_match_with_ar"] == 6 / 8
    assert got["n"] == 3


def test_real_decoding_is_exact_and_saves_passes():
    model, (ids, mask) = decoder(), padded_prompts(rows=4)
    answers, wanted, passes = [], [], []
    for row, seen in zip(ids, mask, strict=True):
        prompt = row[seen.bool()][None]
        options = {"max_new_tokens": 10, "eos_token_id": None}
        out = jacobi_generate(model, prompt, block_size=10, return_jacobi_stats=True, **options)
        answers.append(out.sequences[0, prompt.shape[1] :])
        wanted.append(model.generate(prompt, do_sample=False, **options)[0, prompt.shape[1] :])
        passes.append(out.stats.forward_passes)
    got = jacobi_efficiency(answers, wanted, passes)
    assert got["exact_match_with_ar"] == 1 and got["pass_speedup"] == got["tokens_per_pass"] >= 1
    assert torch.tensor(passes).max() <= 10


def test_bad_input_and_nothing():
    with pytest.raises(ValueError, match="'forward_passes': 1"):
        jacobi_efficiency([[1], [2]], [[1], [2]], [1])
    with pytest.raises(ValueError, match="got 0.0 at 1"):
        jacobi_efficiency([[1], [2]], [[1], [2]], [1, 0])
    nothing = jacobi_efficiency([], [], [])
    assert nothing.pop("n") == 0 and all(math.isnan(value) for value in nothing.values())
    empty = jacobi_efficiency([[]], [[]], [0])
    assert empty["exact_match_with_ar"] == 1 and math.isnan(empty["tokens_per_pass"])
