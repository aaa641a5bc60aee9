"""Tiny images, teachers and stores for the tests of FerKD and ReLabel. `import soft_view_toys` works in every test."""

from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from datasets import Image as ImageColumn
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification

from hf_labels.data import RandomResizedCrop, SoftLabelStore, StoreInfo

NAMES = ("left", "right", "both")


def pictures(rows: int, seed: int = 0) -> Dataset:
    """Grey images of 12 x 12 pixels whose class can be seen: a bright half, or both. Columns image, index, labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 3
    images = rng.integers(0, 90, size=(rows, 12, 12)).astype(np.uint8)
    images[labels != 1, :, :6] += 120
    images[labels != 0, :, 6:] += 120
    columns = {"image": [Image.fromarray(image) for image in images], "index": [7 * n for n in range(rows)]}
    data = Dataset.from_dict(columns | {"labels": labels.tolist()})
    return data.cast_column("image", ImageColumn()).cast_column("labels", ClassLabel(names=list(NAMES)))


def vit(seed: int = 0) -> ViTForImageClassification:
    """No dropout, and no bias of the keys, which no loss can move."""
    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        qkv_bias=False,
        id2label=dict(enumerate(NAMES)),
    )
    return ViTForImageClassification(config)


def teacher(inputs: Any) -> torch.Tensor:
    """Logits from the brightness of both halves; unsure where they are alike."""
    pixels = inputs["pixel_values"]
    left, right = (
        pixels[..., : pixels.shape[-1] // 2].mean((1, 2, 3)),
        pixels[..., pixels.shape[-1] // 2 :].mean((1, 2, 3)),
    )
    return 20 * torch.stack([left - right, right - left, (left + right) / 2 - 0.45], 1)


def view_store(data: Dataset, views: int = 6, **options: Any) -> SoftLabelStore:
    """Soft labels of random crops."""
    settings: dict[str, Any] = {"views": views, "crop": RandomResizedCrop(8, (0.2, 1.0)), "k": 2}
    return SoftLabelStore.build(teacher, data, **settings | options)


def map_store(data: Dataset, k: int = 2) -> SoftLabelStore:
    """Label maps of 2 x 4 cells: in each cell the class of its own half, with the sureness of its brightness."""
    maps = []
    for image in data["image"]:
        pixels = np.asarray(image, np.float32) / 255
        cells = pixels.reshape(2, 6, 4, 3).mean((1, 3))
        left = np.broadcast_to(np.array([1.0, 1.0, 0.0, 0.0]), (2, 4))
        maps.append(np.stack([9 * cells * left, 9 * cells * (1 - left), 4 * cells]))
    dense = torch.from_numpy(np.stack(maps)).float()
    values, ids = dense.topk(k, dim=1)
    rows = {
        "example_id": np.asarray(data["index"][:], np.int64),
        "label": np.asarray(data["labels"][:], np.int32),
        "map_ids": ids.numpy().astype(np.uint16),
        "map_values": values.numpy().astype(np.float16),
    }
    names = dict(enumerate(NAMES))
    return SoftLabelStore.from_rows(StoreInfo("map", 3, k=k, map_shape=(2, 4), has_labels=True, id2label=names), rows)
