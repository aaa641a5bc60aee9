"""Crops and flips that are recorded, so that the same view can be cut again; PIL or torch, never torchvision.

A [`View`] is a crop in fractions of the image and a flip. Drawing one and cutting it are two steps:

    crop = RandomResizedCrop(224)
    view = crop.draw(height, width, rng)     # rng: numpy Generator
    pixels = crop.cut(image, view)           # float tensor (C, 224, 224) in [0, 1]; again and again the same
    pixel_values = normalizer(pixels)

Crops are `(top, left, height, width)`, as fractions of the image's height, width, height and width: the order of FKD.
In whole pixels: `top = round(t H)`, `height = max(1, round(h H))`, moved inside the image, so a crop that was drawn in
pixels comes back exactly (float32 fractions, images up to 4 million pixels a side).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

WHOLE = (0.0, 0.0, 1.0, 1.0)
Interpolation = Literal["nearest", "bilinear", "bicubic"]
_TRIES = 10


@dataclass(frozen=True)
class View:
    """One reading of an image.

    Parameters:
        crop (`tuple[float, float, float, float]`): Top, left, height, width as fractions.
        flip (`bool`): Mirrored left to right, after the crop.
    """

    crop: tuple[float, float, float, float] = WHOLE
    flip: bool = False


def draw_crop(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[float, float, float, float]:
    """A random crop: area share uniform in `scale`, aspect ratio (width to height) log-uniform in `ratio`.

    Ten tries; then the largest centred crop whose ratio is allowed. Whole pixels, given as float32 fractions.

    Args:
        height, width (`int`): Of the image, in pixels.
        rng (`numpy.random.Generator`): Where the numbers come from.
        scale, ratio (`tuple[float, float]`): Ranges.

    Source: `RandomResizedCrop.get_params` of torchvision, rewritten; Szegedy et al., arXiv:1409.4842.
    """
    area = height * width
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        wanted, aspect = area * rng.uniform(*scale), math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            return crop_fractions((top, left, h, w), height, width)
    w, h = width, height
    if width / height < ratio[0]:
        h = min(height, round(width / ratio[0]))
    elif width / height > ratio[1]:
        w = min(width, round(height * ratio[1]))
    return crop_fractions(((height - h) // 2, (width - w) // 2, h, w), height, width)


def crop_fractions(pixels: Sequence[int], height: int, width: int) -> tuple[float, float, float, float]:
    """`(top, left, height, width)` in pixels as float32 fractions of the image."""
    top, left, h, w = (float(np.float32(v / s)) for v, s in zip(pixels, (height, width, height, width), strict=True))
    return top, left, h, w


def crop_pixels(crop: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
    """The crop in whole pixels, inside the image.

    Raises:
        ValueError: If a fraction is not in [0, 1] or a side is 0.
    """
    top, left, h, w = (float(value) for value in crop)
    if not (0 <= top <= 1 and 0 <= left <= 1 and 0 < h <= 1 and 0 < w <= 1):
        raise ValueError(f"A crop must be fractions (top, left, height, width) in [0, 1], got {(top, left, h, w)}.")
    rows, columns = max(1, round(h * height)), max(1, round(w * width))
    return min(round(top * height), height - rows), min(round(left * width), width - columns), rows, columns


def crops_to_boxes(crops: Tensor) -> Tensor:
    """Crops `(..., 4)` as corners `(x1, y1, x2, y2)` in fractions: the boxes that label maps are pooled with."""
    top, left, h, w = crops.unbind(-1)
    return torch.stack([left, top, (left + w).clamp(max=1), (top + h).clamp(max=1)], dim=-1)


class RandomResizedCrop:
    """Crop, resize to a square, flip: draws a [`View`] and cuts it.

    Args:
        size (`int` or `tuple[int, int]`): Height and width of the result, in pixels.
        scale (`tuple[float, float]`, *optional*, defaults to (0.08, 1.0)): Share of the area.
        ratio (`tuple[float, float]`, *optional*, defaults to (3/4, 4/3)): Width to height.
        flip (`float`, *optional*, defaults to 0.5): Probability of mirroring.
        interpolation (`str`, *optional*, defaults to `"bilinear"`): `"nearest"`, `"bilinear"` or `"bicubic"`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        self.size = pair(size)
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"`scale` must be two rising shares in (0, 1], got {scale}.")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"`ratio` must be two rising positive numbers, got {ratio}.")
        if not 0 <= flip <= 1:
            raise ValueError(f"`flip` must be in [0, 1], got {flip}.")
        if interpolation not in ("nearest", "bilinear", "bicubic"):
            raise ValueError(f"`interpolation` must be nearest, bilinear or bicubic, got {interpolation!r}.")
        self.scale = scale
        self.ratio = ratio
        self.flip = flip
        self.interpolation: Interpolation = interpolation

    def draw(self, height: int, width: int, rng: np.random.Generator) -> View:
        """A view of an image of `height` x `width` pixels."""
        crop = draw_crop(height, width, rng, self.scale, self.ratio)
        return View(crop, bool(rng.random() < self.flip))

    def cut(self, image: Any, view: View) -> Tensor:
        """The pixels of a view; see [`cut_view`]."""
        return cut_view(image, view, self.size, self.interpolation)

    def __call__(self, image: Any, rng: np.random.Generator) -> tuple[Tensor, View]:
        """Draw a view and cut it."""
        view = self.draw(*image_size(image), rng)
        return self.cut(image, view), view


def cut_view(
    image: Any,
    view: View,
    size: int | tuple[int, int],
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Crop, resize with antialiasing, flip.

    Args:
        image (`PIL.Image` or `Tensor` of shape `(C, H, W)`): Tensors are uint8 in [0, 255] or floating.
        view ([`View`]): What to cut.
        size (`int` or `tuple[int, int]`): Height and width of the result.
        interpolation (`str`, *optional*, defaults to `"bilinear"`): How to resize.

    Returns:
        `Tensor` of shape `(C, size, size)`: float32 in [0, 1] for PIL images and uint8 tensors, else the tensor's own
        dtype and range.
    """
    height, width = image_size(image)
    top, left, h, w = crop_pixels(view.crop, height, width)
    rows, columns = pair(size)
    if torch.is_tensor(image):
        pixels = (image.float() / 255) if image.dtype == torch.uint8 else image
        pixels = resize(pixels[:, top : top + h, left : left + w], (rows, columns), interpolation)
    else:
        from PIL import Image

        method = getattr(Image.Resampling, interpolation.upper())
        part = image.crop((left, top, left + w, top + h))
        pixels = to_tensor(part if part.size == (columns, rows) else part.resize((columns, rows), method))
    return torch.flip(pixels, (-1,)) if view.flip else pixels


def cut_batch(images: Tensor, crops: Tensor, flips: Tensor | None, size: int | tuple[int, int]) -> Tensor:
    """Crop, flip and resize a batch in one differentiable call, on its device.

    Bilinear sampling without a low-pass filter: for crops that shrink by more than 2, or where the exact pixels of
    [`cut_view`] are needed, use that.

    Args:
        images (`Tensor` of shape `(N, C, H, W)`, floating): Images of one size.
        crops (`Tensor` of shape `(N, 4)`): Fractions; used as they are, not rounded to pixels.
        flips (`Tensor` of shape `(N,)`, bool, *optional*): Mirrored.
        size (`int` or `tuple[int, int]`): Of the result.

    Returns:
        `Tensor` of shape `(N, C, size, size)`.
    """
    top, left, h, w = crops.to(images).unbind(-1)
    sign = torch.ones_like(w) if flips is None else 1 - 2 * flips.to(w)
    zero = torch.zeros_like(w)
    theta = torch.stack([sign * w, zero, 2 * left + w - 1, zero, h, 2 * top + h - 1], dim=-1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(images), images.shape[1], *pair(size)], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def resize(pixels: Tensor, size: int | tuple[int, int], interpolation: Interpolation = "bilinear") -> Tensor:
    """Resize `(C, H, W)` or `(N, C, H, W)`, with antialiasing; the same tensor when the size is right already."""
    size = pair(size)
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    batch = pixels[None] if pixels.dim() == 3 else pixels
    smooth = interpolation != "nearest"
    options: dict[str, Any] = {"align_corners": False, "antialias": True} if smooth else {}
    out = F.interpolate(batch, size=size, mode=interpolation, **options)
    return out[0] if pixels.dim() == 3 else out


def center_crop(image: Any, size: int | tuple[int, int], resize_to: int | None = None) -> Tensor:
    """The usual view for evaluation: the short side resized to `resize_to` (default: size), then the centre."""
    rows, columns = pair(size)
    height, width = image_size(image)
    short = resize_to or min(rows, columns)
    factor = min(height, width) / short
    h, w = min(1.0, rows * factor / height), min(1.0, columns * factor / width)
    return cut_view(image, View(((1 - h) / 2, (1 - w) / 2, h, w)), (rows, columns))


def to_tensor(image: Any) -> Tensor:
    """A PIL image or array (H, W[, C]) as float32 `(C, H, W)`; uint8 values are divided by 255.

    Palette images become RGB; an alpha channel is kept.
    """
    if getattr(image, "mode", None) == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    array = np.asarray(image)
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    scale = 255.0 if array.dtype == np.uint8 else 1.0
    pixels = torch.from_numpy(np.array(array, dtype=np.float32) / scale)
    return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()


def image_size(image: Any) -> tuple[int, int]:
    """Height and width of a PIL image or a tensor `(C, H, W)`.

    Raises:
        TypeError: If it is neither.
    """
    if torch.is_tensor(image) and image.dim() == 3:
        return int(image.shape[1]), int(image.shape[2])
    if hasattr(image, "crop") and hasattr(image, "size"):
        return image.size[1], image.size[0]
    found = f"a tensor of shape {tuple(image.shape)}" if torch.is_tensor(image) else type(image).__name__
    raise TypeError(f"An image must be a PIL image or a tensor (C, H, W), got {found}.")


@dataclass(frozen=True)
class Normalizer:
    """`(pixels - mean) / std` per channel, for pixels in [0, 1].

    Parameters:
        mean, std (`tuple[float, ...]`): One value per channel.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def from_processor(cls, processor: Any) -> "Normalizer":
        """With the numbers of a transformers image processor (0 and 1 when it does not normalise).

        A `Normalizer` is returned as it is.
        """
        if isinstance(processor, cls):
            return processor
        if not getattr(processor, "do_normalize", True):
            return cls((0.0,), (1.0,))
        return cls(tuple(map(float, processor.image_mean)), tuple(map(float, processor.image_std)))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalised `(..., C, H, W)`; one channel is repeated when there are means for three.

        Raises:
            ValueError: If the channels do not fit.
        """
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        if pixels.shape[-3] == 1 and len(self.mean) > 1:
            pixels = pixels.expand(*pixels.shape[:-3], len(self.mean), *pixels.shape[-2:])
        if len(self.mean) not in (1, pixels.shape[-3]):
            raise ValueError(
                f"The image has {pixels.shape[-3]} channels, the normalisation {len(self.mean)}. Convert the image, "
                "for example `image.convert('RGB')`."
            )
        return (pixels - mean) / std

    def undo(self, values: Tensor) -> Tensor:
        """Back to pixels in [0, 1], for another model's normalisation of the same view."""
        mean, std = (values.new_tensor(numbers)[:, None, None] for numbers in (self.mean, self.std))
        return values * std + mean


def pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image size.

    Raises:
        ValueError: If a side is below 1.
    """
    rows, columns = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if rows < 1 or columns < 1:
        raise ValueError(f"An image size must be at least 1 x 1, got {rows} x {columns}.")
    return rows, columns
