"""Formulas of HeLlO against slow ones."""

import math

import pytest
import torch

from hf_labels.losses.hello import image_update_loss, lora_floats, projector_logits, projector_loss, text_head


def parts(seed=0, rows=5, classes=4, width=6):
    draw = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=draw)  # noqa: E731
    return make(rows, width), make(classes, width), make


@pytest.mark.parametrize("seed", [0, 1])
def test_zero_shot_logits_are_scaled_cosines(seed):
    image, text, _ = parts(seed)
    want = 100 * torch.cosine_similarity(image[:, None], text[None], dim=-1)
    torch.testing.assert_close(projector_logits(image, text_head(text), 100.0), want)


def test_adapter_equals_the_explicit_matrix():
    image, text, make = parts()
    head, a, b = text_head(text), make(2, 6), make(4, 2)
    want = projector_logits(image, head + 1.5 * b @ a, 7.0)
    torch.testing.assert_close(projector_logits(image, head, 7.0, a, b, 1.5), want)
    torch.testing.assert_close(
        projector_logits(image, head, 7.0, a, torch.zeros(4, 2, dtype=torch.float64)),
        projector_logits(image, head, 7.0),
    )


def test_stored_numbers():
    assert lora_floats(3, (5, 7)) == 3 * 12 == torch.zeros(5, 3).numel() + torch.zeros(3, 7).numel()
    assert lora_floats(8, (768, 768), (768, 768)) == 2 * 8 * 1536
    assert lora_floats(128, (1000, 1024)) == 259_072  # the 0.26 M of the paper's head


def slow_loss(logits, teachers, labels, lam):
    total, hard, known = 0.0, 0.0, 0
    for row in range(len(logits)):
        for k in range(logits.shape[1]):
            mean = sum(float(t[row, k]) for t in teachers) / len(teachers)
            total += (float(logits[row, k]) - mean) ** 2
        if labels[row] >= 0:
            known += 1
            hard += math.log(sum(math.exp(float(z)) for z in logits[row])) - float(logits[row, labels[row]])
    return total / logits.numel() + lam * (hard / known if known else 0.0)


@pytest.mark.parametrize("lam", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("labels", [[0, 3, 1, 2, 0], [0, -100, 1, -100, -100], [-100] * 5])
def test_loss_is_the_slow_one(lam, labels):
    _, _, make = parts(3)
    logits, teachers = make(5, 4), make(3, 5, 4)
    got = projector_loss(logits, teachers, torch.tensor(labels), lam)
    assert got.item() == pytest.approx(slow_loss(logits, teachers, labels, lam), abs=1e-12)


def test_lambda_zero_is_the_squared_error_and_perfect_logits_leave_the_hard_loss():
    _, _, make = parts(4)
    logits, labels = make(5, 4), torch.tensor([0, 1, 2, 3, 0])
    assert projector_loss(logits, logits, labels, 0.0) == 0
    want = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(projector_loss(logits, logits, labels), want)


def test_centred_loss_ignores_offsets_and_the_plain_one_does_not():
    _, _, make = parts(5)
    logits, teacher, labels = make(5, 4), make(5, 4), torch.tensor([0, 1, 2, 3, 0])
    moved = teacher + make(5, 1)
    torch.testing.assert_close(
        projector_loss(logits, teacher, labels, center=True), projector_loss(logits, moved, labels, center=True)
    )
    assert (projector_loss(logits, teacher, labels) - projector_loss(logits, moved, labels)).abs() > 1e-3


def test_gradients_reach_the_projector_and_not_the_teachers():
    _, _, make = parts(6)
    logits, teachers = make(3, 4).requires_grad_(), make(2, 3, 4).requires_grad_()
    labels = torch.tensor([0, 1, -100])
    projector_loss(logits, teachers, labels).backward()
    assert logits.grad.abs().sum() > 0 and teachers.grad is None
    assert torch.autograd.gradcheck(lambda z: projector_loss(z, teachers.detach(), labels, 0.7), [logits])


def test_update_loss_is_zero_for_equal_features_and_pulls_the_second_only():
    first, second, _ = parts(7, classes=5)
    want = float(((first - second) ** 2).sum() / first.numel())
    first.requires_grad_(), second.requires_grad_()
    assert image_update_loss(first, first.detach()) == 0
    loss = image_update_loss(first, second)
    assert loss.item() == pytest.approx(want)
    loss.backward()
    assert first.grad is None and second.grad.abs().sum() > 0


def test_bad_shapes_are_named():
    image, text, make = parts()
    with pytest.raises(ValueError, match="width 6 and `weight` 5.*one CLIP"):
        projector_logits(image, text[:, :5])
    with pytest.raises(ValueError, match="`lora_a` and `lora_b` go together"):
        projector_logits(image, text, 1.0, make(2, 6))
    with pytest.raises(ValueError, match=r"one shape, got \(5, 6\) and \(4, 6\)"):
        image_update_loss(image, text)
    with pytest.raises(ValueError, match="one shape"):
        projector_loss(make(5, 4), make(3, 5, 3), torch.zeros(5, dtype=torch.long))
