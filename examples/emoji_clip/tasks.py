"""Presets of `hello.py`: data, CLIP, networks and settings."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import emoji_clip

SMALL: dict[str, Any] = {
    "side": 32,
    "ipc": 10,
    "factor": 2,
    "views": 50,  # epochs of the student: a stored label for each view of each epoch
    "batch": 30,
    "rate": 3e-3,
    "beta": 0.1,  # weight of the hard labels beside soft ones
    "temperature": 2.0,  # of KL: the stored labels and the row that says so
    "teacher_epochs": 16,
    "teacher_rate": 3e-3,
    "real_batch": 64,
    "teachers": 9,
    "projector_epochs": 12,
    "projector_rate": 1e-2,
    "lam": 1.0,
    "rank": 4,
    "targets": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "update_steps": 0,
}
FULL = SMALL | {
    "side": 224,
    "views": 300,
    "batch": 100,
    "rate": 1e-3,
    "temperature": 4.0,
    "teacher_epochs": 90,
    "teacher_rate": 1e-3,
    "real_batch": 256,
    "projector_rate": 1e-3,
    "projector_epochs": 10,
    "rank": 8,
}


@dataclass(frozen=True)
class Task:
    """Data, CLIP and settings of a preset.

    Parameters:
        train, dev, test: Images and labels.
        clip: Folder or Hub id.
        words: Class name -> what stands for it in `prompt`.
        network: `seed -> model`, teacher and student.
        clip_bytes: Size of the CLIP's files, which is taken to be there already.
    """

    train: Any
    dev: Any
    test: Any
    clip: Any
    words: dict[str, str]
    prompt: str
    normalizer: Any
    network: Any
    clip_bytes: int
    settings: dict[str, Any]


@functools.cache
def task(preset: str) -> Task:
    """The parts of a preset."""
    from hf_labels.data.images import Normalizer

    if preset == "small":
        data, folder = emoji_clip.emoji(), emoji_clip.small_clip()
        names = data["train"].features["labels"].names
        words = {name: emoji_clip.words_of(name) for name in names}
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        parts = (data["train"], data["dev"], data["test"], folder, words, emoji_clip.PROMPT, emoji_clip.normalizer())
        return Task(*parts, small_network, size, SMALL)
    from datasets import load_dataset
    from transformers import AutoImageProcessor

    real = load_dataset("clane9/imagenet-100").rename_column("label", "labels")
    halves = real["validation"].train_test_split(test_size=0.5, seed=0)
    names = real["train"].features["labels"].names
    clip = "openai/clip-vit-base-patch32"
    normalizer = Normalizer.from_processor(AutoImageProcessor.from_pretrained(clip))
    words = {name: name.split(",")[0] for name in names}
    parts = (real["train"], halves["train"], halves["test"], clip, words, "a photo of a {}.", normalizer)
    return Task(*parts, resnet18, 605_000_000, FULL)


def small_network(seed: int) -> Any:
    """A small ResNet."""
    from transformers import ResNetConfig

    sizes = {"embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1], "layer_type": "basic"}
    return fresh(ResNetConfig(**sizes), list(task("small").words), seed)


def resnet18(seed: int) -> Any:
    """ResNet-18 from scratch."""
    from transformers import AutoConfig

    return fresh(AutoConfig.from_pretrained("microsoft/resnet-18"), list(task("full").words), seed)


def fresh(config: Any, names: list[str], seed: int) -> Any:
    """A network without training."""
    import torch
    from transformers import ResNetForImageClassification

    torch.manual_seed(seed)
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    return ResNetForImageClassification(config)
