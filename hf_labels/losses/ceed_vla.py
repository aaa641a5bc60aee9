"""Consistency distillation of a decoder: any guess of a block must predict what the fixed point predicts."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.labels.kinds import IGNORE_INDEX
from hf_labels.losses.soft_targets import soft_cross_entropy


def consistency_mask(
    guess: Tensor, fixed: Tensor, pad_token_id: int | None = None, valid: Tensor | None = None
) -> Tensor:
    """Tokens at which guess and fixed point can be predicted differently: from the one after the first difference on.

    The logits that predict token t see the tokens before t. They are equal until the first difference d, and the token
    d itself is predicted from an equal prefix too; the published code counts it, so it is in the mask.

    Args:
        guess (`LongTensor` of shape `(B, T)`): An iterate y^(j), or prompt and iterate.
        fixed (`LongTensor` of shape `(B, T)`): The fixed point y*, with the same prompt.
        pad_token_id (`int`, *optional*): Guessed tokens with this id do not count.
        valid (`Tensor` of shape `(B, T)`, bool, *optional*): Tokens that exist.

    Returns:
        `Tensor` of shape `(B, T)`, bool: True at t when the prediction of token t counts (logits at t - 1). All False
        for a row without a difference.

    Raises:
        ValueError: If the shapes disagree.

    Example:
        >>> consistency_mask(torch.tensor([[5, 9, 7, 9]]), torch.tensor([[5, 6, 7, 8]])).tolist()
        [[False, True, True, True]]

    Source: code of Consistency LLM (arXiv:2403.00835), `get_jacobian_trajectory` and the training step.
    """
    if guess.shape != fixed.shape:
        raise ValueError(
            f"`guess` and `fixed` must have one shape, got {tuple(guess.shape)} and {tuple(fixed.shape)}."
        )
    differs = guess != fixed
    mask = (differs if valid is None else differs & valid).cumsum(dim=1) > 0
    if pad_token_id is not None:
        mask = mask & (guess != pad_token_id)
    return mask if valid is None else mask & valid


def consistency_loss(
    logits: Tensor,
    target_logits: Tensor,
    mask: Tensor,
    divergence: Literal["ce", "kl"] = "ce",
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Cross-entropy of the prediction on a guess against the prediction on the fixed point, which is a constant.

    Args:
        logits (`Tensor` of shape `(B, T, V)`): Logits on the guess, with gradient.
        target_logits (`Tensor` of shape `(B, T, V)`): Logits on the fixed point; no gradient flows into them.
        mask (`Tensor` of shape `(B, T)`, bool): Positions that count (M in the paper).
        divergence (`str`, *optional*, defaults to `"ce"`): `"kl"` subtracts the entropy of the target: 0 when both
            predictions agree. The gradients are equal.
        reduction (`str`, *optional*, defaults to `"mean"`): Over all positions that count in the batch, or `"sum"`.

    Returns:
        `Tensor` of shape `()`, float32 or float64: 0 with a gradient path when no position counts.

    Raises:
        ValueError: If shapes disagree or an option is unknown.

    Source: CEED-VLA, consistency loss; Consistency LLM, `soft_cross_entropy`.
    """
    return soft_cross_entropy(
        logits, target_logits, divergence=divergence, targets_are_logits=True, mask=mask, reduction=reduction
    )


def anchor_loss(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Cross-entropy with the target tokens: the autoregressive anchor.

    Args:
        logits (`Tensor` of shape `(B, T, V)`): Row t predicts `labels[:, t]`: already shifted.
        labels (`LongTensor` of shape `(B, T)`): Token ids; -100 does not count.
        label_smoothing (`float`, *optional*, defaults to `0.0`): Weight of the uniform distribution, in [0, 1).
        reduction (`str`, *optional*, defaults to `"mean"`): Over the tokens that count, or `"sum"`.

    Returns:
        `Tensor` of shape `()`: 0 with a gradient path when no token counts.

    Raises:
        ValueError: If the shapes disagree.

    Source: CEED-VLA, AR loss; with `label_smoothing=0.1` on the whole sequence that of Consistency LLM.
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"`logits` {tuple(logits.shape)} and `labels` {tuple(labels.shape)} do not fit together.")
    flat = logits.flatten(0, -2)
    total = F.cross_entropy(
        flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat,
        labels.flatten(),
        ignore_index=IGNORE_INDEX,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total if reduction == "sum" else total / (labels != IGNORE_INDEX).sum().clamp_min(1)


def token_distance(teacher: Tensor, ground_truth: Tensor) -> Tensor:
    """Share of ground-truth tokens that the teacher does not have, per row.

    Args:
        teacher, ground_truth (`LongTensor` of shape `(B, n)`): Tokens; positions where the ground truth is -100 do not
            count.

    Returns:
        `Tensor` of shape `(B,)`: In [0, 1]; infinite for a row without ground truth.
    """
    known = ground_truth != IGNORE_INDEX
    wrong = ((teacher != ground_truth) & known).sum(dim=1).double()
    return torch.where(known.any(dim=1), wrong / known.sum(dim=1).clamp_min(1), torch.inf)


def decoded_distance(decode_labels: Callable[[Tensor], Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """A distance for [`mixed_labels`]: mean absolute difference of the decoded tokens, in their unit.

    Args:
        decode_labels (`Callable`): Token ids `(m,)` to numbers `(m,)`, for example of an [`ActionBinner`].
    """

    def distance(teacher: Tensor, ground_truth: Tensor) -> Tensor:
        known = ground_truth != IGNORE_INDEX
        gap = torch.zeros(teacher.shape, dtype=torch.float64)
        if bool(known.any()):
            pairs = [torch.as_tensor(decode_labels(ids[known].cpu())).double() for ids in (teacher, ground_truth)]
            gap[known.cpu()] = (pairs[0] - pairs[1]).abs()
        gap = gap.to(teacher.device)
        return torch.where(known.any(dim=1), gap.sum(dim=1) / known.sum(dim=1).clamp_min(1), torch.inf)

    return distance


def mixed_labels(
    teacher: Tensor,
    ground_truth: Tensor | None,
    max_distance: float,
    distance: Callable[[Tensor, Tensor], Tensor] = token_distance,
) -> tuple[Tensor, Tensor]:
    """The teacher's own tokens where they are close to the ground truth, else the ground truth; row by row.

    Args:
        teacher (`LongTensor` of shape `(B, n)`): The teacher's decode y*.
        ground_truth (`LongTensor` of shape `(B, n)`, *optional*): -100 = no token. Not needed when `max_distance` is
            infinite.
        max_distance (`float`): delta_max. Infinite: always the teacher; below 0: never.
        distance (*optional*): `(teacher, ground_truth) -> (B,)`; the share of different tokens, or
            [`decoded_distance`].

    Returns:
        `tuple`: Targets `(B, n)`, and `(B,)` bool, True where they are the teacher's.

    Raises:
        ValueError: If the ground truth is missing or of another shape.

    Example:
        >>> teacher, truth = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2], [5, 6]])
        >>> mixed_labels(teacher, truth, max_distance=0.5)[0].tolist()
        [[1, 2], [5, 6]]

    Source: CEED-VLA (arXiv:2506.13725), mixed-label supervision. What is measured, and the number, are not published.
    """
    if max_distance == float("inf"):
        return teacher, torch.ones(len(teacher), dtype=torch.bool, device=teacher.device)
    if ground_truth is None:
        raise ValueError("`ground_truth` is needed unless `max_distance` is infinite (teacher labels only).")
    if ground_truth.shape != teacher.shape:
        shapes = tuple(teacher.shape), tuple(ground_truth.shape)
        raise ValueError(f"`teacher` and `ground_truth` must have one shape, got {shapes[0]} and {shapes[1]}.")
    if max_distance < 0:
        return ground_truth, torch.zeros(len(teacher), dtype=torch.bool, device=teacher.device)
    near = distance(teacher, ground_truth) <= max_distance
    return torch.where(near.unsqueeze(1), teacher, ground_truth), near
