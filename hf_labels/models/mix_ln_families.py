"""Mix-LN models of each family: the stock classes of `transformers` with the norms placed by the config.

One block per family: config, layer, base model, causal language model, sequence classifier.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    MistralForSequenceClassification,
    MistralModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3Model,
)
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer
from transformers.models.mistral.modeling_mistral import MistralAttention, MistralDecoderLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention, Qwen3DecoderLayer

from .mix_ln_layers import (
    NormPlacement,
    PlacedNormsBackbone,
    PlacedNormsForCausalLM,
    PlacedNormsLayer,
    PlacedNormsModel,
)


@strict
class MixLNConfig(NormPlacement, LlamaConfig):
    """Settings of the Llama family: those of [`~transformers.LlamaConfig`] and the placement of the norms.

    Parameters:
        norm_type, num_post_layers, post_ln_fraction, embedding_init_std, deepnorm_alpha, scaled_output_init:
            See [`~hf_labels.models.mix_ln_layers.NormPlacement`].

    Raises:
        ValueError: An unknown `norm_type`, a number or a fraction of layers out of range, or two that disagree.

    Example:

    ```python
    >>> MixLNConfig(num_hidden_layers=12, post_ln_fraction=0.25).num_post_layers
    3

    ```
    """

    model_type = "hfl-mix-ln"


class MixLNDecoderLayer(PlacedNormsLayer, LlamaDecoderLayer):
    """Llama layer, Pre-LN or Post-LN by its index."""


class MixLNModel(PlacedNormsBackbone, LlamaModel):
    """Llama decoder with Mix-LN. The last norm is kept, also when all layers are Post-LN, as in the authors' code."""

    config: MixLNConfig
    _layer_class = MixLNDecoderLayer
    _no_split_modules = ["MixLNDecoderLayer"]
    _can_record_outputs = {"hidden_states": MixLNDecoderLayer, "attentions": LlamaAttention}


class MixLNForCausalLM(PlacedNormsForCausalLM, LlamaForCausalLM):
    """Llama language model with Mix-LN; `forward`, `generate` and saving are those of `LlamaForCausalLM`."""

    config: MixLNConfig
    _backbone_class = MixLNModel
    _no_split_modules = ["MixLNDecoderLayer"]


class MixLNForSequenceClassification(PlacedNormsModel, LlamaForSequenceClassification):
    """Llama classifier on a Mix-LN decoder (reads the last token that is not padding)."""

    config: MixLNConfig
    _no_split_modules = ["MixLNDecoderLayer"]


@strict
class MixLNMistralConfig(NormPlacement, MistralConfig):
    """As [`MixLNConfig`], for the Mistral family (sliding window)."""

    model_type = "hfl-mix-ln-mistral"


class MixLNMistralDecoderLayer(PlacedNormsLayer, MistralDecoderLayer):
    """Mistral layer, Pre-LN or Post-LN by its index."""


class MixLNMistralModel(PlacedNormsBackbone, MistralModel):
    """Mistral decoder with Mix-LN."""

    config: MixLNMistralConfig
    _layer_class = MixLNMistralDecoderLayer
    _no_split_modules = ["MixLNMistralDecoderLayer"]
    _can_record_outputs = {"hidden_states": MixLNMistralDecoderLayer, "attentions": MistralAttention}


class MixLNMistralForCausalLM(PlacedNormsForCausalLM, MistralForCausalLM):
    """Mistral language model with Mix-LN."""

    config: MixLNMistralConfig
    _backbone_class = MixLNMistralModel
    _no_split_modules = ["MixLNMistralDecoderLayer"]


class MixLNMistralForSequenceClassification(PlacedNormsModel, MistralForSequenceClassification):
    """Mistral classifier on a Mix-LN decoder."""

    config: MixLNMistralConfig
    _no_split_modules = ["MixLNMistralDecoderLayer"]


@strict
class MixLNQwen2Config(NormPlacement, Qwen2Config):
    """As [`MixLNConfig`], for the Qwen2 family (biases in the attention)."""

    model_type = "hfl-mix-ln-qwen2"


class MixLNQwen2DecoderLayer(PlacedNormsLayer, Qwen2DecoderLayer):
    """Qwen2 layer, Pre-LN or Post-LN by its index."""


class MixLNQwen2Model(PlacedNormsBackbone, Qwen2Model):
    """Qwen2 decoder with Mix-LN."""

    config: MixLNQwen2Config
    _layer_class = MixLNQwen2DecoderLayer
    _no_split_modules = ["MixLNQwen2DecoderLayer"]
    _can_record_outputs = {"hidden_states": MixLNQwen2DecoderLayer, "attentions": Qwen2Attention}


class MixLNQwen2ForCausalLM(PlacedNormsForCausalLM, Qwen2ForCausalLM):
    """Qwen2 language model with Mix-LN."""

    config: MixLNQwen2Config
    _backbone_class = MixLNQwen2Model
    _no_split_modules = ["MixLNQwen2DecoderLayer"]


class MixLNQwen2ForSequenceClassification(PlacedNormsModel, Qwen2ForSequenceClassification):
    """Qwen2 classifier on a Mix-LN decoder."""

    config: MixLNQwen2Config
    _no_split_modules = ["MixLNQwen2DecoderLayer"]


@strict
class MixLNQwen3Config(NormPlacement, Qwen3Config):
    """As [`MixLNConfig`], for the Qwen3 family (norms of queries and keys stay where they are)."""

    model_type = "hfl-mix-ln-qwen3"


class MixLNQwen3DecoderLayer(PlacedNormsLayer, Qwen3DecoderLayer):
    """Qwen3 layer, Pre-LN or Post-LN by its index."""


class MixLNQwen3Model(PlacedNormsBackbone, Qwen3Model):
    """Qwen3 decoder with Mix-LN."""

    config: MixLNQwen3Config
    _layer_class = MixLNQwen3DecoderLayer
    _no_split_modules = ["MixLNQwen3DecoderLayer"]
    _can_record_outputs = {"hidden_states": MixLNQwen3DecoderLayer, "attentions": Qwen3Attention}


class MixLNQwen3ForCausalLM(PlacedNormsForCausalLM, Qwen3ForCausalLM):
    """Qwen3 language model with Mix-LN."""

    config: MixLNQwen3Config
    _backbone_class = MixLNQwen3Model
    _no_split_modules = ["MixLNQwen3DecoderLayer"]


class MixLNQwen3ForSequenceClassification(PlacedNormsModel, Qwen3ForSequenceClassification):
    """Qwen3 classifier on a Mix-LN decoder."""

    config: MixLNQwen3Config
    _no_split_modules = ["MixLNQwen3DecoderLayer"]


# Stock config class -> config class here; stock model class -> model class here.
CONFIGS: dict[Any, Any] = {
    LlamaConfig: MixLNConfig,
    MistralConfig: MixLNMistralConfig,
    Qwen2Config: MixLNQwen2Config,
    Qwen3Config: MixLNQwen3Config,
}
BASE_MODELS: dict[Any, Any] = {
    LlamaModel: MixLNModel,
    MistralModel: MixLNMistralModel,
    Qwen2Model: MixLNQwen2Model,
    Qwen3Model: MixLNQwen3Model,
}
CAUSAL_LMS: dict[Any, Any] = {
    LlamaForCausalLM: MixLNForCausalLM,
    MistralForCausalLM: MixLNMistralForCausalLM,
    Qwen2ForCausalLM: MixLNQwen2ForCausalLM,
    Qwen3ForCausalLM: MixLNQwen3ForCausalLM,
}
CLASSIFIERS: dict[Any, Any] = {
    LlamaForSequenceClassification: MixLNForSequenceClassification,
    MistralForSequenceClassification: MixLNMistralForSequenceClassification,
    Qwen2ForSequenceClassification: MixLNQwen2ForSequenceClassification,
    Qwen3ForSequenceClassification: MixLNQwen3ForSequenceClassification,
}

for _config in CONFIGS.values():
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
for _auto, _models in (
    (AutoModel, BASE_MODELS),
    (AutoModelForCausalLM, CAUSAL_LMS),
    (AutoModelForSequenceClassification, CLASSIFIERS),
):
    for _model in _models.values():
        _auto.register(_model.config_class, _model, exist_ok=True)
