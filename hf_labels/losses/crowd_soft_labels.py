"""Losses for soft labels of a crowd.

Source: Wright and Augenstein, arXiv:2212.09409, section 3.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.losses.soft_targets import soft_cross_entropy


def soft_label_loss(
    logits: Tensor,
    soft_labels: Tensor,
    divergence: Literal["ce", "kl"] = "kl",
    class_weights: Tensor | None = None,
) -> Tensor:
    """Mean over the batch of KL(soft || softmax(logits)), or of the cross-entropy, which has the same gradient.

    Args:
        logits, soft_labels (`Tensor` of shape `(B, K)`): Scores and target distributions.
        divergence (`str`, *optional*, defaults to `"kl"`): The paper's.
        class_weights (`Tensor` of shape `(K,)`, *optional*): Each row counts as much as its most probable label; the
            mean still divides by B.
    """
    weight = None if class_weights is None else class_weights[soft_labels.argmax(-1)]
    return soft_cross_entropy(logits, soft_labels, divergence=divergence, weight=weight)


def multi_task_loss(hard_logits: Tensor, soft_logits: Tensor, labels: Tensor, soft_labels: Tensor) -> Tensor:
    """Cross-entropy of one head with the majority label plus KL of another head with the soft label.

    Args:
        hard_logits, soft_logits (`Tensor` of shape `(B, K)`): Of the two heads.
        labels (`Tensor` of shape `(B,)`): Class ids; -100 does not count.
        soft_labels (`Tensor` of shape `(B, K)`): Target distributions.
    """
    hard = F.cross_entropy(hard_logits.float() if hard_logits.dtype == torch.half else hard_logits, labels)
    return hard + soft_label_loss(soft_logits, soft_labels)
