"""A tiny CLIP with its tokenizer, a tiny teacher and small images, made in place."""

from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from peft import get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast, ViTConfig, ViTForImageClassification

from hf_labels.models.hello import LabelProjector
from hf_labels.models.hello_adapter import hello_lora_config

torch.set_num_threads(1)
NAMES = ["cat", "dog", "bird"]
SIDE = 8
WORDS = "[PAD] [UNK] [BOS] [EOS] a photo of the drawing cat dog bird fish horse . very big".split()


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )


def tiny_clip(seed: int = 0) -> CLIPModel:
    torch.manual_seed(seed)
    text = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "max_position_embeddings": 12}
    text |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": SIDE, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))
    with torch.no_grad():  # as far apart as those of a trained model
        model.logit_scale.fill_(2.0)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "position" not in name:
                parameter.normal_(std=0.5)
    return model.eval()


def save_clip(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tiny_clip(seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def projector(names=tuple(NAMES), seed: int = 0, **options) -> LabelProjector:
    return LabelProjector.from_clip(tiny_clip(seed), list(names), tokenizer=tokenizer(), **options)


def adapted(base: LabelProjector | None = None, noise: float = 0.0, rank: int = 2, head_rank: int = 3, **options):
    """A projector with adapters; `noise` moves B away from 0."""
    base = projector() if base is None else base
    torch.manual_seed(1)
    model = get_peft_model(base, hello_lora_config(base, rank, head_rank, **options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=noise) if noise else parameter.zero_()
    return model


def teacher(seed: int = 5, num_labels: int = 3) -> ViTForImageClassification:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(
        image_size=SIDE, patch_size=4, initializer_range=0.5, id2label=dict(enumerate(NAMES[:num_labels])), **sizes
    )
    return ViTForImageClassification(config).eval()


def pixels(rows: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def images(rows: int = 24, side: int = 16, seed: int = 0, names=tuple(NAMES)) -> Dataset:
    """Pictures whose brightest channel is their class."""
    from PIL import Image as PIL

    rng = np.random.default_rng(seed)
    labels = [row % len(names) for row in range(rows)]
    arrays = rng.integers(0, 120, size=(rows, side, side, 3), dtype=np.uint8)
    for array, label in zip(arrays, labels, strict=True):
        array[..., label % 3] += 120
    features = Features({"image": Image(), "labels": ClassLabel(names=list(names)), "index": Value("int64")})
    columns = {"image": [PIL.fromarray(a) for a in arrays], "labels": labels, "index": list(range(rows))}
    return Dataset.from_dict(columns, features=features)
