"""Tiny SLA models and images for tests."""

from datasets import ClassLabel, Dataset
from transformers import ResNetConfig, ViTConfig

import toys
from hf_labels.models.sla import SLAConfig, SLAForImageClassification

NAMES = ("news", "sport", "music")


def vit_config(num_channels=1):
    return ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=num_channels,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(NAMES)),
        label2id={name: i for i, name in enumerate(NAMES)},
    )


def resnet_config(num_channels=3):
    return ResNetConfig(num_channels=num_channels, embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])


def sla_model(backbone=None, seed=0, num_labels=3, **settings):
    import torch

    torch.manual_seed(seed)
    return SLAForImageClassification(
        SLAConfig.from_backbone(vit_config() if backbone is None else backbone, num_labels, **settings)
    )


def images(rows=16, **columns):
    data = toys.image_dataset(rows, **columns)
    return data.cast_column("labels", ClassLabel(names=list(NAMES))) if "labels" not in columns else data


def with_labels(data: Dataset, labels) -> Dataset:
    return data.remove_columns("labels").add_column("labels", labels)
