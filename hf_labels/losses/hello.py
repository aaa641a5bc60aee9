"""HeLlO: logits of a low-rank label projector, the loss it learns with, and the loss that updates distilled images.

Source: Yu et al., Heavy Labels Out!, arXiv:2408.08201. No code was published: the equations are those of the paper as
public notes quote it; what they leave open is marked "ours".
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.losses.soft_targets import logit_mse


def projector_logits(
    image_embeds: Tensor,
    weight: Tensor,
    logit_scale: float | Tensor = 100.0,
    lora_a: Tensor | None = None,
    lora_b: Tensor | None = None,
    scaling: float = 1.0,
) -> Tensor:
    """`s * e/|e| (W + c B A)^T`; without A and B, and with normalised text embeddings as W, that is CLIP's zero-shot.

    Args:
        image_embeds (`Tensor` of shape `(B, d)`): Projected image features; normalised here.
        weight (`Tensor` of shape `(N, d)`): One row per class, used as it is: see [`text_head`].
        logit_scale (`float` or `Tensor` of shape `()`, *optional*, defaults to 100.0): s, after `exp`.
        lora_a (`Tensor` of shape `(r, d)`, *optional*), lora_b (`Tensor` of shape `(N, r)`, *optional*): The adapter.
        scaling (`float`, *optional*, defaults to 1.0): c = alpha / r.

    Returns:
        `Tensor` of shape `(B, N)`.

    Raises:
        ValueError: If the widths differ, or only one of A and B is given.

    Source: arXiv:2408.08201, section 3.2 (text initialisation, proposition 1; low-rank transfer).
    """
    if image_embeds.shape[-1] != weight.shape[-1]:
        raise ValueError(
            f"`image_embeds` have width {image_embeds.shape[-1]} and `weight` {weight.shape[-1]}: image and text must "
            "come from one CLIP."
        )
    if (lora_a is None) != (lora_b is None):
        raise ValueError("`lora_a` and `lora_b` go together: give both or neither.")
    features = F.normalize(image_embeds, dim=-1)
    logits = features @ weight.T
    if lora_a is not None and lora_b is not None:
        logits = logits + scaling * (features @ lora_a.T @ lora_b.T)
    return logit_scale * logits


def text_head(text_embeds: Tensor) -> Tensor:
    """Class vectors: text embeddings `(N, d)` divided by their norms."""
    return F.normalize(text_embeds, dim=-1)


def lora_floats(rank: int, *shapes: tuple[int, int]) -> int:
    """Numbers that adapters of one rank store: `r * (out + in)` for each adapted matrix `(out, in)`.

    Example:
        >>> lora_floats(64, (1000, 1024))
        129536
    """
    return sum(rank * (rows + columns) for rows, columns in shapes)


def projector_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, hard_label_weight: float = 1.0, center: bool = False
) -> Tensor:
    """`MSE(f(x), mean_j z_j) + lam * CE(f(x), y)`.

    Args:
        logits (`Tensor` of shape `(B, N)`): Of the projector.
        teacher_logits (`Tensor` of shape `(J, B, N)` or `(B, N)`): Of J weak teachers; averaged over J (ours).
        labels (`Tensor` of shape `(B,)`): Class ids; -100 does not count.
        hard_label_weight (`float`, *optional*, defaults to 1.0): lam.
        center (`bool`, *optional*, defaults to `False`): Take each row's mean off both sides first (ours).

    Returns:
        `Tensor` of shape `()`: Squared error averaged over rows and classes, cross-entropy over labelled rows.

    Raises:
        ValueError: If the shapes disagree.

    Source: arXiv:2408.08201, section 3.2.
    """
    target = teacher_logits.mean(0) if teacher_logits.dim() == logits.dim() + 1 else teacher_logits
    known = (labels != -100).sum().clamp_min(1)
    hard = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") / known
    return logit_mse(logits, target, center=center) + hard_label_weight * hard


def image_update_loss(features: Tensor, features_resampled: Tensor) -> Tensor:
    """Mean squared difference `(B, d)` between the features of patches and of those that were shrunk and enlarged.

    The first are the target: no gradient flows into them.

    Raises:
        ValueError: If the shapes differ.

    Source: arXiv:2408.08201, section 3.3.
    """
    if features.shape != features_resampled.shape:
        raise ValueError(
            f"Features must have one shape, got {tuple(features.shape)} and {tuple(features_resampled.shape)}."
        )
    return torch.mean((features_resampled - features.detach()).square())
