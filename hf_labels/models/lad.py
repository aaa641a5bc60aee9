"""A further input channel for any segmentation model: put in for the label of LAD's teacher, taken out for users.

Source: Qiu et al., ECCV 2024, arXiv:2407.13254: the first convolution keeps its weights, those of the new channel are
`0.1 * N(0, 1)`. A student that saw zeros there gives the same logits without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from hf_labels.losses.lad import LabelNoiser
from hf_labels.models.heads import set_module

LABEL_CHANNEL = "label_channel"  # key in the config of a teacher


def find_stem(model: nn.Module) -> tuple[str, nn.Conv2d]:
    """The one convolution that reads the image, and its place.

    Args:
        model (`nn.Module`): For example any `AutoModelForSemanticSegmentation`.

    Raises:
        ValueError: If the config says no `num_channels`, or not exactly one convolution has that many inputs.
    """
    channels = input_channels(model)
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == channels and module.groups == 1
    }
    first = {name: module for name, module in found.items() if module.kernel_size != (1, 1)} or found
    if len(first) != 1:
        raise ValueError(
            f"{type(model).__name__} must have one convolution that reads {channels} channels "
            f"(`config.num_channels`), found {len(first)}: {', '.join(first) or 'none'}. "
            "Models with several stems are not supported."
        )
    name, stem = next(iter(first.items()))
    return name, stem


def input_channels(model: nn.Module) -> int:
    """`num_channels` of the model's config, or of its backbone's.

    Raises:
        ValueError: If neither says so.
    """
    for config in _configs(getattr(model, "config", None)):
        if isinstance(getattr(config, "num_channels", None), int):
            return int(config.num_channels)
    raise ValueError(
        f"The config of {type(model).__name__} has no `num_channels`: the channels of its input are unknown."
    )


def add_input_channel(
    model: Any, std: float = 0.1, generator: torch.Generator | None = None, noiser: LabelNoiser | None = None
) -> Any:
    """Let the model read one more channel, the last one, in place; what it computes of the others stays.

    Args:
        model: For example any `AutoModelForSemanticSegmentation` with `config.num_channels`.
        std (`float`, *optional*, defaults to 0.1): Deviation of the new weights.
        generator (`torch.Generator`, *optional*): Where they come from.
        noiser ([`LabelNoiser`], *optional*): Written into the config as `label_channel`, for users of the teacher.

    Returns:
        The model. It saves and loads as before, with `config.num_channels` one higher.

    Raises:
        ValueError: As [`find_stem`].
    """
    name, old = find_stem(model)
    extra = torch.randn(old.weight.shape[0], 1, *old.kernel_size, generator=generator).to(old.weight)
    _put(model, name, old, torch.cat([old.weight.data, std * extra], dim=1))
    if noiser is not None:
        setattr(model.config, LABEL_CHANNEL, asdict(noiser))
    return model


def strip_input_channel(model: Any) -> Any:
    """Undo [`add_input_channel`], in place: without the last channel the logits are those that zeros there gave.

    Returns:
        The model, an ordinary one again.

    Raises:
        ValueError: As [`find_stem`], or for a model of one channel.
    """
    name, old = find_stem(model)
    if old.in_channels < 2:
        raise ValueError("The model reads 1 channel; nothing would be left without it.")
    _put(model, name, old, old.weight.data[:, :-1].clone())
    if hasattr(model.config, LABEL_CHANNEL):
        delattr(model.config, LABEL_CHANNEL)
    return model


def saved_noiser(model: Any) -> LabelNoiser | None:
    """The [`LabelNoiser`] that a saved teacher was trained with; `None` when its config names none."""
    found = getattr(model.config, LABEL_CHANNEL, None)
    return None if found is None else LabelNoiser(**found)


@contextmanager
def auxiliary_logits(model: nn.Module) -> Iterator[list[Tensor]]:
    """What the model's `auxiliary_head` gives while the block runs; stays empty for a model without one."""
    found: list[Tensor] = []
    head = getattr(model, "auxiliary_head", None)
    if head is None:
        yield found
        return
    handle = head.register_forward_hook(lambda module, args, output: found.append(output))
    try:
        yield found
    finally:
        handle.remove()


def _put(model: Any, name: str, old: nn.Conv2d, weight: Tensor) -> None:
    """A convolution with these weights in the place of the old one; everything that counts channels is told."""
    before, after = old.in_channels, weight.shape[1]
    layout: Any = {"stride": old.stride, "padding": old.padding, "dilation": old.dilation}
    layout |= {"kernel_size": old.kernel_size, "padding_mode": old.padding_mode, "bias": old.bias is not None}
    new = nn.Conv2d(after, old.out_channels, **layout)
    new.weight = nn.Parameter(weight, requires_grad=old.weight.requires_grad)
    new.bias = old.bias
    set_module(model, name, new.train(old.training))
    parts = name.split(".")
    for depth in range(len(parts)):  # embeddings compare `num_channels` with the image
        owner: Any = model.get_submodule(".".join(parts[:depth]))
        if getattr(owner, "num_channels", None) == before:
            owner.num_channels = after
    for module in model.modules():
        for config in _configs(getattr(module, "config", None)):
            if getattr(config, "num_channels", None) == before:
                config.num_channels = after


def _configs(config: Any) -> list[Any]:
    if config is None:
        return []
    return [config, *_configs(getattr(config, "backbone_config", None))]
