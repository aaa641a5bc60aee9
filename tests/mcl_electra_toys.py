"""Tiny MCL models and a batch for them."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining, PreTrainedTokenizerFast

from hf_labels.models.mcl_electra import MCLElectraForPreTraining
from hf_labels.models.mcl_electra_config import MCLElectraConfig

SIZES = {
    "vocab_size": 40,
    "embedding_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.3,
}
SPECIAL = {"mask_token_id": 4, "special_token_ids": [0, 1, 2, 3, 4]}


def tiny(seed=0, generator=None, discriminator=None, **settings):
    torch.manual_seed(seed)
    config = MCLElectraConfig(
        generator_config={**SIZES, "hidden_size": 8, **(generator or {})},
        discriminator_config={**SIZES, "hidden_size": 16, **(discriminator or {})},
        **{**SPECIAL, **settings},
    )
    return MCLElectraForPreTraining(config)


def batch(rows=4, width=16, seed=0, pads=True):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 40, (rows, width), generator=generator)
    ids[:, 0], ids[:, -1] = 2, 3
    mask = torch.ones_like(ids)
    if pads:
        ids[0, 10], ids[0, 11:], mask[0, 11:] = 3, 0, 0
    return ids, mask


def save_stock(folder, generator, discriminator):
    """Two tiny stock checkpoints under these names, the tokenizer with the second."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = (
        "The first look is not always the right one . Words change places and come back in order Nothing here knows"
    )
    vocab = {word: i for i, word in enumerate(dict.fromkeys([*special, *words.split()]))}
    made = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(vocab), "embedding_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "max_position_embeddings": 64}
    for name, kind, width in ((generator, ElectraForMaskedLM, 8), (discriminator, ElectraForPreTraining, 16)):
        kind(ElectraConfig(**sizes, hidden_size=width)).save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / discriminator)
