"""Mixing of attention regions: the window that matters most in one image over the least attended one of another."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.mixing.labels import MixedLabels
from hf_labels.mixing.ops import check_partners, paste_windows


@dataclass(frozen=True)
class WindowMix:
    """Result of [`paste_regions`]; row b is the target, row `perm[b]` the source of the pasted window.

    Parameters:
        mixed (`Tensor` of shape `(B, C, H, W)`): Mixed images.
        lam (`Tensor` of shape `(B,)`, float32): Share of the patches kept from the target.
        perm (`Tensor` of shape `(B,)`, int64): Partner of each row.
        dst, src (`Tensor` of shape `(B, 2)`, int64): Corners of the windows (row, column), in patches.
        source_mask (`Tensor` of shape `(B, P)`, bool): Patches that come from the source, row-major.
    """

    mixed: Tensor
    lam: Tensor
    perm: Tensor
    dst: Tensor
    src: Tensor
    source_mask: Tensor

    @property
    def target_mask(self) -> Tensor:
        """Patches that come from the target; bool `(B, P)`."""
        return ~self.source_mask

    def labels(self, labels: Tensor) -> MixedLabels:
        """Labels of the mixed images."""
        return MixedLabels(labels, labels[self.perm.to(labels.device)], self.lam.to(labels.device))


def extreme_windows(scores: Tensor, side: int, largest: bool = True) -> Tensor:
    """Corner of the square window with the largest (or smallest) sum of scores.

    Args:
        scores (`Tensor` of shape `(B, g, g')`): Score of each patch.
        side (`int`): Side of the window in patches, 1 to min(g, g').
        largest (`bool`, *optional*, defaults to `True`): `False` looks for the smallest sum.

    Returns:
        `Tensor` of shape `(B, 2)`, int64: Row and column of the upper left patch; the first in row-major order among
        equals.

    Raises:
        ValueError: If `scores` has another shape or `side` does not fit.
    """
    if scores.dim() != 3 or not 1 <= side <= min(scores.shape[1:]):
        raise ValueError(f"A window of side {side} needs scores (B, g, g') that hold it, got {tuple(scores.shape)}.")
    wide = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
    sums = F.avg_pool2d(wide[:, None], side, stride=1)[:, 0]
    columns = sums.shape[2]
    flat = sums.flatten(1) if largest else -sums.flatten(1)
    # argmax gives any of several equal places; the first one is asked for.
    best = (flat == flat.amax(1, keepdim=True)).to(torch.int8).argmax(1)
    return torch.stack([best // columns, best % columns], dim=1)


def paste_regions(x: Tensor, perm: Tensor, scores: Tensor, side: int, patch_size: int | None = None) -> WindowMix:
    """Copy the highest-scoring window of the partner over the lowest-scoring window of the row itself.

    Args:
        x (`Tensor` of shape `(B, C, H, W)`, floating): Images.
        perm (`Tensor` of shape `(B,)`, integer): Partner of each row.
        scores (`Tensor` of shape `(B, P)` or `(B, g, g')`): Score of each patch, for example the attention it
            receives; `P` must be a square number, row-major.
        side (`int`): Side of the square window, in patches.
        patch_size (`int`, *optional*): Pixels of a patch's side; found from the image by default.

    Returns:
        [`WindowMix`].

    Raises:
        ValueError: If shapes disagree, the image is not a whole number of patches, or the window does not fit.
        TypeError: If `x` is not floating point.

    Source: SMMix (Chen et al., arXiv:2212.12977), max-min mixing; `lam` is the *target's* share, as in the code.
    """
    if scores.dim() == 2:
        grid = round(scores.shape[1] ** 0.5)
        if grid * grid != scores.shape[1]:
            raise ValueError(f"`scores` holds {scores.shape[1]} patches, no square number. Give shape (B, g, g').")
        scores = scores.unflatten(1, (grid, grid))
    if x.dim() != 4 or scores.dim() != 3 or scores.shape[0] != x.shape[0]:
        raise ValueError(
            f"`x` must be images (B, C, H, W) and `scores` one grid per image, got {tuple(x.shape)} and "
            f"{tuple(scores.shape)}."
        )
    rows, columns = scores.shape[1:]
    patch = x.shape[2] // rows if patch_size is None else patch_size
    if x.shape[2] != rows * patch or x.shape[3] != columns * patch:
        raise ValueError(
            f"Images of {x.shape[2]} x {x.shape[3]} pixels do not divide into {rows} x {columns} patches of {patch}."
        )
    perm = check_partners(perm, x)
    scores = scores.detach()
    dst = extreme_windows(scores, side, largest=False)
    src = extreme_windows(scores, side)[perm.to(scores.device)]
    mixed = paste_windows(x, perm, dst.to(x.device) * patch, src.to(x.device) * patch, (side * patch, side * patch))
    down = torch.arange(rows, device=dst.device) - dst[:, :1]
    across = torch.arange(columns, device=dst.device) - dst[:, 1:]
    inside = ((down >= 0) & (down < side))[:, :, None] & ((across >= 0) & (across < side))[:, None, :]
    share = (rows * columns - side * side) / (rows * columns)
    lam = torch.full((x.shape[0],), share, device=x.device)
    return WindowMix(mixed, lam, perm, dst, src, inside.flatten(1))
