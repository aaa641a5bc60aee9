"""Emoji and a small CLIP for `hello.py`: pre-trained on Google's drawings and their names, used on Twitter's."""

import functools
import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 32
TEST, DEV = 500, 250  # emoji; in no training set and not in the pre-training of CLIP
VENDORS = ("google", "twitter")
PROMPT = "a drawing of {}"
CLIP = {
    "hidden": 96,
    "layers": 3,
    "patch": 8,
    "projection": 64,
    "epochs": 50,
    "batch": 64,
    "learning_rate": 1e-3,
    "tokens": 24,
}


@functools.cache
def emoji() -> dict[str, Any]:
    """`clip` (Google), `train`, `dev`, `test` (Twitter) without the category of skin tones; classes are categories."""
    from datasets import ClassLabel

    from hf_labels.data.offline_images import load_emoji

    drawn = {vendor: load_emoji(vendor, SIDE, shared_by=VENDORS) for vendor in VENDORS}
    names = drawn["google"].features["labels"].names
    kept = [number for number, name in enumerate(names) if name != "Component"]
    rows = np.flatnonzero(np.isin(drawn["google"]["labels"][:], kept))
    order = np.random.default_rng(0).permutation(rows)
    parts = {"test": order[:TEST], "dev": order[TEST : TEST + DEV], "train": order[TEST + DEV :]}
    new = {old: place for place, old in enumerate(kept)}

    def part(vendor: str, name: str) -> Any:
        data = drawn[vendor].select(parts[name])
        labels = [new[label] for label in data["labels"][:]]
        feature = ClassLabel(names=[names[number] for number in kept])
        return data.remove_columns("labels").add_column("labels", labels).cast_column("labels", feature)

    return {"clip": part("google", "train"), **{name: part("twitter", name) for name in ("train", "dev", "test")}}


def words_of(category: str) -> str:
    """A category as words: `Food & Drink` -> `food and drink`."""
    return category.lower().replace("&", "and")


def captions(data: Any, rng: np.random.Generator) -> list[str]:
    """What is said of each emoji: its name, its sub-category and its category, or some of them."""
    names = data.features["labels"].names
    found = []
    for row in data.select_columns(["text", "subcategory", "labels"]):
        parts = [row["text"], row["subcategory"].replace("-", " "), words_of(names[row["labels"]])]
        keep = rng.random(3) < (0.7, 0.5, 0.5)
        said = [part for part, yes in zip(parts, keep, strict=True) if yes] or parts
        found.append(PROMPT.replace("{}", ", ".join(said)))
    return found


def normalizer() -> Any:
    """Of the CLIP, its image processor's numbers."""
    from hf_labels.data.images import Normalizer

    return Normalizer((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def tokenizer_of(data: Any) -> Any:
    """Words of all captions, one token each."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    rng = np.random.default_rng(0)
    split = pre_tokenizers.BertPreTokenizer()
    words = {w for _ in range(4) for text in captions(data, rng) for w, _ in split.pre_tokenize_str(text.lower())}
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", *sorted(words)])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = split
    made.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=CLIP["tokens"], **names)


def small_clip() -> Path:
    """Folder of the CLIP, pre-trained on the first call (about a minute) and kept in the cache."""
    from hf_labels.data.features import cache_root

    key = hashlib.sha256(json.dumps([CLIP, SIDE, PROMPT, TEST, DEV, 2]).encode()).hexdigest()[:12]
    place = cache_root() / "models" / f"emoji-clip-{key}"
    if not place.is_dir():
        draft = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
        model, tokenizer = pretrain(emoji()["clip"])
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        try:
            os.replace(draft, place)
        except OSError:  # another process was faster
            shutil.rmtree(draft, ignore_errors=True)
    return place


def pretrain(data: Any) -> tuple[Any, Any]:
    """A CLIP from a config, trained with its own contrastive loss on images and captions."""
    import torch
    from transformers import CLIPConfig, CLIPModel, get_cosine_schedule_with_warmup

    from hf_labels.data.hello_views import DistilledCollator

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = tokenizer_of(data)
    heads = {"num_attention_heads": 4, "hidden_size": CLIP["hidden"], "intermediate_size": 4 * CLIP["hidden"]}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = {"vocab_size": len(tokenizer), "num_hidden_layers": 2, "max_position_embeddings": CLIP["tokens"]}
    vision = {"num_hidden_layers": CLIP["layers"], "image_size": SIDE, "patch_size": CLIP["patch"]}
    config = CLIPConfig(
        text_config={**text, **heads, **special}, vision_config={**vision, **heads}, projection_dim=CLIP["projection"]
    )
    model = CLIPModel(config).train()
    collate = DistilledCollator(SIDE, normalizer(), factor=1, scale=(0.4, 1.0))
    rows = list(data.select_columns(["image"]))
    steps = CLIP["epochs"] * (len(rows) // CLIP["batch"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=CLIP["learning_rate"], weight_decay=0.1)
    schedule = get_cosine_schedule_with_warmup(optimizer, 30, steps)
    for _ in range(CLIP["epochs"]):
        said, order = captions(data, rng), rng.permutation(len(rows))
        for start in range(0, len(rows) - CLIP["batch"] + 1, CLIP["batch"]):
            chosen = order[start : start + CLIP["batch"]]
            words = tokenizer([said[i] for i in chosen], padding=True, truncation=True, return_tensors="pt")
            out = model(
                input_ids=words["input_ids"],
                attention_mask=words["attention_mask"],
                pixel_values=collate([rows[i] for i in chosen])["pixel_values"],
                return_loss=True,
            )
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            with torch.no_grad():
                model.logit_scale.clamp_(max=float(np.log(100)))
    return model.eval(), tokenizer
