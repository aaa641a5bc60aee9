"""A light entailment model: two sentence vectors of one encoder, compared by a small head.

A cross-encoder reads text and hypothesis together and must run once per pair. Here each text and each hypothesis is
encoded once per batch, and only the head runs per pair. With a frozen encoder the head trains in seconds on a CPU.
"""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_labels.data.encoders import resolve_backbone
from hf_labels.losses.crosstune import masked_mean
from hf_labels.losses.zero_shot_tc import entailment_loss

_CLASSES = {0: "entailment", 1: "not_entailment"}
COSINE_WEIGHT = 5.0  # the cosine enters as 5 cos, so that its weight is regularised less than those of single features


@strict
class PairEncoderConfig(PreTrainedConfig):
    """Settings of [`PairEncoderForSequenceClassification`].

    Parameters:
        backbone_config (`dict`, *optional*): Config of a stock text encoder, with its `model_type`. `None`: a BERT of
            the default size.
        sep_token_id (`int`, *optional*, defaults to 102): Token between text and hypothesis, for tokenizers without
            token types.
        cls_token_id (`int`, *optional*, defaults to 101): Token before a text, if the tokenizer writes one.
        freeze_encoder (`bool`, *optional*, defaults to `True`): Train the head only.
        initial_scale (`float`, *optional*, defaults to 20.0), initial_threshold (`float`, *optional*, defaults to
            0.25): The untrained head gives the log odds `scale * (cosine - threshold)`.

    Raises:
        ValueError: If `initial_scale` is not above 0, or class 0 is not called entailment.
    """

    model_type = "hfl-pair-encoder"

    backbone_config: dict[str, Any] | None = None
    sep_token_id: int = 102
    cls_token_id: int | None = 101
    freeze_encoder: bool = True
    initial_scale: float = 20.0
    initial_threshold: float = 0.25

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = AutoConfig.for_model("bert").to_dict()
        names: dict[int, str] = {int(key): str(name) for key, name in (self.id2label or _CLASSES).items()}
        self.id2label, self.label2id = names, {name: key for key, name in names.items()}
        super().__post_init__(**kwargs)
        if not self.initial_scale > 0:
            raise ValueError(f"`initial_scale` must be above 0, got {self.initial_scale}.")
        if not names[0].lower().startswith("entail"):
            raise ValueError(f"Class 0 of a pair encoder is entailment, got `id2label` {self.id2label}.")

    @property
    def hidden_size(self) -> int:
        """D, width of a sentence vector."""
        return int((self.backbone_config or {})["hidden_size"])


class PairEncoderForSequenceClassification(PreTrainedModel):
    """Entailment between two texts from the features `[u * v, |u - v|, 5 cos(u, v)]` of their vectors `u` and `v`.

    The vectors are means over tokens, of unit length. The head starts as the cosine, so an untrained model gives a
    zero-shot comparison, and training moves on from there. It takes the pairs that stock tokenizers make and works in
    the pipelines `zero-shot-classification` and `hypothesis-zero-shot`.

    Inputs: `input_ids`, `attention_mask` (B, T) of pairs, `token_type_ids` where the tokenizer has them | or
    `premise_features`, `hypothesis_features` (B, D) | `labels` (B,): 0 = entailment, 1 = not, -100 = unknown.
    Equal texts of a batch are encoded once.
    """

    config_class = PairEncoderConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"

    def __init__(self, config: PairEncoderConfig):
        super().__init__(config)
        values = dict(config.backbone_config or {})
        self.encoder = AutoModel.from_config(AutoConfig.for_model(values.pop("model_type"), **values))
        self.head = nn.Linear(2 * config.hidden_size + 1, len(config.id2label or ()))
        if config.freeze_encoder:
            self.encoder.requires_grad_(False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is getattr(self, "head", None):
            weight, bias = torch.zeros_like(self.head.weight), torch.zeros_like(self.head.bias)
            if weight.device.type != "meta":
                weight[0, -1] = self.config.initial_scale / COSINE_WEIGHT
                bias[0] = -self.config.initial_scale * self.config.initial_threshold
            init.copy_(self.head.weight, weight)
            init.copy_(self.head.bias, bias)

    @classmethod
    def from_backbone(cls, backbone: str, tokenizer: Any = None, **settings: Any):
        """A new head on a pre-trained encoder.

        Args:
            backbone (`str`): Hub id, folder, or `package://module/folder`, of an encoder whose mean-pooled vectors can
                be compared (a sentence encoder).
            tokenizer (*optional*): Default: that of the backbone.
            settings: Fields of [`PairEncoderConfig`].

        Raises:
            OSError: It cannot be loaded; names it.
            ValueError: Its tokenizer has no token that separates two texts.
        """
        try:
            place = resolve_backbone(backbone)
            encoder = AutoModel.from_pretrained(place, dtype=torch.float32)
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(place)
        except (OSError, ValueError) as error:
            raise OSError(f"The encoder `{backbone}` cannot be loaded: {error}") from error
        if tokenizer.sep_token_id is None:
            raise ValueError(f"The tokenizer of `{backbone}` has no `sep_token`: pairs cannot be told apart.")
        left_out = ("_name_or_path", "transformers_version")
        inner = {name: value for name, value in encoder.config.to_dict().items() if name not in left_out}
        tokens = {"sep_token_id": tokenizer.sep_token_id, "cls_token_id": tokenizer.cls_token_id}
        model = cls(PairEncoderConfig(backbone_config=inner, **tokens, **settings))
        model.encoder.load_state_dict(encoder.state_dict())
        return model

    def train(self, mode: bool = True):
        """As `nn.Module.train`; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.encoder.eval()
        return self

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        premise_features: Tensor | None = None,
        hypothesis_features: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple:
        """Logits `(B, 2)` of pairs.

        Raises:
            ValueError: Neither token ids nor both features are given, or a row holds no second text.
        """
        if premise_features is None or hypothesis_features is None:
            if input_ids is None:
                raise ValueError("Give `input_ids` of pairs, or both `premise_features` and `hypothesis_features`.")
            premise_features, hypothesis_features = self._encode(input_ids, attention_mask, token_type_ids)
        u, v = normalize(premise_features.float(), dim=-1), normalize(hypothesis_features.float(), dim=-1)
        product = u * v
        cosine = COSINE_WEIGHT * product.sum(-1, keepdim=True)
        features = torch.cat([product, (u - v).abs(), cosine], -1).to(self.head.weight.dtype)
        logits = self.head(features)
        loss = None if labels is None else entailment_loss(logits, labels)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _encode(self, ids: Tensor, mask: Tensor | None, types: Tensor | None) -> tuple[Tensor, Tensor]:
        mask = torch.ones_like(ids) if mask is None else mask
        kinds = torch.zeros_like(ids) if types is None else types
        pairs = [
            self._split(row[keep].tolist(), kind[keep].tolist())
            for row, kind, keep in zip(ids, kinds, mask.bool(), strict=True)
        ]
        place: dict[tuple[int, ...], int] = {}
        for pair in pairs:
            for text in pair:
                place.setdefault(text, len(place))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_encoder):
            vectors = self._vectors(list(place), ids.device)
        return tuple(vectors[[place[pair[side]] for pair in pairs]] for side in (0, 1))  # type: ignore[return-value]

    def _split(self, row: list[int], kinds: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens of both texts, each with the tokens that the tokenizer puts around one text."""
        sep = self.config.sep_token_id
        if 1 in kinds:
            at = kinds.index(1)
        else:
            at = row.index(sep) + 1 if sep in row[:-1] else len(row)
            while at < len(row) and row[at] == sep:  # RoBERTa writes two
                at += 1
        first, second = row[:at], row[at:]
        while len(first) > 1 and first[-1] == first[-2] == sep:
            first = first[:-1]
        if not second:
            raise ValueError("A row holds one text only: tokenize pairs, `tokenizer(premises, hypotheses)`.")
        start = first[:1] if first[0] == self.config.cls_token_id else []
        return tuple(first), tuple(start + second)

    def _vectors(self, texts: list[tuple[int, ...]], device: torch.device) -> Tensor:
        width = max(map(len, texts))
        pad = int((self.config.backbone_config or {}).get("pad_token_id") or 0)
        ids = torch.tensor([[*text, *[pad] * (width - len(text))] for text in texts], device=device)
        mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts], device=device)
        return masked_mean(self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask)


AutoConfig.register("hfl-pair-encoder", PairEncoderConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PairEncoderConfig, PairEncoderForSequenceClassification, exist_ok=True)
