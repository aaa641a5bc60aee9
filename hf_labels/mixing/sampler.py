"""Draws of lambda, partners and boxes, all from one seedable generator whose state is a plain dict."""

import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hf_labels.mixing.labels import MixedLabels
from hf_labels.mixing.ops import cutmix, mixup

logger = logging.getLogger(__name__)

MixKind = Literal["mixup", "cutmix"]
_KINDS = ("mixup", "cutmix", "both")
_PAIRINGS = ("random", "flip", "roll", "derangement")
_TRIES = 32


@dataclass(frozen=True)
class MixPlan:
    """What is mixed with what; on the CPU until `to(device)`.

    Parameters:
        kind (`str`): `"mixup"` or `"cutmix"`.
        lam (`Tensor` of shape `(B,)`, float32): Share of the row itself; for CutMix that of the real box.
        perm (`Tensor` of shape `(B,)`, int64): Partner of each row.
        box (`Tensor` of shape `(4,)` or `(B, 4)`, int64, *optional*): `y0, y1, x0, x1` in pixels; CutMix only.
    """

    kind: MixKind
    lam: Tensor
    perm: Tensor
    box: Tensor | None = None

    def apply(self, x: Tensor) -> Tensor:
        """The mixed inputs, by [`mixup`] or [`cutmix`]; a new tensor."""
        if self.box is None:
            return mixup(x, self.perm, self.lam)
        return cutmix(x, self.perm, self.box)

    def labels(self, labels: Tensor) -> MixedLabels:
        """The labels of `apply(x)`: class ids `(B,)` or distributions `(B, C)`."""
        perm = self.perm.to(labels.device)
        return MixedLabels(labels, labels[perm], self.lam.to(labels.device))

    def to(self, device: Any) -> "MixPlan":
        """The same plan on another device. The box stays on the CPU when it is one for the whole batch."""
        box = self.box.to(device) if self.box is not None and self.box.dim() == 2 else self.box
        return replace(self, lam=self.lam.to(device), perm=self.perm.to(device), box=box)


class MixSampler:
    """Draws a [`MixPlan`] for each batch.

    Args:
        alpha (`float`, *optional*, defaults to 1.0): lam ~ Beta(alpha, alpha). 0 switches mixing off: lam = 1, every
            row its own partner, nothing is drawn.
        kind (`str`, *optional*, defaults to `"mixup"`): `"mixup"`, `"cutmix"`, or `"both"`: one of them per batch.
        switch_prob (`float`, *optional*, defaults to 0.5): With `"both"`, probability of CutMix.
        prob (`float`, *optional*, defaults to 1.0): Probability of mixing at all, per batch (per sample with
            `lam_mode="sample"`); else lam = 1.
        lam_mode (`str`, *optional*, defaults to `"batch"`): One lam (and box) per `"batch"` or per `"sample"`.
        pairing (`str`, *optional*, defaults to `"random"`): `"random"` permutation, which may leave rows alone;
            `"derangement"`: none is left alone; `"flip"`: row i with B-1-i (timm); `"roll"`: row i with i-1
            (torchvision).
        fold (`bool`, *optional*, defaults to `False`): lam := max(lam, 1 - lam), so that `y_a` dominates.
        cutmix_alpha (`float`, *optional*): alpha of CutMix; `alpha` when left out.
        seed (`int`, `"torch"` or `None`, *optional*): Where the random numbers come from, always different in each
            process and loader worker:
            an `int` starts an own stream; `None` starts one from `torch.initial_seed()` at the first draw, so that
            `transformers.set_seed` governs it; `"torch"` seeds **each** draw with one number of torch's CPU generator.
            `Trainer` restores that generator, so a resumed run draws as an uninterrupted one: use it in
            `compute_loss` and in collators. With the other two, save `state_dict()` yourself to resume exactly.

    Raises:
        ValueError: For an alpha that is negative or NaN, a probability outside [0, 1], or an unknown option.

    Source: timm 1.0 (`timm.data.Mixup`) for boxes and label shares; Beta from numpy, since a ratio of torch gammas
    underflows for small alpha.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        kind: Literal["mixup", "cutmix", "both"] = "mixup",
        switch_prob: float = 0.5,
        prob: float = 1.0,
        lam_mode: Literal["batch", "sample"] = "batch",
        pairing: Literal["random", "flip", "roll", "derangement"] = "random",
        fold: bool = False,
        cutmix_alpha: float | None = None,
        seed: int | Literal["torch"] | None = None,
    ) -> None:
        for name, value in (("alpha", alpha), ("cutmix_alpha", alpha if cutmix_alpha is None else cutmix_alpha)):
            if not 0 <= value < math.inf:
                raise ValueError(f"`{name}` must be 0 or more, got {value}. 0 switches mixing off.")
        for name, value in (("switch_prob", switch_prob), ("prob", prob)):
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {value}.")
        for name, option, allowed in (
            ("kind", kind, _KINDS),
            ("lam_mode", lam_mode, ("batch", "sample")),
            ("pairing", pairing, _PAIRINGS),
        ):
            if option not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {option!r}.")
        if isinstance(seed, str) and seed != "torch":
            raise ValueError(f"`seed` must be an int, 'torch' or None, got {seed!r}.")
        self.alpha = alpha
        self.kind = kind
        self.switch_prob = switch_prob
        self.prob = prob
        self.lam_mode = lam_mode
        self.pairing = pairing
        self.fold = fold
        self.cutmix_alpha = alpha if cutmix_alpha is None else cutmix_alpha
        self.seed = seed
        self._rng: np.random.Generator | None = None
        self._place: tuple[int, ...] | None = None
        self._warned = False

    def draw(self, batch_size: int, image_size: tuple[int, int] | None = None) -> MixPlan:
        """The plan of one batch.

        Args:
            batch_size (`int`): B. One row cannot be mixed: it gives the identity, with a warning once.
            image_size (`tuple[int, int]`, *optional*): H and W; needed for CutMix.

        Raises:
            ValueError: If `batch_size` is 0, or CutMix is drawn from without `image_size`.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        if self.kind != "mixup" and image_size is None:
            raise ValueError("`image_size` is needed for cutmix: pass `x.shape[-2:]`.")
        if batch_size == 1 and not self._warned:
            self._warned = True
            logger.warning("A batch of one row cannot be mixed; it is used as it is.")
        active = self.alpha > 0 if self.kind == "mixup" else self.cutmix_alpha > 0
        if self.kind == "both":
            active = active or self.alpha > 0
        rng = self.generator() if active and batch_size > 1 else None
        kind: MixKind = "mixup" if self.kind == "mixup" else "cutmix"
        if self.kind == "both" and rng is not None:
            kind = "cutmix" if rng.random() < self.switch_prob else "mixup"
        alpha = self.alpha if kind == "mixup" else self.cutmix_alpha
        if rng is None or alpha == 0:
            return self._identity(batch_size, kind)
        lam = self._lambdas(rng, batch_size, alpha)
        perm = self._partners(rng, batch_size)
        if kind == "mixup" or image_size is None:
            return _plan(kind, lam, perm, None, batch_size)
        boxes, lam = _draw_boxes(rng, lam, image_size)
        return _plan(kind, lam, perm, boxes, batch_size)

    def generator(self) -> np.random.Generator:
        """The generator from which the next plan is drawn, for draws of a method's own."""
        if self.seed == "torch":
            number = int(torch.randint(2**62, (), dtype=torch.int64))
            return np.random.default_rng(np.random.SeedSequence([number, _process_index()]))
        place = _place()
        if self._rng is None or self._place != place:  # also in a worker that got a copy of a sampler in use
            base = torch.initial_seed() if self.seed is None else int(self.seed)
            self._rng = np.random.default_rng(np.random.SeedSequence([base % 2**64, *place]))
            self._place = place
        return self._rng

    def state_dict(self) -> dict[str, Any]:
        """State of the stream as JSON values; empty before the first draw and with `seed="torch"`."""
        if self._rng is None or self._place is None:
            return {}
        return {"place": list(self._place), "generator": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the stream of [`state_dict`], in the same process and worker."""
        if not state:
            self._rng = self._place = None
            return
        self._rng = np.random.default_rng()
        self._rng.bit_generator.state = state["generator"]
        self._place = tuple(state["place"])

    def _lambdas(self, rng: np.random.Generator, rows: int, alpha: float) -> np.ndarray:
        """Shares of shape (1,) or (rows,), float64."""
        count = rows if self.lam_mode == "sample" else 1
        lam = rng.beta(alpha, alpha, size=count)
        if self.fold:
            lam = np.maximum(lam, 1 - lam)
        if self.prob < 1:
            lam = np.where(rng.random(count) < self.prob, lam, 1.0)
        return lam

    def _partners(self, rng: np.random.Generator, rows: int) -> np.ndarray:
        order = np.arange(rows)
        if self.pairing == "flip":
            return order[::-1].copy()
        if self.pairing == "roll":
            return np.roll(order, 1)
        perm = rng.permutation(rows)
        if self.pairing == "random":
            return perm
        for _ in range(_TRIES):
            if not (perm == order).any():
                return perm
            perm = rng.permutation(rows)
        return np.roll(order, int(rng.integers(1, rows)))

    def _identity(self, rows: int, kind: MixKind) -> MixPlan:
        box = np.zeros((1, 4), dtype=np.int64) if kind == "cutmix" else None
        return _plan(kind, np.ones(1), np.arange(rows), box, rows)


def cutmix_box(
    image_size: tuple[int, int], lam: "float | np.ndarray", center: "tuple[Any, Any]"
) -> tuple[np.ndarray, np.ndarray]:
    """The box of a given share and centre, cut at the borders, and the share that really stays.

    Sides are `int(H r)` and `int(W r)` with `r = sqrt(1 - lam)`; `y0 = cy - h // 2`, `y1 = cy + (h + 1) // 2`.

    Args:
        image_size (`tuple[int, int]`): H and W.
        lam (`float` or array of shape `(N,)`): Wanted shares.
        center (`tuple`): Row and column of the centre, ints or arrays of shape `(N,)`.

    Returns:
        Boxes `(..., 4)` int64 as `y0, y1, x0, x1`, and shares `(...)` float64: `1 - area / (H W)`.

    Source: timm 1.0, `rand_bbox` with `correct_lam`; Yun et al., arXiv:1905.04899, eq. 2.
    """
    height, width = image_size
    lam, (cy, cx) = np.asarray(lam, dtype=np.float64), center
    side = np.sqrt(1 - lam)
    h, w = (height * side).astype(np.int64), (width * side).astype(np.int64)
    y0, y1 = np.clip(cy - h // 2, 0, height), np.clip(cy + (h + 1) // 2, 0, height)
    x0, x1 = np.clip(cx - w // 2, 0, width), np.clip(cx + (w + 1) // 2, 0, width)
    return np.stack([y0, y1, x0, x1], axis=-1), 1 - (y1 - y0) * (x1 - x0) / (height * width)


def _draw_boxes(
    rng: np.random.Generator, lam: np.ndarray, image_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    center = rng.integers(image_size[0], size=lam.shape), rng.integers(image_size[1], size=lam.shape)
    return cutmix_box(image_size, lam, center)


def _plan(kind: MixKind, lam: np.ndarray, perm: np.ndarray, boxes: np.ndarray | None, rows: int) -> MixPlan:
    box = None
    if boxes is not None:
        box = torch.from_numpy(boxes[0] if len(boxes) == 1 else boxes)
    shares = torch.from_numpy(np.ascontiguousarray(np.broadcast_to(lam, (rows,)), dtype=np.float32))
    return MixPlan(kind, shares, torch.from_numpy(np.ascontiguousarray(perm)), box)


def _process_index() -> int:
    """Rank of this process, without starting accelerate."""
    from accelerate import PartialState

    return PartialState().process_index if PartialState._shared_state else 0


def _place() -> tuple[int, ...]:
    """What tells this stream from those of other processes and loader workers.

    A worker adds the base seed of its loader: workers are made anew each epoch and would repeat the first epoch's
    draws.
    """
    worker = torch.utils.data.get_worker_info()
    if worker is None:
        return (_process_index(),)
    return (_process_index(), worker.id + 1, int(worker.seed - worker.id) % 2**64)
