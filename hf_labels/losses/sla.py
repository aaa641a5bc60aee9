"""Self-supervised label augmentation (SLA): joint labels of class and transformation.

With N classes and M transformations `t_0 .. t_{M-1}` (`t_0` is the identity), an image x of class y gives M rows
`t_j(x)` with the labels `y * M + j`. Rows are sample-major (row `i * M + j` is `t_j(x_i)`), columns class-major
(column `c * M + j` is class c under transformation j).

Source: Lee, Hwang and Shin, ICML 2020, PMLR 119:5714-5724; orders and reductions as in the authors' code
(`hankook/SLA`).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.labels.checks import IGNORE_INDEX
from hf_labels.losses.soft_targets import Reduction, soft_cross_entropy

Transformation = Callable[[Tensor], Tensor]

_RGB, _HALF, _FULL = (0, 1, 2), (0, 2), (0, 1, 2, 3)
_CYCLES = (_RGB, (1, 2, 0), (2, 0, 1))
_ORDERS = (_RGB, (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))

# Name -> (quarter turns counter-clockwise, order of the channels) of t_0, t_1, ...
TRANSFORMS: dict[str, tuple[tuple[int, tuple[int, int, int]], ...]] = {
    "identity": ((0, _RGB),),
    "rotation": tuple((turns, _RGB) for turns in _FULL),
    "rotation2": tuple((turns, _RGB) for turns in _HALF),
    "color_perm": tuple((0, order) for order in _ORDERS),
    "color_perm3": tuple((0, order) for order in _CYCLES),
    "rot_color_perm6": tuple((turns, order) for turns in _HALF for order in _CYCLES),
    "rot_color_perm12": tuple((turns, order) for turns in _FULL for order in _CYCLES),
    "rot_color_perm24": tuple((turns, order) for turns in _FULL for order in _ORDERS),
}


def num_transformations(transform: str | Sequence[Transformation]) -> int:
    """M of a named set of transformations, or of a list of functions.

    Raises:
        ValueError: If the name is unknown or the list is empty.
    """
    if not isinstance(transform, str):
        if not len(transform):
            raise ValueError("`transform` is an empty list. Give at least the identity.")
        return len(transform)
    if transform not in TRANSFORMS:
        raise ValueError(f"`transform` must be one of {', '.join(TRANSFORMS)}, got {transform!r}.")
    return len(TRANSFORMS[transform])


def transform_images(images: Tensor, transform: str | Sequence[Transformation]) -> Tensor:
    """All transformations of all images, on their device.

    Args:
        images (`Tensor` of shape `(B, C, H, W)`): With functions, any `(B, ...)`.
        transform (`str` or list of functions): Key of [`TRANSFORMS`], or M functions from a batch to a batch of equal
            shape, the first of which is the identity.

    Returns:
        `Tensor` of shape `(B * M, C, H, W)`: Sample-major: row `i * M + j` is `t_j(images[i])`.

    Raises:
        ValueError: An empty batch, images that are not square (rotation) or have not three channels (colour
            permutation), an unknown name, a first function that is not the identity, or one that changes the shape.
    """
    if not len(images):
        raise ValueError("The batch is empty: `images` has 0 rows.")
    views = _named_views(images, transform) if isinstance(transform, str) else _own_views(images, transform)
    return torch.stack(views, dim=1).flatten(0, 1)


def _named_views(images: Tensor, transform: str) -> list[Tensor]:
    num_transformations(transform)  # an unknown name
    steps, shape = TRANSFORMS[transform], tuple(images.shape)
    if images.dim() != 4:
        raise ValueError(f"`images` must have shape (B, C, H, W), got {shape}.")
    if any(turns % 2 for turns, _ in steps) and shape[2] != shape[3]:
        raise ValueError(
            f"`{transform}` needs square images, got {shape[2]} x {shape[3]} in shape {shape}. Crop or resize them, "
            "or use `rotation2` or `color_perm`."
        )
    if any(order != _RGB for _, order in steps) and shape[1] != 3:
        raise ValueError(
            f"`{transform}` permutes 3 colour channels, got {shape[1]} in shape {shape}. Use `rotation` for them."
        )
    return [_turn(images if order == _RGB else images[:, list(order)], turns) for turns, order in steps]


def _turn(images: Tensor, turns: int) -> Tensor:
    return torch.rot90(images, turns, (2, 3)) if turns else images


def _own_views(images: Tensor, functions: Sequence[Transformation]) -> list[Tensor]:
    num_transformations(functions)
    views = [function(images) for function in functions]
    for number, view in enumerate(views):
        if view.shape != images.shape:
            raise ValueError(
                f"Transformation {number} turns shape {tuple(images.shape)} into {tuple(view.shape)}; it must keep it."
            )
    if not torch.equal(views[0].nan_to_num(), images.nan_to_num()):
        raise ValueError("Transformation 0 must be the identity: the labels of single inference belong to it.")
    return views


def joint_labels(labels: Tensor, num_transformations: int) -> Tensor:
    """Label `y * M + j` for each transformed row.

    Args:
        labels (`Tensor` of shape `(B,)`, integer): Class ids; -100 stays -100.
        num_transformations (`int`): M.

    Returns:
        `Tensor` of shape `(B * M,)`, int64: Sample-major.
    """
    joint = labels.long()[:, None] * num_transformations + torch.arange(num_transformations, device=labels.device)
    return joint.masked_fill((labels == IGNORE_INDEX)[:, None], IGNORE_INDEX).flatten()


def single_logits(joint_logits: Tensor, num_transformations: int) -> Tensor:
    """Single inference: the columns of the identity, `joint_logits[:, 0::M]`, for untransformed images.

    Args:
        joint_logits (`Tensor` of shape `(B, N * M)`): Of the images as they are.
        num_transformations (`int`): M.

    Returns:
        `Tensor` of shape `(B, N)`.

    Raises:
        ValueError: If the columns are no multiple of M.
    """
    _classes(joint_logits, num_transformations)
    return joint_logits[:, ::num_transformations]


def aggregate_logits(joint_logits: Tensor, num_transformations: int) -> Tensor:
    """Aggregated inference: `a_c = (1/M) sum_j z_j[c * M + j]`, a mean of logits, not of probabilities.

    Args:
        joint_logits (`Tensor` of shape `(B * M, N * M)`): Sample-major, of all transformations.
        num_transformations (`int`): M.

    Returns:
        `Tensor` of shape `(B, N)`.

    Raises:
        ValueError: If rows or columns are no multiple of M.
    """
    classes, number = _classes(joint_logits, num_transformations), num_transformations
    if len(joint_logits) % number:
        raise ValueError(f"`joint_logits` must have a multiple of {number} rows, got {len(joint_logits)}.")
    return joint_logits.reshape(-1, number, classes, number).diagonal(dim1=1, dim2=3).mean(-1)


def sla_loss(
    joint_logits: Tensor,
    labels: Tensor,
    num_transformations: int,
    with_large_loss: bool = False,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy with the joint labels.

    Args:
        joint_logits (`Tensor` of shape `(B * M, N * M)`): Sample-major.
        labels (`Tensor` of shape `(B,)`, integer): Class ids in `[0, N)`, or -100 = missing.
        num_transformations (`int`): M.
        with_large_loss (`bool`, *optional*, defaults to `False`): Sum over the transformations in place of the mean:
            M times the loss.
        reduction (`str`, *optional*, defaults to `"mean"`): `"mean"` over labelled images, `"sum"` over them, or
            `"none"`, `(B,)`.

    Returns:
        `Tensor`: Shape `()` or `(B,)`; 0 with a gradient path when no image is labelled.

    Raises:
        ValueError: An empty batch, shapes that disagree, labels that are not integer class ids or out of range.

    Source: eq. 4 of the paper (mean over j).
    """
    classes = _classes(joint_logits, num_transformations)
    _check_labels(labels, classes)
    if len(joint_logits) != len(labels) * num_transformations:
        raise ValueError(
            f"`joint_logits` must have {num_transformations} rows per label: expected "
            f"{len(labels) * num_transformations}, got {len(joint_logits)}."
        )
    target = joint_labels(labels, num_transformations)
    rows = F.cross_entropy(_upcast(joint_logits), target, ignore_index=IGNORE_INDEX, reduction="none")
    rows = rows.view(-1, num_transformations)
    return _reduce(rows.sum(1) if with_large_loss else rows.mean(1), labels, reduction)


def sla_sd_loss(
    joint_logits: Tensor,
    single_head_logits: Tensor,
    labels: Tensor,
    num_transformations: int,
    temperature: float = 1.0,
    with_large_loss: bool = False,
    hard_label_weight: float = 1.0,
    reduction: Reduction = "mean",
) -> dict[str, Tensor]:
    """SLA with self-distillation: the aggregated prediction teaches a plain head.

    `L = L_SLA + beta CE(v, y) + T^2 KL(softmax(a / T) || softmax(v / T))`. The teacher `a` is a constant: the KL term
    gives the joint head no gradient.

    Args:
        joint_logits, labels, num_transformations, with_large_loss, reduction: As in [`sla_loss`].
        single_head_logits (`Tensor` of shape `(B, N)`): v, of the untransformed images.
        temperature (`float`, *optional*, defaults to `1.0`): T.
        hard_label_weight (`float`, *optional*, defaults to `1.0`): beta; the code has none, the paper uses 1.

    Returns:
        `dict[str, Tensor]`: `loss`, and its parts `joint`, `hard` and `distillation`.

    Raises:
        ValueError: As [`sla_loss`]; also when `single_head_logits` is not `(B, N)` or `temperature` not positive.

    Source: eq. 6 of the paper; T and the mean over the batch as in the code.
    """
    joint = sla_loss(joint_logits, labels, num_transformations, with_large_loss, reduction)
    wanted = (len(labels), joint_logits.shape[1] // num_transformations)
    if tuple(single_head_logits.shape) != wanted:
        raise ValueError(f"`single_head_logits` must have shape {wanted}, got {tuple(single_head_logits.shape)}.")
    hard = plain_loss(single_head_logits, labels, reduction)
    teacher = aggregate_logits(joint_logits.detach(), num_transformations)
    rows = soft_cross_entropy(
        single_head_logits,
        teacher,
        temperature=temperature,
        divergence="kl",
        targets_are_logits=True,
        scale_by_temperature=True,
        reduction="none",
    )
    distillation = _reduce(rows.masked_fill(labels == IGNORE_INDEX, 0.0), labels, reduction)
    loss = joint + hard_label_weight * hard + distillation
    return {"loss": loss, "joint": joint, "hard": hard, "distillation": distillation}


def plain_loss(logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy of `logits` (B, N), or of M rows per label `(B * M, N)` with their mean per image.

    The second form is data augmentation (the baseline `da`): all transformed rows carry the class itself.

    Raises:
        ValueError: As [`sla_loss`].
    """
    _check_labels(labels, logits.shape[-1])
    if len(logits) % len(labels):
        raise ValueError(f"`logits` must have a multiple of {len(labels)} rows, got {len(logits)}.")
    times = len(logits) // len(labels)
    target = labels.long().repeat_interleave(times)
    rows = F.cross_entropy(_upcast(logits), target, ignore_index=IGNORE_INDEX, reduction="none")
    return _reduce(rows.view(-1, times).mean(1), labels, reduction)


def transformation_loss(logits: Tensor, labels: Tensor, reduction: Reduction = "mean") -> Tensor:
    """Cross-entropy with the number of the transformation, mean per image: the second task of the baseline `mt`.

    Args:
        logits (`Tensor` of shape `(B * M, M)`): Sample-major.
        labels (`Tensor` of shape `(B,)`): Only images with a label count, as in the other losses.
        reduction: As in [`sla_loss`].
    """
    number = logits.shape[-1]
    target = torch.arange(number, device=logits.device).repeat(len(labels))
    rows = F.cross_entropy(_upcast(logits), target, reduction="none").view(-1, number).mean(1)
    return _reduce(rows.masked_fill(labels == IGNORE_INDEX, 0.0), labels, reduction)


def _classes(joint_logits: Tensor, number: int) -> int:
    if number < 1 or joint_logits.dim() != 2 or joint_logits.shape[1] % number:
        raise ValueError(
            f"`joint_logits` must have N * M columns for {number} transformations, got {tuple(joint_logits.shape)}."
        )
    return joint_logits.shape[1] // number


def _check_labels(labels: Tensor, num_labels: int) -> None:
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.dim() != 1:
        raise ValueError(
            f"SLA needs integer single labels of shape (B,), got {labels.dtype} of shape {tuple(labels.shape)}. "
            "Multi-label and soft targets have no joint label with a transformation."
        )
    if not len(labels):
        raise ValueError("The batch is empty: `labels` has 0 rows.")
    if labels.device.type != "cpu":
        return  # checked before training; reading values here would stop the device
    bad = ((labels < 0) | (labels >= num_labels)) & (labels != IGNORE_INDEX)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"`labels` must be in [0, {num_labels}), got {int(labels[row])} at row {row}. A missing label is -100."
        )


def _upcast(logits: Tensor) -> Tensor:
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def _reduce(rows: Tensor, labels: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"`reduction` must be mean, sum or none, got {reduction!r}.")
    if reduction == "none":
        return rows
    total = rows.sum()
    return total / (labels != IGNORE_INDEX).sum().clamp_min(1) if reduction == "mean" else total
