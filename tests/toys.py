"""Tiny models and data sets for tests, made in place: nothing is downloaded. `import toys` works in every test."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

torch.set_num_threads(1)  # such small models are slower with more, above all on a busy machine

VOCAB = 40
TOKENS = 6
NAMES = ("news", "sport", "music", "film", "food", "art")


def bert_config(num_labels: int = 3, dropout: float = 0.1, **options: Any) -> BertConfig:
    names = NAMES[:num_labels]
    return BertConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        **options,
    )


def tiny_bert(num_labels: int = 3, seed: int = 0, dropout: float = 0.1) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(bert_config(num_labels, dropout))


def tiny_token_bert(num_labels: int = 3, seed: int = 0, dropout: float = 0.0) -> BertForTokenClassification:
    torch.manual_seed(seed)
    return BertForTokenClassification(bert_config(num_labels, dropout))


def tiny_vit(num_labels: int = 3, seed: int = 0) -> ViTForImageClassification:
    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=num_labels,
    )
    return ViTForImageClassification(config)


def text_dataset(rows: int = 24, num_labels: int = 3, seed: int = 0, **columns: Any) -> Dataset:
    """`input_ids`, `attention_mask`, `labels` (learnable: the first token tells), `index`, and more columns."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % num_labels
    rng.shuffle(labels)
    tokens = rng.integers(10, VOCAB, size=(rows, TOKENS))
    tokens[:, 0] = 2 + labels
    dataset = Dataset.from_dict(
        {
            "input_ids": tokens.tolist(),
            "attention_mask": np.ones_like(tokens).tolist(),
            "labels": labels.tolist(),
            "index": list(range(rows)),
            **columns,
        }
    )
    return dataset.cast_column("labels", ClassLabel(names=list(NAMES[:num_labels])))


def soft_rows(rows: int, num_labels: int = 3, seed: int = 1) -> list[list[float]]:
    return np.random.default_rng(seed).dirichlet(np.ones(num_labels), size=rows).astype("float32").tolist()


def image_dataset(rows: int = 12, num_labels: int = 3, seed: int = 0, **columns: Any) -> Dataset:
    rng = np.random.default_rng(seed)
    pixels = rng.normal(size=(rows, 1, 8, 8)).astype("float32")
    return Dataset.from_dict(
        {"pixel_values": pixels.tolist(), "labels": (np.arange(rows) % num_labels).tolist(), **columns}
    )


def tiny_tokenizer(side: str = "right") -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i for i in range(2, VOCAB)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", padding_side=side, model_max_length=32
    )


def quick(output_dir: str | Path, **options: Any) -> dict[str, Any]:
    """Training arguments for the CPU without reports, progress bars or extra files."""
    return {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 1e-3,
        "num_train_epochs": 1,
        "dataloader_pin_memory": False,
    } | options


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], atol: float = 0.0) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")
