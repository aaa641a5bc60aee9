"""Losses against sums written out."""

import torch
from torch.nn import functional as F

from hf_labels.losses.kg_zero_shot import (
    classifier_weight_loss,
    devise_loss,
    gradient_penalty,
    margin_ranking_loss,
    self_adversarial_loss,
)


def test_weight_loss_is_half_the_mean_squared_distance():
    a, b = torch.randn(4, 3), torch.randn(4, 3)
    assert torch.isclose(classifier_weight_loss(a, b), ((a - b) ** 2).sum() / 8)


def test_devise_sums_the_hinges_of_the_wrong_classes():
    torch.manual_seed(0)
    z, a, y = torch.randn(5, 3), F.normalize(torch.randn(4, 3)), torch.tensor([0, 1, 2, 3, 0])
    total = 0.0
    for i in range(5):
        for j in range(4):
            if j != y[i]:
                total += max(0.0, 0.1 - float(a[y[i]] @ z[i]) + float(a[j] @ z[i]))
    assert abs(float(devise_loss(z, a, y)) - total / 5) < 1e-5
    assert float(devise_loss(100 * a[y], a, y)) == 0.0


def test_margin_and_self_adversarial_losses():
    up, down = torch.tensor([2.0, 0.0]), torch.tensor([[0.5, 1.8], [1.0, -3.0]])
    assert torch.isclose(margin_ranking_loss(up, down), torch.tensor((0 + 0.8 + 2 + 0) / 4))
    shares = down.softmax(1)
    right = -(F.logsigmoid(up + 1) + (shares * F.logsigmoid(-(down + 1))).sum(1)).mean() / 2
    assert torch.isclose(self_adversarial_loss(up, down), right)
    even = self_adversarial_loss(up, down, temperature=0.0)
    assert torch.isclose(even, -(F.logsigmoid(up + 1) + F.logsigmoid(-(down + 1)).mean(1)).mean() / 2)


def test_gradient_penalty_of_a_linear_critic_is_known():
    w = torch.tensor([3.0, 4.0])
    found = gradient_penalty(lambda x: x @ w, torch.randn(6, 2), torch.randn(6, 2), torch.rand(6, 1))
    assert torch.isclose(found, torch.tensor(16.0))  # (5 - 1)^2
