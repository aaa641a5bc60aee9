"""Gradient of a distribution over discrete prompts from losses of sampled prompts, without gradients of the model."""

from __future__ import annotations

import torch
from torch import Tensor

FORMS = ("logits", "score", "reference", "paper")


def variance_reduced_gradient(probs: Tensor, indices: Tensor, losses: Tensor, form: str = "logits") -> Tensor:
    """Policy gradient of the expected loss, mean loss as baseline: `1/(S-1) sum_k (L_k - mean L) d log P(z_k)`.

    With `G_ij = 1/(S-1) sum_k A_k 1[j = z_ki] / p_ij` (plain score form), the reference code is exactly `2 G`, the
    paper's form is `2 G` plus a constant for each row, which a projection on the simplex removes.

    Args:
        probs (`Tensor` of shape `(m, N)`): Token distribution of each position; rows sum to 1.
        indices (`Tensor` of shape `(S, m)`, integer): Sampled prompts.
        losses (`Tensor` of shape `(S,)`): Their losses.
        form (`str`, *optional*, defaults to `"logits"`): `"logits"` (gradient for the logits of a soft-max; bounded),
            `"score"`, `"reference"` or `"paper"` (for the probabilities).

    Returns:
        `Tensor` of shape `(m, N)`, with the type of `probs`. Unbiased for `"logits"` and `"score"`. Cost O(S m + m N).

    Raises:
        ValueError: If S < 2, a shape is another, or `form` is unknown.

    Source: Zhang et al. 2024, arXiv:2410.03124; Diao et al. 2023, arXiv:2201.08531, eq. 5 (`"paper"`); the released
    code of the latter gives every entry that was not selected its own `-1/p` (`"reference"`).
    """
    if form not in FORMS:
        raise ValueError(f"`form` must be one of {', '.join(FORMS)}, got {form!r}.")
    size = len(losses)
    if size < 2:
        raise ValueError(f"`losses` needs at least 2 sampled prompts for the mean as baseline, got {size}.")
    if probs.ndim != 2 or indices.shape != (size, probs.shape[0]):
        raise ValueError(
            f"`probs` must be (m, N) and `indices` (S, m), got {tuple(probs.shape)} and {tuple(indices.shape)} for "
            f"S={size} losses."
        )
    advantage = (losses.to(probs) - losses.to(probs).mean()) / (size - 1)
    summed = torch.zeros_like(probs)  # advantage of each token of each position, summed over the samples
    summed.scatter_add_(1, indices.T, advantage.expand(probs.shape[0], size))
    if form == "logits":
        return summed - probs * advantage.sum()
    if form in ("score", "reference"):  # the others' own -1/p of the reference adds to the rest: the sum is zero
        score = torch.where(summed == 0, torch.zeros_like(summed), summed / probs)
        return score if form == "score" else 2 * score
    chosen = probs.gather(1, indices.T)  # (m, S)
    shares = torch.where(chosen > 0, advantage / chosen, torch.zeros_like(chosen))
    own = torch.zeros_like(probs).scatter_add_(1, indices.T, shares)
    return 2 * own - shares.sum(dim=1, keepdim=True)


def project_simplex(values: Tensor, method: str = "sort") -> Tensor:
    """Each row moved to the nearest point of the probability simplex.

    Args:
        values (`Tensor` of shape `(m, N)`): Not changed.
        method (`str`, *optional*, defaults to `"sort"`): `"sort"` is exact. `"bisection"` repeats the released code of
            BDPL, for comparison only: rows sum to 1 within 1e-3, and a row whose positive part sums to less than 1
            stays below 1.

    Returns:
        `Tensor` of shape `(m, N)`: Rows sum to 1 (with `"sort"`). Cost O(m N log N).

    Raises:
        ValueError: For another method, a row without entries, or a value that is not finite.

    Source: Duchi et al. 2008, figure 1 (`"sort"`).
    """
    if method not in ("sort", "bisection"):
        raise ValueError(f"`method` must be 'sort' or 'bisection', got {method!r}.")
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"`values` must have shape (m, N) with N of at least 1, got {tuple(values.shape)}.")
    if not torch.isfinite(values).all():
        raise ValueError("`values` must be finite. A smaller learning rate keeps them so.")
    if method == "bisection":
        return torch.stack([_bisected(row) for row in values])
    ordered = values.sort(dim=1, descending=True).values
    over = ordered.cumsum(dim=1) - 1
    place = torch.arange(1, values.shape[1] + 1, device=values.device)
    kept = (ordered * place > over).sum(dim=1, keepdim=True)
    inside = (values - over.gather(1, kept - 1) / kept).clamp_min(0)
    return inside / inside.sum(dim=1, keepdim=True)


def _bisected(row: Tensor) -> Tensor:
    low, high = torch.zeros_like(row[0]), row.max()
    for _ in range(21):
        middle = (low + high) / 2
        rest = (row - middle).clamp(0, 1).sum() - 1
        if rest.abs() < 1e-3:
            break
        low, high = (low, middle) if rest < 0 else (middle, high)
    return (row - middle).clamp(0, 1)


def expected_loss(logits: Tensor, loss_table: Tensor) -> Tensor:
    """The exact objective `J = E_z[L(z)]` by going through all `N^m` prompts; differentiable in `logits`.

    Args:
        logits (`Tensor` of shape `(m, N)`): Of the soft-max of each position.
        loss_table (`Tensor` of shape `(N,) * m`): Loss of every prompt.

    Returns:
        `Tensor` of shape `()`. For tests and toy problems: memory O(N^m).

    Raises:
        ValueError: If the table has another shape.
    """
    length, size = logits.shape
    if tuple(loss_table.shape) != (size,) * length:
        raise ValueError(f"`loss_table` must have shape {(size,) * length}, got {tuple(loss_table.shape)}.")
    value = loss_table
    for row in logits.softmax(dim=1):
        value = torch.tensordot(row, value, dims=1)
    return value


def label_loss(log_probs: Tensor, labels: Tensor, kind: str = "ce", margin: float = 1.0) -> Tensor:
    """Mean loss of label posteriors under given labels.

    Args:
        log_probs (`Tensor` of shape `(..., B, C)`): Log-probabilities over the label words.
        labels (`Tensor` of shape `(B,)`, integer): Pseudo-labels.
        kind (`str`, *optional*, defaults to `"ce"`): `"ce"` or `"hinge"` = relu(margin - (l_y - max other)); the
            released code of BDPL has the sign of the latter reversed.
        margin (`float`, *optional*, defaults to 1.0): Of the hinge.

    Returns:
        `Tensor` of shape `(...)`: The mean over B.

    Raises:
        ValueError: For another kind.
    """
    if kind not in ("ce", "hinge"):
        raise ValueError(f"`kind` must be 'ce' or 'hinge', got {kind!r}.")
    chosen = labels.expand(log_probs.shape[:-1]).unsqueeze(-1)
    own = log_probs.gather(-1, chosen).squeeze(-1)
    if kind == "ce":
        return -own.mean(dim=-1)
    others = log_probs.scatter(-1, chosen, -torch.inf).max(dim=-1).values
    return torch.relu(margin - (own - others)).mean(dim=-1)
