"""A backbone of a few thousand weights, made from a config, and a small text task that it can learn."""

import json
from pathlib import Path

TOPICS = {
    "sport": ["ball", "goal", "team", "match", "player"],
    "money": ["bank", "share", "profit", "market", "price"],
    "music": ["song", "band", "guitar", "album", "singer"],
}
WORDS = ["the", "a", "is", "was", "new", "old", "in", "of", "and", "it"]


def save_backbone(folder: Path) -> str:
    """A BERT of one layer with a word-level tokenizer, in `folder`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(w for ws in TOPICS.values() for w in ws), *TOPICS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, mask_token="[MASK]", model_max_length=32, **special
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size: dict = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    size["initializer_range"] = 0.1
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=32, **size)).save_pretrained(folder)
    return str(folder)


def rows(count: int, seed: int = 0) -> list[dict]:
    """Texts that hold two words of their topic, topics in turn."""
    import random

    draw = random.Random(seed)
    names = list(TOPICS)
    out = []
    for i in range(count):
        topic = names[i % len(names)]
        words = draw.sample(TOPICS[topic], 2) + draw.sample(WORDS, 4)
        draw.shuffle(words)
        out.append({"text": " ".join(words), "label": topic})
    return out


def write_jsonl(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def write_csv(path: Path, records: list[dict]) -> str:
    import csv

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return str(path)
