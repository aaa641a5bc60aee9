"""Tiny images with an id, source models and their soft labels. `import distill_weighted_toys` works in every test."""

from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset

import toys
from hf_labels.data import SoftLabelStore, StoreInfo
from hf_labels.data.distill_weighted import Source

NAMES = ("left", "right", "both")


def images(rows: int, first: int = 0, seed: int = 0) -> Dataset:
    """`pixel_values` (1, 8, 8) whose bright half tells the class, `labels`, `index` from `first` on."""
    rng = np.random.default_rng([seed, first])
    labels = np.arange(rows) % 3
    pixels = rng.normal(0, 0.3, size=(rows, 1, 8, 8)).astype("float32")
    pixels[labels != 1, :, :, :4] += 1
    pixels[labels != 0, :, :, 4:] += 1
    columns = {"pixel_values": pixels.tolist(), "labels": labels.tolist()}
    data = Dataset.from_dict(columns | {"index": list(range(first, first + rows))})
    return data.cast_column("labels", ClassLabel(names=list(NAMES)))


def student(seed: int = 0) -> Any:
    """A ViT without dropout and without the bias of the keys, which no loss can move."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(
        image_size=8, patch_size=4, num_channels=1, qkv_bias=False, id2label=dict(enumerate(NAMES)), **sizes
    )
    return ViTForImageClassification(config)


def source(name: str = "halves") -> Source:
    """Features that tell the halves, and the source's own three classes."""

    def encode(items: list[np.ndarray]) -> dict[str, np.ndarray]:
        pixels = np.stack(items)
        halves = np.stack([pixels[..., :4].mean((1, 2, 3)), pixels[..., 4:].mean((1, 2, 3))], 1)
        more = pixels.reshape(len(items), -1)[:, :2]
        logits = torch.tensor(np.c_[halves[:, 0] - halves[:, 1], halves[:, 1] - halves[:, 0], halves.sum(1) - 1.5])
        return {"features": np.c_[halves, more], "probs": (4 * logits).softmax(-1).numpy()}

    return Source(name, encode)


def noise(name: str = "noise") -> Source:
    """Features that know nothing."""

    def encode(items: list[np.ndarray]) -> dict[str, np.ndarray]:
        seeds = [int.from_bytes(item.tobytes()[:4], "little") for item in items]
        return {"features": np.stack([np.random.default_rng(seed).normal(size=4) for seed in seeds])}

    return Source(name, encode)


def soft_store(ids: list[int], extra: bool = True) -> SoftLabelStore:
    """Random distributions for these ids."""
    info = StoreInfo("dense", 3, codec="float32", id2label=dict(enumerate(NAMES)))
    if extra:
        info.extra["distill_sources"] = {"power": "1.0", "sources": [{"id": "halves", "weight": 1.0}]}
    probs = torch.tensor(toys.soft_rows(len(ids)), dtype=torch.float64)
    return SoftLabelStore.from_arrays(info, example_ids=ids, probs=probs / probs.sum(1, keepdim=True))
