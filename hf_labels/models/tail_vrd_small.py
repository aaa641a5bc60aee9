"""A small vision-language student from a configuration, without the Hub: for experiments, the demo code and tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ["<pad>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<image>"]


def small_tokenizer(texts: Sequence[str], vocabulary: int = 512) -> Any:
    """A byte-level tokenizer of the texts, in which every digit is a token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        list(texts),
        trainers.BpeTrainer(
            vocab_size=max(vocabulary, len(alphabet) + len(_SPECIAL)),
            special_tokens=_SPECIAL,
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", additional_special_tokens=_SPECIAL[2:]
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def small_vlm(
    texts: Sequence[str],
    *,
    image_size: int = 96,
    patch_size: int = 8,
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 4,
    vocabulary: int = 512,
    positions: int = 1024,
    seed: int = 0,
) -> tuple[Any, Any]:
    """A LLaVA with random weights, and its processor.

    Args:
        texts (sequence of `str`): Instructions and answers: the tokenizer is made for them.
        image_size, patch_size (`int`, *optional*): In pixels; images are squeezed into a square.
        hidden_size, layers, heads (`int`, *optional*): Of the vision tower and of the language part.
        vocabulary (`int`, *optional*), positions (`int`, *optional*): Of the language part.
        seed (`int`, *optional*): Of the weights.

    Returns:
        `(LlavaForConditionalGeneration, LlavaProcessor)`
    """
    import torch
    import transformers as hf

    tokenizer = small_tokenizer(texts, vocabulary)
    common: dict[str, Any] = {
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    language = hf.LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=positions,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        **common,
    )
    eyes = hf.CLIPVisionConfig(image_size=image_size, patch_size=patch_size, projection_dim=hidden_size, **common)
    config = hf.LlavaConfig(
        vision_config=eyes,
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    square = {"height": image_size, "width": image_size}
    processor = hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(
            size=square,
            do_center_crop=False,
            image_mean=[0.9] * 3,
            image_std=[0.2] * 3,  # paper is 0, ink is not
        ),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        chat_template=_TEMPLATE,
        num_additional_image_tokens=1,
    )
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = hf.LlavaForConditionalGeneration(config)
    torch.random.set_rng_state(generator_state)
    return model, processor
