"""CrossTune: the label-attention head as tensor functions, its loss, and the filters for generated texts.

Source: Luo et al. 2024, arXiv:2403.12468. No code is public and the text itself was not available: the formulas follow
secondary descriptions; what those leave open is marked "our choice".
"""

import math

import torch
from torch import Tensor


def masked_max(hidden: Tensor, mask: Tensor) -> Tensor:
    """Label vectors: element-wise maximum over the real tokens of each description.

    Args:
        hidden (`Tensor` of shape `(C, T, D)`): Hidden states of C descriptions.
        mask (`Tensor` of shape `(C, T)`, integer or bool): 1 = real token, 0 = padding.

    Returns:
        `Tensor` of shape `(C, D)`, in the dtype of `hidden`.

    Raises:
        ValueError: If the shapes disagree, or a row of `mask` holds no real token.
    """
    _check_hidden(hidden, mask)
    return hidden.masked_fill(~mask.bool().unsqueeze(-1), -torch.inf).amax(1)


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real tokens. Shapes and errors as in [`masked_max`]; sums in float32 at least."""
    _check_hidden(hidden, mask)
    weights = mask.to(_wide(hidden)).unsqueeze(-1)
    return ((hidden * weights).sum(1) / weights.sum(1)).to(hidden.dtype)


def scale_features(features: Tensor) -> Tensor:
    """Give every row the length `sqrt(D)`, so that one coordinate has mean square 1 (our choice).

    Args:
        features (`Tensor` of shape `(..., D)`): Rows of any length; a zero row stays zero.

    Returns:
        `Tensor` of shape `(..., D)`: New tensor, same direction.
    """
    return torch.nn.functional.normalize(features, dim=-1) * math.sqrt(features.shape[-1])


def head_log_probs(queries: Tensor, keys: Tensor, num_heads: int, average: bool = True) -> Tensor:
    """Log-probability of each label: the attention weight of a text on the labels, averaged over heads.

    Per head `j`, with `d = D / num_heads`: `a_j = softmax_c(q_j . k_jc / sqrt(d))`; `p = mean_j a_j`. In log space
    that is the log-mean-exp over heads of the per-head log-softmax, which never takes the logarithm of a rounded zero.

    Args:
        queries (`Tensor` of shape `(B, D)`): Projected text features, `W_q v + b_q`.
        keys (`Tensor` of shape `(C, D)`): Projected label vectors, `W_k l + b_k`.
        num_heads (`int`): Number of heads; must divide D.
        average (`bool`, *optional*, defaults to `True`): `False` gives the heads one by one.

    Returns:
        `Tensor` of shape `(B, C)`: `log p`, rows log-sum-exp to 0; `(num_heads, B, C)` with `average=False`.
        float16 and bfloat16 inputs give float32.

    Raises:
        ValueError: If `num_heads` does not divide D, or the widths of `queries` and `keys` differ.
    """
    if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"`queries` (B, D) and `keys` (C, D) must share D, got {tuple(queries.shape)} and {tuple(keys.shape)}."
        )
    check_num_heads(num_heads, queries.shape[1])
    width = queries.shape[1] // num_heads
    query_heads = queries.view(len(queries), num_heads, width).transpose(0, 1)
    key_heads = keys.view(len(keys), num_heads, width).permute(1, 2, 0)
    scores = torch.matmul(query_heads, key_heads).to(_wide(queries)) / math.sqrt(width)
    per_head = torch.log_softmax(scores, dim=-1)
    if not average:
        return per_head
    return torch.logsumexp(per_head, dim=0) - math.log(num_heads)


def check_num_heads(num_heads: int, hidden_size: int) -> None:
    """Raise `ValueError` with both numbers unless `num_heads` is at least 1 and divides `hidden_size`."""
    if num_heads < 1 or hidden_size % num_heads:
        fits = [h for h in (1, 2, 4, 6, 8, 12, 16) if hidden_size % h == 0]
        raise ValueError(
            f"`num_heads` must divide the hidden size, got num_heads={num_heads} and hidden_size={hidden_size}. "
            f"These divide it: {', '.join(map(str, fits))}."
        )


def crosstune_loss(
    log_probs: Tensor,
    labels: Tensor,
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Mean negative log-probability of the gold label.

    Inputs: `log_probs` (B, C) | `labels` (B,) with -100 | `sample_weight` (B,) or none.

    Args:
        log_probs (`Tensor` of shape `(B, C)`): From [`head_log_probs`].
        labels (`Tensor` of shape `(B,)`, integer): Class ids in `[0, C)`, or `ignore_index`.
        sample_weight (`Tensor` of shape `(B,)`, *optional*): Factor of each row. The sum is divided by the number of
            labelled rows, not by the sum of the weights, so that accumulated batches of one size average exactly.
        ignore_index (`int`, *optional*, defaults to `-100`): Rows with this label do not count.
        reduction (`str`, *optional*, defaults to `"mean"`): `"sum"` leaves out the division.

    Returns:
        `Tensor` of shape `()`: The loss in nats; 0 with a gradient path when no row is labelled.

    Raises:
        ValueError: If the shapes disagree, or (checked on CPU only, to spare a synchronisation) a label is outside
            `[0, C)`.
    """
    if log_probs.ndim != 2 or labels.shape != log_probs.shape[:1]:
        raise ValueError(
            f"`log_probs` (B, C) and `labels` (B,) disagree: got {tuple(log_probs.shape)} and {tuple(labels.shape)}."
        )
    if reduction not in ("mean", "sum"):
        raise ValueError(f"`reduction` must be 'mean' or 'sum', got {reduction!r}.")
    if sample_weight is not None and sample_weight.shape != labels.shape:
        raise ValueError(f"`sample_weight` must have shape {tuple(labels.shape)}, got {tuple(sample_weight.shape)}.")
    known = labels != ignore_index
    if labels.device.type == "cpu":
        bad = torch.nonzero(known & ((labels < 0) | (labels >= log_probs.shape[1]))).flatten()
        if len(bad):
            row = int(bad[0])
            raise ValueError(
                f"`labels` must be in [0, {log_probs.shape[1]}), got {int(labels[row])} at row {row}. "
                f"Use {ignore_index} for a row without a label."
            )
    picked = log_probs.gather(1, labels.masked_fill(~known, 0).long().unsqueeze(1)).squeeze(1)
    weights = known.to(picked.dtype)
    if sample_weight is not None:
        weights = weights * sample_weight.to(picked.dtype)
    total = -(picked * weights).sum()
    return total if reduction == "sum" else total / known.sum().clamp(min=1)


def agree(teacher_probs: Tensor, intended: Tensor) -> Tensor:
    """Indices of the generated texts whose teacher label is the label they were written for.

    Args:
        teacher_probs (`Tensor` of shape `(N, C)`): Teacher probabilities.
        intended (`Tensor` of shape `(N,)`, integer): Label that each text was written for.

    Returns:
        `Tensor` of shape `(M,)`, int64: Kept rows, ascending. Ties of the teacher go to the lower class.

    Raises:
        ValueError: If the shapes disagree or a label is outside `[0, C)`.
    """
    _check_teacher(teacher_probs, intended)
    if not len(intended):
        return torch.empty(0, dtype=torch.long)
    # `argmax` promises no order among equals; the first maximum is asked for by name.
    best = (teacher_probs == teacher_probs.amax(1, keepdim=True)).int().argmax(1)
    return torch.nonzero(best == intended).flatten()


def agree_confident(teacher_probs: Tensor, intended: Tensor, min_prob: float) -> Tensor:
    """Rows of [`agree`] whose teacher probability of the intended label is at least `min_prob` (in `[0, 1]`)."""
    if not 0 <= min_prob <= 1:
        raise ValueError(f"`min_prob` must be in [0, 1], got {min_prob}.")
    kept = agree(teacher_probs, intended)
    return kept[teacher_probs[kept, intended[kept].long()] >= min_prob]


def top_k(teacher_probs: Tensor, intended: Tensor, k: int, min_prob: float = 0.0) -> Tensor:
    """The `k` most confident rows of [`agree_confident`] per intended class; ties go to the lower row.

    Args:
        teacher_probs (`Tensor` of shape `(N, C)`): Teacher probabilities.
        intended (`Tensor` of shape `(N,)`, integer): Label that each text was written for.
        k (`int`): At most so many rows per class; at least 0.
        min_prob (`float`, *optional*, defaults to `0.0`): Least probability of the intended label.

    Returns:
        `Tensor` of shape `(M,)`, int64: Kept rows, ascending.
    """
    if k < 0:
        raise ValueError(f"`k` must be at least 0, got {k}.")
    kept = agree_confident(teacher_probs, intended, min_prob)
    chosen = []
    for label in torch.unique(intended[kept]).tolist():
        rows = kept[intended[kept] == label]
        order = torch.sort(teacher_probs[rows, label], descending=True, stable=True).indices
        chosen.append(rows[order[:k]])
    return torch.sort(torch.cat(chosen)).values if chosen else kept


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _check_hidden(hidden: Tensor, mask: Tensor) -> None:
    if hidden.ndim != 3 or mask.shape != hidden.shape[:2]:
        raise ValueError(
            f"`hidden` (C, T, D) and `mask` (C, T) disagree: got {tuple(hidden.shape)} and {tuple(mask.shape)}."
        )
    empty = torch.nonzero(~mask.bool().any(1)).flatten().tolist()
    if empty:
        raise ValueError(f"`mask` has no real token in row {empty[0]}. Give that text at least one token.")


def _check_teacher(teacher_probs: Tensor, intended: Tensor) -> None:
    if teacher_probs.ndim != 2 or intended.shape != teacher_probs.shape[:1]:
        raise ValueError(
            "`teacher_probs` (N, C) and `intended` (N,) disagree: got "
            f"{tuple(teacher_probs.shape)} and {tuple(intended.shape)}."
        )
    if len(intended) and not (0 <= int(intended.min()) and int(intended.max()) < teacher_probs.shape[1]):
        raise ValueError(f"`intended` must be in [0, {teacher_probs.shape[1]}), got {intended.tolist()}.")
