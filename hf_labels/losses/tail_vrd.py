"""Response-based distillation: cross-entropy of the teacher's answer, the prompt masked, tokens weighted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def response_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    num_items: int | Tensor | None = None,
    shift: bool = True,
    ignore_index: int = -100,
) -> Tensor:
    """`-(1 / |y|) sum_t w_t log p(y_t | y_<t, image, instruction)` over the tokens of the answers.

    Args:
        logits (`Tensor` of shape `(B, T, V)`): Of a decoder.
        labels (`Tensor` of shape `(B, T)`): Token ids of the answer; `ignore_index` for the prompt and padding.
        weights (`Tensor` of shape `(B, T)`, *optional*): Not negative, at the places of the labels; 1 by default. They
            do not enter |y|: an unsure answer counts less in the whole.
        num_items (`int`, *optional*): |y|; by default the labelled tokens of this batch. `Trainer` gives that of all
            batches of a step.
        shift (`bool`, *optional*, defaults to `True`): Position t predicts label t + 1, as in decoder-only models. An
            encoder-decoder and a tagger predict label t.

    Returns:
        `Tensor` of shape `()`; 0, with a gradient path, where nothing is labelled.

    Raises:
        ValueError: If the shapes disagree.

    Source: Bhattacharyya and Tripathi, arXiv:2411.14957: the student learns the teacher's responses, not its logits.
    With weights of 1 it is the loss of transformers' models.
    """
    if labels.shape != logits.shape[:2] or (weights is not None and weights.shape != labels.shape):
        shown = [tuple(part.shape) for part in (logits, labels, weights) if part is not None]
        raise ValueError(f"Logits (B, T, V), labels and weights (B, T) are needed, got {shown}.")
    if shift:
        logits, labels = logits[:, :-1], labels[:, 1:]
        weights = None if weights is None else weights[:, 1:]
    each = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=ignore_index, reduction="none")
    if weights is not None:
        each = each * weights.to(each)
    size = labels.ne(ignore_index).sum() if num_items is None else torch.as_tensor(num_items, device=each.device)
    return each.sum() / size.clamp(min=1)
