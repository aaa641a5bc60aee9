"""The entailment loss against cross-entropy and its gradient."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from hf_labels.labels.zero_shot_tc import entailment_probs
from hf_labels.losses.zero_shot_tc import entailment_loss, entailment_margin

LABELS = torch.tensor([0, 1, 1, -100, 0])


def logits(classes, seed=0):
    return torch.randn(5, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_two_classes_are_plain_cross_entropy():
    values = logits(2)
    torch.testing.assert_close(entailment_loss(values, LABELS), cross_entropy(values, LABELS))
    flipped = entailment_loss(values.flip(1), LABELS, entailment_id=1)
    torch.testing.assert_close(flipped, cross_entropy(values, LABELS))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_three_classes_collapse_to_entailment_and_the_rest(place):
    values = logits(3)
    p = values.softmax(1)[:, place]
    want = torch.where(LABELS == 0, -p.log(), -(1 - p).log())[LABELS >= 0]
    torch.testing.assert_close(entailment_loss(values, LABELS, place), want.mean())
    torch.testing.assert_close(entailment_loss(values, LABELS, place, "sum"), want.sum())
    assert entailment_loss(values, LABELS, place, "none")[3] == 0
    probs = torch.from_numpy(entailment_probs(values, place))
    torch.testing.assert_close(entailment_margin(values, place).sigmoid(), probs, atol=1e-6, rtol=0)


def test_gradient_and_empty_batches():
    values = logits(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: entailment_loss(v, LABELS, 2), values)
    nothing = entailment_loss(values, torch.full((5,), -100))
    nothing.backward()
    assert nothing == 0 and values.grad.abs().sum() == 0
    far = torch.tensor([[-400.0, 400.0]], requires_grad=True)
    assert entailment_loss(far, torch.tensor([0])).item() == pytest.approx(800.0)
    half = entailment_loss(logits(2).to(torch.bfloat16), LABELS)
    assert half.dtype == torch.float32 and half.isfinite()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entailment_loss(logits(1), LABELS), "at least two classes"),
        (lambda: entailment_loss(logits(2), LABELS, 5), r"in \[0, 2\), got 5"),
        (lambda: entailment_loss(logits(2), LABELS[:3]), r"\(5, 2\) and \(3,\)"),
        (lambda: entailment_loss(logits(2), LABELS, reduction="max"), "'max'"),
        (lambda: entailment_loss(logits(2), LABELS.abs()), "0 .entailment."),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
