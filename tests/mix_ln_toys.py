"""Tiny Mix-LN models and the stock ones they are compared with."""

import copy

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hf_labels.models.mix_ln import (
    MixLNConfig,
    MixLNForCausalLM,
    MixLNMistralForCausalLM,
    MixLNQwen2ForCausalLM,
    MixLNQwen3ForCausalLM,
)

TINY = dict(
    vocab_size=37,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=None,
    # Large weights: with the default 0.02 every layer of so narrow a model is close to the identity, and a wrong norm
    # would hide below the tolerances.
    initializer_range=0.3,
)
WINDOW = dict(sliding_window=5)
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**TINY), MixLNForCausalLM),
    "mistral": (MistralForCausalLM, MistralConfig(**TINY, **WINDOW), MixLNMistralForCausalLM),
    "qwen2": (
        Qwen2ForCausalLM,
        Qwen2Config(**TINY, **WINDOW, use_sliding_window=True, max_window_layers=2, tie_word_embeddings=True),
        MixLNQwen2ForCausalLM,
    ),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**TINY, head_dim=8), MixLNQwen3ForCausalLM),
}
PLACEMENTS = [("mix", 2), ("post", None), ("pre_post", 1), ("deepnorm", None), ("sandwich", None)]


def tiny(seed=0, **settings):
    torch.manual_seed(seed)
    return MixLNForCausalLM(MixLNConfig(**{**TINY, **settings})).eval()


def stock(family="llama", seed=0):
    cls, config, _ = FAMILIES[family]
    torch.manual_seed(seed)
    return cls(copy.deepcopy(config)).eval()


def tokens(rows=3, length=9, seed=1):
    return torch.randint(2, 37, (rows, length), generator=torch.Generator().manual_seed(seed))


def same_weights(model, other):
    a, b = model.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
