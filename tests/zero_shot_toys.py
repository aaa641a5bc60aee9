"""Tiny entailment models and texts for the zero-shot tests, made in place."""

from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset
from transformers import BertConfig, BertForSequenceClassification

from hf_labels.models.zero_shot_tc_pairs import PairEncoderForSequenceClassification
from tiny_text import SPECIAL, TEXTS, WORDS, save_backbone, tiny_tokenizer

NAMES = ("acne", "insomnia", "migraine")
HYPOTHESES = {
    "acne": ["it was acne .", "the skin of the face was oily"],
    "insomnia": ["it was insomnia ."],
    "migraine": ["it was migraine .", "the head hurts bad"],
}
NLI = ("contradiction", "neutral", "entailment")
PAIR = ("entailment", "not_entailment")


def nli_model(names: tuple[str, ...] = PAIR, seed: int = 0, spread: float = 0.7) -> BertForSequenceClassification:
    """A random cross-encoder whose logits differ visibly from pair to pair."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=spread,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(names)),
        label2id={name: place for place, name in enumerate(names)},
    )
    return BertForSequenceClassification(config).eval()


def pair_encoder(folder: Path, **settings: Any) -> PairEncoderForSequenceClassification:
    folder.mkdir(parents=True, exist_ok=True)
    return PairEncoderForSequenceClassification.from_backbone(save_backbone(folder), **settings).eval()


def texts(rows: int = 8) -> Dataset:
    found = [TEXTS[row % len(TEXTS)] for row in range(rows)]
    data = Dataset.from_dict({"text": [text for text, _ in found], "labels": [label for _, label in found]})
    return data.cast_column("labels", ClassLabel(names=list(NAMES)))


def pairs(rows: int = 16) -> Dataset:
    """`rows` pairs, of which every second entails; the fifth is not labelled."""
    found = []
    for row in range(rows):
        text, label = TEXTS[(row // 2) % len(TEXTS)]
        name = NAMES[label if row % 2 == 0 else (label + 1) % 3]
        found.append((text, HYPOTHESES[name][0], -1 if row == 5 else row % 2))
    columns = {key: [row[place] for row in found] for place, key in enumerate(("premise", "hypothesis", "labels"))}
    return Dataset.from_dict(columns).cast_column("labels", ClassLabel(names=list(PAIR)))


__all__ = ["HYPOTHESES", "NAMES", "NLI", "PAIR", "nli_model", "pair_encoder", "pairs", "texts", "tiny_tokenizer"]
