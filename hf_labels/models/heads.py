"""The classification head of any Auto model: find it, replace it, read what goes into it.

The head is the last layer, a `Linear` or a 1 x 1 convolution that gives one score per class. It may be the model's
`classifier` itself (ViT, BERT), the end of a `Sequential` (ResNet), `classifier.out_proj` (RoBERTa) or
`decode_head.classifier` (SegFormer). What stands before it, such as a dense layer and dropout, stays in place.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
_USUAL = ("classifier", "decode_head", "head", "score", "segmentation_head")


@dataclass(frozen=True)
class Head:
    """The last layer of a model.

    Parameters:
        name (`str`): Its place in the model, for example `"classifier.out_proj"`.
        module (`nn.Module`): A `Linear` or a 1 x 1 convolution.
        in_features (`int`): D, width of what goes into it.
        num_labels (`int`): K, classes that it scores.
    """

    name: str
    module: nn.Module
    in_features: int
    num_labels: int

    @property
    def is_convolution(self) -> bool:
        """Whether it scores positions `(B, D, ...)` and not vectors `(..., D)`."""
        return isinstance(self.module, _CONVOLUTIONS)


def find_head(model: nn.Module) -> Head:
    """The classification head of a model.

    Searched outside the backbone first, among `Linear` layers and 1 x 1 convolutions with `config.num_labels` outputs;
    auxiliary heads do not count. Of several in one block the last one is the head.

    Args:
        model (`nn.Module`): For example any `AutoModelFor{Sequence,Token,Image}Classification`, or for segmentation.

    Raises:
        ValueError: If there is none, or several blocks have one (a model with two heads); names them.
    """
    config: Any = getattr(model, "config", None)
    wanted = getattr(config, "num_labels", None)
    prefix = getattr(model, "base_model_prefix", "") or ""
    found = {name: module for name, module in model.named_modules() if _is_head(name, module, wanted)}
    outside = {name: module for name, module in found.items() if not prefix or name.split(".")[0] != prefix}
    candidates = outside or dict(list(found.items())[-1:])
    blocks = {name.split(".")[0] for name in candidates}
    if len(blocks) > 1 and len(blocks & set(_USUAL)) == 1:  # a layer before the head has as many outputs by chance
        blocks &= set(_USUAL)
        candidates = {name: module for name, module in candidates.items() if name.split(".")[0] in blocks}
    if len(blocks) != 1:
        layers = ", ".join(candidates) or "none"
        raise ValueError(
            f"{type(model).__name__} must have one block with a layer of {wanted} outputs (`config.num_labels`); "
            f"found: {layers}. Load a model with one classification head, with `num_labels` set."
        )
    name, module = list(candidates.items())[-1]
    inputs = module.in_features if isinstance(module, nn.Linear) else module.in_channels
    return Head(name, module, int(inputs), int(wanted))  # type: ignore[arg-type]


def _is_head(name: str, module: nn.Module, wanted: int | None) -> bool:
    if wanted is None or "auxiliary" in name:
        return False
    if isinstance(module, nn.Linear):
        return module.out_features == wanted
    if not isinstance(module, _CONVOLUTIONS):
        return False
    return module.out_channels == wanted and module.groups == 1 and all(side == 1 for side in module.kernel_size)


def replace_head(model: nn.Module, module: nn.Module) -> nn.Module:
    """Put another module in the place of the head, in place. `nn.Identity()` makes the model return its features.

    Args:
        model (`nn.Module`): As in [`find_head`].
        module (`nn.Module`): Takes what the head takes: `(..., D)`, or `(B, D, ...)` for a convolution.

    Returns:
        `nn.Module`: The old head.

    Raises:
        ValueError: As [`find_head`].
    """
    head = find_head(model)
    return set_module(model, head.name, module)


def set_module(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Replace the module at a dotted place, in place. Returns the old one."""
    parent, _, last = name.rpartition(".")
    owner: Any = model.get_submodule(parent)
    old = owner[int(last)] if isinstance(owner, nn.Sequential) else getattr(owner, last)
    if isinstance(owner, nn.Sequential):
        owner[int(last)] = module
    else:
        setattr(owner, last, module)
    return old


def new_head(model: nn.Module, num_labels: int, std: float | None = None) -> nn.Module:
    """Give the model a fresh head for another number of classes, in place, and write the number into its config.

    Args:
        model (`nn.Module`): As in [`find_head`].
        num_labels (`int`): K.
        std (`float`, *optional*): Standard deviation of the weights; `config.initializer_range`, else 0.02. Biases
            are 0.

    Returns:
        `nn.Module`: The new head: of the old one's kind, device and type.

    Raises:
        ValueError: As [`find_head`], or `num_labels` below 1.
    """
    if num_labels < 1:
        raise ValueError(f"`num_labels` must be at least 1, got {num_labels}.")
    head = find_head(model)
    old: Any = head.module
    config: Any = model.config
    options = {"bias": old.bias is not None, "device": old.weight.device, "dtype": old.weight.dtype}
    if head.is_convolution:
        fresh: Any = type(old)(head.in_features, num_labels, 1, **options)
    else:
        fresh = nn.Linear(head.in_features, num_labels, **options)
    with torch.no_grad():
        fresh.weight.normal_(0.0, std if std is not None else getattr(config, "initializer_range", 0.02))
        if fresh.bias is not None:
            fresh.bias.zero_()
    set_module(model, head.name, fresh)
    config.num_labels = num_labels
    if hasattr(model, "num_labels"):
        model.num_labels = num_labels  # type: ignore[assignment]
    return fresh


class HeadInputs:
    """What went into the head in the last forward: `features`, with its gradient; `None` before the first."""

    features: Tensor | None = None

    def clear(self) -> None:
        """Forget them (and the graph that they hold)."""
        self.features = None


@contextmanager
def head_inputs(model: nn.Module) -> Iterator[HeadInputs]:
    """Read the features that the head receives while the block runs, without changing the model.

        with head_inputs(model) as seen:
            logits = model(**batch).logits
        seen.features  # (B, D)

    Raises:
        ValueError: As [`find_head`].
    """
    seen = HeadInputs()

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.features = args[0]

    handle = find_head(model).module.register_forward_pre_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()
