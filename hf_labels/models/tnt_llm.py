"""`TaxonomyClassifier`: a light classifier on frozen embeddings that takes over from the language model.

Source: Wan et al., KDD 2024, arXiv:2403.12173, section 3.2.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_labels.data.encoders import Backbone, TextEncoder, make_encoder
from hf_labels.data.features import FeatureCache, check_finite
from hf_labels.labels.columns import class_names, require_columns
from hf_labels.labels.tnt_llm import FALLBACK
from hf_labels.models.frozen_backbone import FrozenBackboneMixin

logger = logging.getLogger(__name__)

STRENGTHS = (0.1, 1.0, 10.0)


@strict
class TaxonomyClassifierConfig(PreTrainedConfig):
    """Settings of [`TaxonomyClassifier`].

    Parameters:
        hidden_size (`int`, *optional*, defaults to 384): D, width of the frozen features.
        mlp_size (`int`, *optional*, defaults to 0): Width of a hidden layer; 0 is a linear head.
        backbone, backbone_revision, backbone_fingerprint (`str`, *optional*): The frozen encoder.
        text_pooling (`str`, *optional*, defaults to `"mean"`), template (`str`, *optional*), max_length (`int`,
            *optional*, defaults to 128): See [`~hf_labels.data.encoders.TextEncoder`].
        taxonomy (`dict[str, str]`, *optional*): Name -> description.
    """

    model_type = "hfl-taxonomy"

    hidden_size: int = 384
    mlp_size: int = 0
    backbone: str | None = None
    backbone_revision: str | None = None
    backbone_fingerprint: str | None = None
    text_pooling: str = "mean"
    template: str | None = None
    max_length: int = 128
    taxonomy: dict[str, str] | None = None


class TaxonomyClassifier(FrozenBackboneMixin, PreTrainedModel):
    """A linear or two-layer head on a frozen sentence encoder.

    `config.problem_type` is `single_label_classification` (softmax) or `multi_label_classification` (a sigmoid per
    label, decided at 0.5). Only the head is saved; the encoder is loaded again by its id. Make one with
    [`~TaxonomyClassifier.train_on`].
    """

    config_class = TaxonomyClassifierConfig
    config: TaxonomyClassifierConfig
    main_input_name = "input_ids"

    def __init__(self, config: TaxonomyClassifierConfig):
        super().__init__(config)
        inner = config.mlp_size or config.hidden_size
        self.hidden = nn.Linear(config.hidden_size, config.mlp_size) if config.mlp_size else nn.Identity()
        self.classifier = nn.Linear(inner, config.num_labels or 2)
        self._encoder: Backbone | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)

    @classmethod
    def train_on(
        cls,
        dataset: Any,
        encoder: Any,
        *,
        text_column: str = "text",
        multi_label: bool = False,
        mlp_size: int = 0,
        strength: float | None = None,
        keep_fallback: bool = False,
        tokenizer: Any = None,
        model_id: str | None = None,
        max_length: int = 128,
        taxonomy: Any = None,
        seed: int = 0,
    ) -> TaxonomyClassifier:
        """Fit the head on what a language model has labelled; the features are computed once and cached.

        Args:
            dataset (`datasets.Dataset`): From [`~hf_labels.lm.tnt_llm_labels.LLMLabeler.label`]: a column of texts,
                `label` (ClassLabel, -1 = none) and, for `multi_label`, `labels` (N, K).
            encoder: As in [`~hf_labels.data.encoders.make_encoder`]: Hub id, folder, `package://module/folder`, a
                loaded model with `tokenizer`, or a function from texts to vectors.
            text_column (`str`, *optional*, defaults to `"text"`)
            multi_label (`bool`, *optional*, defaults to `False`): One decision per label instead of one label.
            mlp_size (`int`, *optional*, defaults to 0): A hidden layer of this width (ReLU).
            strength (`float`, *optional*): C of the logistic regression. By default the best of 0.1, 1 and 10 on a
                fifth of the rows.
            keep_fallback (`bool`, *optional*, defaults to `False`): "Other" is a class; else its rows are left out.
            tokenizer, model_id, max_length (*optional*): Of the encoder.
            taxonomy ([`Taxonomy`], *optional*): Its descriptions go into the config.
            seed (`int`, *optional*): Of the split and of the hidden layer.

        Raises:
            KeyError: If a column is missing.
            ValueError: If `label` has no names, or fewer than two labels are left to tell apart.
        """
        require_columns(dataset, [text_column, "label", *(["labels"] if multi_label else [])])
        names = list(class_names(dataset, "label") or ())
        if not names:
            raise ValueError("Column `label` has no names: make it a `ClassLabel` (`taxonomy.as_class_label()`).")
        labels = np.asarray(dataset["label"][:])
        drop = names.index(FALLBACK) if FALLBACK in names and not keep_fallback else -1
        kept = np.flatnonzero((labels >= 0) & (labels != drop))
        if drop >= 0:
            names = names[:drop] + names[drop + 1 :]
        found = np.unique(labels[kept])
        if len(found) < 2:
            shown = names[found[0]] if len(found) else "none"
            raise ValueError(
                f"Only one label ({shown}) is left in {len(dataset)} rows: there is nothing to tell apart."
            )
        texts = [dataset[text_column][int(row)] for row in kept]
        frozen = make_encoder(encoder, tokenizer, model_id=model_id, max_length=max_length)
        features = FeatureCache(frozen.key()).get(texts, frozen.encode, desc="features")["features"]
        targets = np.asarray(dataset["labels"][:])[kept] if multi_label else labels[kept]
        model = cls(_config(frozen, names, multi_label, mlp_size, max_length, taxonomy))
        model._encoder = frozen
        model._fit(np.asarray(features, dtype=np.float64), targets, strength, seed)
        return model

    @torch.no_grad()
    def _fit(self, features: np.ndarray, targets: np.ndarray, strength: float | None, seed: int) -> None:
        """Fit with scikit-learn, and copy the weights. A label that no row has is never predicted."""
        check_finite(features)
        count = self.classifier.out_features
        present = np.flatnonzero(targets.any(0)) if targets.ndim == 2 else np.unique(targets)
        if len(present) < count:
            logger.warning("%d of %d labels have no row and are never predicted.", count - len(present), count)
        part = targets[:, present] if targets.ndim == 2 else np.searchsorted(present, targets)
        fitted = _best(features, part, self.config.mlp_size, strength, seed)
        weights, biases = _weights(fitted)
        if isinstance(self.hidden, nn.Linear):
            self.hidden.weight.copy_(torch.from_numpy(weights[0].T))
            self.hidden.bias.copy_(torch.from_numpy(biases[0]))
        last, bias = weights[-1].T, biases[-1]
        if len(last) == 1 and targets.ndim == 1:  # two classes: one decision
            last, bias = np.concatenate([-last / 2, last / 2]), np.concatenate([-bias / 2, bias / 2])
        self.classifier.weight.zero_()
        self.classifier.bias.fill_(-1e4)
        self.classifier.weight[present] = torch.from_numpy(last).to(self.classifier.weight)
        self.classifier.bias[present] = torch.from_numpy(bias).to(self.classifier.bias)

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
        """Load the head, and the encoder that the config names (or `backbone`).

        Raises:
            OSError: If the encoder cannot be loaded; names its id and the `backbone=` argument.
        """
        loaded = super().from_pretrained(name, *args, **kwargs)
        if load_backbone:
            model = loaded[0] if isinstance(loaded, tuple) else loaded
            model.fetch_backbone(name, backbone, tokenizer)
        return loaded

    def head(self, features: Tensor) -> Tensor:
        """Logits `(B, K)` of features `(B, D)`."""
        inner = self.hidden(features.to(self.classifier.weight.dtype))
        return self.classifier(inner.relu() if self.config.mlp_size else inner)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        features: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple:
        """Logits of the labels.

        Args:
            input_ids, attention_mask (`Tensor` of shape `(B, T)`, *optional*): A tokenised text.
            token_type_ids: Accepted for pipelines; not used.
            features (`Tensor` of shape `(B, D)`, *optional*): Frozen features instead.
            labels (`Tensor` of shape `(B,)`, -100 = none, or `(B, K)` of 0 and 1, *optional*): For the loss.

        Raises:
            ValueError: Both or neither of `input_ids` and `features`.
        """
        if (input_ids is None) == (features is None):
            raise ValueError("Give exactly one of `input_ids` and `features`.")
        if features is None:
            if not isinstance(self.encoder, TextEncoder):
                raise ValueError("A black-box encoder reads texts, not token ids: call the model with texts.")
            features = self.encoder.pooled(input_ids, attention_mask)  # type: ignore[arg-type]
        logits = self.head(features)
        loss = None
        if labels is not None and labels.dim() == 2:
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits))
        elif labels is not None:
            loss = F.cross_entropy(logits, labels)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def predict(self, texts: str | Sequence[str], batch_size: int = 32) -> list[Any]:
        """Label texts.

        Args:
            texts (`str` or sequence of `str`): N texts.
            batch_size (`int`, *optional*, defaults to 32): Texts per forward of the encoder.

        Returns:
            `list`: Per text `{"label", "score"}`; for multi-label the list of those above 0.5 (it may be empty).
        """
        given = [texts] if isinstance(texts, str) else list(texts)
        if not given:
            return []
        features = torch.as_tensor(self.encoder.encode(given, batch_size), device=self.device)
        logits, names = self.head(features), cast(dict[int, str], self.config.id2label)
        if self.config.problem_type == "multi_label_classification":
            rows = logits.sigmoid().tolist()
            return [[{"label": names[i], "score": s} for i, s in enumerate(row) if s > 0.5] for row in rows]
        best = logits.softmax(-1).max(-1)
        return [
            {"label": names[i], "score": s} for i, s in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Write config, head and the encoder's tokenizer; the encoder itself is not written."""
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            self.save_tokenizer(save_directory)


def _config(
    frozen: Backbone, names: list[str], multi_label: bool, mlp_size: int, max_length: int, taxonomy: Any
) -> TaxonomyClassifierConfig:
    local = isinstance(frozen, TextEncoder)
    return TaxonomyClassifierConfig(
        hidden_size=frozen.hidden_size,
        mlp_size=mlp_size,
        backbone=frozen.model_id,
        backbone_revision=frozen.revision,
        backbone_fingerprint=frozen.key()["model"] if local else None,  # type: ignore[index]
        text_pooling=frozen.pooling,
        template=frozen.template,
        max_length=max_length,
        taxonomy=None if taxonomy is None else {label.name: label.description for label in taxonomy.labels},
        problem_type="multi_label_classification" if multi_label else "single_label_classification",
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )


def _best(features: np.ndarray, targets: np.ndarray, mlp_size: int, strength: float | None, seed: int) -> Any:
    """The classifier, with C chosen on a fifth of the rows unless it is given."""
    from sklearn.model_selection import train_test_split

    options = STRENGTHS if strength is None else (strength,)
    if len(options) > 1:
        kinds, sizes = np.unique(targets, return_counts=True) if targets.ndim == 1 else (np.empty(0), np.array([0]))
        stratify = targets if len(kinds) > 1 and sizes.min() > 1 and len(targets) >= 10 * len(kinds) else None
        parts = train_test_split(features, targets, test_size=0.2, random_state=seed, stratify=stratify)
        usable = targets.ndim == 1 and len(np.unique(parts[2])) == len(kinds)
        usable = usable or (targets.ndim == 2 and bool((parts[2].any(0) & ~parts[2].all(0)).all()))
        if usable:
            scores = [
                _new(option, mlp_size, targets, seed).fit(parts[0], parts[2]).score(parts[1], parts[3])
                for option in options
            ]
            options = (options[int(np.argmax(scores))],)
        else:
            options = (1.0,)
    return _new(options[0], mlp_size, targets, seed).fit(features, targets)


def _new(strength: float, mlp_size: int, targets: np.ndarray, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.neural_network import MLPClassifier

    if mlp_size:
        return MLPClassifier((mlp_size,), alpha=1 / strength / 1000, max_iter=500, random_state=seed)
    linear = LogisticRegression(C=strength, max_iter=1000)
    return OneVsRestClassifier(linear) if targets.ndim == 2 else linear


def _weights(fitted: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights `(in, out)` and biases `(out,)` of each layer."""
    if hasattr(fitted, "coefs_"):
        return list(fitted.coefs_), list(fitted.intercepts_)
    if hasattr(fitted, "estimators_"):
        parts = fitted.estimators_
        return [np.concatenate([one.coef_ for one in parts]).T], [np.concatenate([one.intercept_ for one in parts])]
    return [fitted.coef_.T], [fitted.intercept_]


AutoConfig.register(TaxonomyClassifierConfig.model_type, TaxonomyClassifierConfig, exist_ok=True)
AutoModelForSequenceClassification.register(TaxonomyClassifierConfig, TaxonomyClassifier, exist_ok=True)
