"""Keep the best weights of a run by a score, as method state: a resumed run selects what a straight one selects."""

import torch
from torch import Tensor, nn


class BestWeights(nn.Module):
    """The trainable parameters at their best score so far. A module of buffers, for `LabelTrainer.method_state`.

    Parameters:
        model (`nn.Module`): Its parameters with `requires_grad` are kept; small ones are meant (heads, prompts).
    """

    score: Tensor
    epochs_since: Tensor

    def __init__(self, model: nn.Module):
        super().__init__()
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        for i, name in enumerate(self.names):
            self.register_buffer(f"weight_{i}", model.get_parameter(name).detach().clone())
        self.register_buffer("score", torch.tensor([-torch.inf, -torch.inf], dtype=torch.float64))
        self.register_buffer("epochs_since", torch.tensor(0))

    def offer(self, model: nn.Module, score: tuple[float, float]) -> None:
        """Take the weights of `model` if `score` is higher (first number, then second)."""
        if score > tuple(self.score.tolist()):
            self.score.copy_(torch.tensor(score, dtype=torch.float64))
            self.epochs_since.zero_()
            for i, name in enumerate(self.names):
                self.get_buffer(f"weight_{i}").copy_(model.get_parameter(name).detach())
        else:
            self.epochs_since += 1

    @torch.no_grad()
    def put_back(self, model: nn.Module) -> None:
        """Write the best weights into `model`."""
        for i, name in enumerate(self.names):
            model.get_parameter(name).copy_(self.get_buffer(f"weight_{i}"))
