"""The loss of an entailment model: two classes out of a head of any number of classes."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hf_labels.labels.kinds import IGNORE_INDEX


def entailment_margin(logits: Tensor, entailment_id: int = 0) -> Tensor:
    """Log odds of entailment: its logit minus the `logsumexp` of all others.

    Args:
        logits (`Tensor` of shape `(..., C)`): At least two classes; float16 and bfloat16 are computed in float32.
        entailment_id (`int`, *optional*, defaults to 0): Which class is entailment, in `[0, C)`.

    Returns:
        `Tensor` of shape `(...)`: Above 0 means entailed. The sigmoid of it is the softmax over all classes at
        entailment; with two classes it is the difference of the two logits.

    Raises:
        ValueError: Fewer than two classes, or an id outside them.
    """
    classes = logits.shape[-1] if logits.dim() else 0
    if classes < 2:
        raise ValueError(f"`logits` must have shape (..., C) with at least two classes, got {tuple(logits.shape)}.")
    if not 0 <= entailment_id < classes:
        raise ValueError(f"`entailment_id` must be in [0, {classes}), got {entailment_id}.")
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    others = [i for i in range(classes) if i != entailment_id]
    return logits[..., entailment_id] - logits[..., others].logsumexp(-1)


def entailment_loss(
    logits: Tensor, labels: Tensor, entailment_id: int = 0, reduction: str = "mean", ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Cross-entropy of entailment against everything else.

    With a head of two classes this is plain cross-entropy (the reference). A head of an NLI model (entailment,
    neutral, contradiction) is trained on the same pairs: neutral and contradiction together are "not entailment", as
    in the reference's conversion of the NLI data to two classes.

    Args:
        logits (`Tensor` of shape `(B, C)`): At least two classes.
        labels (`Tensor` of shape `(B,)`, integer): 0 = entailment, 1 = not, whatever `entailment_id` is.
        entailment_id (`int`, *optional*, defaults to 0): Which class of the head is entailment.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over the labelled pairs, `"sum"` or `"none"`.
        ignore_index (`int`, *optional*, defaults to `-100`): Pairs with this label do not count.

    Returns:
        `Tensor` of shape `()`, or `(B,)` for `"none"`; 0 (with a gradient path) when no pair is labelled.

    Raises:
        ValueError: Another label, another reduction, or shapes that disagree.

    Source: Yin, Hay and Roth, EMNLP 2019, section 5; plain cross-entropy in their `train_*.py`.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"`logits` must be (B, C) and `labels` (B,), got {tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"`reduction` must be 'mean', 'sum' or 'none', got {reduction!r}.")
    known = labels != ignore_index
    if bool((known & (labels != 0) & (labels != 1)).any()):
        raise ValueError("`labels` of pairs must be 0 (entailment), 1 (not entailment) or the ignored one.")
    margin = entailment_margin(logits, entailment_id)
    loss = -logsigmoid(torch.where(labels == 0, margin, -margin)) * known
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / known.sum().clamp_min(1)
