"""Losses of methods that read a knowledge graph: DeViSE, propagated classifiers, embeddings, generated features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def classifier_weight_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """`sum ||predicted - target||^2 / (2 rows)` over the rows of the seen classes (`cyvius96/DGP`, `l2_loss`).

    Args:
        predicted, targets (`Tensor` of shape `(S, D)`): Classifier weights.
    """
    return (predicted - targets).square().sum() / (2 * len(predicted))


def devise_loss(mapped: Tensor, semantics: Tensor, labels: Tensor, margin: float = 0.1) -> Tensor:
    """Hinge rank loss: `sum over j != y of max(0, margin - a_y z + a_j z)`, mean over the batch.

    Args:
        mapped (`Tensor` of shape `(B, d)`): z, features mapped to the space of the semantics.
        semantics (`Tensor` of shape `(S, d)`): a, unit rows of the seen classes.
        labels (`Tensor` of shape `(B,)`): y.
        margin (`float`, *optional*, defaults to 0.1)

    Source: Frome et al., NeurIPS 2013, equation 1.
    """
    scores = mapped @ semantics.T
    own = scores.gather(1, labels[:, None])
    hinge = (margin - own + scores).clamp_min(0)
    return hinge.scatter(1, labels[:, None], 0.0).sum(1).mean()


def margin_ranking_loss(positive: Tensor, negative: Tensor, margin: float = 1.0) -> Tensor:
    """`max(0, margin - positive + negative)` of scores `(B,)` and `(B, K)`, mean (TransE, equation 1)."""
    return (margin - positive[:, None] + negative).clamp_min(0).mean()


def self_adversarial_loss(positive: Tensor, negative: Tensor, margin: float = 1.0, temperature: float = 1.0) -> Tensor:
    """Log-sigmoid loss whose negatives are weighted by their own softmax (Sun et al., ICLR 2019, equation 5).

    Args:
        positive (`Tensor` of shape `(B,)`), negative (`Tensor` of shape `(B, K)`): Scores, higher is better.
        margin (`float`, *optional*, defaults to 1.0): Added to the scores.
        temperature (`float`, *optional*, defaults to 1.0): Of the weights; they carry no gradient.
    """
    weights = (temperature * negative.detach()).softmax(1)
    far = (weights * F.logsigmoid(-(negative + margin))).sum(1)
    return -(F.logsigmoid(positive + margin) + far).mean() / 2


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """`mean (||grad D(e x + (1 - e) G)|| - 1)^2` of WGAN-GP.

    Args:
        critic: Scores `(B,)` or `(B, 1)` of features `(B, D)`.
        real, fake (`Tensor` of shape `(B, D)`): x and G.
        share (`Tensor` of shape `(B, 1)`): e in [0, 1].
    """
    mixed = (share * real + (1 - share) * fake).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
    return (slope.norm(dim=1) - 1).square().mean()
