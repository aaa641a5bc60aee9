"""Losses for labels that are known as proportions of bags."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def probability_bce(probs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of probabilities with targets in [0, 1], element by element; finite at 0 and 1."""
    tiny = torch.finfo(probs.dtype).eps
    p = probs.clamp(tiny, 1 - tiny)
    return -(targets * p.log() + (1 - targets) * (1 - p).log())


def aggregate_embedding_loss(
    instance_probs: Tensor, pseudo_labels: Tensor, bag_probs: Tensor, bag_proportions: Tensor, weight: float = 0.1
) -> Tensor:
    """`mean BCE(pseudo-label, instance) + weight * mean BCE(proportion, bag)` (LLP-BP, aggregate embedding loss).

    Args:
        instance_probs, pseudo_labels (`Tensor` of one shape): Of all instances; labels may be soft.
        bag_probs (`Tensor` of shape `(B,)` or `(B, 1)`): Of the bag head on the mean embeddings.
        bag_proportions (`Tensor` of shape `(B,)`): Shares of positives.
        weight (`float`, *optional*, defaults to 0.1): lambda_a.
    """
    bags = bag_probs.reshape(-1)
    return (
        probability_bce(instance_probs, pseudo_labels).mean()
        + weight * probability_bce(bags, bag_proportions.reshape(-1)).mean()
    )


def proportion_loss(instance_probs: Tensor, bag: Tensor, bag_proportions: Tensor) -> Tensor:
    """`mean BCE(proportion, mean of the instances' probabilities)` over the bags: the baseline DLLP.

    Args:
        instance_probs (`Tensor` of shape `(N,)`), bag (`Tensor` of shape `(N,)`, integers 0 to B - 1)
        bag_proportions (`Tensor` of shape `(B,)`)
    """
    return probability_bce(bag_means(instance_probs, bag, len(bag_proportions)), bag_proportions).mean()


def bag_means(values: Tensor, bag: Tensor, count: int) -> Tensor:
    """Means over the members of each bag, `(count,)` or `(count, d)`; 0 for an empty one."""
    sums = values.new_zeros((count, *values.shape[1:])).index_add(0, bag, values)
    sizes = torch.bincount(bag, minlength=count).clamp(min=1).to(values)
    return sums / sizes.reshape(-1, *[1] * (values.dim() - 1))


def consistency_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared distance of probabilities from those of an averaged teacher, which gets no gradient."""
    return F.mse_loss(student, teacher.detach())
