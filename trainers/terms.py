"""Named parts of a loss: averaged between two logs as the loss itself is, over all processes."""

from typing import Any

import torch
from torch import Tensor

# Keys that Trainer writes itself.
_TAKEN = frozenset({"loss", "epoch", "step", "grad_norm", "learning_rate"})


class TermLog:
    """Weighted sums of named scalars, kept on their device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, float]] = {}

    def add(self, terms: dict[str, float | Tensor], weight: float) -> None:
        """Add one batch.

        Raises:
            ValueError: If a name is one of Trainer's own, or a value is not a scalar.
        """
        for name, value in terms.items():
            if name in _TAKEN:
                raise ValueError(f"A loss term cannot be called `{name}`: Trainer logs that itself.")
            number = torch.as_tensor(value).detach()
            if number.numel() != 1:
                raise ValueError(f"Loss term `{name}` must be one number, got shape {tuple(number.shape)}.")
            number = number.reshape(()).double() if number.device.type == "cpu" else number.reshape(()).float()
            total, weights = self._sums.get(name, (torch.zeros_like(number), 0.0))
            self._sums[name] = (total + weight * number, weights + weight)

    def pop(self, accelerator: Any) -> dict[str, float]:
        """Averages since the last call, over all processes; a term that only some processes had counts there."""
        mine = {name: (total.item(), weight) for name, (total, weight) in self._sums.items()}
        self._sums = {}
        if accelerator.num_processes == 1:
            parts = [mine]
        else:
            from accelerate.utils import gather_object

            parts = gather_object([mine])
        names = list(dict.fromkeys(name for part in parts for name in part))
        averages = {}
        for name in names:
            found = [part[name] for part in parts if name in part]
            weight = sum(w for _, w in found)
            averages[name] = sum(total for total, _ in found) / weight if weight else float("nan")
        return averages
