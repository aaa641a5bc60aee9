import pytest
import torch
from torch.nn import functional as F

from hf_labels.losses.lad import (
    LabelNoiser,
    class_codes,
    cwd_student_loss,
    dist_distillation,
    dual_path_consistency,
    label_channel,
    lad_teacher_loss,
    pixel_distillation,
    segmentation_cross_entropy,
)
from hf_labels.losses.mcl_electra_noise import RowNoise
from hf_labels.losses.soft_targets import channel_wise_distillation as cwd


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LABELS = torch.tensor([[[0, 1], [2, 255]], [[2, 2], [0, 255]]])


def test_channel_against_a_loop():
    codes, noise = _random(2, 4), _random(2, 1, 2, 2, seed=1)
    found = label_channel(LABELS, codes, noise, pixel_std=0.3, gain=2.0)
    for b in range(2):
        for i in range(2):
            for j in range(2):
                label = int(LABELS[b, i, j])
                value = codes[b, 3 if label == 255 else label] + 0.3 * noise[b, 0, i, j]
                assert found[b, 0, i, j] == 2.0 * value


def test_values_that_look_like_ids_are_not_replaced_again():
    codes = torch.tensor([1.0, 2.0, 0.0, 1.0])  # class 0 becomes 1, which is an id too
    assert label_channel(LABELS[:1], codes, gain=1.0).flatten().tolist() == [1.0, 2.0, 0.0, 1.0]


def test_fixed_codes_are_those_of_the_paper():
    assert torch.allclose(class_codes(21), (torch.arange(22).double() - 11) / 10)  # VOC: (c - 11) / 10
    channel = LabelNoiser(3, fixed_pixel_std=0.0, gain=10.0).fixed(LABELS)
    assert channel[0].flatten().tolist() == pytest.approx([-2.0, -1.0, 0.0, 1.0])


def test_random_values_are_one_per_class_and_image():
    labels = torch.randint(0, 3, (64, 8, 8), generator=torch.Generator().manual_seed(0))
    noiser = LabelNoiser(3, pixel_std=0.0, gain=1.0)
    channel = noiser.random(labels, torch.Generator().manual_seed(1))
    values = torch.stack([channel[:, 0][labels == k].unique() for k in range(3)])  # 64 images: 64 values each
    assert values.shape == (3, 64)
    assert abs(values.mean()) < 0.25 and 0.85 < values.std() < 1.15  # 192 normal numbers
    noisy = LabelNoiser(3, pixel_std=0.03, gain=1.0).random(labels, torch.Generator().manual_seed(1))
    assert 0.028 < (noisy - channel).std() < 0.032


def test_draws_are_seeded_new_at_each_call_and_free_of_the_batch():
    noiser = LabelNoiser(3)
    one, two = (noiser.random(LABELS, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two) and one.shape == (2, 1, 2, 2) and one.isfinite().all()
    keys = torch.tensor([[1, 2], [3, 4]])
    whole = RowNoise(keys, torch.ones_like(keys), 7)
    first, second = noiser.random(LABELS, whole), noiser.random(LABELS, whole)
    assert not torch.equal(first, second)
    alone = noiser.random(LABELS[1:], RowNoise(keys[1:], torch.ones_like(keys[1:]), 7))
    assert torch.equal(alone, first[1:])


def test_cwd_is_zero_where_it_must_be():
    a, b = _random(2, 3, 4, 5), _random(2, 3, 4, 5, seed=1)
    assert abs(cwd(a, a)) < 1e-12
    torch.testing.assert_close(cwd(a + _random(2, 3, 1, 1, seed=2), b), cwd(a, b))
    assert abs(cwd(a[..., :1, :1], b[..., :1, :1])) < 1e-12  # one position
    one = cwd(a[:1, :1], b[:1, :1])
    want = F.kl_div((a[0, 0] / 4).flatten().log_softmax(0), (b[0, 0] / 4).flatten().softmax(0), reduction="sum") * 16
    torch.testing.assert_close(one, want)
    # T -> inf: T^2 KL tends to half the mean squared difference of centred maps, over positions
    gap = a - b
    gap = gap - gap.mean((2, 3), keepdim=True)
    torch.testing.assert_close(cwd(a, b, 1e4), gap.square().sum((2, 3)).mean() / (2 * 20), rtol=1e-3, atol=0)


def test_consistency_is_symmetric_and_each_second_argument_a_constant():
    a, b = _random(2, 3, 4, 4).requires_grad_(), _random(2, 3, 4, 4, seed=1).requires_grad_()
    torch.testing.assert_close(dual_path_consistency(a, b), dual_path_consistency(b, a))
    assert torch.autograd.grad(cwd(a, b), b, allow_unused=True)[0] is None
    found = torch.autograd.grad(dual_path_consistency(a, b), (a, b))
    torch.testing.assert_close(found[0], torch.autograd.grad(cwd(a, b.detach()), a)[0])
    torch.testing.assert_close(found[1], torch.autograd.grad(cwd(b, a.detach()), b)[0])


def test_weights_of_zero_leave_cross_entropy():
    one, two = _random(2, 3, 1, 1), _random(2, 3, 1, 1, seed=1)
    parts = lad_teacher_loss(one, two, LABELS, consistency_weight=0.0)
    torch.testing.assert_close(parts["loss"], parts["ce1"] + parts["ce2"])
    student = cwd_student_loss(one, two, LABELS, distill_weight=0.0)
    torch.testing.assert_close(student["loss"], segmentation_cross_entropy(one, LABELS))


@pytest.mark.parametrize("align_corners", [True, False])
def test_cross_entropy_of_resized_maps(align_corners):
    logits = _random(2, 3, 3, 4)
    labels = torch.randint(0, 3, (2, 6, 8), generator=torch.Generator().manual_seed(0))
    labels[0, 0] = 255
    large = F.interpolate(logits, (6, 8), mode="bilinear", align_corners=align_corners)
    want = F.cross_entropy(large, labels, ignore_index=255)
    torch.testing.assert_close(segmentation_cross_entropy(logits, labels, align_corners=align_corners), want)
    total = segmentation_cross_entropy(logits, labels, align_corners=align_corners, reduction="sum")
    torch.testing.assert_close(total, want * (96 - 8))


def test_images_without_a_pixel_that_counts_give_zero():
    logits = _random(1, 3, 2, 2).requires_grad_()
    loss = segmentation_cross_entropy(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_pixel_and_dist_distillation():
    a, b = _random(2, 4, 3, 3), _random(2, 4, 3, 3, seed=1)
    want = F.kl_div((a / 2).log_softmax(1), (b / 2).softmax(1), reduction="none").sum(1).mean() * 4
    torch.testing.assert_close(pixel_distillation(a, b, 2.0), want)
    rows = [x.movedim(1, -1).reshape(-1, 4).softmax(1) for x in (a, b)]
    pixels = torch.stack([torch.corrcoef(torch.stack([p, q]))[0, 1] for p, q in zip(*rows, strict=True)])
    classes = torch.stack(
        [torch.corrcoef(torch.stack([p, q]))[0, 1] for p, q in zip(rows[0].T, rows[1].T, strict=True)]
    )
    want = 0.5 * (1 - pixels.mean()) + 2 * (1 - classes.mean())
    torch.testing.assert_close(dist_distillation(a, b, 0.5, 2.0), want)
    assert abs(dist_distillation(a, a)) < 1e-9


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: LabelNoiser(2).fixed(LABELS), r"\[0, 2\) or 255 .ignore., got 2 in image 0 at \(1, 0\)"),
        (lambda: LabelNoiser(3).random(-LABELS), "got -1 in image 0"),
        (lambda: LabelNoiser(3).fixed(LABELS.float()), "integer class ids.*float32"),
        (lambda: LabelNoiser(3).fixed(LABELS[0]), r"shape \(B, H, W\)"),
        (lambda: LabelNoiser(3).fixed(LABELS[:0]), "empty"),
        (lambda: LabelNoiser(1), "at least 2, got 1"),
        (lambda: LabelNoiser(3, pixel_std=-1.0), "`pixel_std` must be 0 or more"),
        (lambda: segmentation_cross_entropy(torch.zeros(2, 2, 2, 2), LABELS), "got 2 in image 0"),
        (lambda: segmentation_cross_entropy(torch.zeros(1, 3, 2, 2), LABELS), "1 images, `labels` has 2"),
        (lambda: segmentation_cross_entropy(torch.zeros(2, 3, 2, 2), LABELS, reduction="none"), "mean or sum"),
        (lambda: cwd(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2)), "one shape"),
        (lambda: dist_distillation(torch.zeros(1, 3, 2, 2), torch.zeros(1, 4, 2, 2)), "one shape"),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()
