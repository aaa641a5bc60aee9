"""Tagged toy sentences and a tiny tagger. `import name_tagging_toys` works in every test."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import BertForTokenClassification

import toys

TAGS = ["O", "B-cat", "I-cat", "B-dog", "I-dog"]
LENGTH = 8


def tagger(names: list[str] | None = None, seed: int = 0) -> BertForTokenClassification:
    """A BERT without dropout whose tags are O, B-X, I-X."""
    names = TAGS if names is None else names
    config: Any = toys.bert_config(2, dropout=0.0)
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    torch.manual_seed(seed)
    return BertForTokenClassification(config)


def tagged(rows: int = 16, seed: int = 0, pseudo: bool = True) -> Dataset:
    """`input_ids`, `attention_mask`, `labels`, `entity_ids`, `pseudo_tags`: the token tells the tag."""
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {name: [] for name in ("input_ids", "labels", "entity_ids", "pseudo_tags")}
    for _ in range(rows):
        tags: list[int] = []
        while len(tags) < LENGTH:
            kind = int(rng.integers(3))
            tags += [0] if kind == 2 else [1 + 2 * kind] + [2 + 2 * kind] * int(rng.integers(2))
        tags = tags[:LENGTH]
        extra = [int(tag == 0 and rng.random() < 0.5) for tag in tags]
        columns["labels"].append(tags)
        columns["pseudo_tags"].append(extra)
        columns["entity_ids"].append([tag // 2 if tag else 0 for tag in tags])
        tokens = [5 + 4 * tag + 20 * seen + int(rng.integers(4)) for tag, seen in zip(tags, extra, strict=True)]
        columns["input_ids"].append([min(token, toys.VOCAB - 1) for token in tokens])
    columns["attention_mask"] = [[1] * LENGTH] * rows
    data = Dataset.from_dict(columns)
    return data if pseudo else data.remove_columns("pseudo_tags")
