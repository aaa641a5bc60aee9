"""Distilled image sets for HeLlO: patches chosen by a teacher, tiled into few images, optionally updated.

    distilled = distill_images(real, teacher, ipc=10, factor=2, size=224, image_processor=processor)
    distilled.push_to_hub("me/set-ipc10")

Sources: Sun et al., RDED, arXiv:2312.03526, and its code (selection, tiling); Yu et al., HeLlO, arXiv:2408.08201
(update of the images). Views for training on such images: [`~hf_labels.data.hello_views.DistilledCollator`].
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.data.images import Normalizer, RandomResizedCrop, cut_view, image_size, resize
from hf_labels.data.soft_label_build import as_callable
from hf_labels.losses.hello import image_update_loss


def rded_select(scores: Tensor, k: int, allow_repeat: bool = False) -> list[tuple[int, int]]:
    """The best crop of each image, then the k best images: pairs (image, crop), best first.

    Args:
        scores (`Tensor` of shape `(images, crops)`): Teacher cross-entropy of each crop; lower is better.
        k (`int`): Crops to keep.
        allow_repeat (`bool`, *optional*, defaults to `False`): With fewer than k images, go on with their other crops,
            then from the start.

    Raises:
        ValueError: If there are fewer than k images and `allow_repeat` is off, or scores are not finite.

    Source: RDED `selector` (ties by position, which its sort leaves open).
    """
    images, crops = scores.shape
    if not bool(torch.isfinite(scores).all()):
        place = tuple(torch.nonzero(~torch.isfinite(scores))[0].tolist())
        raise ValueError(f"The teacher's score of image {place[0]}, crop {place[1]} is not finite.")
    if images < k and not allow_repeat:
        raise ValueError(f"{k} patches are wanted of {images} images. Pass `allow_repeat=True`, or lower k.")
    best, crop = scores.min(dim=1)
    order = torch.argsort(best, stable=True)
    found = [(int(image), int(crop[image])) for image in order]
    if len(found) < k:
        flat = torch.argsort(scores.flatten(), stable=True).tolist()
        taken = set(found)
        found += [pair for pair in (divmod(number, crops) for number in flat) if pair not in taken]
        found *= -(-k // len(found))
    return found[:k]


def rded_tile(patches: Tensor, size: int, factor: int) -> Tensor:
    """Images of `size` x `size` made of `factor` x `factor` patches.

    Cell (i, j), counted by rows, of image t holds patch `(i * factor + j) * n + t`, resized to the cell by nearest
    neighbour. The first `size % factor` rows and columns of cells are one pixel larger.

    Args:
        patches (`Tensor` of shape `(n * factor**2, C, s, s)`): Best first: the best n all lie in cell (0, 0).
        size (`int`): Side of the images.
        factor (`int`): Patches per side.

    Returns:
        `Tensor` of shape `(n, C, size, size)`.

    Raises:
        ValueError: If `size < factor`, or the patches do not fill whole images.

    Source: RDED `mix_images`.
    """
    _check_factor(size, factor)
    if len(patches) == 0 or len(patches) % factor**2:
        raise ValueError(f"{len(patches)} patches do not fill images of {factor} x {factor}. Give a multiple of it.")
    n = len(patches) // factor**2
    sides = cell_sides(size, factor)
    rows = []
    for i, height in enumerate(sides):
        cells = [patches[(i * factor + j) * n : (i * factor + j + 1) * n] for j in range(factor)]
        fitted = [F.interpolate(c, size=(height, w), mode="nearest") for c, w in zip(cells, sides, strict=True)]
        rows.append(torch.cat(fitted, dim=-1))
    return torch.cat(rows, dim=-2)


def cell_sides(size: int, factor: int) -> list[int]:
    """Heights (and widths) of the cells of an image; they sum to `size`."""
    return [size // factor + (place < size % factor) for place in range(factor)]


def pad_to(pixels: Tensor, size: int) -> Tensor:
    """Zeros around `(..., h, w)`, centred, up to `(..., size, size)`: how patches are shown to the teacher."""
    top, left = (size - pixels.shape[-2]) // 2, (size - pixels.shape[-1]) // 2
    bottom, right = size - pixels.shape[-2] - top, size - pixels.shape[-1] - left
    return F.pad(pixels, (left, right, top, bottom))


def update_patches(
    patches: Tensor,
    originals: Tensor,
    features: Callable[[Tensor], Tensor],
    steps: int = 100,
    learning_rate: float = 0.01,
) -> Tensor:
    """Change stored patches so that, enlarged, their features are those of the originals.

    Args:
        patches (`Tensor` of shape `(n, C, s, s)`): Pixels in [0, 1]; not changed in place.
        originals (`Tensor` of shape `(n, C, S, S)`): The same crops at full size.
        features (callable): Pixels `(n, C, S, S)` in [0, 1] -> features `(n, d)`, differentiable.
        steps (`int`, *optional*, defaults to 100), learning_rate (`float`, *optional*, defaults to 0.01): Of Adam.

    Returns:
        `Tensor` of shape `(n, C, s, s)`: Pixels in [0, 1]. Equal to the input when the sizes are equal (nothing was
        lost) or `steps` is 0.

    Raises:
        ValueError: If the loss is not finite.

    Source: HeLlO section 3.3; which pixels vary, the resizing and the optimizer are ours.
    """
    if steps < 1 or patches.shape[-2:] == originals.shape[-2:]:
        return patches.clone()
    with torch.no_grad():
        target = features(originals)
    values = patches.clone().requires_grad_()
    optimizer = torch.optim.Adam([values], lr=learning_rate)
    for step in range(steps):
        loss = image_update_loss(target, features(resize(values, (originals.shape[-2], originals.shape[-1]))))
        if not bool(torch.isfinite(loss)):
            raise ValueError(f"The loss of the image update is {loss.item()} at step {step}. Lower the learning rate.")
        (values.grad,) = torch.autograd.grad(loss, [values])
        optimizer.step()
        with torch.no_grad():
            values.clamp_(0, 1)
    return values.detach()


def distill_images(
    dataset: Any,
    teacher: Any,
    ipc: int = 10,
    factor: int = 2,
    *,
    size: int,
    num_crop: int = 5,
    max_images: int = 300,
    image_processor: Any = None,
    allow_repeat: bool = False,
    encoder: Any = None,
    encoder_normalizer: Normalizer | None = None,
    image_update_steps: int = 0,
    image_update_lr: float = 0.01,
    batch_size: int = 100,
    seed: int = 0,
    image_column: str = "image",
    label_column: str = "labels",
) -> Any:
    """Few images per class that hold the crops which a teacher recognises best.

    Args:
        dataset (`datasets.Dataset`): Real images with hard labels; rows without a label (-1) are left out.
        teacher (`nn.Module` or callable): Gives logits for `pixel_values` `(B, C, size, size)`.
        ipc (`int`, *optional*, defaults to 10): Images per class.
        factor (`int`, *optional*, defaults to 2): Patches per side of an image.
        size (`int`): Side of the images; the teacher's input size.
        num_crop (`int`, *optional*, defaults to 5), max_images (`int`, *optional*, defaults to 300): Random crops per
            real image, and real images per class that are looked at.
        image_processor (*optional*): Of the teacher; its mean and standard deviation are used.
        allow_repeat (`bool`, *optional*, defaults to `False`): A class with fewer images gives several crops of one.
        encoder (*optional*), encoder_normalizer ([`Normalizer`], *optional*), image_update_steps (`int`, *optional*,
            defaults to 0), image_update_lr (`float`, *optional*, defaults to 0.01): Update the patches with the image
            features of this [`LabelProjector`]; see [`update_patches`].
        batch_size (`int`, *optional*, defaults to 100): Crops per call of the teacher.
        seed (`int`, *optional*, defaults to 0): Of the images looked at and their crops.
        image_column, label_column (`str`): Columns.

    Returns:
        `datasets.Dataset`: `image`, `labels`, `index`, and `source` (rows of `dataset` that the patches come from).

    Raises:
        ValueError: If a class has no image (named) or fewer than `ipc * factor**2`, `size < factor`, the data is
            empty, or an option is out of range.
    """
    _check_factor(size, factor)
    for name, value in (("ipc", ipc), ("num_crop", num_crop), ("max_images", max_images)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    if image_update_steps > 0 and encoder is None:
        raise ValueError("`image_update_steps` needs `encoder`: the projector whose features are to be kept.")
    names, rows_of = _classes(dataset, label_column)
    ask = as_callable(teacher)
    normalize = Normalizer((0.0,), (1.0,)) if image_processor is None else Normalizer.from_processor(image_processor)
    crop = RandomResizedCrop(size // factor, ratio=(1.0, 1.0), flip=0.0)
    images, labels, sources = [], [], []
    for label, rows in enumerate(rows_of):
        wanted = ipc * factor**2
        _check_enough(names[label], len(rows), max_images, wanted, (ipc, factor), allow_repeat)
        rng = np.random.default_rng([seed, label])
        rows = rng.permutation(rows)[:max_images]
        real = [_plain(image) for image in dataset.select(rows)[image_column]]
        views = [[crop.draw(*image_size(image), rng) for _ in range(num_crop)] for image in real]
        patches = torch.stack([crop.cut(i, v) for i, drawn in zip(real, views, strict=True) for v in drawn])
        scores = _scores(ask, normalize, patches, label, size, batch_size).view(len(real), num_crop)
        try:
            chosen = rded_select(scores, wanted, allow_repeat)
        except ValueError as error:
            raise ValueError(f"Class {names[label]!r}: {error}") from error
        kept = patches.view(len(real), num_crop, *patches.shape[1:])[[i for i, _ in chosen], [v for _, v in chosen]]
        if image_update_steps > 0:
            whole = torch.stack([cut_view(real[i], views[i][v], size) for i, v in chosen])
            kept = update_patches(
                kept, whole, _features(encoder, encoder_normalizer), image_update_steps, image_update_lr
            )
        images += list(rded_tile(kept, size, factor))
        labels += [label] * ipc
        sources += [[int(rows[chosen[cell * ipc + t][0]]) for cell in range(factor**2)] for t in range(ipc)]
    return _dataset(images, labels, sources, names)


def _check_factor(size: int, factor: int) -> None:
    if factor < 1 or size < factor:
        raise ValueError(f"`factor` must be in [1, `size`], got factor={factor} and size={size}: no cell has a pixel.")


def _classes(dataset: Any, column: str) -> tuple[list[str], list[np.ndarray]]:
    """Names of the classes, and the rows of each."""
    if len(dataset) == 0:
        raise ValueError("There are no rows: the data set is empty.")
    if column not in dataset.column_names:
        raise ValueError(f"Column `{column}` is missing; the data set has: {', '.join(dataset.column_names)}.")
    labels = np.asarray(dataset[column][:])
    names = getattr(dataset.features[column], "names", None)
    if names is None:
        names = [str(number) for number in range(int(labels.max()) + 1)]
    rows = [np.flatnonzero(labels == number) for number in range(len(names))]
    for name, found in zip(names, rows, strict=True):
        if len(found) == 0:
            raise ValueError(
                f"Class {name!r} has no image in column `{column}`. Add images of it, or take the class out."
            )
    return list(names), rows


def _check_enough(
    name: str, rows: int, max_images: int, wanted: int, why: tuple[int, int], allow_repeat: bool
) -> None:
    usable = min(rows, max_images)
    if usable < wanted and not allow_repeat:
        raise ValueError(
            f"Class {name!r} has {usable} usable images, and ipc={why[0]} with factor={why[1]} needs {wanted}. Lower "
            "`ipc` or `factor`, raise `max_images`, add images, or pass `allow_repeat=True`."
        )


def _plain(image: Any) -> Any:
    """Grey images stay grey, everything else becomes RGB."""
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


@torch.no_grad()
def _scores(ask: Any, normalize: Normalizer, patches: Tensor, label: int, size: int, batch_size: int) -> Tensor:
    """Teacher cross-entropy of each patch, which is shown in the middle of zeros."""
    found = []
    for part in patches.split(batch_size):
        logits = ask({"pixel_values": pad_to(normalize(part), size)})
        if label >= logits.shape[-1]:
            raise ValueError(f"The teacher has {logits.shape[-1]} classes, the data has class {label}.")
        found.append(F.cross_entropy(logits.float().cpu(), torch.full((len(part),), label), reduction="none"))
    return torch.cat(found)


def _features(encoder: Any, normalizer: Normalizer | None) -> Callable[[Tensor], Tensor]:
    base = encoder.get_base_model() if hasattr(encoder, "get_base_model") else encoder
    apply = normalizer or Normalizer((0.0,), (1.0,))

    def features(pixels: Tensor) -> Tensor:
        was = base.training
        base.eval()
        found = base.image_features(apply(pixels))
        base.train(was)
        return found

    return features


def _dataset(images: Sequence[Tensor], labels: list[int], sources: list[list[int]], names: list[str]) -> Any:
    import datasets
    from PIL import Image

    def encode(pixels: Tensor) -> dict[str, Any]:
        array = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    columns = {"image": [encode(image) for image in images], "labels": labels, "index": list(range(len(images)))}
    features = {
        "image": datasets.Image(),
        "labels": datasets.ClassLabel(names=names),
        "index": datasets.Value("int64"),
        "source": datasets.List(datasets.Value("int64")),
    }
    return datasets.Dataset.from_dict(columns | {"source": sources}, features=datasets.Features(features))
