"""Small models, texts and data that several scripts push or load. Nothing is downloaded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer, TrainingArguments

torch.set_num_threads(1)
SHARED = Path(os.environ.get("LOOPBACK_SHARED", "."))
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a the film is was good bad very not great poor plot acting".split()
TEXTS = ["the film is good", "the plot is poor", "a very great film", "acting was not good", "bad bad film", "great"]
LABELS = [1, 0, 1, 0, 0, 1]
NAMES = ["negative", "positive"]


def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}, model_max_length=32)


def config(**changes: object) -> BertConfig:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}
    return BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **(small | names | changes))


def classifier(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(config()).eval()


def encoder(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    return BertModel(config()).eval()


def logits_of(model: torch.nn.Module, words: BertTokenizer) -> list[list[float]]:
    """Logits of `TEXTS`; JSON keeps every bit of a float32."""
    batch = words(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits.tolist()


def rows(**columns: object) -> Dataset:
    """`TEXTS`, tokenised, with `LABELS` and further columns."""
    words = tokenizer()(TEXTS, padding="max_length", max_length=8)
    return Dataset.from_dict(dict(words) | {"labels": LABELS} | columns)


def arguments(name: str, output_dir: Path, kind: type[TrainingArguments] = TrainingArguments, **changes: object):
    """Arguments of a short run on CPU that is pushed as `tester/<name>`."""
    base = {"output_dir": str(output_dir), "max_steps": 2, "use_cpu": True, "disable_tqdm": True, "seed": 3}
    return kind(**(base | {"report_to": "none", "hub_model_id": f"tester/{name}"} | changes))


def remember(name: str, value: object) -> None:
    """Leave a value for the script that runs in the next, fresh process."""
    (SHARED / f"{name}.json").write_text(json.dumps(value))


def recall(name: str) -> object:
    return json.loads((SHARED / f"{name}.json").read_text())
