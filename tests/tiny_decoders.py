"""Tiny seeded decoders of several families, with weights large enough that greedy answers vary."""

import torch
import transformers as tf

SIZES = {
    "vocab_size": 17,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 17, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.3}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SLIDING = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
GEMMA3 = {**SIZES, "num_hidden_layers": 4, "sliding_window": 5, "sliding_window_pattern": 2}

FAMILIES = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**SIZES)),
    "qwen2-sliding": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**SIZES, **SLIDING)),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**SIZES)),
    "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**GPT2)),
    "gemma2-sliding": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**SIZES, sliding_window=6)),
    "gemma3-sliding": lambda: tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**GEMMA3)),
}


def decoder(family: str = "llama", seed: int = 0):
    """A model in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FAMILIES[family]().eval()


def padded_prompts(seed: int = 0, rows: int = 3, width: int = 9):
    """Prompts (rows, width) padded on the left by different amounts, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 17, (rows, width), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, : (row * 3) % 5] = 0
    return ids.masked_fill(mask == 0, 0), mask


def vision_decoder(seed: int = 0):
    """A LLaVA model (CLIP vision, Llama text) and inputs with one image of 4 patches per row."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
        vision = tf.CLIPVisionConfig(**sizes, image_size=8, patch_size=4)
        config = tf.LlavaConfig(vision_config=vision, text_config=tf.LlamaConfig(**SIZES), image_token_id=16)
        model = tf.LlavaForConditionalGeneration(config).eval()
        model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
        ids, mask = padded_prompts(seed, rows=2, width=12)
        ids = ids.masked_fill(ids == 16, 5)
        ids[:, 4:8] = 16
        mask[:] = 1
        mask[1, :3] = 0
        ids = ids.masked_fill((mask == 0), 0)
        return model, {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.randn(2, 3, 8, 8)}
