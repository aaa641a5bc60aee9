"""Mixing two samples of a batch: pure functions that never change the caller's tensors.

Row b is mixed with row `perm[b]`; a row that is its own partner comes out unchanged. Everything is linear in the
input, so NaN passes through and gradients reach both rows.
"""

import torch
from torch import Tensor


def mixup(x: Tensor, perm: Tensor, lam: Tensor | float) -> Tensor:
    """`lam * x + (1 - lam) * x[perm]`.

    Args:
        x (`Tensor` of shape `(B, ...)`, floating): Images, embeddings or token states.
        perm (`Tensor` of shape `(B,)`, integer): Partner of each row.
        lam (`float` or `Tensor` of shape `()` or `(B,)`): Share of the row itself, in [0, 1].

    Returns:
        `Tensor` of the shape and dtype of `x`: A new tensor.

    Raises:
        TypeError: If `x` is not floating point.
        ValueError: If shapes disagree or a partner does not exist.

    Source: Zhang et al., mixup, arXiv:1710.09412, eq. 1.
    """
    check_mixable(x)
    perm = check_partners(perm, x)
    lam = torch.as_tensor(lam, device=x.device, dtype=x.dtype)
    if lam.dim() > 1 or (lam.dim() == 1 and lam.shape[0] != x.shape[0]):
        raise ValueError(f"`lam` must be one number or have shape ({x.shape[0]},), got {tuple(lam.shape)}.")
    if lam.dim() == 1:
        lam = lam.view(-1, *(1,) * (x.dim() - 1))
    partner = x.index_select(0, perm)
    if lam.requires_grad:
        return lam * x + (1 - lam) * partner
    return partner.mul_(1 - lam).addcmul_(x, lam)  # one copy of the batch, no more


mix_features = mixup  # embeddings and token states are mixed like images


def cutmix(x: Tensor, perm: Tensor, box: Tensor) -> Tensor:
    """Paste the box of `x[perm]` into `x`.

    Args:
        x (`Tensor` of shape `(B, C, H, W)`, floating): Images.
        perm (`Tensor` of shape `(B,)`, integer): Partner of each row.
        box (`Tensor` of shape `(4,)` or `(B, 4)`, integer): `y0, y1, x0, x1` in pixels, ends excluded; may be empty.

    Returns:
        `Tensor` of shape `(B, C, H, W)`: A new tensor.

    Raises:
        TypeError: If `x` is not floating point.
        ValueError: If shapes disagree, a partner does not exist, or a box leaves the image.

    Source: Yun et al., CutMix, arXiv:1905.04899, eq. 1.
    """
    check_mixable(x)
    _check_images(x)
    perm = check_partners(perm, x)
    box = torch.as_tensor(box)
    _check_box(box, x)
    if box.dim() == 1:
        y0, y1, x0, x1 = box.tolist()
        out = x.clone()
        out[:, :, y0:y1, x0:x1] = x[perm, :, y0:y1, x0:x1]
        return out
    y0, y1, x0, x1 = box.to(x.device).unbind(1)
    rows, columns = torch.arange(x.shape[2], device=x.device), torch.arange(x.shape[3], device=x.device)
    inside_y = (rows >= y0[:, None]) & (rows < y1[:, None])
    inside_x = (columns >= x0[:, None]) & (columns < x1[:, None])
    return torch.where((inside_y[:, :, None] & inside_x[:, None, :])[:, None], x.index_select(0, perm), x)


def paste_windows(x: Tensor, perm: Tensor, dst: Tensor, src: Tensor, size: tuple[int, int]) -> Tensor:
    """Paste a window of `x[perm]` into another place of `x`: `out[b, :, dst] = x[perm[b], :, src]`.

    Args:
        x (`Tensor` of shape `(B, C, H, W)`, floating): Images.
        perm (`Tensor` of shape `(B,)`, integer): Partner of each row.
        dst, src (`Tensor` of shape `(B, 2)`, integer): Upper left corners (row, column) in pixels, in the row itself
            and in its partner.
        size (`tuple[int, int]`): Height and width of all windows, in pixels.

    Returns:
        `Tensor` of shape `(B, C, H, W)`: A new tensor.

    Raises:
        TypeError: If `x` is not floating point.
        ValueError: If shapes disagree, a partner does not exist, or a window leaves the image.

    Source: SMMix (Chen et al., arXiv:2212.12977), max-min attention regions.
    """
    check_mixable(x)
    _check_images(x)
    perm = check_partners(perm, x)
    height, width = (int(side) for side in size)
    indices = []
    for name, corner in (("dst", dst), ("src", src)):
        corner = torch.as_tensor(corner, device=x.device)
        if corner.shape != (x.shape[0], 2):
            raise ValueError(f"`{name}` must have shape ({x.shape[0]}, 2), got {tuple(corner.shape)}.")
        limit = torch.tensor([x.shape[2] - height, x.shape[3] - width], device=x.device)
        outside = ((corner < 0) | (corner > limit)).any(1)
        if outside.any():
            row = int(outside.nonzero()[0])
            raise ValueError(
                f"Window {height} x {width} of `{name}` at {corner[row].tolist()} (row {row}) leaves the image of "
                f"{x.shape[2]} x {x.shape[3]} pixels."
            )
        down = corner[:, :1] + torch.arange(height, device=x.device)
        across = corner[:, 1:] + torch.arange(width, device=x.device)
        indices.append((down[:, :, None], across[:, None, :]))
    (to_y, to_x), (from_y, from_x) = indices
    batch = torch.arange(x.shape[0], device=x.device)[:, None, None]
    out = x.clone()
    out[batch, :, to_y, to_x] = x[perm[:, None, None], :, from_y, from_x]
    return out


def box_lam(box: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Share of the image outside the box, `1 - (y1 - y0)(x1 - x0) / (H W)`, in float64.

    Args:
        box (`Tensor` of shape `(..., 4)`, integer): `y0, y1, x0, x1`.
        image_size (`tuple[int, int]`): H and W.
    """
    y0, y1, x0, x1 = box.to(torch.float64).unbind(-1)
    return 1 - (y1 - y0) * (x1 - x0) / (image_size[0] * image_size[1])


def check_mixable(x: Tensor) -> None:
    """Raise `TypeError` for inputs whose mixture has no meaning."""
    if not torch.is_tensor(x) or not x.is_floating_point():
        found = str(x.dtype).removeprefix("torch.") if torch.is_tensor(x) else type(x).__name__
        raise TypeError(
            f"Only floating-point tensors can be mixed, got {found}. Normalise images to float before mixing; for "
            "text mix `inputs_embeds` or pooled embeddings, not `input_ids`."
        )


def check_partners(perm: Tensor, x: Tensor) -> Tensor:
    """`perm` on the device of `x`, or `ValueError` if it does not name one row of the batch for each row."""
    perm = torch.as_tensor(perm, device=x.device)
    if perm.shape != x.shape[:1] or perm.is_floating_point() or perm.dtype == torch.bool:
        raise ValueError(f"`perm` must hold {x.shape[0]} row numbers, got {perm.dtype} of shape {tuple(perm.shape)}.")
    if perm.device.type == "cpu" and perm.numel() and not (0 <= int(perm.min()) and int(perm.max()) < x.shape[0]):
        raise ValueError(f"`perm` must hold row numbers in [0, {x.shape[0]}), got {perm.tolist()}.")
    return perm


def _check_images(x: Tensor) -> None:
    if x.dim() != 4:
        raise ValueError(f"Boxes need images of shape (B, C, H, W), got {tuple(x.shape)}.")


def _check_box(box: Tensor, x: Tensor) -> None:
    if box.shape not in ((4,), (x.shape[0], 4)) or box.is_floating_point():
        raise ValueError(
            f"`box` must hold integers y0, y1, x0, x1 in shape (4,) or ({x.shape[0]}, 4), got {box.dtype} of shape "
            f"{tuple(box.shape)}."
        )
    if box.device.type != "cpu":
        return
    y0, y1, x0, x1 = box.reshape(-1, 4).unbind(1)
    wrong = (y0 < 0) | (y1 < y0) | (y1 > x.shape[2]) | (x0 < 0) | (x1 < x0) | (x1 > x.shape[3])
    if wrong.any():
        found = box.reshape(-1, 4)[wrong][0].tolist()
        raise ValueError(f"Box {found} (y0, y1, x0, x1) leaves the image of {x.shape[2]} x {x.shape[3]} pixels.")
