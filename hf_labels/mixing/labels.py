"""Labels of mixed samples: two labels and a share, never a dense matrix until somebody asks for it."""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

IGNORE_INDEX = -100
LABELS_B = "mix_labels_b"
LAM = "mix_lam"
BATCH_FIELDS = (LABELS_B, LAM)  # what a mixing collator adds to a batch, besides `labels`
_TOLERANCE = 1e-6


@dataclass
class MixedLabels:
    """`lam` parts of `y_a` and `1 - lam` parts of `y_b`.

    Parameters:
        y_a, y_b (`Tensor` of shape `(B,)`, integer, or `(B, C)`, floating): Class ids (-100 = missing), or
            distributions. `lam` belongs to `y_a`.
        lam (`Tensor` of shape `(B,)`): In [0, 1].

    Raises:
        ValueError: If shapes disagree, or `lam` is NaN or outside [0, 1] by more than 1e-6. (Shares within 1e-6 are
            clamped.)
    """

    y_a: Tensor
    y_b: Tensor
    lam: Tensor

    def __post_init__(self) -> None:
        if self.y_a.shape != self.y_b.shape or self.is_soft != self.y_b.is_floating_point():
            raise ValueError(
                f"`y_a` and `y_b` must be of one kind and shape, got {_form(self.y_a)} and {_form(self.y_b)}."
            )
        if self.y_a.dim() != (2 if self.is_soft else 1):
            raise ValueError(f"`y_a` must be class ids (B,) or distributions (B, C), got {_form(self.y_a)}.")
        self.lam = torch.as_tensor(self.lam, device=self.y_a.device)
        if not self.lam.is_floating_point():
            self.lam = self.lam.float()
        if self.lam.shape != self.y_a.shape[:1]:
            raise ValueError(f"`lam` must have shape ({len(self)},), got {tuple(self.lam.shape)}.")
        inside = (self.lam >= -_TOLERANCE) & (self.lam <= 1 + _TOLERANCE)  # False for NaN
        if not inside.all():
            row = int((~inside).nonzero()[0])
            raise ValueError(f"`lam` must be in [0, 1], got {self.lam[row].item()} at row {row}.")
        self.lam = self.lam.clamp(0, 1)

    def __len__(self) -> int:
        return self.y_a.shape[0]

    @property
    def is_soft(self) -> bool:
        """Whether the labels are distributions."""
        return self.y_a.is_floating_point()

    def dense(self, num_classes: int, smoothing: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
        """The distributions `lam s(y_a) + (1 - lam) s(y_b)` with `s(v) = (1 - eps) v + eps / C`.

        Args:
            num_classes (`int`): C.
            smoothing (`float`, *optional*, defaults to 0.0): eps, in [0, 1].
            dtype (*optional*, defaults to `torch.float32`): Of the result.

        Returns:
            `Tensor` of shape `(B, C)`: Rows sum to 1; a row with a missing label is all zero.

        Raises:
            ValueError: If a class id is not in [0, C), or distributions have another width.
        """
        _check_smoothing(smoothing)
        a, b = (self._one_dense(name, num_classes, dtype) for name in ("y_a", "y_b"))
        share = self.lam.to(dtype)[:, None]
        mixed = (1 - smoothing) * (share * a + (1 - share) * b) + smoothing / num_classes
        return mixed.masked_fill(~self.known()[:, None], 0.0)

    def cross_entropy(
        self,
        logits: Tensor,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        weight: Tensor | None = None,
    ) -> Tensor:
        """`lam CE(y_a) + (1 - lam) CE(y_b)`, from one `log_softmax` and two gathers for class ids.

        Args:
            logits (`Tensor` of shape `(B, C)`): Unnormalised scores.
            reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over the rows whose labels are both known
                (divided by their number, not by a sum of weights), `"sum"`, or `"none"` (0 for the other rows).
            label_smoothing (`float`, *optional*, defaults to 0.0): eps; as smoothing the dense target.
            weight (`Tensor` of shape `(C,)`, *optional*): Factor of each class's term.

        Returns:
            `Tensor` of shape `()` or `(B,)`: 0 with a gradient path when no label is known.

        Raises:
            ValueError: If shapes disagree, a class id is not in [0, C), or `reduction` is unknown.
        """
        if logits.dim() != 2 or logits.shape[0] != len(self):
            raise ValueError(f"`logits` must have shape ({len(self)}, C), got {tuple(logits.shape)}.")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"`reduction` must be mean, sum or none, got {reduction!r}.")
        _check_smoothing(label_smoothing)
        wide = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
        log_p = torch.log_softmax(wide, dim=-1)
        if weight is not None:
            if weight.shape != logits.shape[1:]:
                raise ValueError(f"`weight` must have shape ({logits.shape[1]},), got {tuple(weight.shape)}.")
            log_p = log_p * weight.to(log_p)
        share = self.lam.to(log_p.dtype)
        terms = share * self._one_term("y_a", log_p) + (1 - share) * self._one_term("y_b", log_p)
        rows = -((1 - label_smoothing) * terms + (label_smoothing * log_p.mean(-1) if label_smoothing else 0.0))
        known = self.known()
        rows = rows.masked_fill(~known, 0.0)
        if reduction == "none":
            return rows
        return rows.sum() if reduction == "sum" else rows.sum() / known.sum().clamp_min(1)

    def known(self) -> Tensor:
        """Rows whose two labels are known; bool `(B,)`."""
        if self.is_soft:
            return torch.ones(len(self), dtype=torch.bool, device=self.y_a.device)
        return (self.y_a != IGNORE_INDEX) & (self.y_b != IGNORE_INDEX)

    def same(self) -> Tensor:
        """Rows with `y_a == y_b`; bool `(B,)`. For distributions: rows that are equal in all classes."""
        equal = self.y_a == self.y_b
        return equal.all(-1) if self.is_soft else equal

    def to(self, device: Any) -> "MixedLabels":
        """The same labels on another device."""
        return MixedLabels(self.y_a.to(device), self.y_b.to(device), self.lam.to(device))

    def select(self, index: Tensor) -> "MixedLabels":
        """The rows of a bool mask `(B,)` or of row numbers."""
        return MixedLabels(self.y_a[index], self.y_b[index], self.lam[index])

    @staticmethod
    def concat(parts: Sequence["MixedLabels"]) -> "MixedLabels":
        """One object from several, in order.

        Raises:
            ValueError: If there are none.
        """
        if not parts:
            raise ValueError("`concat` needs at least one MixedLabels.")
        return MixedLabels(*(torch.cat([getattr(part, name) for part in parts]) for name in ("y_a", "y_b", "lam")))

    # Crossing a Trainer: only tensors in a batch are moved to the device

    def as_batch_fields(self) -> dict[str, Tensor]:
        """Tensors for a batch: `labels` (y_a), `mix_labels_b`, `mix_lam`."""
        return {"labels": self.y_a, LABELS_B: self.y_b, LAM: self.lam}

    @classmethod
    def from_batch_fields(cls, batch: Mapping[str, Any]) -> "MixedLabels":
        """From a batch; one that was not mixed (evaluation) gives `lam = 1`.

        Raises:
            KeyError: If the batch has no `labels`, or only one of `mix_labels_b` and `mix_lam`.
        """
        if "labels" not in batch:
            raise KeyError(f"The batch has no `labels`. It has: {', '.join(batch) or 'nothing'}.")
        if (LABELS_B in batch) != (LAM in batch):
            raise KeyError(f"`{LABELS_B}` and `{LAM}` go together; the batch has only one of them.")
        labels = batch["labels"]
        if LAM not in batch:
            return cls(labels, labels, torch.ones(labels.shape[:1], device=labels.device))
        return cls(labels, batch[LABELS_B], batch[LAM])

    @classmethod
    def pop_from(cls, batch: MutableMapping[str, Any]) -> "MixedLabels":
        """[`from_batch_fields`], and remove the three fields from the batch before the model sees it."""
        labels = cls.from_batch_fields(batch)
        for name in ("labels", *BATCH_FIELDS):
            batch.pop(name, None)
        return labels

    def _one_dense(self, name: str, num_classes: int, dtype: torch.dtype) -> Tensor:
        labels = getattr(self, name)
        self._check_classes(name, labels, num_classes)
        if self.is_soft:
            return labels.to(dtype)
        return torch.nn.functional.one_hot(labels.clamp_min(0).long(), num_classes).to(dtype)

    def _one_term(self, name: str, log_p: Tensor) -> Tensor:
        """`sum_c y_c log p_c` of each row."""
        labels = getattr(self, name)
        self._check_classes(name, labels, log_p.shape[-1])
        if self.is_soft:
            return (labels.to(log_p.dtype) * log_p.masked_fill(labels == 0, 0.0)).sum(-1)
        return log_p.gather(-1, labels.clamp_min(0).long()[:, None])[:, 0]

    def _check_classes(self, name: str, labels: Tensor, num_classes: int) -> None:
        if self.is_soft:
            if labels.shape[1] != num_classes:
                raise ValueError(f"`{name}` holds {labels.shape[1]} classes per row, expected {num_classes}.")
            return
        wrong = ((labels < 0) & (labels != IGNORE_INDEX)) | (labels >= num_classes)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"`{name}` must be in [0, {num_classes}), got {int(labels[row])} at row {row}. Use {IGNORE_INDEX} for "
                "a missing label."
            )


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def _check_smoothing(smoothing: float) -> None:
    if not 0 <= smoothing <= 1:
        raise ValueError(f"Label smoothing must be in [0, 1], got {smoothing}.")
