"""A tiny real text encoder for tests: a seeded BERT of 16 features with a word-level tokenizer that has a mask."""

from pathlib import Path

import torch
from datasets import ClassLabel, Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "it was . : the a of and on at in skin pimples face oily spots sleep night awake bed tired insomnia acne pain "
    "head back ache hurts migraine weight fat diet heavy obesity good bad day one two three four five six"
).split()
DESCRIPTIONS = {
    "acne": "pimples and oily skin on the face",
    "insomnia": "awake at night in bed and tired",
    "migraine": "pain and ache in the head",
}
TEXTS = [
    ("oily skin and spots", 0),
    ("pimples on the face", 0),
    ("awake in bed at night", 1),
    ("tired and awake one night", 1),
    ("the head hurts", 2),
    ("bad pain in the head", 2),
    ("spots on the face one day", 0),
    ("five night in bed awake", 1),
]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocab = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="removed")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def tiny_encoder_model(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    return BertModel(config).eval()


def save_backbone(folder: Path, seed: int = 0) -> str:
    """Write model and tokenizer into `folder / "backbone"`; the path."""
    path = str(folder / "backbone")
    tiny_encoder_model(seed).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def tiny_crosstune(**settings):
    """An untrained CrossTune model of three labels on the tiny encoder."""
    from hf_labels.models.crosstune import CrossTuneForSequenceClassification

    settings = {"num_heads": 4, "max_length": 16, **settings}
    labels = settings.pop("labels", DESCRIPTIONS)
    backbone = settings.pop("backbone", None) or tiny_encoder_model()
    return CrossTuneForSequenceClassification.from_backbone(
        backbone, labels, tokenizer=tiny_tokenizer(), **settings
    ).eval()


def text_dataset(rows: int = 8, names=tuple(DESCRIPTIONS)) -> Dataset:
    pairs = [TEXTS[i % len(TEXTS)] for i in range(rows)]
    texts = [f"{text} {'one two three four five six'.split()[i % 6]}" for i, (text, _) in enumerate(pairs)]
    data = Dataset.from_dict({"text": texts, "labels": [label for _, label in pairs], "index": list(range(rows))})
    return data.cast_column("labels", ClassLabel(names=list(names)))
