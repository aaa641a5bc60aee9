"""Losses of consistency distillation against slow oracles and their limits."""

import math

import pytest
import torch
from torch.nn.functional import log_softmax

from hf_labels.losses.ceed_vla import (
    anchor_loss,
    consistency_loss,
    consistency_mask,
    decoded_distance,
    mixed_labels,
    token_distance,
)


def _draw(seed, rows=3, width=6, vocab=7):
    generator = torch.Generator().manual_seed(seed)
    guess = torch.randint(0, vocab, (rows, width), generator=generator)
    fixed = torch.where(torch.rand(rows, width, generator=generator) < 0.5, guess, (guess + 1) % vocab)
    logits = torch.randn(2, rows, width, vocab, generator=generator, dtype=torch.float64)
    return guess, fixed, logits[0], logits[1]


@pytest.mark.parametrize("seed", range(4))
def test_mask_and_loss_equal_a_loop(seed):
    guess, fixed, pred, target = _draw(seed)
    mask = consistency_mask(guess, fixed, pad_token_id=6)
    total, count = 0.0, 0
    for b in range(len(guess)):
        first = next((t for t in range(6) if guess[b, t] != fixed[b, t]), None)
        for t in range(6):
            counts = first is not None and t >= first and guess[b, t] != 6
            assert bool(mask[b, t]) == counts
            if counts:
                q = target[b, t].softmax(0)
                total += -(q * log_softmax(pred[b, t], 0)).sum().item()
                count += 1
    assert count and consistency_loss(pred, target, mask).item() == pytest.approx(total / count, abs=1e-12)
    entropy = -(target[mask].softmax(-1) * target[mask].log_softmax(-1)).sum() / count
    kl = consistency_loss(pred, target, mask, "kl").item()
    assert kl == pytest.approx(total / count - entropy.item(), abs=1e-12) and kl > 0


def test_no_gradient_reaches_the_target_and_both_divergences_have_one():
    guess, fixed, pred, target = _draw(0)
    mask = consistency_mask(guess, fixed)
    pred.requires_grad_(), target.requires_grad_()
    grads = []
    for divergence in ("ce", "kl"):
        pred.grad = None
        consistency_loss(pred, target, mask, divergence).backward()
        grads.append(pred.grad)
    assert target.grad is None and torch.allclose(*grads) and not (grads[0][~mask]).any()


def test_the_fixed_point_itself_costs_nothing():
    _, fixed, pred, target = _draw(1)
    pred.requires_grad_()
    mask = consistency_mask(fixed, fixed)
    loss = consistency_loss(pred, target, mask)
    loss.backward()
    assert not mask.any() and loss.item() == 0 and not pred.grad.any()
    assert consistency_loss(pred, pred, torch.ones_like(mask), "kl").item() == pytest.approx(0, abs=1e-12)


def test_padding_of_blocks_does_not_count():
    guess, fixed = torch.tensor([[4, 9, 9, 1]]), torch.tensor([[4, 5, 6, 2]])
    valid = torch.tensor([[True, True, True, False]])
    assert consistency_mask(guess, fixed, valid=valid).tolist() == [[False, True, True, False]]
    only_padding = torch.tensor([[4, 5, 6, 3]])
    assert not consistency_mask(only_padding, fixed, valid=valid).any()
    with pytest.raises(ValueError, match="one shape"):
        consistency_mask(guess, fixed[:, :2])


def test_anchor_equals_label_smoother_of_transformers():
    from transformers.trainer_pt_utils import LabelSmoother

    _, fixed, pred, _ = _draw(2)
    labels = fixed.masked_fill(torch.tensor([[0, 1, 0, 0, 0, 1]] * 3).bool(), -100)
    for smoothing in (0.0, 0.1):
        want = LabelSmoother(epsilon=smoothing)({"logits": pred}, labels).item()
        assert anchor_loss(pred, labels, smoothing).item() == pytest.approx(
            want, abs=1e-6
        )  # that one computes in float32
    total = anchor_loss(pred, labels, reduction="sum").item()
    assert total == pytest.approx(12 * anchor_loss(pred, labels).item())
    pred.requires_grad_()
    nothing = anchor_loss(pred, torch.full_like(labels, -100), 0.1)
    nothing.backward()
    assert nothing.item() == 0 and not pred.grad.any()
    with pytest.raises(ValueError, match="do not fit"):
        anchor_loss(pred, labels[:, 1:])


def test_half_precision_is_upcast():
    guess, fixed, pred, target = _draw(3)
    mask = consistency_mask(guess, fixed)
    small = consistency_loss(pred.bfloat16(), target.bfloat16(), mask)
    assert small.dtype == torch.float32
    assert small.item() == pytest.approx(consistency_loss(pred, target, mask).item(), rel=0.02)
    assert anchor_loss(pred.half(), fixed).dtype == torch.float32


def test_mixed_labels_choose_row_by_row():
    teacher = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
    truth = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 9], [9, 9, 3, 4], [1, 2, -100, -100]])
    assert token_distance(teacher, truth).tolist() == [0, 0.25, 0.5, 0]
    for limit, near in ((0.0, [1, 0, 0, 1]), (0.25, [1, 1, 0, 1]), (0.5, [1, 1, 1, 1]), (-1.0, [0, 0, 0, 0])):
        targets, chosen = mixed_labels(teacher, truth, limit)
        assert chosen.tolist() == [bool(x) for x in near]
        assert torch.equal(targets, torch.where(chosen[:, None], teacher, truth))
    targets, chosen = mixed_labels(teacher, None, math.inf)
    assert chosen.all() and torch.equal(targets, teacher)
    with pytest.raises(ValueError, match="ground_truth"):
        mixed_labels(teacher, None, 0.1)
    with pytest.raises(ValueError, match="one shape"):
        mixed_labels(teacher, truth[:, :2], 0.1)


def test_distance_of_decoded_values_is_in_their_unit():
    distance = decoded_distance(lambda ids: ids.double() / 10)
    teacher = torch.tensor([[10, 12], [10, 12], [1, 1]])
    truth = torch.tensor([[11, 15], [-100, 13], [-100, -100]])
    assert distance(teacher, truth).tolist() == pytest.approx([0.2, 0.1, math.inf])
    assert mixed_labels(teacher, truth, 0.15, distance)[1].tolist() == [False, True, False]
