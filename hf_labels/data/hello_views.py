"""Random views of tiled images for training, as RDED and HeLlO train on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.data.hello import cell_sides
from hf_labels.data.images import Normalizer, RandomResizedCrop, cut_view, image_size, to_tensor
from hf_labels.data.soft_label_collator import EvaluationCollator
from hf_labels.labels.kinds import IGNORE_INDEX, MISSING


def shuffle_tiles(pixels: Tensor, factor: int, rng: np.random.Generator) -> Tensor:
    """The columns of cells of an image in a random order, then the rows.

    Args:
        pixels (`Tensor` of shape `(C, H, W)`): Tiled by [`rded_tile`].
        factor (`int`): Cells per side.
        rng (`numpy.random.Generator`): Of the two orders.

    Source: RDED `ShufflePatches` (which repeats pixels when the factor does not divide the size; ours does not).
    """
    for dim in (-1, -2):
        parts = pixels.split(cell_sides(pixels.shape[dim], factor), dim=dim)
        pixels = torch.cat([parts[place] for place in rng.permutation(factor)], dim=dim)
    return pixels


class DistilledCollator:
    """Rows with images to a batch of random views: tiles shuffled, a random crop, flipped, normalised.

    | in the batch | shape |
    | --- | --- |
    | `pixel_values` | (B, C, size, size) |
    | `labels` | (B,), -100 = missing |
    | `index` | (B,), when the rows have one |

    Random numbers come from torch's generator, which a `LabelTrainer` seeds for every step: a resumed run sees the
    same views. Wrap it in a [`~hf_labels.mixing.MixCollator`] for CutMix. With `factor=1` it serves for any images.

    Args:
        size (`int`): Side of the views, in pixels.
        image_processor (*optional*): Its mean and standard deviation normalise the pixels. A [`Normalizer`] will do.
        factor (`int`, *optional*, defaults to 2): Cells per side of the images.
        scale (`tuple[float, float]`, *optional*): Area of the crops; `(1 / factor, 1)` by default.
        flip (`float`, *optional*, defaults to 0.5): Probability of mirroring; 0 for digits and text.
        shuffle (`bool`, *optional*, defaults to `True`): Shuffle the tiles.
        image_column, label_column (`str`): Columns of the rows.

    Raises:
        ValueError: If an option is out of range.
        KeyError: If rows have no image.

    Source: RDED, training recipe.
    """

    def __init__(
        self,
        size: int,
        image_processor: Any = None,
        factor: int = 2,
        *,
        scale: tuple[float, float] | None = None,
        flip: float = 0.5,
        shuffle: bool = True,
        image_column: str = "image",
        label_column: str = "labels",
    ) -> None:
        if factor < 1:
            raise ValueError(f"`factor` must be at least 1, got {factor}.")
        low = 0.08 if factor == 1 else 1 / factor
        self.crop = RandomResizedCrop(size, (low, 1.0) if scale is None else scale, flip=flip)
        self.size = size
        self.factor = factor
        self.shuffle = shuffle
        self.image_column = image_column
        self.label_column = label_column
        self.normalizer = Normalizer((0.0,), (1.0,))
        if image_processor is not None:
            self.normalizer = Normalizer.from_processor(image_processor)

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns that are read from the rows."""
        return (self.image_column, self.label_column, "index")

    @property
    def evaluation_collator(self) -> EvaluationCollator:
        """Whole images, for evaluation."""
        return EvaluationCollator(self.size, self.normalizer, self.image_column, self.label_column)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        if self.image_column not in features[0]:
            raise KeyError(f"Rows have no column `{self.image_column}`. They have: {', '.join(features[0])}.")
        rng = np.random.default_rng(int(torch.randint(2**62, (), dtype=torch.int64)))
        cuts = []
        for feature in features:
            image = feature[self.image_column]
            if self.shuffle and self.factor > 1:
                image = shuffle_tiles(image if torch.is_tensor(image) else to_tensor(image), self.factor, rng)
            cuts.append(cut_view(image, self.crop.draw(*image_size(image), rng), self.size))
        batch = {"pixel_values": self.normalizer(torch.stack(cuts))}
        if self.label_column in features[0]:
            labels = torch.tensor([int(feature[self.label_column]) for feature in features])
            batch["labels"] = labels.masked_fill(labels == MISSING, IGNORE_INDEX)
        if "index" in features[0]:
            batch["index"] = torch.tensor([int(feature["index"]) for feature in features])
        return batch
