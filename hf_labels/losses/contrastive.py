"""Pairwise contrastive kit: cosines, masks of pairs, and sums of exponentials over chosen pairs."""

import torch
from torch import Tensor
from torch.nn import functional as F


def cosine_matrix(one: Tensor, two: Tensor | None = None, eps: float = 1e-12) -> Tensor:
    """Cosines of all pairs of rows.

    Args:
        one (`Tensor` of shape `(n, d)`), two (`Tensor` of shape `(m, d)`, *optional*): `two` is `one` by default.
        eps (`float`, *optional*): Smallest length that counts; a row of zeros has cosine 0 with all.

    Returns:
        `Tensor` of shape `(n, m)`, in float32 or float64.
    """
    one = F.normalize(_wide(one), dim=-1, eps=eps)
    return one @ (one if two is None else F.normalize(_wide(two), dim=-1, eps=eps)).T


def same_label(one: Tensor, two: Tensor | None = None) -> Tensor:
    """Which pairs have one label, `(n, m)` bool; a pair of a row with itself counts."""
    return one[:, None] == (one if two is None else two)[None]


def off_diagonal(size: int, device: torch.device | None = None) -> Tensor:
    """All pairs but those of a row with itself, `(n, n)` bool."""
    return ~torch.eye(size, dtype=torch.bool, device=device)


def log_one_plus_sum_exp(values: Tensor, mask: Tensor) -> Tensor:
    """`log(1 + sum exp(values))` over the pairs of each row that `mask` keeps; 0 for a row without any.

    Args:
        values (`Tensor` of shape `(n, m)`): Exponents.
        mask (`Tensor` of shape `(n, m)`, bool): Pairs that count.

    Returns:
        `Tensor` of shape `(n,)`.
    """
    kept = values.masked_fill(~mask, float("-inf"))
    return torch.cat([kept.new_zeros(len(kept), 1), kept], dim=1).logsumexp(1)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
