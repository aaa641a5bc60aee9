"""`AutoModelWithBagHead`: a binary classifier of instances with a second head that reads whole bags (LLP-BP)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput

from hf_labels.losses.llp_bp import bag_means

HIDDEN = [5040, 1280, 320, 128]


@strict
class BagHeadConfig(PreTrainedConfig):
    """Settings of [`AutoModelWithBagHead`].

    Parameters:
        num_features (`int`, *optional*, defaults to 0): Columns of tabular rows; 0 for a backbone.
        hidden_sizes (`list[int]`, *optional*, defaults to `[5040, 1280, 320, 128]`): Layers of the tabular network;
            the last is the embedding.
        bag_size (`int`, *optional*, defaults to 64): Hidden layer of the bag head.
        backbone_config (`dict`, *optional*): Config of a stock encoder with its `model_type`, for texts or images.
        dropout (`float`, *optional*, defaults to 0.0): On embeddings.
    """

    model_type = "hfl-bag-head"

    num_features: int = 0
    hidden_sizes: list[int] | None = None
    bag_size: int = 64
    backbone_config: dict[str, Any] | None = None
    dropout: float = 0.0

    def __post_init__(self, **kwargs: Any) -> None:
        self.hidden_sizes = list(HIDDEN) if self.hidden_sizes is None else self.hidden_sizes
        if not self.num_features and self.backbone_config is None:
            self.num_features = 1
        if self.num_features and not self.hidden_sizes:
            raise ValueError("A tabular network needs one hidden layer at least: its last one is the embedding.")
        super().__post_init__(**kwargs)


@dataclass
class BagHeadOutput(ModelOutput):
    """Output of [`AutoModelWithBagHead`].

    Parameters:
        loss (`Tensor` of shape `()`, *optional*): Cross-entropy of `labels`.
        logits (`Tensor` of shape `(N, 2)`): Of instances; their softmax is the sigmoid of the instance head.
        embeddings (`Tensor` of shape `(N, d)`): What the heads read, and what the next graph is made from.
        bag_logits (`Tensor` of shape `(B,)`, *optional*): Log-odds of a bag's proportion, with `bag`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    embeddings: Tensor | None = None
    bag_logits: Tensor | None = None


class AutoModelWithBagHead(PreTrainedModel):
    """A tabular network, or any stock encoder, with a head for instances and one for bags.

    The instance head is linear on the embedding. The bag head reads the mean embedding of a bag's rows: a layer of
    ReLU, then linear. Only the instance head is used to predict.

    Source: Havaldar et al., arXiv:2310.08056, aggregate embedding model; sizes as in the published code.
    """

    config_class = BagHeadConfig
    config: BagHeadConfig

    def __init__(self, config: BagHeadConfig):
        super().__init__(config)
        if config.backbone_config is None:
            sizes = [config.num_features, *(config.hidden_sizes or [])]
            layers = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
            self.encoder = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
            self.backbone, width = None, sizes[-1]
            self.main_input_name = "features"
        else:
            inner = dict(config.backbone_config)
            self.backbone = AutoModel.from_config(AutoConfig.for_model(inner.pop("model_type"), **inner))
            width = _width(self.backbone.config)
            self.main_input_name = self.backbone.main_input_name
        self.dropout = nn.Dropout(config.dropout)
        self.instance_head = nn.Linear(width, 1)
        self.bag_hidden = nn.Linear(width, config.bag_size)
        self.bag_head = nn.Linear(config.bag_size, 1)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)

    @classmethod
    def from_backbone(cls, name: Any, **settings: Any) -> AutoModelWithBagHead:
        """On a pre-trained encoder: a Hub id, a folder, or a loaded model.

        Args:
            name: What `AutoModel.from_pretrained` takes, or a `PreTrainedModel`.
            settings: Of [`BagHeadConfig`].

        Raises:
            OSError: If the model cannot be found.
        """
        backbone = name if isinstance(name, PreTrainedModel) else AutoModel.from_pretrained(name)
        left_out = ("_name_or_path", "transformers_version")  # of the file it came from
        inner = {key: value for key, value in backbone.config.to_dict().items() if key not in left_out}
        model = cls(BagHeadConfig(backbone_config=inner, **settings))
        model.backbone.load_state_dict(backbone.state_dict())  # type: ignore[union-attr]
        return model

    def embed(self, **inputs: Any) -> Tensor:
        """Embeddings `(N, d)` of tabular `features`, or the mean over the tokens (or patches) of a backbone."""
        if self.backbone is None:
            return self.encoder(inputs["features"].to(self.instance_head.weight.dtype))
        states = self.backbone(**inputs).last_hidden_state
        if states.dim() == 4:
            return states.flatten(2).mean(2)
        mask = inputs.get("attention_mask")
        if mask is None:
            return states.mean(1)
        weights = mask.unsqueeze(-1).to(states)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)

    def forward(
        self,
        features: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        bag: Tensor | None = None,
        num_bags: int | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BagHeadOutput | tuple:
        """Logits of instances, and of bags.

        Args:
            features (`Tensor` of shape `(N, num_features)`, *optional*): Tabular rows.
            input_ids, attention_mask, token_type_ids, pixel_values (*optional*): For a backbone.
            bag (`Tensor` of shape `(N,)`, *optional*): Bag of each row, 0 to B - 1 within the batch.
            num_bags (`int`, *optional*): B; the largest bag + 1 by default.
            labels (`Tensor` of shape `(N,)`, *optional*): 0 or 1, for `loss`.

        Raises:
            ValueError: If the input of this model is missing.
        """
        named = {"features": features, "input_ids": input_ids, "attention_mask": attention_mask}
        named |= {"token_type_ids": token_type_ids, "pixel_values": pixel_values}
        given = {name: value for name, value in named.items() if value is not None}
        if (self.backbone is None) != (features is not None):
            raise ValueError(f"This model reads `{self.main_input_name}`, got {', '.join(given) or 'nothing'}.")
        embeddings = self.dropout(self.embed(**given))
        odds = self.instance_head(embeddings)[:, 0]
        logits = torch.stack([-odds / 2, odds / 2], 1)
        bag_logits = None
        if bag is not None:
            count = int(bag.max()) + 1 if num_bags is None else num_bags
            bag_logits = self.bag_head(self.bag_hidden(bag_means(embeddings, bag, count)).relu())[:, 0]
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        output = BagHeadOutput(loss=loss, logits=logits, embeddings=embeddings, bag_logits=bag_logits)
        return output.to_tuple() if return_dict is False else output


def _width(config: Any) -> int:
    """Width of the last layer: one number, or the last of those of the stages of a convolutional network."""
    width = getattr(config, "hidden_size", None) or getattr(config, "hidden_sizes", None)
    if not width:
        raise ValueError(f"{type(config).__name__} names no `hidden_size`; this backbone cannot be read.")
    return int(width[-1] if isinstance(width, list | tuple) else width)


AutoConfig.register(BagHeadConfig.model_type, BagHeadConfig, exist_ok=True)
AutoModelForSequenceClassification.register(BagHeadConfig, AutoModelWithBagHead, exist_ok=True)
AutoModelForImageClassification.register(BagHeadConfig, AutoModelWithBagHead, exist_ok=True)
