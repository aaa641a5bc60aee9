"""A shelf of eight small source models: other drawings and other classes of emoji, clothes, digits."""

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import harness

PEOPLE = ("People & Body", "Smileys & Emotion")
SHELF = ("google", "apple", "facebook", "google people", "google things", "clothes", "digits", "google random")


@functools.cache
def emoji(vendor: str) -> tuple[Any, Any]:
    """Data set of one vendor without the five components, and its pixels (rows, 3, 32, 32) as floats."""
    import torch

    from hf_labels.data.offline_images import load_emoji, pixels

    data = load_emoji(vendor, 32)
    names = data.features["labels"].names
    data = data.select(np.flatnonzero(np.asarray(data["labels"][:]) != names.index("Component")))
    images = torch.from_numpy(pixels(data)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return data, images


def halves() -> tuple[np.ndarray, np.ndarray]:
    """Rows of the emoji for the shelf, and for the target."""
    order = np.random.default_rng(0).permutation(len(emoji("twitter")[0]))
    return order[: len(order) // 2], order[len(order) // 2 :]


def network(sizes: list[int], names: Any, seed: int) -> Any:
    """A stock ResNet of three basic blocks."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(seed)
    config = ResNetConfig(
        embedding_size=sizes[0],
        hidden_sizes=sizes,
        depths=[1, 1, 1],
        layer_type="basic",
        id2label={number: str(name) for number, name in enumerate(names)},
    )
    return ResNetForImageClassification(config)


def source_data(name: str) -> tuple[Any, np.ndarray]:
    """Images (rows, 3, 32, 32) and labels 0, 1, ... of the task of one source."""
    import torch

    from hf_labels.data import offline_images as offline

    if name in ("clothes", "digits"):
        data = offline.load_fashion_mnist("test") if name == "clothes" else offline.load_mnist_5k()
        rows = np.random.default_rng(1).permutation(len(data))[:2000]
        grey = torch.from_numpy(offline.pixels(data)[rows]).float()[:, None] / 127.5 - 1
        return torch.nn.functional.interpolate(grey, 32).expand(-1, 3, -1, -1), np.asarray(data["labels"][:])[rows]
    data, images = emoji(name.split()[0])
    rows, (_, _, task) = halves()[0], name.partition(" ")
    labels = np.asarray([data.features["labels"].names[label] for label in data["labels"][:]])
    if task in ("people", "things"):
        rows = rows[np.isin(labels, PEOPLE)[rows] == (task == "people")]
        labels = np.asarray(data["subcategory"][:])
    if task == "random":
        labels = np.random.default_rng(2).permutation(labels)
    return images[rows], np.unique(labels[rows], return_inverse=True)[1]


def jitter(images: Any, generator: Any = None) -> Any:
    """Every image shifted by up to 3 pixels, half of them mirrored."""
    import torch

    padded = torch.nn.functional.pad(images, (3, 3, 3, 3), value=1.0)
    y, x = torch.randint(0, 7, (2, len(images), 1), generator=generator) + torch.arange(32)
    mirrored = torch.rand(len(images), 1, generator=generator) < 0.5
    x = torch.where(mirrored, x.flip(1), x)
    rows = torch.arange(len(images))[:, None, None]
    return padded.movedim(1, -1)[rows, y[:, :, None], x[:, None]].movedim(-1, 1)


def train_shelf(folder: str, steps: int = 250) -> None:
    """Train the sources once, and save each as a user would find it on the Hub."""
    import torch
    from torch.nn import functional as F
    from transformers import ViTImageProcessorPil

    harness.one_thread()
    half = [0.5, 0.5, 0.5]
    processor = ViTImageProcessorPil(do_resize=False, image_mean=half, image_std=half)
    for name in SHELF:
        images, labels = source_data(name)
        model = network([32, 64, 96], range(int(labels.max()) + 1), seed=7)
        generator = torch.Generator().manual_seed(7)
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(images), (64,), generator=generator)
            loss = F.cross_entropy(
                model(jitter(images[rows], generator)).logits, torch.from_numpy(labels[rows.numpy()])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.save_pretrained(Path(folder) / name)
        processor.save_pretrained(Path(folder) / name)


def bank_of(folder: str) -> Any:
    """The shelf, with features cached beside it."""
    from hf_labels.data.distill_weighted import Source, SourceBank

    found = [replace(Source.from_pretrained(str(Path(folder) / name)), name=name) for name in SHELF]
    return SourceBank(found, cache_dir=Path(folder) / "features")
