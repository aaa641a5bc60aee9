"""CrossTune: a cross-attention head between frozen text features and label descriptions.

Source: Luo et al. 2024, arXiv:2403.12468. No code is public and the paper's text was not available to us; the formulas
follow secondary descriptions. Our own choices where those are silent: identity initialisation (the untrained head is
then zero-shot similarity), features scaled to length sqrt(D), AdamW at 1e-4.
"""

import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_labels.data.descriptions import clean_descriptions, label_text
from hf_labels.data.encoders import Backbone, TextEncoder, make_encoder
from hf_labels.data.features import check_finite
from hf_labels.losses.crosstune import check_num_heads, crosstune_loss, head_log_probs, scale_features
from hf_labels.models.frozen_backbone import FrozenBackboneMixin

logger = logging.getLogger(__name__)


@strict
class CrossTuneConfig(PreTrainedConfig):
    """Settings of [`CrossTuneForSequenceClassification`].

    Parameters:
        hidden_size (`int`, *optional*, defaults to 384): D, width of the backbone's features.
        num_heads (`int`, *optional*, defaults to 8): Attention heads; must divide `hidden_size`.
        backbone (`str`, *optional*): Hub id, folder, or `package://module/folder` of the frozen encoder. `None`:
            features come from outside (a black box).
        backbone_revision (`str`, *optional*): Commit of the backbone on the Hub.
        backbone_fingerprint (`str`, *optional*): Hash of the backbone's weights, compared on loading.
        text_pooling (`str`, *optional*, defaults to `"mean"`): See [`~hf_labels.data.encoders.TextEncoder`].
        label_pooling (`str`, *optional*, defaults to `"max"`): `"max"` (the paper) or `"mean"` over description
            tokens.
        include_special_tokens (`bool`, *optional*, defaults to `False`): Special tokens count in the label pooling.
        template (`str`, *optional*): Text around each text, with `{text}` and, for mask pooling, the mask token.
        max_length (`int`, *optional*, defaults to 128): Tokens per text at most.
        label_template (`str`, *optional*, defaults to `"{description}"`): Text that is encoded for a label, from
            `{name}` and `{description}`.
        label_descriptions (`dict[str, str]`, *optional*): What each label means, in the order of the class ids.
        init (`str`, *optional*, defaults to `"identity"`): `"identity"` or `"xavier"`.
        scale_features (`bool`, *optional*, defaults to `True`): Give text and label vectors the length sqrt(D).
        dropout (`float`, *optional*, defaults to 0.1): On text features during training, in `[0, 1)`.
    """

    model_type = "hfl-crosstune"

    hidden_size: int = 384
    num_heads: int = 8
    backbone: str | None = None
    backbone_revision: str | None = None
    backbone_fingerprint: str | None = None
    text_pooling: str = "mean"
    label_pooling: str = "max"
    include_special_tokens: bool = False
    template: str | None = None
    max_length: int = 128
    label_template: str = "{description}"
    label_descriptions: dict[str, str] | None = None
    init: str = "identity"
    scale_features: bool = True
    dropout: float | int = 0.1

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        # Here and not in a `validate_*` method: those raise an error of their own, which is no ValueError.
        check_num_heads(self.num_heads, self.hidden_size)
        if self.init not in ("identity", "xavier"):
            raise ValueError(f"`init` must be 'identity' or 'xavier', got {self.init!r}.")
        if self.label_pooling not in ("max", "mean"):
            raise ValueError(f"`label_pooling` must be 'max' or 'mean', got {self.label_pooling!r}.")
        if "{name}" not in self.label_template and "{description}" not in self.label_template:
            raise ValueError(
                f"`label_template` must hold `{{name}}` or `{{description}}`, got {self.label_template!r}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1), got {self.dropout}.")


class CrossTuneForSequenceClassification(FrozenBackboneMixin, PreTrainedModel):
    """Label-attention classifier on a frozen black box.

    Only the two projections are weights of this model. The backbone is kept beside it: never trained, always in eval
    mode, not in `state_dict`, not saved; `from_pretrained` loads it again by id. `logits` are log-probabilities, so a
    softmax over them gives the probabilities back. The key's bias adds one number to the score of every label and
    cancels: it is kept for the paper's form and not trained.

    Use [`~CrossTuneForSequenceClassification.from_backbone`] to make one.
    """

    config_class = CrossTuneConfig
    config: CrossTuneConfig
    main_input_name = "input_ids"
    label_vectors: Tensor

    def __init__(self, config: CrossTuneConfig):
        super().__init__(config)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.key.bias.requires_grad_(False)
        self.dropout = nn.Dropout(config.dropout)
        self.register_buffer("label_vectors", torch.zeros(config.num_labels or 2, config.hidden_size))
        self._encoder: Backbone | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            if self.config.init == "identity":
                init.copy_(module.weight, torch.eye(module.out_features, device=module.weight.device))
            else:
                init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif module is self:
            init.zeros_(self.label_vectors)

    @classmethod
    def from_backbone(
        cls,
        backbone: Any,
        label_descriptions: Any,
        *,
        tokenizer: Any = None,
        revision: str | None = None,
        model_id: str | None = None,
        text_pooling: str | None = None,
        template: str | None = None,
        max_length: int = 128,
        **settings: Any,
    ) -> "CrossTuneForSequenceClassification":
        """A new classifier on a frozen backbone.

        Args:
            backbone: Hub id, local folder, `package://module/folder`, a loaded model (then give `tokenizer`), or a
                black box: a function from texts to an array, or an object with `embed` or `encode`.
            label_descriptions: `{name: description}`, a list of names, or a
                [`~hf_labels.labels.verbalize.LabelSpace`]. The order gives the class ids.
            tokenizer, revision, model_id: Of the backbone. `model_id` names a loaded model or black box in saved
                files.
            text_pooling, template, max_length: See [`~hf_labels.data.encoders.TextEncoder`].
            settings: Further fields of [`CrossTuneConfig`], for example `num_heads`, `init`, `label_template`.
                `label_pooling` defaults to `"max"` (the paper), but to `"mean"` when the texts are mean-pooled too.

        Raises:
            ValueError: Fewer than two labels, a label without name and description, `num_heads` that does not divide
                the hidden size, a template without `{text}` or (mask pooling) without mask.
            OSError: If the backbone cannot be found; names the id.
        """
        descriptions = clean_descriptions(label_descriptions)
        encoder = make_encoder(
            backbone,
            tokenizer,
            model_id=model_id,
            revision=revision,
            pooling=text_pooling,
            template=template,
            max_length=max_length,
        )
        local = isinstance(encoder, TextEncoder)
        # A mean-pooled sentence encoder compares means: label vectors must live in the same space. Measured: 5 points.
        settings.setdefault("label_pooling", "mean" if encoder.pooling == "mean" else "max")
        config = CrossTuneConfig(
            hidden_size=encoder.hidden_size,
            backbone=encoder.model_id,
            backbone_revision=encoder.revision,
            backbone_fingerprint=encoder.key()["model"] if local else None,  # type: ignore[index]
            text_pooling=encoder.pooling,
            template=encoder.template,
            max_length=max_length,
            label_descriptions=descriptions,
            id2label=dict(enumerate(descriptions)),
            label2id={name: i for i, name in enumerate(descriptions)},
            **settings,
        )
        model = cls(config)
        model._encoder = encoder
        model.set_labels(descriptions)
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        name: Any,
        *args: Any,
        backbone: Any = None,
        tokenizer: Any = None,
        load_backbone: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Load head and label vectors, and the backbone that the config names.

        Args:
            name: Hub id or folder of the CrossTune model; further arguments as in `PreTrainedModel.from_pretrained`.
            backbone, tokenizer: Use this backbone (id, folder, model or black box) instead of the one named in the
                config.
            load_backbone (`bool`, *optional*, defaults to `True`): `False` gives a model that only takes `features`.

        Raises:
            OSError: If the backbone cannot be loaded; names its id and the `backbone=` argument.
            ValueError: If the given backbone has another width.
        """
        loaded = super().from_pretrained(name, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.key.bias.requires_grad_(False)  # loading makes new parameters
        if load_backbone:
            model.fetch_backbone(name, backbone, tokenizer)
        return loaded

    def set_labels(self, label_descriptions: Any, label_vectors: Any = None) -> None:
        """Replace the labels, before or after training; the head knows no label by itself.

        Args:
            label_descriptions: As in [`from_backbone`].
            label_vectors (array of shape `(C, D)`, *optional*): Vectors of the descriptions, when there is no
                backbone here.

        Raises:
            ValueError: Fewer than two labels, a label without name and description, or vectors of another shape.
        """
        descriptions = clean_descriptions(label_descriptions)
        config = self.config
        if label_vectors is None:
            label_vectors = self.encoder.encode_descriptions(
                [label_text(config.label_template, *pair) for pair in descriptions.items()],
                config.label_pooling,
                config.include_special_tokens,
            )
        vectors = torch.as_tensor(np.asarray(label_vectors), dtype=self.label_vectors.dtype, device=self.device)
        if vectors.shape != (len(descriptions), config.hidden_size):
            raise ValueError(
                f"`label_vectors` must have shape ({len(descriptions)}, {config.hidden_size}), "
                f"got {tuple(vectors.shape)}."
            )
        check_finite(vectors, "label_vectors")
        self.label_vectors = vectors
        config.id2label = dict(enumerate(descriptions))
        config.label2id = {name: i for i, name in enumerate(descriptions)}
        config.label_descriptions = descriptions
        self.num_labels = len(descriptions)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple:
        """Log-probabilities of the labels.

        Args:
            input_ids (`Tensor` of shape `(B, T)`, *optional*): Raw text, tokenised without the template.
            attention_mask (`Tensor` of shape `(B, T)`, *optional*): 1 = real token.
            token_type_ids: Accepted for pipelines; not used.
            features (`Tensor` of shape `(B, D)`, *optional*): Frozen features in place of `input_ids`.
            labels (`Tensor` of shape `(B,)`, *optional*): Class ids, -100 = none.

        Returns:
            `SequenceClassifierOutput`: `logits` (B, C) = log p, and `loss` when labels are given.

        Raises:
            ValueError: Both or neither of `input_ids` and `features`; NaN features (row named); a label outside `[0,
                C)`.
        """
        if (input_ids is None) == (features is None):
            raise ValueError("Give exactly one of `input_ids` and `features`.")
        if features is None:
            if not isinstance(self.encoder, TextEncoder):
                raise ValueError(
                    "A black-box backbone reads texts, not token ids: use `predict(texts)` or `features=`."
                )
            features = self.encoder.pooled(cast(Tensor, input_ids), attention_mask)
        elif features.device.type == "cpu" or not self.training:
            check_finite(features)
        log_probs = self.head(features)
        loss = None if labels is None else crosstune_loss(log_probs, labels)
        if return_dict is False:
            return (log_probs,) if loss is None else (loss, log_probs)
        return SequenceClassifierOutput(loss=loss, logits=log_probs)

    def head(self, features: Tensor) -> Tensor:
        """Log-probabilities `(B, C)` of frozen features `(B, D)`; projects the labels once."""
        texts, labels = features.to(self.query.weight.dtype), self.label_vectors
        if self.config.scale_features:
            texts, labels = scale_features(texts), scale_features(labels)
        return head_log_probs(self.query(self.dropout(texts)), self.key(labels), self.config.num_heads)

    @torch.no_grad()
    def predict(
        self, texts: str | Sequence[str], top_k: int | None = 1, batch_size: int = 32, features: Any = None
    ) -> list[Any]:
        """Label texts, in the form of a text-classification pipeline.

        Args:
            texts (`str` or `Sequence[str]`): N texts. Ignored in favour of `features` (N, D) when those are given.
            top_k (`int`, *optional*, defaults to 1): Labels per text, best first; `None` gives all.
            batch_size (`int`, *optional*, defaults to 32): Texts per forward of the backbone.

        Returns:
            `list[dict]` with `label` and `score` per text; for another `top_k`, a list of such lists.

        Raises:
            ValueError: If `top_k` is under 1.
        """
        if top_k is not None and top_k < 1:
            raise ValueError(f"`top_k` must be at least 1 or None, got {top_k}.")
        if features is None:
            features = self.encoder.encode([texts] if isinstance(texts, str) else list(texts), batch_size)
        rows = torch.as_tensor(np.asarray(features), dtype=torch.float32, device=self.device)
        if not len(rows):
            return []
        check_finite(rows)
        training = self.training
        self.eval()
        probs = self.head(rows).exp()
        self.train(training)
        best = probs.topk(min(top_k or probs.shape[1], probs.shape[1]))
        names = cast(dict[int, str], self.config.id2label)
        found = [
            [{"label": names[i], "score": s} for s, i in zip(scores, ids, strict=True)]
            for scores, ids in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        return [row[0] for row in found] if top_k == 1 else found

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config, head, label vectors and the backbone's tokenizer (so that a stock pipeline loads in one call).
        The backbone itself is not written."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            self.save_tokenizer(save_directory)


AutoConfig.register(CrossTuneConfig.model_type, CrossTuneConfig, exist_ok=True)
AutoModelForSequenceClassification.register(CrossTuneConfig, CrossTuneForSequenceClassification, exist_ok=True)
