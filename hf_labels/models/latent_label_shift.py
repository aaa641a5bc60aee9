"""A classifier of latent classes: a stock classifier of domains, and the mixtures that turn its output into classes.

Source: Roberts et al., NeurIPS 2022, arXiv:2207.13179, section 4 (Adjust).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput

from hf_labels.labels.latent_label_shift import UNSEEN, LatentLabelShift
from hf_labels.labels.latent_label_shift_files import save_lls, write_card

_AUTO: dict[str, tuple[Any, Any, str]] = {
    "text": (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, AutoModelForSequenceClassification, "text-classification"),
    "image": (MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoModelForImageClassification, "image-classification"),
    "audio": (MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING, AutoModelForAudioClassification, "audio-classification"),
}


@strict
class LLSConfig(PreTrainedConfig):
    """Settings of [`LLSForClassification`].

    Parameters:
        discriminator_config (`dict`, *optional*): Config of a stock classification model with r labels, the domains,
            with its `model_type`. `None`: a ResNet of the default size.
        modality (`str`, *optional*, defaults to `"image"`): `"image"`, `"text"` or `"audio"`: which Auto class makes
            the discriminator.

    Raises:
        ValueError: For another modality, or more classes (`num_labels`) than domains.
    """

    model_type = "hfl-latent-label-shift"
    keys_to_ignore_at_inference = ["domain_logits"]

    discriminator_config: dict[str, Any] | None = None
    modality: str = "image"

    def __post_init__(self, **kwargs):
        if self.discriminator_config is None:
            self.discriminator_config = AutoConfig.for_model("resnet").to_dict()
        super().__post_init__(**kwargs)
        if self.modality not in _AUTO:
            raise ValueError(f"`modality` must be one of {', '.join(_AUTO)}, got {self.modality!r}.")
        classes: Any = self.num_labels
        if classes > self.num_domains:
            raise ValueError(f"{classes} classes cannot be told apart by {self.num_domains} domains.")

    @property
    def num_domains(self) -> int:
        """r"""
        inner = dict(self.discriminator_config or {})
        return int(AutoConfig.for_model(inner.pop("model_type"), **inner).num_labels)  # type: ignore[arg-type]


@dataclass
class LLSOutput(ModelOutput):
    """Output of [`LLSForClassification`].

    Parameters:
        loss (`Tensor` of shape `()`, *optional*): Negative log-likelihood of `labels`, when they are given.
        logits (`Tensor` of shape `(B, K)`): Log-probabilities of the classes; at least -30, where they are 0.
        domain_logits (`Tensor` of shape `(B, r)`): Of the discriminator.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    domain_logits: Tensor | None = None


class LLSForClassification(PreTrainedModel):
    """A classifier of latent classes, from a classifier of domains and a fitted [`LatentLabelShift`].

    `logits` are log p(class | x, domain) with `domain` ids, and log p(class | x) under equally likely domains without:
    so it works in `pipeline` as it is. Negative parts of the solution are clipped ("clip" of the tool).

    Make one with [`LLSForClassification.from_discriminator`]; with a fresh config, class y is domain y (mod K).
    """

    config_class = LLSConfig
    config: LLSConfig
    domain_given_class: Tensor
    unmixing: Tensor
    domain_weights: Tensor
    base_model_prefix = "discriminator"
    supports_gradient_checkpointing = True

    def __init__(self, config: LLSConfig):
        super().__init__(config)
        inner = dict(config.discriminator_config or {})
        stock_config = AutoConfig.for_model(inner.pop("model_type"), **inner)
        stock_config.architectures = stock_config.architectures or []
        self.discriminator = _AUTO[config.modality][1].from_config(stock_config)
        self.main_input_name = self.discriminator.main_input_name
        start = _start(config)
        for name, value in start.items():
            self.register_buffer(name, value)
        self.lls: LatentLabelShift | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, LLSForClassification):
            for name, value in _start(self.config).items():
                init.copy_(getattr(module, name), value)

    @classmethod
    def from_discriminator(
        cls, discriminator: Any, lls: LatentLabelShift, class_names: Sequence[str] | None = None
    ) -> LLSForClassification:
        """Put a trained classifier of domains and a fitted tool together.

        Args:
            discriminator (`PreTrainedModel`): Stock text, image or audio classifier with r labels; it is copied.
            lls ([`LatentLabelShift`]): Fitted on its outputs, with `solver="clip"`.
            class_names (sequence of `str`, *optional*): Names of the K classes, `class_0` and so on by default.

        Raises:
            ValueError: If the numbers of domains differ, the solver is another one, or there are not K names.
            TypeError: If the model is no classifier of texts, images or sounds.
        """
        stock = copy.deepcopy(discriminator)
        domains, classes = stock.config.num_labels, lls.num_classes
        if domains != lls.num_domains:
            raise ValueError(f"The discriminator has {domains} labels, the tool {lls.num_domains} domains.")
        if lls.solver != "clip":
            raise ValueError(f"The model computes `solver='clip'`, the tool has {lls.solver!r}. Fit it with 'clip'.")
        names = [f"class_{i}" for i in range(classes)] if class_names is None else [str(name) for name in class_names]
        if len(names) != classes:
            raise ValueError(f"There are {len(names)} `class_names` for {classes} classes.")
        stock.config.architectures = [type(stock).__name__]
        left_out = ("_name_or_path", "transformers_version")  # of the file it came from
        inner = {key: value for key, value in stock.config.to_dict().items() if key not in left_out}
        config = LLSConfig(
            discriminator_config=inner,
            modality=_modality(stock),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
        )
        model = cls(config)
        model.discriminator.load_state_dict(stock.state_dict())
        model.set_mixtures(lls)
        return model.to(device=stock.device, dtype=stock.dtype).eval()  # type: ignore[call-arg]

    @torch.no_grad()
    def set_mixtures(self, lls: LatentLabelShift) -> None:
        """Take the mixtures of a tool that was fitted again."""
        table = lls.domain_given_class
        if table.shape != tuple(self.domain_given_class.shape):
            raise ValueError(f"The tool has shape {table.shape}, this model {tuple(self.domain_given_class.shape)}.")
        weights = np.ones(len(table)) if lls.domain_weights is None else lls.domain_weights
        for name, value in (
            ("domain_given_class", table),
            ("unmixing", np.linalg.pinv(table)),
            ("domain_weights", weights),
        ):
            getattr(self, name).copy_(torch.as_tensor(value))
        self.lls = lls

    def save_pretrained(self, save_directory: Any, **options: Any) -> Any:  # type: ignore[override]
        """As `PreTrainedModel.save_pretrained`; the tool, where the model was made with it, is written beside it."""
        super().save_pretrained(save_directory, **options)
        if self.lls is not None:
            save_lls(self.lls, save_directory)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        processor: Any = None,
        base_model: str | None = None,
        plots: Sequence[Any] = (),
        results: Sequence[Any] = (),
        private: bool | None = None,
        token: Any = None,
    ) -> Any:
        """Push the model, the tool and a card in one commit; a card that is there already is not replaced.

        Args:
            repo_id (`str`): Repository of the model.
            processor (*optional*): Tokenizer or image processor, pushed along.
            base_model (`str`, *optional*): Model that the training of the discriminator began from.
            plots (*optional*): Pictures for the card, such as [`~hf_labels.hub_cards.mixture_plot`].
            results (sequence of `ResultRow`, *optional*): Measured numbers for the card.
            private, token (*optional*): As in `huggingface_hub`.

        Returns:
            `CommitInfo`

        Raises:
            RuntimeError: If the model was not made with a tool (but loaded, say): there is nothing to say about it.
        """
        if self.lls is None:
            raise RuntimeError("This model has no tool beside it: set it with `set_mixtures(lls)` first.")
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
            if not api.file_exists(repo_id, "README.md"):
                facts: dict[str, Any] = {"base_model": base_model, "plots": plots, "results": results}
                write_card(self.lls, folder, repo_id, pipeline_tag=self.task, **facts)
            return api.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message="Upload classifier of latent classes"
            )

    @property
    def task(self) -> str:
        """Pipeline tag."""
        return _AUTO[self.config.modality][2]

    def get_input_embeddings(self) -> nn.Module:
        return self.discriminator.get_input_embeddings()

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        input_values: Tensor | None = None,
        input_features: Tensor | None = None,
        domain: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **inputs: Any,
    ) -> LLSOutput | tuple:
        """Log-probabilities of classes.

        Args:
            pixel_values, input_ids, attention_mask, token_type_ids, input_values, input_features, inputs: Those that
                the discriminator takes.
            domain (`Tensor` of shape `(B,)`, *optional*): Domain ids, -1 = unknown. Without: all unknown.
            labels (`Tensor` of shape `(B,)`, *optional*): Class ids, -100 = missing, for `loss`.

        Raises:
            ValueError: If a domain id is out of range.
        """
        named = {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": attention_mask}
        named |= {"token_type_ids": token_type_ids, "input_values": input_values, "input_features": input_features}
        given = {name: value for name, value in named.items() if value is not None}
        domain_logits = self.discriminator(**given, **inputs).logits
        log_probs = self._posterior(domain_logits, domain)
        loss = None if labels is None else nn.functional.nll_loss(log_probs, labels)
        output = LLSOutput(loss=loss, logits=log_probs, domain_logits=domain_logits)
        return output.to_tuple() if return_dict is False else output

    def _posterior(self, domain_logits: Tensor, domain: Tensor | None) -> Tensor:
        table = self.domain_given_class.float()
        probs = (domain_logits.float().softmax(-1)) * self.domain_weights.float()
        probs = probs / probs.sum(-1, keepdim=True)
        found = (probs @ self.unmixing.float().T).clamp_min(0)
        if domain is not None:
            if domain.numel() and not (UNSEEN <= int(domain.min()) and int(domain.max()) < len(table)):
                bad = int(domain[(domain < UNSEEN) | (domain >= len(table))][0])
                raise ValueError(f"`domain` must be ids in [0, {len(table)}), or -1 for an unknown one, got {bad}.")
            shares = torch.where((domain == UNSEEN)[:, None], torch.ones_like(table[:1]), table[domain.clamp_min(0)])
            flat = torch.where(found.sum(-1, keepdim=True) > 0, found, torch.ones_like(found))
            product = flat * shares
            found = torch.where(product.sum(-1, keepdim=True) > 0, product, shares)
        else:
            found = torch.where(found.sum(-1, keepdim=True) > 0, found, torch.ones_like(found))
        found = found / found.sum(-1, keepdim=True)
        return found.clamp_min(1e-13).log()


def _start(config: LLSConfig) -> dict[str, Tensor]:
    """Mixtures of a model that was not fitted: class y is what the domains y, y + K, ... say."""
    classes: Any = config.num_labels
    table = torch.zeros(config.num_domains, classes)
    table[torch.arange(config.num_domains), torch.arange(config.num_domains) % classes] = 1
    table = table / table.sum(0)
    return {
        "domain_given_class": table,
        "unmixing": torch.linalg.pinv(table.double()).float(),
        "domain_weights": torch.ones(config.num_domains),
    }


def _modality(model: Any) -> str:
    for name, (mapping, _, _) in _AUTO.items():
        if type(model) in tuple(_classes(mapping)):
            return name
    raise TypeError(f"{type(model).__name__} is no stock classifier of texts, images or sounds.")


def _classes(mapping: Any) -> list[type]:
    found: list[type] = []
    for value in mapping.values():
        found += value if isinstance(value, tuple | list) else [value]
    return found


AutoConfig.register(LLSConfig.model_type, LLSConfig, exist_ok=True)
AutoModelForImageClassification.register(LLSConfig, LLSForClassification, exist_ok=True)
AutoModelForSequenceClassification.register(LLSConfig, LLSForClassification, exist_ok=True)
AutoModelForAudioClassification.register(LLSConfig, LLSForClassification, exist_ok=True)
