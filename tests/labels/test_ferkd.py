"""FerKD's label adaptation: the rule, its limits, sparse against dense, and what is refused."""

import math

import pytest
import torch
from torch.nn import functional as F

from hf_labels.labels.ferkd import (
    HARD,
    IMPORTANT,
    UNINFORMATIVE,
    calibrate_labels,
    calibrate_sparse,
    known_regions,
    label_confidence,
    rescue_examples,
    smoothed_labels,
    sparse_confidence,
    view_regions,
)
from hf_labels.losses.soft_targets import soft_cross_entropy, sparse_soft_cross_entropy

C = 6


def _probs(rows=200, seed=0, sharpness=3.0):
    rng = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(rows, C, generator=rng, dtype=torch.float64)).softmax(-1)


def _labels(rows=200, seed=1):
    return torch.randint(C, (rows,), generator=torch.Generator().manual_seed(seed))


def _oracle(row, label, low, mid, top, epsilon):
    """The rule, one row at a time, in plain Python."""
    best = max(row)
    if best < low or best > top:
        return "UR", [0.0] * len(row)
    if best < mid:
        return "HR", [1 - epsilon if c == label else epsilon / (len(row) - 1) for c in range(len(row))]
    return "IR", list(row)


def test_equals_the_rule_row_by_row():
    probs, labels = _probs(), _labels()
    found = calibrate_labels(probs, labels, t_low=0.4, t_mid=0.6, t_top=0.97, epsilon=0.2)
    names = ("UR", "HR", "IR")
    for row in range(len(probs)):
        region, target = _oracle(probs[row].tolist(), int(labels[row]), 0.4, 0.6, 0.97, 0.2)
        assert names[int(found.regions[row])] == region and bool(found.keep[row]) == (region != "UR")
        assert found.targets[row].tolist() == pytest.approx(target, abs=1e-12)
    assert set(found.regions.tolist()) == {0, 1, 2}
    torch.testing.assert_close(found.targets.sum(1), found.keep.double())


def test_equal_values_go_to_the_upper_region():
    s = torch.tensor([0.2, 0.5, 0.9, math.nextafter(0.2, 0), math.nextafter(0.9, 1)], dtype=torch.float64)
    assert view_regions(s, 0.2, 0.5, 0.9).tolist() == [HARD, IMPORTANT, IMPORTANT, UNINFORMATIVE, UNINFORMATIVE]
    assert view_regions(s[:3].float(), 0.2, 0.5, 0.9).tolist() == [HARD, IMPORTANT, IMPORTANT]  # as they are stored


def test_limits_are_known_methods():
    probs, labels = _probs(), _labels()
    logits = torch.randn(200, C, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    fkd = calibrate_labels(probs, labels, t_low=0.0, t_mid=0.0, t_top=1.0)
    assert torch.equal(fkd.targets, probs) and fkd.keep.all()
    smooth = calibrate_labels(probs, labels, t_low=0.0, t_mid=1.0, t_top=1.0, epsilon=0.3)
    # torch smooths over all C classes, the paper over the other C - 1.
    want = F.cross_entropy(logits, labels, label_smoothing=0.3 * C / (C - 1))
    torch.testing.assert_close(soft_cross_entropy(logits, smooth.targets, mask=smooth.keep), want)
    plain = calibrate_labels(probs, labels, t_mid=1.0, epsilon=0.0)
    torch.testing.assert_close(soft_cross_entropy(logits, plain.targets), F.cross_entropy(logits, labels))


def test_order_of_views_and_dropped_views_do_not_change_the_loss():
    probs, labels = _probs(), _labels()
    logits = torch.randn(200, C, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    options = {"t_low": 0.4, "t_mid": 0.6, "t_top": 0.97}
    found = calibrate_labels(probs, labels, **options)
    loss = soft_cross_entropy(logits, found.targets, mask=found.keep)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(4))
    mixed = calibrate_labels(probs[order], labels[order], **options)
    torch.testing.assert_close(soft_cross_entropy(logits[order], mixed.targets, mask=mixed.keep), loss)
    keep = found.keep
    torch.testing.assert_close(soft_cross_entropy(logits[keep], found.targets[keep]), loss)


def test_a_batch_without_kept_views_has_loss_and_gradient_zero():
    logits = torch.randn(3, C, requires_grad=True)
    found = calibrate_labels(torch.full((3, C), 1 / C), torch.zeros(3, dtype=torch.long), t_low=0.5, t_mid=0.6)
    assert not found.keep.any()
    loss = soft_cross_entropy(logits, found.targets.float(), mask=found.keep)
    loss.backward()
    assert loss.item() == 0 and torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("k", [1, 3, C])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.95])
def test_sparse_equals_dense(k, epsilon):
    full, labels = _probs(), _labels()
    values, ids = full.topk(k, -1)
    rest = ((1 - values.sum(-1, keepdim=True)).clamp_min(0) / max(C - k, 1)).expand(-1, C)
    probs = rest.scatter(1, ids, values)
    for kind in ("max", "ground_truth"):
        torch.testing.assert_close(
            sparse_confidence(ids, values, C, labels, kind), label_confidence(probs, labels, kind)
        )
    regions = view_regions(label_confidence(probs), 0.4, 0.7, 0.97)
    dense = calibrate_labels(probs, labels, epsilon=epsilon, regions=regions)
    new_ids, new_values = calibrate_sparse(ids, values, labels, C, regions, epsilon)
    assert (new_ids.sort(-1).values.diff(dim=-1) > 0).all(), "a class twice"
    assert (new_values.diff(dim=-1) <= 0).all(), "not in descending order"
    logits = torch.randn(200, C, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    keep = dense.keep
    torch.testing.assert_close(
        sparse_soft_cross_entropy(logits, new_ids, new_values, mask=keep, reduction="none"),
        soft_cross_entropy(logits, dense.targets, mask=keep, reduction="none"),
    )


def test_confidence_of_the_true_class():
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    assert label_confidence(probs, torch.tensor([1, 0]), "ground_truth").tolist() == pytest.approx([0.3, 0.1])
    assert label_confidence(probs, torch.tensor([-1, 0]), "ground_truth").tolist() == pytest.approx([0.5, 0.1])
    ids, values = torch.tensor([[0], [2]]), torch.tensor([[0.5], [0.7]])
    found = sparse_confidence(ids, values, 3, torch.tensor([1, 2]), "ground_truth")
    assert found.tolist() == pytest.approx([0.25, 0.7])  # not stored: its share of the rest
    sure = sparse_confidence(ids, torch.ones(2, 1), 3, torch.tensor([1, 2]), "ground_truth")
    assert sure.tolist() == [0, 1]


def test_an_example_never_loses_all_views():
    regions = torch.tensor([0, 0, 0, 2, 0, 0, 0], dtype=torch.int8)
    confidence = torch.tensor([0.1, 0.15, 0.15, 0.5, 0.1, 0.99, 0.98])
    examples = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    found, rescued = rescue_examples(regions, confidence, examples, t_low=0.2)
    assert sorted(rescued.tolist()) == [1, 5]  # the first among equals; the surest
    assert found.tolist() == [0, HARD, 0, IMPORTANT, 0, IMPORTANT, 0]
    assert regions.tolist() == [0, 0, 0, 2, 0, 0, 0], "changed in place"


def test_a_hard_view_without_label_keeps_the_teachers():
    probs = _probs(4)
    labels = torch.tensor([-1, 2, -100, 3])
    found = calibrate_labels(probs, labels, t_mid=1.0)
    assert found.regions.tolist() == [IMPORTANT, HARD, IMPORTANT, HARD]
    assert torch.equal(found.targets[[0, 2]], probs[[0, 2]])
    assert known_regions(torch.tensor([0, 1, 1, 2]), labels).tolist() == [0, 1, 2, 2]


def test_bad_input_is_named():
    probs, labels = _probs(4), _labels(4)
    with pytest.raises(ValueError, match="Thresholds must rise.*0.5, 0.4, 1.0"):
        calibrate_labels(probs, labels, t_low=0.5, t_mid=0.4)
    for epsilon in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"`epsilon` must be in \[0, 1\)"):
            calibrate_labels(probs, labels, epsilon=epsilon)
    with pytest.raises(ValueError, match=r"`labels` must have shape \(4,\)"):
        calibrate_labels(probs, labels[:3])
    with pytest.raises(ValueError, match="must be below 6, got 6 at row 0"):
        calibrate_labels(probs, torch.tensor([6, 0, 0, 0]))
    with pytest.raises(ValueError, match="`confidence` must be max or ground_truth"):
        calibrate_labels(probs, labels, confidence="min")
    with pytest.raises(ValueError, match="needs `labels`"):
        label_confidence(probs, None, "ground_truth")
    ids = torch.zeros(4, 7, dtype=torch.long)
    with pytest.raises(ValueError, match="k at most C = 6"):
        calibrate_sparse(ids, ids.double(), labels, C, torch.ones(4))
    with pytest.raises(ValueError, match="Row 1 is in the hard region but has no label"):
        calibrate_sparse(ids[:, :2], ids[:, :2].double(), torch.tensor([1, -1, 0, 0]), C, torch.ones(4))


def test_half_precision_and_empty():
    assert view_regions(torch.tensor([0.1, 0.5], dtype=torch.bfloat16), 0.2, 0.4, 0.9).tolist() == [0, 2]
    none = torch.zeros(0, dtype=torch.long)
    found = calibrate_labels(torch.zeros(0, C), none)
    assert found.targets.shape == (0, C) and found.keep.shape == (0,)
    assert smoothed_labels(torch.tensor([1]), 3, 0.2).tolist() == [pytest.approx([0.1, 0.8, 0.1])]
