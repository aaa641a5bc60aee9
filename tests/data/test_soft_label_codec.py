"""Codecs and recovery rules against their definitions."""

import numpy as np
import pytest
import torch

from hf_labels.data.soft_label_codec import (
    BOUNDS,
    CODECS,
    decode_values,
    encode_values,
    id_dtype,
    recover,
    smooth_values,
    top_k,
)
from hf_labels.losses.soft_targets import soft_cross_entropy, sparse_soft_cross_entropy


def _probs(rows=50, classes=12, seed=0, scale=3.0):
    logits = scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(-1)


@pytest.mark.parametrize("codec", CODECS)
def test_error_of_each_codec_stays_in_its_bound(codec):
    values = np.concatenate([np.linspace(0, 1, 5001), 2.0 ** -np.linspace(0, 20, 5001)])
    decoded = decode_values(encode_values(values, codec), codec, torch.float64).numpy()
    absolute, relative = BOUNDS[codec]
    assert (np.abs(decoded - values) <= absolute + relative * values + 1e-15).all()
    assert (np.diff(decoded[:5001]) >= 0).all()  # order is kept, ties may arise
    ends = decode_values(encode_values([0.0, 1.0], codec), codec, torch.float64)
    assert ends.tolist() == [0.0, 1.0]


def test_u8_log_codes():
    low = 2.0**-16
    assert encode_values([low, low * 0.999, 0.0, 1.0, 0.5], "u8_log").tolist() == [1, 0, 0, 255, 239]
    assert encode_values([0.5 / 255, 1.5 / 255], "u8_linear").tolist() == [0, 2]  # half to even


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("residual", ["smooth", "renorm"])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_round_trip_sums_to_one_and_keeps_the_top_class(codec, residual, k):
    probs = _probs()
    ids, values = top_k(probs, k)
    dense = recover(ids, decode_values(encode_values(values, codec), codec), 12, residual)
    torch.testing.assert_close(dense.sum(-1), torch.ones(50), rtol=0, atol=1e-6)
    assert (dense >= 0).all()
    assert torch.equal(dense.gather(1, probs.argmax(1)[:, None])[:, 0], dense.amax(1))
    if codec == "float32" and (k == 12 or residual == "smooth"):
        wanted = probs.clone().scatter_(1, ids, 0.0).sum(-1, keepdim=True) / max(12 - k, 1)
        wanted = wanted.expand(50, 12).clone().scatter_(1, ids, values)
        torch.testing.assert_close(dense, wanted.float(), rtol=1e-6, atol=1e-7)


def test_special_rows():
    for probs in (torch.full((1, 5), 0.2), torch.eye(5)[:1]):
        for k in (1, 3, 5):
            ids, values = top_k(probs, k)
            torch.testing.assert_close(recover(ids, values, 5), probs)
    over = recover(torch.tensor([[0, 1]]), torch.tensor([[0.7, 0.4]]), 4)  # a lossy codec
    torch.testing.assert_close(over, torch.tensor([[0.7 / 1.1, 0.4 / 1.1, 0.0, 0.0]]))
    zero = recover(torch.tensor([[0, 1]]), torch.zeros(1, 2), 4, "renorm")
    assert torch.isfinite(zero).all()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_zero_logit_is_a_softmax_with_zeros(temperature):
    logits = 40 * torch.randn(20, 9, generator=torch.Generator().manual_seed(2))
    ids, values = top_k(logits, 4)
    dense = torch.zeros(20, 9).scatter_(1, ids, values)
    torch.testing.assert_close(
        recover(ids, values, 9, "zero_logit", temperature), (dense / temperature).softmax(-1), rtol=1e-5, atol=1e-7
    )
    ids, values = top_k(logits - 100, 4)  # all logits below 0: the classes that were not stored win
    dense = torch.zeros(20, 9).scatter_(1, ids, values)
    torch.testing.assert_close(recover(ids, values, 9, "zero_logit"), dense.softmax(-1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("residual", ["smooth", "renorm", "zero_logit"])
@pytest.mark.parametrize("k", [1, 4, 10])
def test_sparse_cross_entropy_and_gradient_equal_the_dense_ones(residual, k):
    rng = torch.Generator().manual_seed(k)
    teacher = torch.randn(30, 10, generator=rng, dtype=torch.float64)
    logits = torch.randn(30, 10, generator=rng, dtype=torch.float64).requires_grad_()
    ids, values = top_k(teacher if residual == "zero_logit" else teacher.softmax(-1), k)
    dense = soft_cross_entropy(logits, recover(ids, values, 10, residual))
    sparse = sparse_soft_cross_entropy(logits, ids, smooth_values(ids, values, 10, residual))
    torch.testing.assert_close(sparse, dense, rtol=0, atol=1e-9)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (sparse, dense)), rtol=0, atol=1e-9)


def test_ids_are_integers_wide_enough():
    assert [str(id_dtype(count)) for count in (10, 65536, 65537, 10**6)] == ["uint16", "uint16", "uint32", "uint32"]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`codec` must be one of float32, float16, u8_linear, u8_log"):
        encode_values([0.1], "int4")
    with pytest.raises(ValueError, match="NaN or infinity"):
        encode_values([float("nan")], "float32")
    for codec in ("u8_log", "u8_linear"):
        for wrong in (1.01, -0.01):
            with pytest.raises(ValueError, match=r"stores values in \[0, 1\]"):
                encode_values([wrong], codec)
    with pytest.raises(ValueError, match="does not fit into float16"):
        encode_values([70000.0], "float16")
    with pytest.raises(ValueError, match=r"k must be in \[1, 3\]"):
        top_k(torch.zeros(1, 3), 4)
    with pytest.raises(ValueError, match="k = 4 classes of only 3"):
        smooth_values(torch.zeros(1, 4), torch.zeros(1, 4), 3)
    with pytest.raises(ValueError, match="`residual` must be one of smooth, renorm, zero_logit"):
        recover(torch.tensor([[0]]), torch.tensor([[1.0]]), 3, "drop")
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=r"Class ids must be in \[0, 3\)"):
            recover(torch.tensor([[wrong]]), torch.tensor([[1.0]]), 3)
