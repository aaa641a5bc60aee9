"""`MixedLabels`: the dense form, the cross-entropy identity, and the way through a batch."""

import pytest
import torch
from torch.nn import functional as F

from hf_labels.mixing import MixedLabels


def _mixed(rows=6, classes=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    y_a, y_b = (torch.randint(0, classes, (rows,), generator=rng) for _ in range(2))
    return MixedLabels(y_a, y_b, torch.rand(rows, generator=rng)), torch.randn(rows, classes, generator=rng)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_is_that_of_the_dense_target(smoothing, soft):
    labels, logits = _mixed()
    if soft:
        rng = torch.Generator().manual_seed(5)
        labels = MixedLabels(*(torch.rand(6, 4, generator=rng).softmax(-1) for _ in range(2)), labels.lam)
    dense = labels.dense(4, smoothing)
    torch.testing.assert_close(dense.sum(-1), torch.ones(6))
    logits.requires_grad_()
    ours, theirs = labels.cross_entropy(logits, label_smoothing=smoothing), F.cross_entropy(logits, dense)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits))


def test_class_weights_multiply_each_term_and_the_mean_divides_by_rows():
    labels, logits = _mixed()
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    log_p = logits.log_softmax(-1)
    want = [
        -(lam * weight[a] * log_p[i, a] + (1 - lam) * weight[b] * log_p[i, b])
        for i, (a, b, lam) in enumerate(zip(labels.y_a, labels.y_b, labels.lam, strict=True))
    ]
    torch.testing.assert_close(labels.cross_entropy(logits, "none", weight=weight), torch.stack(want))
    torch.testing.assert_close(labels.cross_entropy(logits, weight=weight), torch.stack(want).mean())


def test_rows_with_a_missing_label_do_not_count():
    labels, logits = _mixed()
    labels.y_a[1], labels.y_b[4] = -100, -100
    kept = torch.tensor([0, 2, 3, 5])
    logits.requires_grad_()
    loss = labels.cross_entropy(logits)
    torch.testing.assert_close(loss, labels.select(kept).cross_entropy(logits[kept]))
    assert labels.cross_entropy(logits, "none")[[1, 4]].tolist() == [0, 0]
    assert labels.dense(4)[[1, 4]].sum() == 0 and labels.dense(4)[kept].sum() == pytest.approx(4)
    none = MixedLabels(torch.full((6,), -100), labels.y_b, labels.lam).cross_entropy(logits)
    none.backward()
    assert none == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


def test_half_precision_is_summed_in_float32():
    labels, logits = _mixed()
    low = labels.cross_entropy(logits.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, labels.cross_entropy(logits.bfloat16().float()))


def test_a_batch_carries_the_labels_through_a_trainer():
    labels, logits = _mixed()
    batch = {"pixel_values": logits, **labels.as_batch_fields()}
    assert set(batch) == {"pixel_values", "labels", "mix_labels_b", "mix_lam"}
    back = MixedLabels.pop_from(batch)
    assert set(batch) == {"pixel_values"}
    assert all(torch.equal(getattr(back, name), getattr(labels, name)) for name in ("y_a", "y_b", "lam"))
    plain = MixedLabels.pop_from({"labels": labels.y_a})
    torch.testing.assert_close(plain.cross_entropy(logits), F.cross_entropy(logits, labels.y_a))
    assert plain.same().all() and len(MixedLabels.concat([plain, back])) == 12
    assert back.to("cpu").same().tolist() == (labels.y_a == labels.y_b).tolist()
    with pytest.raises(KeyError, match="go together"):
        MixedLabels.from_batch_fields({"labels": labels.y_a, "mix_lam": labels.lam})
    with pytest.raises(KeyError, match="no `labels`"):
        MixedLabels.from_batch_fields({"pixel_values": logits})


def test_bad_input_is_named():
    ids, lam = torch.tensor([0, 1]), torch.tensor([0.5, 0.5])
    for wrong in (1.01, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"`lam` must be in \[0, 1\], got .* at row 1"):
            MixedLabels(ids, ids, torch.tensor([0.5, wrong]))
    assert MixedLabels(ids, ids, torch.tensor([1 + 5e-7, -5e-7])).lam.tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"`lam` must have shape \(2,\)"):
        MixedLabels(ids, ids, torch.tensor(0.5))
    with pytest.raises(ValueError, match="`y_a` and `y_b` must be of one kind and shape"):
        MixedLabels(ids, ids[:1], lam)
    with pytest.raises(ValueError, match="`y_a` and `y_b` must be of one kind and shape"):
        MixedLabels(ids, ids.float(), lam)
    with pytest.raises(ValueError, match=r"class ids \(B,\) or distributions"):
        MixedLabels(ids[None], ids[None], lam[:1])
    labels = MixedLabels(ids, torch.tensor([0, 3]), lam)
    with pytest.raises(ValueError, match=r"`y_b` must be in \[0, 3\), got 3 at row 1"):
        labels.cross_entropy(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"`y_b` must be in \[0, 3\)"):
        labels.dense(3)
    with pytest.raises(ValueError, match=r"`logits` must have shape \(2, C\)"):
        labels.cross_entropy(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="`reduction`"):
        labels.cross_entropy(torch.zeros(2, 4), "median")
    with pytest.raises(ValueError, match="smoothing"):
        labels.dense(4, smoothing=1.5)
    with pytest.raises(ValueError, match=r"`weight` must have shape \(4,\)"):
        labels.cross_entropy(torch.zeros(2, 4), weight=torch.ones(3))
    with pytest.raises(ValueError, match="holds 2 classes per row, expected 3"):
        MixedLabels(torch.eye(2), torch.eye(2), lam).dense(3)
    with pytest.raises(ValueError, match="at least one"):
        MixedLabels.concat([])
