"""Where the norms of a decoder layer sit: the parts that the Mix-LN models of all families share.

Source: Li, Yin and Liu 2024, arXiv:2412.13795, section 3; layer forms of the authors' code. The classes here are mixed
in front of the stock classes of `transformers`, which keep attention, MLP, masks, cache and rotary embeddings.
This file and its siblings `mix_ln*.py` need nothing but torch and transformers, so they can travel with a checkpoint.
"""

import logging
import math
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init

logger = logging.getLogger(__name__)

NORM_TYPES: tuple[str, ...] = ("mix", "pre", "post", "pre_post", "deepnorm", "sandwich")
DEFAULT_FRACTION = 0.25
_NORM_FIELDS = ("num_post_layers", "post_ln_fraction", "norm_type")
_MOVED_NORM = re.compile(r"(layers\.\d+)\.(input_layernorm|post_feedforward_layernorm|pre_feedforward_layernorm)\.")

# The classes below are mixed in front of stock classes, whose members they use: a base that type checkers let pass.
_Stock: Any = object


@dataclass(kw_only=True, repr=False, eq=False)
class NormPlacement(_Stock):
    """Config fields that say which layers are Post-LN. Mixed into the config of each family.

    Parameters:
        norm_type (`str`, *optional*, defaults to `"mix"`):
            `"mix"`: the first `num_post_layers` layers are Post-LN, the rest Pre-LN (the method). `"pre"`: all Pre-LN,
            the stock model. `"post"`: all Post-LN. `"pre_post"`: the *last* `num_post_layers` are Post-LN.
            `"deepnorm"`: all Post-LN with a scaled residual and a scaled initialisation (arXiv:2203.00555).
            `"sandwich"`: a norm before and after each sublayer; the only type with more parameters (two norms more).
        num_post_layers (`int`, *optional*):
            Number of Post-LN layers, in `[0, num_hidden_layers]`. `None` takes `post_ln_fraction`.
        post_ln_fraction (`float`, *optional*):
            alpha in the paper, in `[0, 1]`: `num_post_layers = floor(alpha * num_hidden_layers)`. It is resolved when
            the config is made and is `None` afterwards, so that `num_post_layers` alone counts. With neither given,
            0.25, the paper's choice.
        embedding_init_std (`float`, *optional*):
            Standard deviation of new embeddings. `None`: `initializer_range`. The authors' code uses
            `sqrt(2 / 5) = 0.6325`; it matters because layer 0 of a Mix-LN model reads the embedding without a norm.
        deepnorm_alpha (`float`, *optional*):
            Factor of the residual for `norm_type="deepnorm"`. `None`: `(2 * num_hidden_layers) ** 0.25`, which is the
            constant 2.8284 of the authors' code at 32 layers.
        scaled_output_init (`bool`, *optional*, defaults to `False`):
            New output projections (`o_proj`, `down_proj`) get their standard deviation divided by
            `sqrt(2 * num_hidden_layers)` (`scale_pre` in the authors' code, when `norm_type="pre"`).
    """

    norm_type: str = "mix"
    num_post_layers: int | None = None
    post_ln_fraction: float | int | None = None
    embedding_init_std: float | None = None
    deepnorm_alpha: float | None = None
    scaled_output_init: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.resolve_norms()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; a new placement given here replaces the stored one as a whole."""
        changed = {name: kwargs.pop(name) for name in _NORM_FIELDS if name in kwargs}
        if changed:
            stored = {"norm_type": config_dict.get("norm_type", "mix")}
            config_dict = {k: v for k, v in config_dict.items() if k not in _NORM_FIELDS} | stored | changed
        return super().from_dict(config_dict, **kwargs)

    def resolve_norms(self) -> None:
        """Check the placement and turn it into `num_post_layers`. Models call it again: fields can be set by hand.

        Raises:
            ValueError: Unknown `norm_type`; a number or fraction out of range; two settings that disagree.
        """
        layers = self.num_hidden_layers
        number, fraction = self.num_post_layers, self.post_ln_fraction
        if self.norm_type not in NORM_TYPES:
            raise ValueError(f"`norm_type` must be one of {', '.join(NORM_TYPES)}; got {self.norm_type!r}.")
        if number is not None and not 0 <= number <= layers:
            raise ValueError(f"`num_post_layers` must be in [0, {layers}] (`num_hidden_layers`), got {number}.")
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"`post_ln_fraction` must be in [0, 1], got {fraction}.")
        for name in ("embedding_init_std", "deepnorm_alpha"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be a positive number or None, got {value}.")
        # The small addend repairs products such as 0.29 * 100 = 28.999999999999996.
        of_fraction = None if fraction is None else math.floor(fraction * layers + 1e-9)
        if number is not None and of_fraction is not None and number != of_fraction:
            raise ValueError(
                f"`num_post_layers` = {number} and `post_ln_fraction` = {fraction} disagree: the fraction gives "
                f"{of_fraction} of {layers} layers. Give only one of the two."
            )
        given = number if number is not None else of_fraction
        fixed = {"pre": 0, "sandwich": 0, "post": layers, "deepnorm": layers}.get(self.norm_type)
        if fixed is not None and given not in (None, fixed):
            raise ValueError(
                f"`norm_type` = {self.norm_type!r} means {fixed} Post-LN layers of {layers}, got {given}. Leave "
                "`num_post_layers` and `post_ln_fraction` out, or use `norm_type='mix'`."
            )
        if given is None:
            given = fixed if fixed is not None else math.floor(DEFAULT_FRACTION * layers)
        self.num_post_layers, self.post_ln_fraction = given, None

    def norm_placement(self, layer: int) -> str:
        """`"pre"`, `"post"`, `"deepnorm"` or `"sandwich"` for the layer with this index (0 is next to the input)."""
        assert self.num_post_layers is not None
        if self.norm_type == "mix":
            return "post" if layer < self.num_post_layers else "pre"
        if self.norm_type == "pre_post":
            return "post" if layer >= self.num_hidden_layers - self.num_post_layers else "pre"
        return self.norm_type


class PlacedNormsLayer(_Stock):
    """A decoder layer whose two norms sit where the config says. Mixed in front of the stock layer of a family.

    Pre-LN layers are the stock layer, bit for bit. Post-LN (paper, section 3.1; N is the RMSNorm of the family):
    `h = N_post_attention(s * x + Attention(x))`, `y = N_post_feedforward(s * h + MLP(h))` with `s = 1`, or
    `s = deepnorm_alpha`. There is no norm before the attention. Names are those of the authors' code.
    """

    def __init__(self, config: Any, layer_idx: int):
        super().__init__(config, layer_idx)
        self.placement = config.norm_placement(layer_idx)
        self.residual_scale = 1.0
        if self.placement in ("post", "deepnorm"):
            self.post_feedforward_layernorm = self.input_layernorm
            del self.input_layernorm
        if self.placement == "deepnorm":
            self.residual_scale = config.deepnorm_alpha or (2 * config.num_hidden_layers) ** 0.25
        if self.placement == "sandwich":
            new_norm = type(self.input_layernorm)
            self.pre_feedforward_layernorm = new_norm(config.hidden_size, eps=config.rms_norm_eps)
            self.post_feedforward_layernorm = new_norm(config.hidden_size, eps=config.rms_norm_eps)
        self._mark_projections(config)

    def extra_repr(self) -> str:
        return f"placement={self.placement}"

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Shapes as in the stock layer: `hidden_states` and the result are `(B, T, H)`."""
        context = dict(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            position_embeddings=position_embeddings,
            **kwargs,
        )
        if self.placement == "pre":
            return super().forward(hidden_states, **context)
        if self.placement == "sandwich":
            inner, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **context)
            hidden_states = hidden_states + self.post_attention_layernorm(inner)
            inner = self.mlp(self.pre_feedforward_layernorm(hidden_states))
            return hidden_states + self.post_feedforward_layernorm(inner)
        inner, _ = self.self_attn(hidden_states=hidden_states, **context)
        hidden_states = self.post_attention_layernorm(torch.add(inner, hidden_states, alpha=self.residual_scale))
        inner = self.mlp(hidden_states)
        return self.post_feedforward_layernorm(torch.add(inner, hidden_states, alpha=self.residual_scale))

    def _mark_projections(self, config: Any) -> None:
        """Leave on each projection how its first weights are drawn, where that is not the family's way.

        DeepNorm (arXiv:2203.00555, table 1, decoder only): Xavier normal with gain `(8 L) ** -0.25` for v, o and the
        MLP, gain 1 for q and k. The authors of Mix-LN have the inverse gain in their code, which we take for a slip.
        """
        depth = 2 * config.num_hidden_layers
        for name, module in self.named_modules():
            kind = name.rpartition(".")[2]
            if not hasattr(module, "in_features"):
                continue
            if self.placement == "deepnorm":
                gain = 1.0 if kind in ("q_proj", "k_proj") else (4 * depth) ** -0.25
                module._first_std = gain * math.sqrt(2 / (module.in_features + module.out_features))
            elif config.scaled_output_init and kind in ("o_proj", "down_proj"):
                module._first_std = config.initializer_range / math.sqrt(depth)


class PlacedNormsModel(_Stock):
    """What a Mix-LN model adds to its stock `PreTrainedModel`: initialisation, and loading that refuses to guess."""

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        super()._init_weights(module)
        std = getattr(module, "_first_std", None)
        if isinstance(module, nn.Embedding):
            std = self.config.embedding_init_std
        if std is None:
            return
        init.normal_(module.weight, mean=0.0, std=std)  # leaves weights alone that came from a checkpoint
        padding = getattr(module, "padding_idx", None)
        if padding is not None and not getattr(module.weight, "_is_hf_initialized", False):
            init.zeros_(module.weight[padding])

    @classmethod
    def from_pretrained(
        cls, *args: Any, allow_conversion: bool = False, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load a model.

        Args:
            args, kwargs: As in `PreTrainedModel.from_pretrained`: the Hub id or folder first.
            allow_conversion (`bool`, *optional*, defaults to `False`): Load a checkpoint whose norms sit elsewhere,
                for example a stock Pre-LN one: each norm that is missing takes the weights of the norm that the
                checkpoint has in its layer instead. The outputs change; such a model must be trained.

        Raises:
            ValueError: If norms are missing in the checkpoint because it has another placement and
                `allow_conversion` is false. (They would be set to one in silence.)
        """
        name = args[0] if args else kwargs.get("pretrained_model_name_or_path")
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        missing = sorted(key for key in info["missing_keys"] if _MOVED_NORM.search(key))
        if missing:
            mapping = _twin_norms(missing, info["unexpected_keys"])
            if not allow_conversion:
                raise ValueError(
                    f"The norms in `{name}` do not sit where this config puts them (norm_type="
                    f"{model.config.norm_type!r}, num_post_layers={model.config.num_post_layers}): it has no "
                    f"`{missing[0]}` and {len(missing) - 1} more. A Pre-LN checkpoint is not a Mix-LN model: train "
                    "one from a config, load with the placement of the checkpoint, or pass `allow_conversion=True` "
                    "to move the norms (the outputs change, and the model must be trained)."
                )
            if mapping is None:
                raise ValueError(
                    f"`{name}` has no norm to take `{missing[0]}` from: it cannot be converted to norm_type="
                    f"{model.config.norm_type!r}."
                )
            kwargs["key_mapping"] = {**(kwargs.get("key_mapping") or {}), **mapping}
            model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
            model._weight_conversions = None  # else saving would write the old names again
            logger.warning(
                "Moved %d norms of `%s` to where the config puts them. Its outputs are not those of the checkpoint: "
                "train the model before you use it.",
                len(missing),
                name,
            )
        return (model, info) if output_loading_info else model


def _twin_norms(missing: list[str], unexpected: Any) -> dict[str, str] | None:
    """Patterns that rename the unused norm of each layer to the missing one; `None` when a layer has none."""
    there = {match.group(1): match.group(2) for key in unexpected if (match := _MOVED_NORM.search(key))}
    mapping = {}
    for key in missing:
        match = _MOVED_NORM.search(key)
        assert match is not None
        layer, norm = match.groups()
        if layer not in there:
            return None
        mapping[rf"{re.escape(layer)}\.{there[layer]}\."] = f"{layer}.{norm}."
    return mapping


class PlacedNormsBackbone(PlacedNormsModel):
    """A stock decoder whose layers are replaced by those of `_layer_class`."""

    _layer_class: ClassVar[Any]

    def __init__(self, config: Any):
        config.resolve_norms()
        with init.no_init_weights():  # the stock layers go away again; `post_init` draws all that stays
            super().__init__(config)
            self.layers = nn.ModuleList(self._layer_class(config, i) for i in range(config.num_hidden_layers))
        self.post_init()


class PlacedNormsForCausalLM(PlacedNormsModel):
    """A stock causal language model on top of the backbone `_backbone_class`."""

    _backbone_class: ClassVar[Any]

    def __init__(self, config: Any):
        config.resolve_norms()
        with init.no_init_weights():
            super().__init__(config)
        self.model = self._backbone_class(config)
        self.post_init()
