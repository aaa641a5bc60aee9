import pytest
import torch
from torch.nn import functional as F

from hf_labels.losses.sla import (
    TRANSFORMS,
    aggregate_logits,
    joint_labels,
    num_transformations,
    plain_loss,
    single_logits,
    sla_loss,
    sla_sd_loss,
    transform_images,
    transformation_loss,
)

COUNTS = {"identity": 1, "rotation": 4, "rotation2": 2, "color_perm": 6, "color_perm3": 3}
COUNTS |= {f"rot_color_perm{m}": m for m in (6, 12, 24)}


def _random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_views_are_sample_major_distinct_and_start_with_the_image(name):
    images, number = _random(3, 3, 4, 4), num_transformations(name)
    views = transform_images(images, name)
    assert number == COUNTS[name] and views.shape == (3 * number, 3, 4, 4)
    assert torch.equal(views[::number], images)
    for row in range(3):  # each block holds the views of one image alone
        assert torch.equal(views[row * number : (row + 1) * number], transform_images(images[row : row + 1], name))
    own = views[:number].flatten(1)
    assert len({tuple(view.tolist()) for view in own}) == number
    assert all(torch.equal(view.sort().values, own[0].sort().values) for view in own)


def test_quarter_turns_undo_each_other():
    images = _random(2, 1, 5, 5)
    for turns in range(4):
        turned = transform_images(images, "rotation")[turns::4]
        assert torch.equal(transform_images(turned, "rotation")[(4 - turns) % 4 :: 4], images)
    assert torch.equal(transform_images(images, "rotation")[1::4], images.flip(3).transpose(2, 3))  # counter-clockwise


def test_orders_of_joint_labels():
    labels = torch.tensor([2, 0, -100, 1])
    joint = joint_labels(labels, 3).view(4, 3)
    assert (joint[2] == -100).all()
    known = joint[[0, 1, 3]]
    assert torch.equal(known // 3, labels[[0, 1, 3]][:, None].expand(3, 3))
    assert torch.equal(known % 3, torch.arange(3).expand(3, 3))


def test_aggregation_against_loops_and_row_order():
    logits = _random(2 * 3, 4 * 3)
    want = torch.zeros(2, 4, dtype=torch.float64)
    for i in range(2):
        for c in range(4):
            want[i, c] = sum(logits[i * 3 + j, c * 3 + j] for j in range(3)) / 3
    found = aggregate_logits(logits, 3)
    torch.testing.assert_close(found, want)
    swapped = torch.cat([logits[3:], logits[:3]])
    assert torch.equal(aggregate_logits(swapped, 3), found.flip(0))
    turned = logits.T.contiguous().T  # as a sliced or transposed output
    assert torch.equal(aggregate_logits(turned, 3), found)


def test_aggregation_of_what_does_not_depend_on_the_transformation_is_single_inference():
    scores = _random(5, 4)
    logits = scores.repeat_interleave(6, 0).repeat_interleave(6, 1)
    torch.testing.assert_close(aggregate_logits(logits, 6), single_logits(logits[::6], 6))
    torch.testing.assert_close(aggregate_logits(logits, 6), scores)


def test_one_transformation_is_plain_training():
    logits, labels = _random(5, 4), torch.tensor([0, 1, 2, 3, 1])
    torch.testing.assert_close(sla_loss(logits, labels, 1), F.cross_entropy(logits, labels))
    assert torch.equal(aggregate_logits(logits, 1), logits) and torch.equal(single_logits(logits, 1), logits)


def test_large_loss_is_m_times_and_reductions_agree():
    logits, labels = _random(8, 12), torch.tensor([1, -100])
    loss = sla_loss(logits, labels, 4)
    torch.testing.assert_close(sla_loss(logits, labels, 4, True), 4 * loss)
    torch.testing.assert_close(sla_loss(logits, labels, 4, reduction="sum"), loss)  # one labelled image
    rows = sla_loss(logits, labels, 4, reduction="none")
    assert rows.shape == (2,) and rows[1] == 0
    torch.testing.assert_close(rows[0], F.cross_entropy(logits[:4], torch.arange(4, 8)))


def test_teacher_is_a_constant_and_equal_predictions_cost_nothing():
    joint, labels = _random(6, 9).requires_grad_(), torch.tensor([0, 2])
    single = _random(2, 3, seed=1).requires_grad_()
    parts = sla_sd_loss(joint, single, labels, 3, temperature=2.0)
    assert torch.autograd.grad(parts["distillation"], joint, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(parts["distillation"], single, retain_graph=True)[0].abs().sum() > 0
    torch.testing.assert_close(parts["loss"], parts["joint"] + parts["hard"] + parts["distillation"])
    equal = sla_sd_loss(joint, aggregate_logits(joint, 3), labels, 3)
    assert abs(equal["distillation"].item()) < 1e-12


def test_high_temperature_compares_centred_logits():
    joint, single, labels = _random(8, 20), _random(2, 5, seed=1), torch.tensor([0, 4])
    found = sla_sd_loss(joint, single, labels, 4, temperature=1e4)["distillation"]
    gap = aggregate_logits(joint, 4) - single
    gap = gap - gap.mean(1, keepdim=True)
    torch.testing.assert_close(found, gap.square().sum(1).mean() / (2 * 5), rtol=1e-3, atol=0)


def test_weights_and_missing_labels():
    joint, single = _random(12, 12), _random(3, 3, seed=1)
    all_known = sla_sd_loss(joint, single, torch.tensor([0, 1, 2]), 4, reduction="none")
    masked = sla_sd_loss(joint, single, torch.tensor([0, -100, 2]), 4, hard_label_weight=0.5, reduction="none")
    for name in ("joint", "hard", "distillation"):
        assert masked[name][1] == 0 and torch.equal(masked[name][[0, 2]], all_known[name][[0, 2]])
    torch.testing.assert_close(masked["loss"], masked["joint"] + 0.5 * masked["hard"] + masked["distillation"])
    joint.requires_grad_()
    nothing = sla_loss(joint, torch.full((3,), -100), 4)
    nothing.backward()
    assert nothing == 0 and joint.grad.abs().sum() == 0


def test_gradients_are_right():
    joint, single = _random(4, 6).requires_grad_(), _random(2, 3, seed=1).requires_grad_()
    labels = torch.tensor([2, 0])
    assert torch.autograd.gradcheck(lambda j: sla_loss(j, labels, 2), joint)
    assert torch.autograd.gradcheck(lambda s: sla_sd_loss(joint.detach(), s, labels, 2, 3.0)["loss"], single)


def test_baselines():
    rows, labels = _random(8, 3), torch.tensor([2, -100])
    want = F.cross_entropy(rows[:4], torch.tensor([2] * 4))
    torch.testing.assert_close(plain_loss(rows, labels), want)
    torch.testing.assert_close(
        plain_loss(rows[::4], torch.tensor([2, 1])), F.cross_entropy(rows[::4], torch.tensor([2, 1]))
    )
    which = _random(8, 4)
    torch.testing.assert_close(transformation_loss(which, labels), F.cross_entropy(which[:4], torch.arange(4)))


def test_half_precision_is_reduced_in_float32():
    joint, labels = _random(8, 12).bfloat16(), torch.tensor([1, 2])
    found = sla_loss(joint, labels, 4)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, sla_loss(joint.float(), labels, 4))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: transform_images(torch.zeros(2, 3, 4, 5), "rotation"), r"square images, got 4 x 5.*\(2, 3, 4, 5\)"),
        (lambda: transform_images(torch.zeros(2, 3, 4, 5), "rot_color_perm12"), "square"),
        (
            lambda: transform_images(torch.zeros(2, 1, 4, 4), "color_perm3"),
            r"3 colour channels, got 1.*\(2, 1, 4, 4\)",
        ),
        (lambda: transform_images(torch.zeros(0, 3, 4, 4), "rotation"), "empty"),
        (lambda: transform_images(torch.zeros(3, 4, 4), "rotation"), "shape"),
        (lambda: transform_images(torch.zeros(1, 3, 4, 4), "shear"), "must be one of identity, rotation.*'shear'"),
        (lambda: transform_images(torch.ones(1, 3, 4, 4), [lambda x: -x, lambda x: x]), "must be the identity"),
        (lambda: transform_images(torch.ones(1, 3, 4, 4), [lambda x: x, lambda x: x[:, :1]]), "Transformation 1"),
        (lambda: transform_images(torch.ones(1, 3, 4, 4), []), "empty list"),
        (lambda: sla_loss(torch.zeros(8, 12), torch.tensor([0, 3]), 4), r"\[0, 3\), got 3 at row 1"),
        (lambda: sla_loss(torch.zeros(8, 12), torch.tensor([-1, 0]), 4), "got -1 at row 0"),
        (lambda: sla_loss(torch.zeros(8, 12), torch.tensor([0.0, 1.0]), 4), "SLA needs integer single labels"),
        (lambda: sla_loss(torch.zeros(8, 12), torch.zeros(2, 3, dtype=torch.long), 4), "single labels"),
        (lambda: sla_loss(torch.zeros(0, 12), torch.zeros(0, dtype=torch.long), 4), "empty"),
        (lambda: sla_loss(torch.zeros(7, 12), torch.tensor([0, 1]), 4), "4 rows per label: expected 8, got 7"),
        (lambda: sla_loss(torch.zeros(8, 13), torch.tensor([0, 1]), 4), r"N \* M columns"),
        (lambda: sla_loss(torch.zeros(8, 12), torch.tensor([0, 1]), 4, reduction="max"), "reduction"),
        (lambda: aggregate_logits(torch.zeros(7, 12), 4), "multiple of 4 rows"),
        (lambda: plain_loss(torch.zeros(3, 2), torch.tensor([0, 1])), "multiple of 2 rows"),
        (
            lambda: sla_sd_loss(torch.zeros(8, 12), torch.zeros(8, 3), torch.tensor([0, 1]), 4),
            r"\(2, 3\), got \(8, 3\)",
        ),
        (
            lambda: sla_sd_loss(torch.zeros(8, 12), torch.zeros(2, 3), torch.tensor([0, 1]), 4, temperature=0.0),
            "temperature",
        ),
    ],
)
def test_bad_input_is_explained(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_nan_pixels_pass_through_to_the_loss():
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, 0, 0] = float("nan")
    views = transform_images(images, "rotation")
    assert views.isnan().sum() == 4
    assert transform_images(images, [lambda x: x]).isnan().sum() == 1
    logits = views.sum((1, 2, 3), keepdim=False)[:, None].expand(4, 8)
    assert sla_loss(logits, torch.tensor([0]), 4).isnan()
