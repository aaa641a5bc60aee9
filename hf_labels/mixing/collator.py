"""Mixing in a data collator: on the CPU, before the model, for training batches only."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hf_labels.mixing.ops import mixup
from hf_labels.mixing.sampler import MixSampler


class MixCollator:
    """A collator whose training batches are mixed.

    | in the batch of `collator` | in the batch |
    | --- | --- |
    | `pixel_values` (or another `key`) | mixed |
    | `labels`, class ids (B,) | `labels` (y_a), `mix_labels_b` (y_b), `mix_lam` (B,): [`MixedLabels.pop_from`] |
    | `labels`, floating (values or multi-label) | `lam y_a + (1 - lam) y_b` |
    | `soft_labels` (B, K) | `lam t_a + (1 - lam) t_b` |

    Every [`LabelTrainer`] evaluates with `evaluation_collator`, the wrapped one: evaluation is never mixed. With the
    plain `Trainer` override `get_eval_dataloader`, since it has one collator for both.

    Args:
        collator (callable): Makes a batch of tensors from rows.
        sampler ([`MixSampler`], *optional*): Defaults to `MixSampler(1.0, kind="both", seed="torch")`.
        key (`str`, *optional*, defaults to `"pixel_values"`): Input that is mixed.
        epochs (`int`, *optional*): Mix only in so many first epochs. A `LabelTrainer` tells the epoch.

    Raises:
        KeyError: If a batch has no `key`.
        ValueError: If a batch has sparse soft labels, whose mixture is not sparse.
        TypeError: If `key` holds integers.
    """

    def __init__(
        self,
        collator: Callable[[Sequence[Any]], dict[str, Any]],
        sampler: MixSampler | None = None,
        key: str = "pixel_values",
        epochs: int | None = None,
    ) -> None:
        self.collator = collator
        self.sampler = MixSampler(1.0, kind="both", seed="torch") if sampler is None else sampler
        self.key = key
        self.epochs = epochs
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers see it change

    @property
    def evaluation_collator(self) -> Callable[[Sequence[Any]], dict[str, Any]]:
        """The collator for evaluation."""
        return getattr(self.collator, "evaluation_collator", self.collator)

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns that the wrapped collator reads besides the model's inputs."""
        return tuple(getattr(self.collator, "input_columns", ()))

    @property
    def store(self) -> Any:
        """The soft-label store of the wrapped collator, if it has one."""
        return getattr(self.collator, "store", None)

    def set_epoch(self, epoch: int) -> None:
        """Told by the trainer at the start of each epoch."""
        self._epoch.fill_(epoch)
        if hasattr(self.collator, "set_epoch"):
            self.collator.set_epoch(epoch)

    def __call__(self, features: Sequence[Any]) -> dict[str, Any]:
        batch = self.collator(features)
        if self.epochs is not None and int(self._epoch) >= self.epochs:
            return batch
        if self.key not in batch:
            raise KeyError(f"The batch has no `{self.key}` to mix. It has: {', '.join(batch)}. Pass `key=...`.")
        if "soft_label_ids" in batch:
            raise ValueError(
                "Sparse soft labels cannot be mixed in a batch: their mixture is not sparse. Let the collator give "
                "`soft_labels`, for a store with `SoftLabelCollator(dense=True)`."
            )
        x = batch[self.key]
        size = (x.shape[-2], x.shape[-1]) if x.dim() == 4 else None
        plan = self.sampler.draw(x.shape[0], size)
        batch[self.key] = plan.apply(x)
        labels = batch.get("labels")
        if labels is not None and labels.is_floating_point():
            batch["labels"] = mixup(labels, plan.perm, plan.lam)
        elif labels is not None:
            batch.update(plan.labels(labels).as_batch_fields())
        if "soft_labels" in batch:
            batch["soft_labels"] = mixup(batch["soft_labels"], plan.perm, plan.lam)
        return batch
