"""Teachers: networks that give targets, never gradients, and are never part of the pushed model."""

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hf_labels._compat import forget_model

logger = logging.getLogger(__name__)


def model_logits(output: Any) -> Tensor:
    """Logits of a model's answer: its field `logits`, its first entry, or the tensor itself."""
    if torch.is_tensor(output):
        return output
    if isinstance(output, Mapping):
        if "logits" not in output:
            raise KeyError(f"The teacher's output has no `logits`, only: {', '.join(output)}.")
        return output["logits"]
    return output[0]


def _place(model: nn.Module, accelerator: Any) -> nn.Module:
    """On the device, with the run's mixed precision, without gradients or wrappers of training."""
    model = accelerator.prepare_model(model, evaluation_mode=True)
    forget_model(accelerator, model)
    return model


class FrozenTeacher(nn.Module):
    """A network that only answers: eval mode, no gradient, no entry in any `state_dict` or optimizer.

    Because its weights are hidden from `state_dict`, it may be part of a model or of `method_state` without being
    saved: it is loaded again from where it came from.

    Args:
        model (`nn.Module`): The teacher. Switched to eval mode and frozen: do not pass the model that is trained.
        input_prefix (`str`, *optional*): Take only inputs with this prefix and drop the prefix, for a teacher with its
            own tokenizer or image size: `"teacher_"` feeds `teacher_input_ids` as `input_ids`. Without it, the teacher
            gets those inputs that its `forward` names.

    Example:
        >>> import torch
        >>> teacher = FrozenTeacher(torch.nn.Linear(2, 3))
        >>> teacher.train().model.training, list(teacher.parameters()), teacher.state_dict()
        (False, [], OrderedDict())
    """

    model: nn.Module

    def __init__(self, model: nn.Module, input_prefix: str | None = None) -> None:
        super().__init__()
        object.__setattr__(self, "model", model.eval().requires_grad_(False))  # not registered as a sub-module
        self.input_prefix = input_prefix
        self._names = _forward_names(model)

    def place(self, accelerator: Any) -> "FrozenTeacher":
        """Move to this process's device, with its mixed precision. Returns itself."""
        object.__setattr__(self, "model", _place(self.model, accelerator))
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "FrozenTeacher":
        self.model._apply(fn, recurse)  # `.to()` of a parent moves the hidden model too
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(self, *args: Any, **inputs: Any) -> Any:
        """The teacher's own output."""
        if self.model.training:
            self.model.eval()
        return self.model(*args, **inputs)

    def logits(self, inputs: Mapping[str, Any]) -> Tensor:
        """Logits for a batch; inputs that are not the teacher's (labels, `index`, ...) are left out.

        Raises:
            ValueError: If no input is left.
        """
        if self.input_prefix:
            start = len(self.input_prefix)
            mine = {name[start:]: value for name, value in inputs.items() if name.startswith(self.input_prefix)}
        else:
            hidden = ("labels", "label", "label_ids")
            mine = {n: v for n, v in inputs.items() if n not in hidden and (not self._names or n in self._names)}
        if not mine:
            wanted = f"{self.input_prefix}*" if self.input_prefix else ", ".join(self._names)
            raise ValueError(f"The batch has no input for the teacher. It has: {', '.join(inputs)}; wanted: {wanted}.")
        return model_logits(self(**mine))


class EMATeacher(nn.Module):
    """A moving average of the trained model: `teacher <- d * teacher + (1 - d) * student` after each optimizer step.

    Put it into `LabelTrainer.method_state`: the trainer then updates it, places it, and saves and restores it with
    every checkpoint; the pushed weights stay the student's. Parameters that are frozen in the student are shared with
    it, not copied, and not saved.

    Args:
        model (`nn.Module`): The student; copied as it is now.
        decay (`float` or callable, *optional*, defaults to `0.999`): d, in [0, 1], or a function of the optimizer step
            (1 after the first).
        warmup (`bool`, *optional*, defaults to `False`): Use `min(d, 1 - 1 / (t + 1))` at the t-th update.
        buffers (`str`, *optional*, defaults to `"copy"`): Buffers (batch-norm statistics) are copied, averaged
            (`"average"`; integers are copied), or left as they were (`"keep"`).
        start_step (`int`, *optional*, defaults to `0`): Until this optimizer step the teacher copies the student.

    Raises:
        ValueError: If an option is out of range, or a parameter that was frozen when the teacher was made trains now.

    Source: Tarvainen and Valpola, Mean Teacher, arXiv:1703.01780, section 2 and their code (warm-up).
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float | Callable[[int], float] = 0.999,
        warmup: bool = False,
        buffers: Literal["copy", "average", "keep"] = "copy",
        start_step: int = 0,
    ) -> None:
        super().__init__()
        if not callable(decay) and not 0 <= decay <= 1:
            raise ValueError(f"`decay` must be in [0, 1], got {decay}.")
        if buffers not in ("copy", "average", "keep"):
            raise ValueError(f"`buffers` must be copy, average or keep, got {buffers!r}.")
        frozen = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
        self.model = copy.deepcopy(model, dict(frozen)).eval()
        self.decay = decay
        self.warmup = warmup
        self.buffers_mode = buffers
        self.start_step = start_step
        self._shared = {name for name, parameter in self.model.named_parameters() if id(parameter) in frozen}
        own = [p for name, p in self.model.named_parameters() if name not in self._shared]
        for parameter in own:
            parameter.requires_grad_(False)
        if any(parameter.dtype in (torch.bfloat16, torch.float16) for parameter in own):
            logger.warning(
                "The moving average of half-precision weights loses small updates. Load the student in float32 and "
                "train with `bf16=True`."
            )
        self.register_state_dict_post_hook(_drop_shared)

    def train(self, mode: bool = True) -> "EMATeacher":
        """Stays in eval mode."""
        return super().train(False)

    def place(self, accelerator: Any) -> "EMATeacher":
        """Move to this process's device, with its mixed precision. Returns itself."""
        self.model = _place(self.model, accelerator)
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **inputs: Any) -> Any:
        """The teacher's own output."""
        return self.model(*args, **inputs)

    def decay_at(self, step: int) -> float:
        """d of the update after optimizer step `step` (1 = first); 0 until `start_step`."""
        done = step - self.start_step
        if done <= 0:
            return 0.0
        decay = float(self.decay(step)) if callable(self.decay) else self.decay
        return min(decay, 1 - 1 / (done + 1)) if self.warmup else decay

    def after_step(self, model: nn.Module, step: int) -> None:
        """Called by [`LabelTrainer`] after every optimizer step."""
        self.update(model, self.decay_at(step))

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float) -> None:
        """One update towards `model`."""
        student = dict(model.named_parameters())
        thawed = sorted(name for name in self._shared if student[name].requires_grad)
        if thawed:
            raise ValueError(
                f"`{thawed[0]}` was frozen when the EMATeacher was made and is trained now. "
                "Make the teacher after the layers are unfrozen."
            )
        names = [name for name, _ in self.model.named_parameters() if name not in self._shared]
        mine = dict(self.model.named_parameters())
        average = get_ema_multi_avg_fn(decay)
        average([mine[name] for name in names], [student[name].detach() for name in names], None)
        if self.buffers_mode == "keep":
            return
        theirs = dict(model.named_buffers())
        for name, buffer in self.model.named_buffers():
            if self.buffers_mode == "average" and buffer.is_floating_point():
                buffer.lerp_(theirs[name].to(buffer), 1 - decay)
            else:
                buffer.copy_(theirs[name])

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Write the averaged weights into a model of the same shape, to evaluate or to save them."""
        model.load_state_dict(self.model.state_dict())


def _drop_shared(module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: Any) -> None:
    assert isinstance(module, EMATeacher)
    for name in module._shared:
        state.pop(f"{prefix}model.{name}", None)


def _forward_names(model: Any) -> tuple[str, ...]:
    """Names that `forward` takes; empty when it takes any."""
    import inspect

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    parameters = inspect.signature(base.forward).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return tuple(named)
