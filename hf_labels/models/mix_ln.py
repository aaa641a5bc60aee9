"""Mix-LN: Post-LN in the first layers of a decoder, Pre-LN in the rest, at the same cost.

Source: Li, Yin and Liu 2024, arXiv:2412.13795. Models are made from a config and trained from scratch:

```python
config = MixLNConfig(num_hidden_layers=12, hidden_size=512, num_attention_heads=8, post_ln_fraction=0.25)
model = MixLNForCausalLM(config)
```

or from a stock model with [`apply_mix_ln`]. Everything else is stock: `Trainer`, `generate`, saving, Auto classes.
"""

import copy
import logging
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .mix_ln_families import (
    BASE_MODELS,
    CAUSAL_LMS,
    CLASSIFIERS,
    CONFIGS,
    MixLNConfig,
    MixLNDecoderLayer,
    MixLNForCausalLM,
    MixLNForSequenceClassification,
    MixLNMistralConfig,
    MixLNMistralForCausalLM,
    MixLNMistralModel,
    MixLNModel,
    MixLNQwen2Config,
    MixLNQwen2ForCausalLM,
    MixLNQwen2Model,
    MixLNQwen3Config,
    MixLNQwen3ForCausalLM,
    MixLNQwen3Model,
)
from .mix_ln_layers import NORM_TYPES, PlacedNormsModel

__all__ = [
    "NORM_TYPES",
    "MixLNConfig",
    "MixLNDecoderLayer",
    "MixLNForCausalLM",
    "MixLNForSequenceClassification",
    "MixLNMistralConfig",
    "MixLNMistralForCausalLM",
    "MixLNMistralModel",
    "MixLNModel",
    "MixLNQwen2Config",
    "MixLNQwen2ForCausalLM",
    "MixLNQwen2Model",
    "MixLNQwen3Config",
    "MixLNQwen3ForCausalLM",
    "MixLNQwen3Model",
    "apply_mix_ln",
]

logger = logging.getLogger(__name__)

_NOT_COPIED = ("model_type", "architectures", "auto_map", "transformers_version")


def apply_mix_ln(
    model: PreTrainedModel,
    fraction: float | None = None,
    *,
    num_post_layers: int | None = None,
    norm_type: str = "mix",
    embedding_init_std: float | None = None,
    reset_weights: bool = False,
) -> PreTrainedModel:
    """Turn a stock decoder into a Mix-LN model, before it is pre-trained.

    The result is of the Mix-LN class of the same family, with a config that says where the norms sit, so saving and
    loading work as for any model. Parameters are not copied: the result holds the very tensors of `model`, which is
    of no use afterwards (an optimizer that was made for it stays valid). The norm that a Post-LN layer has no place
    for becomes its second one, so the number of parameters is unchanged.

    Args:
        model ([`PreTrainedModel`]): A Llama, Mistral, Qwen2 or Qwen3 base model, causal language model or sequence
            classifier of `transformers`.
        fraction (`float`, *optional*): Share of layers, counted from the input, that become Post-LN, in `[0, 1]`;
            0.25 when neither this nor `num_post_layers` is given.
        num_post_layers (`int`, *optional*): Their number, in place of `fraction`.
        norm_type, embedding_init_std: See [`~hf_labels.models.mix_ln_layers.NormPlacement`].
            `embedding_init_std` is used when weights are drawn, so it needs `reset_weights=True`.
        reset_weights (`bool`, *optional*, defaults to `False`): Draw all weights anew by the config. Advised for
            `norm_type="deepnorm"`, whose initialisation is part of it.

    Returns:
        [`PreTrainedModel`]: For example a [`MixLNForCausalLM`] for a `LlamaForCausalLM`.

    Raises:
        TypeError: If `model` is of another class, is wrapped (adapters), or has norms placed already.
        ValueError: If the placement is impossible, the model is quantized or carries modules that a stock model does
            not have, or `embedding_init_std` comes without `reset_weights`.

    Source: Li, Yin and Liu 2024, arXiv:2412.13795, section 3.3. A trained Pre-LN checkpoint does not become a trained
    Mix-LN model in this way: its outputs change, and it has to be trained.
    """
    target = _target(model)
    if embedding_init_std is not None and not reset_weights:
        raise ValueError("`embedding_init_std` has an effect only with `reset_weights=True`.")
    old = model.config
    config = CONFIGS[type(old)](
        **{key: value for key, value in old.to_dict().items() if key not in _NOT_COPIED},
        norm_type=norm_type,
        num_post_layers=num_post_layers,
        post_ln_fraction=fraction,
        embedding_init_std=embedding_init_std,
    )
    config._attn_implementation = old._attn_implementation
    made = target(config).to(model.device, model.dtype) if reset_weights else _move_weights(model, target, config)
    made.train(model.training)
    if model.is_activation_checkpointing:
        made.activation_checkpointing_enable()
    if getattr(model, "generation_config", None) is not None:
        made.generation_config = copy.deepcopy(model.generation_config)
    if old.name_or_path and not reset_weights and config.norm_type != "pre":
        logger.warning(
            "`%s` was loaded from a checkpoint. With its norms moved, its outputs are no longer those it was trained "
            "for: train it before you use it.",
            old.name_or_path,
        )
    return made


def _target(model: Any) -> Any:
    """The class that `model` becomes."""
    targets = {**BASE_MODELS, **CAUSAL_LMS, **CLASSIFIERS}
    if isinstance(model, PlacedNormsModel):
        raise TypeError(
            f"`{type(model).__name__}` has its norms placed already (norm_type={model.config.norm_type!r}, "
            f"num_post_layers={model.config.num_post_layers}). Make a new model from a config instead."
        )
    if type(model) not in targets:
        known = ", ".join(sorted(stock.__name__ for stock in targets))
        raise TypeError(
            f"`apply_mix_ln` cannot place the norms of a `{type(model).__name__}`: after saving, nothing would load "
            f"it with its norms where they were put. It takes: {known}. Add adapters and wrappers afterwards."
        )
    if getattr(model, "hf_quantizer", None) is not None or getattr(model, "is_quantized", False):
        raise ValueError("`apply_mix_ln` takes no quantized model: Mix-LN is for pre-training in full precision.")
    return targets[type(model)]


def _move_weights(model: Any, target: Any, config: Any) -> Any:
    """A model of class `target` that holds the parameters of `model`, with its norms renamed."""
    with torch.device("meta"):
        made = target(config)
    state = model.state_dict(keep_vars=True)
    trainable = {name: parameter.requires_grad for name, parameter in state.items()}
    base = "" if model.base_model is model else f"{model.base_model_prefix}."
    for layer in range(config.num_hidden_layers):
        start, placement = f"{base}layers.{layer}.", config.norm_placement(layer)
        old, new = f"{start}input_layernorm.weight", f"{start}post_feedforward_layernorm.weight"
        if placement in ("post", "deepnorm"):
            state[new], trainable[new] = state.pop(old), trainable.pop(old)
        elif placement == "sandwich":
            for name in (new, f"{start}pre_feedforward_layernorm.weight"):
                state[name], trainable[name] = nn.Parameter(torch.ones_like(state[old])), True
    wanted = set(made.state_dict())
    if set(state) != wanted:
        odd = sorted(set(state) ^ wanted)
        raise ValueError(
            f"This `{type(model).__name__}` is not a plain stock model: `{odd[0]}` and {len(odd) - 1} more weights "
            "have no counterpart. Remove adapters and other added modules first."
        )
    made.load_state_dict(state, assign=True)
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(trainable[name])
    rotary = made.base_model.rotary_emb  # its buffers are not saved, and have no values yet
    made.base_model.rotary_emb = type(rotary)(config).to(model.device)
    made.tie_weights()
    return made
