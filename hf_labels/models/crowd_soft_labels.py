"""A second classification head for any stock model: it learns the soft labels of a crowd beside the hard ones."""

from typing import Any

import torch
from torch import nn

from hf_labels.models.heads import find_head

SOFT_HEAD = "soft_classifier"


def add_soft_head(model: nn.Module) -> nn.Linear:
    """Give a model a head `soft_classifier` beside its own, in place; a model that has one keeps it.

    `forward` stays as it is: the new head is read in training only, by
    [`~hf_labels.trainers.crowd_soft_labels.CrowdLabelTrainer`].

    Args:
        model (`nn.Module`): Any `AutoModelFor{Sequence,Token,Image}Classification`.

    Returns:
        `nn.Linear`: The new head: as wide as the old one, on its device, in its type; weights from
        `N(0, config.initializer_range)`, biases 0.

    Raises:
        ValueError: If the model has no single head, or a head of convolutions; as
            [`~hf_labels.models.heads.find_head`].

    Source: Wright and Augenstein, arXiv:2212.09409, section 3.3 (multi-task learning).
    """
    here = getattr(model, SOFT_HEAD, None)
    if isinstance(here, nn.Linear):
        return here
    head = find_head(model)
    old = head.module
    if not isinstance(old, nn.Linear):
        raise ValueError(
            f"The head `{head.name}` of {type(model).__name__} is a {type(old).__name__}; a second head stands beside "
            "a linear one. Use a model for sequences, tokens or whole images."
        )
    options: dict[str, Any] = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    fresh = nn.Linear(head.in_features, head.num_labels, **options)
    with torch.no_grad():
        fresh.weight.normal_(0.0, getattr(getattr(model, "config", None), "initializer_range", 0.02))
        if fresh.bias is not None:
            fresh.bias.zero_()
    setattr(model, SOFT_HEAD, fresh)
    return fresh
