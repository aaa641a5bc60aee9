"""SelfMix: mix only views of the same image, so that labels stored for each view stay nearly right."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hf_labels.mixing.sampler import MixPlan, MixSampler, _draw_boxes, _plan


class SelfMix:
    """Draws a [`MixPlan`] in which every partner is another view of the same image.

    Each image with n > 1 views draws a shift r from {1, ..., n - 1}, one lam and one box; view v is mixed with view
    (v + r) mod n. An image with one view is not mixed.

    Args:
        prob (`float`, *optional*, defaults to 0.5): Probability that an image's views are mixed.
        kind (`str`, *optional*, defaults to `"cutmix"`): `"cutmix"` or `"mixup"`.
        alpha (`float`, *optional*, defaults to 1.0): lam ~ Beta(alpha, alpha); 0 switches mixing off.
        seed (`int`, `"torch"` or `None`, *optional*, defaults to `"torch"`): As in [`MixSampler`].

    Raises:
        ValueError: As [`MixSampler`].

    Source: FerKD (Shen, arXiv:2312.17473), section on SelfMix. Which views are paired is our choice: no code is
    published.
    """

    def __init__(
        self,
        prob: float = 0.5,
        kind: Literal["cutmix", "mixup"] = "cutmix",
        alpha: float = 1.0,
        seed: int | Literal["torch"] | None = "torch",
    ) -> None:
        if kind not in ("cutmix", "mixup"):
            raise ValueError(f"`kind` must be cutmix or mixup, got {kind!r}.")
        self.sampler = MixSampler(alpha, kind=kind, prob=prob, lam_mode="sample", seed=seed)

    def draw(self, groups: Tensor, image_size: tuple[int, int] | None = None, keep: Tensor | None = None) -> MixPlan:
        """The plan of one batch.

        Args:
            groups (`Tensor` of shape `(N,)`, integer): Image of each row (its views need not stand together).
            image_size (`tuple[int, int]`, *optional*): H and W; needed for CutMix.
            keep (`Tensor` of shape `(N,)`, bool, *optional*): Rows that may be mixed; the others are neither mixed nor
                anybody's partner.

        Raises:
            ValueError: If there is no row, or CutMix is drawn without `image_size`.
        """
        sampler = self.sampler
        rows = len(groups)
        if rows < 1:
            raise ValueError("`groups` must name the image of at least one row.")
        if sampler.kind == "cutmix" and image_size is None:
            raise ValueError("`image_size` is needed for cutmix: pass `x.shape[-2:]`.")
        kind: Any = sampler.kind
        if sampler.alpha == 0:
            return sampler._identity(rows, kind)
        ids = groups.cpu().numpy().copy()
        if keep is not None:
            out = ~keep.cpu().numpy().astype(bool)
            _, ids = np.unique(ids, return_inverse=True)
            ids[out] = rows + np.arange(rows)[out]  # a group of its own
        _, image, sizes = np.unique(ids, return_inverse=True, return_counts=True)
        rng = sampler.generator()
        shifts = rng.integers(1, np.maximum(sizes, 2))
        lam = sampler._lambdas(rng, len(sizes), sampler.alpha)
        perm = shifted_partners(image, np.where(sizes > 1, shifts, 0))
        lam = np.where(sizes > 1, lam, 1.0)
        if kind == "mixup" or image_size is None:
            return _plan(kind, lam[image], perm, None, rows)
        boxes, lam = _draw_boxes(rng, lam, image_size)
        return _plan(kind, lam[image], perm, boxes[image], rows)


def shifted_partners(groups: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Partner of each row: the row `shifts[g]` places further in its own group, in order of appearance, cyclic.

    Args:
        groups (array of shape `(N,)`, int in `[0, G)`): Group of each row.
        shifts (array of shape `(G,)`, int): Shift of each group.

    Example:
        >>> shifted_partners(np.array([0, 1, 0, 1, 0]), np.array([1, 1])).tolist()
        [2, 3, 4, 1, 0]
    """
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups, minlength=len(shifts))
    starts = np.cumsum(sizes) - sizes
    of = groups[order]
    place = np.arange(len(groups)) - starts[of]
    partner_place = starts[of] + (place + shifts[of]) % np.maximum(sizes[of], 1)
    perm = np.empty(len(groups), dtype=np.int64)
    perm[order] = order[partner_place]
    return perm


def mixed_targets(plan: MixPlan, probs: Tensor) -> Tensor:
    """`lam * t + (1 - lam) * t[perm]` for dense targets `(N, C)`."""
    lam = plan.lam.to(probs)[:, None]
    return torch.lerp(probs[plan.perm.to(probs.device)], probs, lam)
