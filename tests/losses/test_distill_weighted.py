"""Weights of sources and the loss of the student."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_labels.losses.distill_weighted import (
    mix_sources,
    probe_rows,
    source_weights,
    weighted_distillation_loss,
    with_capacity,
)

SIMILARITIES = [12.0, 3.0, -4.0, 11.0]


@pytest.mark.parametrize("power", [0, 0.5, 1, 4, 12, 1000, math.inf])
def test_weights_are_shares_that_rise_with_similarity(power):
    weights = source_weights(SIMILARITIES, power)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert weights[0] >= weights[3] >= weights[1] >= weights[2]
    np.testing.assert_allclose(source_weights(1e-6 * np.array(SIMILARITIES), power), weights)
    named = source_weights(dict(zip("abcd", SIMILARITIES, strict=True)), power)
    assert list(named) == list("abcd") and list(named.values()) == weights.tolist()


def test_powers_at_the_ends():
    assert source_weights(SIMILARITIES, 0).tolist() == [0.25] * 4  # also the one below 0
    assert source_weights([-1.0, -2.0], 0).tolist() == [0.5, 0.5]
    assert source_weights(SIMILARITIES, math.inf).tolist() == [1, 0, 0, 0]
    assert source_weights([2.0, 2.0, 1.0], math.inf).tolist() == [0.5, 0.5, 0]
    np.testing.assert_allclose(source_weights(SIMILARITIES, 500), [1, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(source_weights(SIMILARITIES, 1), np.array([12, 3, 0, 11]) / 26)


@pytest.mark.parametrize(
    "given, options, message",
    [
        ([], {}, "at least one source"),
        ({}, {}, "at least one source"),
        ({"a": 1.0, "b": math.nan}, {}, "similarity of source 'b' is nan"),
        ([1.0, math.inf], {}, "similarity of source 1 is inf"),
        (SIMILARITIES, {"power": -1}, "`power` must be 0 or more, got -1"),
        (SIMILARITIES, {"power": math.nan}, "`power` must be 0 or more, got nan"),
        ([-1.0, -3.0], {}, r"No source has a similarity above 0 \(the best is -1\).*fallback='uniform'.*LEEP"),
        ([-1.0], {"fallback": "best"}, "`fallback` must be error or uniform"),
    ],
)
def test_bad_similarities_are_named(given, options, message):
    with pytest.raises(ValueError, match=message):
        source_weights(given, **options)


def test_fallback_is_uniform():
    assert source_weights([-1.0, 0.0], 12, fallback="uniform").tolist() == [0.5, 0.5]


def test_capacity_bonus():
    got = with_capacity({"small": 10.0, "large": 20.0, "huge": 30.0}, {"small": 50, "large": 100, "huge": 0}, 0.5)
    assert got == pytest.approx({"small": -math.sqrt(1.5) + 0.5, "large": 1.0, "huge": math.sqrt(1.5)})
    assert with_capacity({"one": 3.0}, {"one": 100}, 1.0) == {"one": 2.0}
    with pytest.raises(KeyError, match="large"):
        with_capacity({"large": 1.0}, {"small": 1}, 1.0)
    with pytest.raises(ValueError, match="at least one"):
        with_capacity({}, {}, 1.0)


def case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    sources = torch.randn(3, 5, 4, generator=generator, dtype=dtype).softmax(-1)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=dtype)
    labeled = torch.randn(6, 4, generator=generator, dtype=dtype, requires_grad=True)
    unlabeled = torch.randn(5, 4, generator=generator, dtype=dtype, requires_grad=True)
    return sources, weights, labeled, torch.tensor([0, 3, 1, -100, 2, 2]), unlabeled


def test_one_mixture_is_the_weighted_sum_of_all_sources():
    sources, weights, labeled, labels, unlabeled = case()
    mixed, _, soft = weighted_distillation_loss(labeled, labels, unlabeled, mix_sources(sources, weights), 0.3)
    log_p = unlabeled.log_softmax(-1)
    want = sum(w * -(q * log_p).sum(-1).mean() for w, q in zip(weights, sources, strict=True))
    assert soft.item() == pytest.approx(want.item(), abs=1e-12)
    hard = F.cross_entropy(labeled, labels)  # mean over the five labelled rows
    assert mixed.item() == pytest.approx((0.3 * hard + 0.7 * want).item(), abs=1e-12)
    by_sources = torch.autograd.grad(0.7 * want, unlabeled)[0]
    torch.testing.assert_close(torch.autograd.grad(mixed, unlabeled)[0], by_sources)


def test_ends_of_the_label_weight():
    sources, weights, labeled, labels, unlabeled = case()
    targets = mix_sources(sources, weights)
    loss, hard, _ = weighted_distillation_loss(labeled, labels, unlabeled, targets, 1.0)
    assert loss.item() == hard.item() == pytest.approx(F.cross_entropy(labeled, labels).item())
    loss, _, soft = weighted_distillation_loss(labeled, labels, unlabeled, targets, 0.0)
    assert loss.item() == soft.item()
    hot, *_ = weighted_distillation_loss(labeled, labels, unlabeled, targets, 0.0, temperature=2.0)
    want = -(targets * (unlabeled / 2).log_softmax(-1)).sum(-1).mean()
    assert hot.item() == pytest.approx(want.item())


def test_gradient_and_half_precision():
    sources, weights, labeled, labels, unlabeled = case()
    targets = mix_sources(sources, weights)
    assert torch.autograd.gradcheck(
        lambda a, b: weighted_distillation_loss(a, labels, b, targets)[0], (labeled, unlabeled)
    )
    want = weighted_distillation_loss(labeled, labels, unlabeled, targets)[0].item()
    low = weighted_distillation_loss(labeled.bfloat16(), labels, unlabeled.bfloat16(), targets.float())[0]
    assert low.dtype == torch.float32 and low.item() == pytest.approx(want, rel=0.02)


def test_parts_without_rows_are_0():
    sources, weights, labeled, labels, unlabeled = case()
    targets = mix_sources(sources, weights)
    loss, hard, soft = weighted_distillation_loss(labeled, labels, unlabeled[:0], targets[:0])
    assert soft.item() == 0 and loss.item() == pytest.approx(0.8 * hard.item())
    loss, hard, soft = weighted_distillation_loss(labeled, torch.full((6,), -100), unlabeled, targets)
    assert hard.item() == 0 and loss.item() == pytest.approx(0.2 * soft.item())
    loss.backward()
    assert torch.equal(labeled.grad, torch.zeros(6, 4, dtype=torch.float64))


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_label_weight_outside_0_and_1(weight):
    sources, weights, labeled, labels, unlabeled = case()
    with pytest.raises(ValueError, match=r"`label_weight` must be in \[0, 1\]"):
        weighted_distillation_loss(labeled, labels, unlabeled, mix_sources(sources, weights), weight)


def test_class_counts_and_shapes_that_disagree():
    sources, weights, labeled, labels, unlabeled = case()
    with pytest.raises(ValueError, match="The model has 4 classes, the targets have 3"):
        weighted_distillation_loss(labeled, labels, unlabeled, mix_sources(sources[..., :3], weights))
    with pytest.raises(ValueError, match=r"got \(3, 5, 4\) and \(2,\)"):
        mix_sources(sources, weights[:2])
    for bad in ([0.5, 0.6, -0.1], [0.5, 0.3, 0.1], [math.nan] * 3):
        with pytest.raises(ValueError, match="must be 0 or more and sum to 1"):
            mix_sources(sources, torch.tensor(bad))


def test_probe_rows_are_spread_over_the_classes():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 3 + [-1] * 10)
    rows = probe_rows(labels, 23)
    assert np.bincount(labels[rows]).tolist() == [10, 10, 3] and len(set(rows.tolist())) == 23
    assert (np.diff(rows) > 0).all() and np.array_equal(rows, probe_rows(labels, 23))
    assert not np.array_equal(rows, probe_rows(labels, 23, seed=1))
    assert probe_rows(labels).tolist() == list(range(83))
