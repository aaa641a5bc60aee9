import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hf_labels.losses.soft_targets import (
    SoftTargets,
    channel_wise_distillation,
    logit_mse,
    soft_cross_entropy,
    sparse_soft_cross_entropy,
)


def brute_force(logits, targets, temperature=1.0, divergence="ce", mask=None, weight=None):
    """Loops in float64 with numpy: mean over the rows that count."""
    logits, targets = np.asarray(logits, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    total, count = 0.0, 0
    for place in np.ndindex(logits.shape[:-1]):
        if mask is not None and not mask[place]:
            continue
        count += 1
        z = logits[place] / temperature
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        row = 0.0
        for q_k, p_k in zip(targets[place], p, strict=True):
            if q_k > 0:
                row -= q_k * np.log(p_k)
                row += q_k * np.log(q_k) if divergence == "kl" else 0.0
        total += row * (1.0 if weight is None else weight[place])
    return total / max(count, 1)


def dense(ids, values, num_labels, residual):
    """The distribution that a sparse row stands for, row by row."""
    rows = torch.zeros(*ids.shape[:-1], num_labels, dtype=torch.float64)
    for place in np.ndindex(*ids.shape[:-1]):
        kept = [(int(c), float(v)) for c, v in zip(ids[place], values[place], strict=True) if c >= 0]
        mass = sum(v for _, v in kept)
        scale = 1 / max(mass, 1e-12) if residual == "renorm" else 1 / max(mass, 1.0)
        others = num_labels - len(kept)
        rest = max(0.0, 1 - mass * scale) / others if residual == "smooth" and others else 0.0
        rows[place] = rest
        for c, v in kept:
            rows[(*place, c)] = v * scale
    return rows


def random_case(shape=(5, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64)
    targets = torch.softmax(2 * torch.randn(*shape, generator=generator, dtype=torch.float64), -1)
    return logits, targets


# Against loops, and properties


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("divergence", ["ce", "kl"])
def test_dense_equals_brute_force(seed, divergence):
    logits, targets = random_case((3, 5, 4), seed)
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(seed)) > 0.4
    weight = torch.rand(3, 5, dtype=torch.float64)
    found = soft_cross_entropy(
        logits, targets, temperature=1.7, divergence=divergence, mask=mask, weight=weight, scale_by_temperature=True
    )
    expected = brute_force(logits, targets, 1.7, divergence, mask.numpy(), weight.numpy()) * 1.7**2
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("residual", ["smooth", "renorm", "none"])
@pytest.mark.parametrize("divergence", ["ce", "kl"])
@pytest.mark.parametrize("k", [1, 3, 7])
def test_sparse_equals_dense_in_value_and_gradient(residual, divergence, k):
    logits, targets = random_case((4, 2, 7), seed=k)
    values, ids = targets.topk(k)
    ids[0, 0, -1] = -1 if k > 1 else ids[0, 0, -1]
    values[1, 1] *= 1.3  # a lossy codec: may sum to more than 1
    mask = torch.ones(4, 2, dtype=torch.bool)
    mask[3, 0] = False
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    sparse = sparse_soft_cross_entropy(
        one, ids, values, residual=residual, divergence=divergence, mask=mask, temperature=2.0
    )
    full = soft_cross_entropy(two, dense(ids, values, 7, residual), divergence=divergence, mask=mask, temperature=2.0)
    sparse.backward()
    full.backward()
    assert sparse.item() == pytest.approx(full.item(), rel=1e-10)
    torch.testing.assert_close(one.grad, two.grad, atol=1e-10, rtol=0)


def test_all_classes_stored_is_the_dense_loss():
    logits, targets = random_case()
    values, ids = targets.topk(4)
    for residual in ("smooth", "renorm"):
        assert sparse_soft_cross_entropy(logits, ids, values, residual=residual).item() == pytest.approx(
            soft_cross_entropy(logits, targets).item(), rel=1e-12
        )


def test_sparse_builds_no_dense_target():
    logits = torch.randn(64, 5000)
    ids = torch.arange(3).repeat(64, 1)
    values = torch.full((64, 3), 0.3)
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        sparse_soft_cross_entropy(logits, ids, values)
    full = [
        event.name
        for event in seen.events()
        if [64, 5000] in event.input_shapes and event.name in ("aten::mul", "aten::scatter", "aten::scatter_")
    ]
    assert full == []  # nothing of K classes but log_softmax and its reductions


def test_one_hot_is_ordinary_cross_entropy():
    logits, _ = random_case()
    labels = torch.tensor([0, 3, 1, 2, 2])
    target = F.one_hot(labels, 4).double()
    expected = F.cross_entropy(logits, labels).item()
    assert soft_cross_entropy(logits, target).item() == pytest.approx(expected, rel=1e-12)
    assert soft_cross_entropy(logits, target, divergence="kl").item() == pytest.approx(expected, rel=1e-12)
    sparse = sparse_soft_cross_entropy(logits, labels[:, None], torch.ones(5, 1))
    assert sparse.item() == pytest.approx(expected, rel=1e-6)


def test_kl_is_zero_at_its_target_and_ce_its_entropy():
    logits, _ = random_case()
    target = torch.softmax(logits, -1)
    assert soft_cross_entropy(logits, target, divergence="kl").item() == pytest.approx(0, abs=1e-12)
    assert soft_cross_entropy(logits, target).item() == pytest.approx(-(target * target.log()).sum(-1).mean().item())


def test_impossible_classes_do_not_make_nan():
    logits = torch.tensor([[0.0, 1.0, -torch.inf]], requires_grad=True)
    target = torch.tensor([[0.3, 0.7, 0.0]])
    loss = soft_cross_entropy(logits, target, divergence="kl")
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad[0, :2]).all()
    full = torch.tensor([[0.3, 0.7]])
    assert torch.isfinite(sparse_soft_cross_entropy(logits, torch.tensor([[0, 1]]), full))


def test_nothing_counts_is_zero_with_a_gradient_path():
    logits, targets = random_case()
    logits.requires_grad_()
    loss = soft_cross_entropy(logits, targets, mask=torch.zeros(5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().sum() == 0
    empty = torch.zeros(0, 4, requires_grad=True)
    assert soft_cross_entropy(empty, torch.zeros(0, 4)).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast(dtype):
    logits, targets = random_case((6, 50))
    half = (30 * logits).to(dtype)
    for loss in (
        soft_cross_entropy(half, targets.to(dtype)),
        sparse_soft_cross_entropy(half, *reversed(targets.to(dtype).topk(5))),
        logit_mse(half, 2 * half),
    ):
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert soft_cross_entropy(half, targets).item() == pytest.approx(brute_force(half.double(), targets), rel=1e-5)


def test_gradcheck():
    logits, targets = random_case((2, 3, 4))
    logits.requires_grad_()
    values, ids = targets.topk(2)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    weight = torch.rand(2, 3, dtype=torch.float64)
    check = torch.autograd.gradcheck
    assert check(lambda z: soft_cross_entropy(z, targets, temperature=1.5, mask=mask, weight=weight), (logits,))
    assert check(lambda z: soft_cross_entropy(z, targets, divergence="kl", targets_are_logits=True), (logits,))
    assert check(lambda z: sparse_soft_cross_entropy(z, ids, values, temperature=0.7, mask=mask), (logits,))
    assert check(lambda z: logit_mse(z, targets, center=True, mask=mask), (logits,))
    assert check(lambda z: channel_wise_distillation(z, targets), (logits,))


def test_targets_are_constants():
    logits, targets = random_case()
    targets.requires_grad_()
    loss = soft_cross_entropy(logits.requires_grad_(), targets, targets_are_logits=True) + logit_mse(logits, targets)
    loss.backward()
    assert targets.grad is None


def test_reductions_and_order():
    logits, targets = random_case()
    rows = soft_cross_entropy(logits, targets, reduction="none")
    assert rows.shape == (5,)
    assert soft_cross_entropy(logits, targets, reduction="sum").item() == pytest.approx(rows.sum().item())
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(soft_cross_entropy(logits[order], targets[order], reduction="none"), rows[order])
    moved = soft_cross_entropy(logits.T, targets.T, class_dim=0, reduction="none")
    torch.testing.assert_close(moved, rows)


def test_mse_center_ignores_an_offset():
    logits, targets = random_case()
    offset = targets + 100 * torch.arange(5)[:, None]
    assert logit_mse(logits, offset, center=True).item() == pytest.approx(
        logit_mse(logits, targets, center=True).item(), rel=1e-9
    )
    assert logit_mse(logits, targets).item() == pytest.approx(nn.functional.mse_loss(logits, targets).item())


def test_soft_targets_forms_agree():
    logits, targets = random_case()
    values, ids = targets.topk(4)
    mask = torch.tensor([True, True, False, True, False])
    losses = [
        form.loss(logits, "kl", 1.0).item()
        for form in (
            SoftTargets(probs=targets, mask=mask),
            SoftTargets(logits=targets.log(), mask=mask),
            SoftTargets(ids=ids, values=values, mask=mask),
        )
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-9)
    assert SoftTargets(probs=targets, mask=mask).count() == 3 and SoftTargets(probs=targets).count() == 5


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda z, q: soft_cross_entropy(z, q[:, :3]), "4 classes, the targets have 3"),
        (lambda z, q: soft_cross_entropy(z, q, temperature=0.0), "temperature"),
        (lambda z, q: soft_cross_entropy(z, q, divergence="js"), "ce or kl"),
        (lambda z, q: soft_cross_entropy(z, q, reduction="max"), "mean, sum or none"),
        (lambda z, q: soft_cross_entropy(z, q, mask=torch.ones(4).bool()), r"`mask` must have shape \(5,\)"),
        (lambda z, q: sparse_soft_cross_entropy(z, torch.zeros(5, 9).long(), torch.zeros(5, 9)), "k=9 and K=4"),
        (lambda z, q: sparse_soft_cross_entropy(z, torch.zeros(4, 1).long(), torch.zeros(4, 1)), "leading shape"),
        (lambda z, q: sparse_soft_cross_entropy(z, torch.zeros(5, 1).long(), q[:, :1], residual="x"), "renorm"),
        (lambda z, q: channel_wise_distillation(z, q), "spatial"),
        (lambda z, q: logit_mse(z, q[:2]), "one shape"),
        (lambda z, q: SoftTargets(), "exactly one"),
        (lambda z, q: SoftTargets(probs=q, logits=z), "exactly one"),
        (lambda z, q: SoftTargets(ids=q.long()), "go together"),
        (lambda z, q: SoftTargets(probs=q).loss(z, "mse"), "compares logits"),
    ],
)
def test_bad_input_is_named(call, text):
    with pytest.raises(ValueError, match=text):
        call(*random_case())
