"""Losses against soft targets: dense or sparse probabilities, teacher logits, channel-wise maps.

All functions treat targets as constants (no gradient flows into them), work from `log_softmax`, upcast float16 and
bfloat16 to float32, and return 0 with a gradient path when no position counts.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["ce", "kl"]
Residual = Literal["smooth", "renorm", "none"]
Reduction = Literal["mean", "sum", "none"]


def soft_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    divergence: Divergence = "ce",
    targets_are_logits: bool = False,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    scale_by_temperature: bool = False,
    class_dim: int = -1,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy (or KL divergence) between target distributions and `softmax(logits / temperature)`.

    Args:
        logits (`Tensor` of shape `(..., K)`): Unnormalised scores; K stands at `class_dim`.
        targets (`Tensor`, shape of `logits`): Probabilities, or logits with `targets_are_logits`. Classes of
            probability 0 never contribute, not even where a logit is `-inf`.
        temperature (`float`, *optional*, defaults to `1.0`): Divides the logits; also the target logits.
        divergence (`str`, *optional*, defaults to `"ce"`): `"ce"` is `-sum_k q_k log p_k`; `"kl"` subtracts the
            entropy of the target. Both have the same gradient.
        targets_are_logits (`bool`, *optional*, defaults to `False`): Targets are `softmax(targets / temperature)`.
        mask (`Tensor` of shape `(...)`, bool, *optional*): Positions that count.
        weight (`Tensor` of shape `(...)`, *optional*): Factor of each position. The mean still divides by the *number*
            of positions that count, not by the sum of weights.
        scale_by_temperature (`bool`, *optional*, defaults to `False`): Multiply by `temperature ** 2` (distillation).
        class_dim (`int`, *optional*, defaults to `-1`): Dimension of the classes; 1 for maps `(B, K, H, W)`.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over positions that count, `"sum"`, or `"none"`.

    Returns:
        `Tensor`: Shape `()`, or `(...)` with `reduction="none"`; float32 for half-precision logits.

    Raises:
        ValueError: If shapes disagree, `temperature` is not positive, or an option is unknown.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0]])
        >>> round(soft_cross_entropy(logits, torch.tensor([[0.5, 0.5]])).item(), 4)
        1.1269

    Source: Wright and Augenstein, arXiv:2212.09409 (KL, mean over rows); Hinton et al., arXiv:1503.02531
    (temperature).
    """
    if logits.shape != targets.shape:
        raise ValueError(
            f"`logits` and `targets` must have one shape, got {tuple(logits.shape)} and {tuple(targets.shape)}. "
            f"The model has {logits.shape[class_dim]} classes, the targets have {targets.shape[class_dim]}."
        )
    _check_options(temperature, divergence, reduction)
    log_p = torch.log_softmax(_upcast(logits).movedim(class_dim, -1) / temperature, dim=-1)
    target = _upcast(targets.detach()).movedim(class_dim, -1).to(log_p.dtype)
    if targets_are_logits:
        target = torch.softmax(target / temperature, dim=-1)
    rows = -(target * log_p.masked_fill(target == 0, 0.0)).sum(-1)
    if divergence == "kl":
        rows = rows - torch.special.entr(target).sum(-1)
    return _reduce(rows, mask, weight, reduction, temperature**2 if scale_by_temperature else 1.0)


def sparse_soft_cross_entropy(
    logits: Tensor,
    ids: Tensor,
    values: Tensor,
    *,
    residual: Residual = "smooth",
    temperature: float = 1.0,
    divergence: Divergence = "ce",
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    scale_by_temperature: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """[`soft_cross_entropy`] against the k largest target probabilities. No target of K classes is built.

    With `L = log_softmax(logits / temperature)`, `s = sum_j v_j` and `r = (1 - s) / (K - k)`:
    `-(sum_j v_j L[c_j] + r (sum_c L_c - sum_j L[c_j]))` for `"smooth"`, `-(1/s) sum_j v_j L[c_j]` for `"renorm"`.

    Args:
        logits (`Tensor` of shape `(..., K)`): Unnormalised scores.
        ids (`Tensor` of shape `(..., k)`, integer): Distinct class ids in `[0, K)`; -1 pads rows with fewer than k.
        values (`Tensor` of shape `(..., k)`): Their probabilities. Values that sum to more than 1 (a lossy codec) are
            divided by their sum.
        residual (`str`, *optional*, defaults to `"smooth"`): Where the mass `1 - s` goes: `"smooth"` spreads it over
            the other classes, `"renorm"` divides the values by `s`, `"none"` drops it.
        temperature, divergence, mask, weight, scale_by_temperature, reduction: As in [`soft_cross_entropy`].

    Returns:
        `Tensor`: Shape `()`, or `(...)` with `reduction="none"`.

    Raises:
        ValueError: If shapes disagree, `k > K`, or an option is unknown.

    Cost: O(N K) time, memory of one `log_softmax` plus O(N k).
    Source: FKD (Shen and Xing, arXiv:2112.01528), "marginal smoothing" and "marginal re-norm" label recovery.
    """
    if ids.shape != values.shape or ids.shape[:-1] != logits.shape[:-1]:
        raise ValueError(
            f"`ids` and `values` must have shape (..., k) with the leading shape of `logits`, got "
            f"{tuple(ids.shape)}, {tuple(values.shape)} and {tuple(logits.shape)}."
        )
    if ids.shape[-1] > logits.shape[-1]:
        raise ValueError(f"k must be at most the number of classes, got k={ids.shape[-1]} and K={logits.shape[-1]}.")
    if residual not in ("smooth", "renorm", "none"):
        raise ValueError(f"`residual` must be smooth, renorm or none, got {residual!r}.")
    _check_options(temperature, divergence, reduction)
    log_p = torch.log_softmax(_upcast(logits) / temperature, dim=-1)
    known = ids >= 0
    value = torch.where(known, _upcast(values.detach()).to(log_p.dtype), 0.0)
    total = value.sum(-1, keepdim=True)
    value = value / (total.clamp_min(1e-12) if residual == "renorm" else total.clamp_min(1.0))
    chosen = log_p.gather(-1, ids.clamp_min(0).long()).masked_fill(~known, 0.0)
    rows = -(value * chosen.masked_fill(value == 0, 0.0)).sum(-1)
    others = logits.shape[-1] - known.sum(-1)
    rest = (1.0 - value.sum(-1)).clamp_min(0.0) if residual == "smooth" else torch.zeros_like(rows)
    rest = torch.where(others > 0, rest / others.clamp_min(1), 0.0)
    if residual == "smooth":
        rows = rows - rest * torch.where(rest > 0, log_p.sum(-1) - chosen.sum(-1), 0.0)
    if divergence == "kl":
        rows = rows - torch.special.entr(value).sum(-1) - others * torch.special.entr(rest)
    return _reduce(rows, mask, weight, reduction, temperature**2 if scale_by_temperature else 1.0)


def logit_mse(
    logits: Tensor,
    target_logits: Tensor,
    *,
    mask: Tensor | None = None,
    weight: Tensor | None = None,
    center: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared difference of logits, averaged over the K classes and over the positions that count.

    Args:
        logits, target_logits (`Tensor` of shape `(..., K)`): Student and teacher scores.
        mask, weight, reduction: As in [`soft_cross_entropy`].
        center (`bool`, *optional*, defaults to `False`): Subtract each row's mean from both sides first, so that a
            constant offset between teacher and student costs nothing.

    Returns:
        `Tensor`: Shape `()`, or `(...)` with `reduction="none"`.

    Raises:
        ValueError: If the shapes disagree or `reduction` is unknown.

    Source: HeLlO (online label projector): `MSE(h(x), f(x))` of student and projector logits.
    """
    if logits.shape != target_logits.shape:
        raise ValueError(
            f"`logits` and `target_logits` must have one shape, got {tuple(logits.shape)} and "
            f"{tuple(target_logits.shape)}."
        )
    _check_options(1.0, "ce", reduction)
    student = _upcast(logits)
    teacher = _upcast(target_logits.detach()).to(student.dtype)
    if center:
        student = student - student.mean(-1, keepdim=True)
        teacher = teacher - teacher.mean(-1, keepdim=True)
    return _reduce((student - teacher).square().mean(-1), mask, weight, reduction)


def channel_wise_distillation(
    logits: Tensor, target_logits: Tensor, temperature: float = 4.0, scale_by_temperature: bool = True
) -> Tensor:
    """CWD: KL divergence between the spatial distributions of each channel, mean over batch and channels.

    Args:
        logits, target_logits (`Tensor` of shape `(B, C, *spatial)`): Student and teacher maps of the same size.
        temperature (`float`, *optional*, defaults to `4.0`): Divides both before the softmax over positions.
        scale_by_temperature (`bool`, *optional*, defaults to `True`): Multiply by `temperature ** 2`.

    Returns:
        `Tensor` of shape `()`: `T^2 / (B C) sum_{b,c,i} t_i (log t_i - log s_i)`.

    Raises:
        ValueError: If the shapes disagree or there is no spatial dimension.

    Source: Shu et al., arXiv:2011.13256, eq. 5, as used by Label Assisted Distillation.
    """
    if logits.dim() < 3:
        raise ValueError(f"Channel-wise distillation needs maps of shape (B, C, *spatial), got {tuple(logits.shape)}.")
    if logits.shape != target_logits.shape:
        raise ValueError(
            f"Student and teacher maps must have one shape, got {tuple(logits.shape)} and "
            f"{tuple(target_logits.shape)}. Resize the teacher's map first."
        )
    return soft_cross_entropy(
        logits.flatten(2),
        target_logits.flatten(2),
        temperature=temperature,
        divergence="kl",
        targets_are_logits=True,
        scale_by_temperature=scale_by_temperature,
    )


@dataclass(frozen=True)
class SoftTargets:
    """Targets of one batch in exactly one of three forms.

    Parameters:
        probs (`Tensor` of shape `(..., K)`, *optional*): Probabilities.
        logits (`Tensor` of shape `(..., K)`, *optional*): Teacher logits; the temperature applies to them too.
        ids, values (`Tensor` of shape `(..., k)`, *optional*): Sparse form of [`sparse_soft_cross_entropy`].
        residual (`str`, *optional*, defaults to `"smooth"`): Residual rule of the sparse form.
        mask (`Tensor` of shape `(...)`, bool, *optional*): Positions that count.
        weight (`Tensor` of shape `(...)`, *optional*): Factor of each position.
        center (`bool`, *optional*, defaults to `False`): For the loss `mse`: without each row's mean, see
            [`logit_mse`].

    Raises:
        ValueError: If none or several forms are given, or `ids` comes without `values`.
    """

    probs: Tensor | None = None
    logits: Tensor | None = None
    ids: Tensor | None = None
    values: Tensor | None = None
    residual: Residual = "smooth"
    mask: Tensor | None = None
    weight: Tensor | None = None
    center: bool = False

    def __post_init__(self) -> None:
        if (self.ids is None) != (self.values is None):
            raise ValueError("`ids` and `values` go together: give both or neither.")
        given = [name for name in ("probs", "logits", "ids") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"Give exactly one of `probs`, `logits` and `ids` with `values`, got {given or 'none'}.")

    @property
    def shape(self) -> torch.Size:
        """Shape `(...)` of the positions, without the classes."""
        given = next(t for t in (self.probs, self.logits, self.ids) if t is not None)
        return given.shape[:-1]

    def count(self) -> Tensor | int:
        """Number of positions that count: an int without a mask, else a tensor of shape `()`."""
        return self.shape.numel() if self.mask is None else self.mask.sum()

    def loss(
        self,
        logits: Tensor,
        kind: Literal["ce", "kl", "mse"] = "ce",
        temperature: float = 1.0,
        scale_by_temperature: bool = False,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """Loss of `logits` (..., K) against these targets.

        Raises:
            ValueError: If `kind="mse"` and the targets are not logits, or shapes disagree.
        """
        if kind == "mse":
            if self.logits is None:
                raise ValueError(
                    "The loss `mse` compares logits with logits, but the targets are probabilities. "
                    "Use `kl` or `ce`, or a label source that returns logits."
                )
            return logit_mse(
                logits, self.logits, mask=self.mask, weight=self.weight, center=self.center, reduction=reduction
            )
        if self.ids is not None and self.values is not None:
            return sparse_soft_cross_entropy(
                logits,
                self.ids,
                self.values,
                residual=self.residual,
                temperature=temperature,
                divergence=kind,
                mask=self.mask,
                weight=self.weight,
                scale_by_temperature=scale_by_temperature,
                reduction=reduction,
            )
        dense = self.probs if self.probs is not None else self.logits
        assert dense is not None  # for the type checker: __post_init__ guarantees one form
        return soft_cross_entropy(
            logits,
            dense,
            temperature=temperature,
            divergence=kind,
            targets_are_logits=self.probs is None,
            mask=self.mask,
            weight=self.weight,
            scale_by_temperature=scale_by_temperature,
            reduction=reduction,
        )


def _upcast(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _check_options(temperature: float, divergence: str, reduction: str) -> None:
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive, got {temperature}.")
    if divergence not in ("ce", "kl"):
        raise ValueError(f"`divergence` must be ce or kl, got {divergence!r}.")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"`reduction` must be mean, sum or none, got {reduction!r}.")


def _reduce(rows: Tensor, mask: Tensor | None, weight: Tensor | None, reduction: str, scale: float = 1.0) -> Tensor:
    for name, given in (("mask", mask), ("weight", weight)):
        if given is not None and given.shape != rows.shape:
            raise ValueError(f"`{name}` must have shape {tuple(rows.shape)}, got {tuple(given.shape)}.")
    if scale != 1.0:
        rows = rows * scale
    if weight is not None:
        rows = rows * weight.detach().to(rows.dtype)
    if mask is not None:
        rows = rows.masked_fill(~mask.bool(), 0.0)
    if reduction == "none":
        return rows
    if reduction == "sum":
        return rows.sum()
    count = rows.numel() if mask is None else mask.bool().sum()
    return rows.sum() / (max(count, 1) if isinstance(count, int) else count.clamp_min(1))
