"""Losses of bags against sums written out."""

import math

import pytest
import torch

from hf_labels.losses.llp_bp import aggregate_embedding_loss, bag_means, consistency_loss, proportion_loss


def bce(p, t):
    return -(t * math.log(p) + (1 - t) * math.log(1 - p))


def test_aggregate_loss_is_instances_plus_bags():
    p, z = torch.tensor([0.9, 0.2, 0.6], dtype=torch.float64), torch.tensor([1.0, 0.0, 0.3], dtype=torch.float64)
    o, r = torch.tensor([[0.4], [0.7]], dtype=torch.float64), torch.tensor([0.5, 1.0], dtype=torch.float64)
    want = sum(bce(a, b) for a, b in zip(p.tolist(), z.tolist(), strict=True)) / 3
    want += 0.1 * (bce(0.4, 0.5) + bce(0.7, 1.0)) / 2
    assert math.isclose(float(aggregate_embedding_loss(p, z, o, r)), want, rel_tol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_0_and_1_give_finite_losses_and_gradients(dtype):
    p = torch.tensor([0.0, 1.0, 1.0, 0.5], dtype=dtype, requires_grad=True)
    loss = proportion_loss(p, torch.tensor([0, 1, 1, 2]), torch.tensor([0.0, 1.0, 0.0], dtype=dtype))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(p.grad).all()


def test_proportion_loss_is_least_where_the_mean_is_the_proportion():
    bag, want = torch.tensor([0, 0, 1, 1]), torch.tensor([0.5, 0.25])
    right = proportion_loss(torch.tensor([0.9, 0.1, 0.2, 0.3]), bag, want)
    assert right < proportion_loss(torch.tensor([0.9, 0.5, 0.2, 0.3]), bag, want)
    assert right < proportion_loss(torch.tensor([0.9, 0.1, 0.2, 0.6]), bag, want)


def test_bag_means_of_vectors_and_of_empty_bags():
    values = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    found = bag_means(values, torch.tensor([2, 2, 0]), 3)
    assert found.tolist() == [[5, 6], [0, 0], [2, 3]]
    teacher = torch.tensor([0.5], requires_grad=True)
    consistency_loss(torch.tensor([0.7], requires_grad=True), teacher).backward()
    assert teacher.grad is None
