"""What each layer of a decoder does: gradient norms by depth, angular distance, and the price of leaving it out.

The three measurements of Li, Yin and Liu 2024 (Mix-LN, arXiv:2412.13795, sections 2 and 5), for any model of
`transformers` whose layers are in one `ModuleList` of length `config.num_hidden_layers`.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

logger = logging.getLogger(__name__)


def find_layers(model: nn.Module) -> nn.ModuleList:
    """The layers of a decoder or encoder, the one next to the input first.

    Args:
        model (`nn.Module`): A model of `transformers`, plain or wrapped (DistributedDataParallel, peft).

    Raises:
        ValueError: If it has no `ModuleList` of length `config.num_hidden_layers`.
    """
    return _find_parent(model)[2]


def _text_config(model: Any) -> Any:
    config = getattr(getattr(model, "module", model), "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        raise ValueError(f"`{type(model).__name__}` has no config of `transformers`: its layers cannot be found.")
    return config.get_text_config()


def _find_parent(model: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    number = getattr(_text_config(model), "num_hidden_layers", None)
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == number:
                return parent, name, child
    raise ValueError(f"`{type(model).__name__}` has no ModuleList with {number} layers (`num_hidden_layers`).")


def gradient_norms(model: nn.Module) -> list[float]:
    """L2 norm of the gradients of each layer: `sqrt(sum over its parameters of ||grad||^2)`.

    Args:
        model (`nn.Module`): After a backward pass. Gradients that are sharded over processes (FSDP, ZeRO 3) give the
            norm of the local part only.

    Returns:
        `list[float]`: One norm per layer; 0 for a layer without gradients. Cost O(parameters), one synchronisation.
    """
    norms = []
    for layer in find_layers(model):
        grads = [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]
        if grads:
            parts = torch._foreach_norm([grad.float() if grad.dtype.itemsize < 4 else grad for grad in grads])
            norms.append(torch.stack([part.double() for part in parts]).norm())
        else:
            norms.append(torch.zeros((), dtype=torch.float64))
    device = next((norm.device for norm in norms if norm.device.type != "cpu"), torch.device("cpu"))
    return torch.stack([norm.to(device) for norm in norms]).tolist()


class GradientNormCallback(TrainerCallback):
    """Logs the gradient norm of each layer while a stock `Trainer` trains.

    At the first step and at every step that is logged, `grad_norm/layer_{i}` and `grad_norm/last_over_first` go into
    the log of that step (`trainer.state.log_history`, saved with each checkpoint). All measurements are in `history`.

    The gradients are those that the optimizer is about to use: accumulated, averaged over processes, and *clipped*.
    Clipping scales all layers alike, so shape and ratio stay; set `max_grad_norm=0` to see the true size.

    Args:
        every_steps (`int`, *optional*): Measure every so many optimizer steps. `None`: `logging_steps`.

    Attributes:
        history (`list[dict]`): `{"step": int, "norms": list[float]}` per measurement, in order; `step` counts from 1.

    Raises:
        ValueError: If `every_steps` is under 1.
    """

    def __init__(self, every_steps: int | None = None):
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"`every_steps` must be at least 1 or None, got {every_steps}.")
        self.every_steps = every_steps
        self.history: list[dict[str, Any]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Gradients are there now; at `on_step_end` they would be gone."""
        step = state.global_step + 1
        every = self.every_steps or max(1, int(state.logging_steps or args.logging_steps))
        if step == 1 or step % every == 0:
            self.history.append({"step": step, "norms": gradient_norms(model)})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add what was measured in this step to the training log."""
        if not logs or "loss" not in logs or not self.history or self.history[-1]["step"] != state.global_step:
            return
        norms = self.history[-1]["norms"]
        values = {f"grad_norm/layer_{i}": norm for i, norm in enumerate(norms)}
        values["grad_norm/last_over_first"] = last_over_first(norms)
        logs.update(values)
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(values)

    def plot(self, path: str | os.PathLike[str], steps: Sequence[int] | None = None) -> None:
        """Draw `history` with [`plot_gradient_norms`]: one line per measured step (`steps`: only these)."""
        kept = {f"step {m['step']}": m["norms"] for m in self.history if steps is None or m["step"] in steps}
        plot_gradient_norms(kept, path)


def last_over_first(norms: Sequence[float]) -> float:
    """Gradient norm of the last layer divided by that of the first; NaN when the first has none."""
    return norms[-1] / norms[0] if norms[0] else math.nan


def plot_gradient_norms(
    profiles: Mapping[str, Sequence[float]], path: str | os.PathLike[str], title: str = "Gradient norm by depth"
) -> None:
    """Write a picture of gradient norms against the index of the layer, on a logarithmic scale.

    Args:
        profiles (`Mapping[str, Sequence[float]]`): Label of a line -> one norm per layer (zeros are left out).
        path: File to write; the ending gives the format.
        title (`str`, *optional*): Above the picture.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not profiles:
        raise ValueError("There are no gradient norms to draw.")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for label, norms in profiles.items():
        axes.plot(range(len(norms)), [norm if norm > 0 else math.nan for norm in norms], marker="o", ms=3, label=label)
    axes.set(xlabel="layer (0 is next to the input)", ylabel="L2 norm of the gradient", yscale="log", title=title)
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=120)


def angular_distance(h_in: Tensor, h_out: Tensor) -> Tensor:
    """Angle between two hidden states, per token, as a share of a half turn: `arccos(cos(h_in, h_out)) / pi`.

    Args:
        h_in (`Tensor` of shape `(..., D)`): States that enter a layer, or a run of layers.
        h_out (`Tensor` of shape `(..., D)`): States that leave it.

    Returns:
        `Tensor` of shape `(...)`: In `[0, 1]`, at least float32. A state of length 0 has no angle; its cosine counts
        as 0.5, as in the authors' code.

    Raises:
        ValueError: If the shapes differ.

    Source: Mix-LN, section 2, after Gromov et al. 2024, arXiv:2403.17887, equation 7.
    """
    return torch.arccos(_cosine(h_in, h_out)) / math.pi


def block_influence(h_in: Tensor, h_out: Tensor) -> Tensor:
    """`1 - cos(h_in, h_out)` per token: how much a layer turns its input. Arguments as in [`angular_distance`]."""
    return 1 - _cosine(h_in, h_out)


def _cosine(h_in: Tensor, h_out: Tensor) -> Tensor:
    if h_in.shape != h_out.shape:
        raise ValueError(f"`h_in` and `h_out` must have one shape, got {tuple(h_in.shape)} and {tuple(h_out.shape)}.")
    if h_in.dtype.itemsize < 4 or not h_in.is_floating_point():
        h_in, h_out = h_in.float(), h_out.float()
    cosine = (h_in * h_out).sum(-1) / (h_in.norm(dim=-1) * h_out.norm(dim=-1))
    return cosine.nan_to_num(nan=0.5).clamp(-1, 1)


@contextmanager
def _recorded(layers: nn.ModuleList) -> Any:
    states: list[Tensor] = []

    def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if module is layers[0]:
            states.append(args[0] if args else kwargs["hidden_states"])
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep, with_kwargs=True) for layer in layers]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def layer_states(model: nn.Module, **inputs: Any) -> tuple[list[Tensor], Any]:
    """Hidden states between the layers in one forward pass.

    Unlike `output_hidden_states=True`, the last one is what the last layer gives, before the final norm.

    Args:
        model (`nn.Module`): See [`find_layers`].
        inputs: Arguments of its `forward`.

    Returns:
        `tuple`: L + 1 tensors of shape `(B, T, D)`, the input of layer 0 first; and the output of the model.
    """
    with _recorded(find_layers(model)) as states:
        output = model(**inputs)
    return states, output


@torch.no_grad()
def layer_angles(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> list[float]:
    """Mean angular distance between input and output of each layer; small means that the layer does little.

    Args:
        model (`nn.Module`): Is put in evaluation mode for the time.
        batches (iterable of mappings): Arguments of `forward`; padding (`attention_mask` 0) does not count.

    Returns:
        `list[float]`: One mean over all tokens per layer, in `[0, 1]`.

    Raises:
        ValueError: If there is no token.
    """
    training = model.training
    model.eval()
    total, tokens = torch.zeros(len(find_layers(model)), dtype=torch.float64), 0
    try:
        for batch in batches:
            states, _ = layer_states(model, **batch)
            mask = batch.get("attention_mask")
            keep = torch.ones(states[0].shape[:-1], dtype=torch.bool) if mask is None else mask.bool().cpu()
            pairs = zip(states[:-1], states[1:], strict=True)
            total += torch.stack([angular_distance(a, b).cpu().double()[keep].sum() for a, b in pairs])
            tokens += int(keep.sum())
    finally:
        model.train(training)
    if not tokens:
        raise ValueError("`batches` holds no token to measure.")
    return (total / tokens).tolist()


@dataclass(frozen=True)
class LayerDropReport:
    """What [`layer_drop_report`] found.

    Parameters:
        baseline (`float`): The metric of the whole model.
        values (`tuple[float, ...]`): The metric without layer l, for each l.
    """

    baseline: float
    values: tuple[float, ...]

    @property
    def changes(self) -> tuple[float, ...]:
        """`values` minus `baseline`."""
        return tuple(value - self.baseline for value in self.values)


def layer_drop_report(model: nn.Module, eval_fn: Callable[[Any], float]) -> LayerDropReport:
    """Leave out each layer in turn and measure.

    The model that `eval_fn` gets is `model` itself with one layer fewer: `config.num_hidden_layers` and the cache
    index of each layer fit, so that `generate` works. Everything is put back, also after an error.

    Args:
        model (`nn.Module`): See [`find_layers`]. Needs at least two layers.
        eval_fn (`Callable`): Takes the model and gives a number. Cost: L + 1 calls.

    Raises:
        ValueError: If the model has a single layer.
    """
    parent, name, layers = _find_parent(model)
    if len(layers) < 2:
        raise ValueError("`layer_drop_report` needs a model with at least two layers.")
    config = _text_config(model)
    types = getattr(config, "layer_types", None)
    indexed = [[m for m in layer.modules() if isinstance(getattr(m, "layer_idx", None), int)] for layer in layers]
    baseline, values = float(eval_fn(model)), []
    try:
        for left_out in range(len(layers)):
            kept = [i for i in range(len(layers)) if i != left_out]
            setattr(parent, name, nn.ModuleList(layers[i] for i in kept))
            config.num_hidden_layers = len(kept)
            if types is not None:
                config.layer_types = [types[i] for i in kept]
            for place, i in enumerate(kept):
                for module in indexed[i]:
                    module.layer_idx = place  # type: ignore[assignment]
            values.append(float(eval_fn(model)))
    finally:
        setattr(parent, name, layers)
        config.num_hidden_layers = len(layers)
        if types is not None:
            config.layer_types = types
        for place, modules in enumerate(indexed):
            for module in modules:
                module.layer_idx = place  # type: ignore[assignment]
    return LayerDropReport(baseline, tuple(values))
