"""Tiny segmentation models and scenes for tests."""

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    ResNetConfig,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from hf_labels.losses.lad import LabelNoiser
from hf_labels.models.lad import add_input_channel

CLASSES, SIZE = 3, 16


def segformer(seed=0, num_labels=CLASSES, **options):
    torch.manual_seed(seed)
    sizes = {
        "num_encoder_blocks": 2,
        "hidden_sizes": [8, 8],
        "depths": [1, 1],
        "sr_ratios": [2, 1],
        "num_attention_heads": [1, 1],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "mlp_ratios": [2, 2],
        "decoder_hidden_size": 8,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "classifier_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "num_labels": num_labels,
    }
    return SegformerForSemanticSegmentation(SegformerConfig(**{**sizes, **options}))


def upernet(seed=0, num_labels=CLASSES):
    """With an auxiliary head."""
    torch.manual_seed(seed)
    stages = [f"stage{i}" for i in range(1, 5)]
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, out_features=stages)
    options = {"hidden_size": 8, "auxiliary_in_channels": 8, "auxiliary_channels": 8, "pool_scales": [1, 2]}
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, num_labels=num_labels, **options))


def noiser(**options):
    return LabelNoiser(CLASSES, **options)


def teacher(seed=1, **options):
    generator = torch.Generator().manual_seed(seed)
    return add_input_channel(segformer(seed, **options), std=0.5, generator=generator, noiser=noiser())


def scenes(rows=16, size=SIZE, seed=0, ignore=True):
    """A bright and a dark square on noise; some pixels are ignored."""
    rng = np.random.default_rng(seed)
    pixels = 0.3 * rng.normal(size=(rows, 3, size, size)).astype("float32")
    labels = np.zeros((rows, size, size), dtype="int64")
    for row in range(rows):
        for label, value in ((1, 1.0), (2, -1.0)):
            top, left = rng.integers(0, size - 6, 2)
            pixels[row, :, top : top + 6, left : left + 6] = value
            labels[row, top : top + 6, left : left + 6] = label
        if ignore and row % 3 == 0:
            labels[row, : row % 5] = 255
    return Dataset.from_dict({"pixel_values": pixels.tolist(), "labels": labels.tolist()})


def changed(data, row, change):
    """The data set with one label map changed."""
    maps = [np.array(labels) for labels in data["labels"][:]]
    maps[row] = change(maps[row])
    return data.remove_columns("labels").add_column("labels", [labels.tolist() for labels in maps])
