"""Scenes of two real digits under noise, for semantic segmentation, and a small CNN for them."""

import functools
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

DIGITS = 4  # classes 1 to 4; 0 is background


class DilatedConfig(PreTrainedConfig):
    """A CNN of five convolutions with dilation."""

    model_type = "dilated-scenes"

    def __init__(self, num_channels: int = 1, width: int = 12, semantic_loss_ignore_index: int = 255, **kwargs: Any):
        self.num_channels, self.width = num_channels, width
        self.semantic_loss_ignore_index = semantic_loss_ignore_index
        super().__init__(**kwargs)


class DilatedForSemanticSegmentation(PreTrainedModel):
    """Logits at the size of the image; each output sees 31 x 31 pixels, more than a digit."""

    config_class = DilatedConfig

    def __init__(self, config: DilatedConfig):
        super().__init__(config)
        channels, layers = config.num_channels, []
        for dilation in (1, 2, 4, 8):
            layers += [nn.Conv2d(channels, config.width, 3, padding=dilation, dilation=dilation)]
            layers += [nn.BatchNorm2d(config.width), nn.ReLU()]
            channels = config.width
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(channels, config.num_labels, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> SemanticSegmenterOutput:
        return SemanticSegmenterOutput(logits=self.classifier(self.layers(pixel_values)))


@functools.cache
def digits() -> dict[str, tuple[Any, Any]]:
    """Digits 0 to 3 of 14 x 14 pixels in [0, 1], in three parts that share none."""
    import numpy as np

    from hf_labels.data import offline_images as offline

    data = offline.load_mnist_5k()
    labels = np.array(data["labels"][:])
    pixels = torch.from_numpy(offline.pixels(data)).float()[:, None] / 255
    pixels = torch.nn.functional.avg_pool2d(pixels, 2)[:, 0]
    keep = np.random.default_rng(0).permutation(np.flatnonzero(labels < DIGITS))
    cuts = {"train": keep[:1000], "dev": keep[1000:1400], "test": keep[1400:]}
    return {name: (pixels[rows], torch.from_numpy(labels[rows])) for name, rows in cuts.items()}


@functools.cache
def scenes(part: str, number: int, noise: float, seed: int) -> Any:
    """Scenes of 14 x 28 pixels: each half holds a digit with probability 0.75; label 0 is background."""
    from datasets import Dataset

    images, classes = digits()[part]
    generator = torch.Generator().manual_seed(seed)
    pixels, labels = torch.zeros(number, 1, 14, 28), torch.zeros(number, 14, 28, dtype=torch.int64)
    for half in (0, 14):
        rows = torch.randint(0, len(images), (number,), generator=generator)
        there = torch.rand(number, generator=generator) < 0.75
        chosen = images[rows] * there[:, None, None]
        pixels[:, 0, :, half : half + 14] = chosen
        labels[:, :, half : half + 14] = (chosen > 0.3) * (1 + classes[rows])[:, None, None]
    pixels += noise * torch.randn(pixels.shape, generator=generator)
    pixels = (pixels - 0.1) / (noise**2 + 0.25**2) ** 0.5
    data = Dataset.from_dict({"row": list(range(number))})

    def read(batch: dict[str, list[int]]) -> dict[str, Any]:
        return {"pixel_values": list(pixels[batch["row"]]), "labels": list(labels[batch["row"]])}

    return data.with_transform(read)
