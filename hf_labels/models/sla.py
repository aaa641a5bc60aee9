"""SLA: an image classifier with a joint head for class and transformation, and a thin aggregator over it.

Source: Lee, Hwang and Shin, ICML 2020, PMLR 119:5714-5724. The inside is a stock image classification model whose head
is taken out; [`SLAForImageClassification.to_plain`] puts one in again.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput

from hf_labels.losses.sla import (
    TRANSFORMS,
    Transformation,
    aggregate_logits,
    num_transformations,
    plain_loss,
    single_logits,
    transform_images,
)
from hf_labels.models.heads import find_head, replace_head, set_module

MODES = ("sla", "baseline", "da", "mt")
CUSTOM = "custom"


@strict
class SLAConfig(PreTrainedConfig):
    """Settings of [`SLAForImageClassification`].

    Parameters:
        backbone_config (`dict`, *optional*): Config of a stock image classification model, with its `model_type`.
            `None`: a ResNet of the default size.
        transform (`str`, *optional*, defaults to `"rotation"`): Key of [`~hf_labels.losses.sla.TRANSFORMS`], or
            `"custom"` for functions that are given with [`SLAForImageClassification.set_transforms`].
        num_custom_transforms (`int`, *optional*, defaults to 0): M of `"custom"`.
        self_distillation (`bool`, *optional*, defaults to `True`): A plain head beside the joint one, for prediction
            with one forward pass.
        mode (`str`, *optional*, defaults to `"sla"`): `"sla"`, or a baseline on the same data flow: `"baseline"`
            (classes only, untransformed images), `"da"` (classes on all transformed images) or `"mt"` (two heads, one
            for the class and one for the transformation).

    Raises:
        ValueError: An unknown `transform` or `mode`, or `"custom"` without `num_custom_transforms`.
    """

    model_type = "hfl-sla"
    keys_to_ignore_at_inference = ["joint_logits", "aggregated_logits", "class_logits", "transform_logits"]

    backbone_config: dict[str, Any] | None = None
    transform: str = "rotation"
    num_custom_transforms: int = 0
    self_distillation: bool = True
    mode: str = "sla"
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        if self.backbone_config is None:
            self.backbone_config = AutoConfig.for_model("resnet").to_dict()
        super().__post_init__(**kwargs)
        if self.mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {self.mode!r}.")
        if self.transform == CUSTOM and self.num_custom_transforms < 1:
            raise ValueError("`transform='custom'` needs `num_custom_transforms`, the number M of functions.")
        if self.transform != CUSTOM:
            num_transformations(self.transform)

    @property
    def num_transformations(self) -> int:
        """M."""
        return self.num_custom_transforms if self.transform == CUSTOM else len(TRANSFORMS[self.transform])

    @property
    def has_joint_head(self) -> bool:
        """Whether there is a head of N * M outputs."""
        return self.mode == "sla"

    @property
    def has_plain_head(self) -> bool:
        """Whether there is a head of N outputs."""
        return self.mode != "sla" or self.self_distillation

    @classmethod
    def from_backbone(cls, backbone: Any, num_labels: int | None = None, **settings: Any) -> "SLAConfig":
        """A config around the config of a stock model; its label names are kept when `num_labels` agrees.

        Args:
            backbone (`str` or `PreTrainedConfig`): Hub id or folder of an image model, or its config.
            num_labels (`int`, *optional*): N; the backbone's own when left out.
            settings: Fields of this class, `id2label`, `label2id`.
        """
        inner: Any = AutoConfig.from_pretrained(backbone) if isinstance(backbone, str) else copy.deepcopy(backbone)
        if num_labels is not None and num_labels != inner.num_labels:
            inner.num_labels = num_labels
        if "id2label" in settings:
            inner.id2label = dict(settings["id2label"])
        names = {int(key): name for key, name in inner.id2label.items()}
        inner.id2label, inner.label2id = names, {name: key for key, name in names.items()}
        settings |= {"id2label": names, "label2id": dict(inner.label2id)}
        left_out = ("_name_or_path", "transformers_version")  # of the file it came from
        values = {name: value for name, value in inner.to_dict().items() if name not in left_out}
        return cls(backbone_config=values, **settings)


@dataclass
class SLAOutput(ImageClassifierOutput):
    """Output of [`SLAForImageClassification`]. All but `loss` and `logits` are `None` without `transform=True`.

    Parameters:
        loss (`Tensor` of shape `()`, *optional*): Plain cross-entropy of `logits`, when labels are given.
        logits (`Tensor` of shape `(B, N)`): Of the images as they are: the plain head, else single inference.
        joint_logits (`Tensor` of shape `(B * M, N * M)`, *optional*): Of all transformed images, sample-major.
        aggregated_logits (`Tensor` of shape `(B, N)`, *optional*): Aggregated inference; in mode `"da"` and `"mt"` the
            mean of the class logits over the transformations.
        class_logits (`Tensor` of shape `(B * M, N)`, *optional*): Modes `"da"` and `"mt"`: classes of all rows.
        transform_logits (`Tensor` of shape `(B * M, M)`, *optional*): Mode `"mt"`.
    """

    joint_logits: Tensor | None = None
    aggregated_logits: Tensor | None = None
    class_logits: Tensor | None = None
    transform_logits: Tensor | None = None


class SLAForImageClassification(PreTrainedModel):
    """A stock image classification model with SLA heads.

    Works in `pipeline("image-classification")` as it is: `logits` are `(B, N)` of one forward pass.
    [`predict_aggregated`] spends M passes; [`to_plain`] gives a model that needs no `hf_labels`.

    Make one with `SLAForImageClassification(SLAConfig.from_backbone(...))` (random weights) or
    [`SLAForImageClassification.from_backbone`] (pre-trained ones).
    """

    config_class = SLAConfig
    config: SLAConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: SLAConfig):
        super().__init__(config)
        inner = dict(config.backbone_config or {})  # a config without one has the default
        stock_config = AutoConfig.for_model(inner.pop("model_type"), **inner)
        classes: Any = config.num_labels
        stock_config.num_labels = self.num_labels = classes
        stock_config.architectures = stock_config.architectures or []  # told apart by name where a type has several
        self.backbone = AutoModelForImageClassification.from_config(stock_config)
        width, many = find_head(self.backbone).in_features, config.num_transformations
        bias = getattr(replace_head(self.backbone, nn.Identity()), "bias", None) is not None  # as the stock head
        if config.has_joint_head:
            self.joint_classifier = nn.Linear(width, classes * many, bias=bias)
        if config.has_plain_head:
            self.classifier = nn.Linear(width, classes, bias=bias)
        if config.mode == "mt":
            self.transform_classifier = nn.Linear(width, many, bias=bias)
        self._functions: Sequence[Transformation] | None = None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)

    @classmethod
    def from_backbone(cls, backbone: Any, num_labels: int | None = None, **settings: Any) -> Any:
        """New heads on a trained model.

        Args:
            backbone (`str` or `PreTrainedModel`): Hub id, folder, or a loaded image classification model; its own head
                is left out. A loaded model is copied.
            num_labels, settings: As in [`SLAConfig.from_backbone`].

        Raises:
            OSError: If the model cannot be found.
            ValueError: If it has no single classification head.
        """
        if isinstance(backbone, str):
            stock: Any = AutoModelForImageClassification.from_pretrained(backbone)
        else:
            stock = copy.deepcopy(backbone)
        stock.config.architectures = [type(stock).__name__]
        model = cls(SLAConfig.from_backbone(stock.config, num_labels, **settings))
        replace_head(stock, nn.Identity())
        model.backbone.load_state_dict(stock.state_dict())
        return model

    def set_transforms(self, functions: Sequence[Transformation]) -> None:
        """Transformations of one's own, in place of a named set; not saved: set them again after loading.

        Args:
            functions: M functions from `(B, ...)` to the same shape, the first of which is the identity.

        Raises:
            ValueError: If the config is not `transform="custom"`, or M differs.
        """
        if self.config.transform != CUSTOM or len(functions) != self.config.num_transformations:
            raise ValueError(
                f"The heads are made for {self.config.num_transformations} transformations "
                f"({self.config.transform!r}), got {len(functions)} functions. Make the model with "
                f"`SLAConfig(transform='custom', num_custom_transforms={len(functions)})`."
            )
        self._functions = list(functions)

    def transformed(self, pixel_values: Tensor) -> Tensor:
        """All transformations of a batch, `(B * M, ...)`, sample-major.

        Raises:
            ValueError: As [`~hf_labels.losses.sla.transform_images`], or for missing custom transformations.
        """
        if self.config.transform != CUSTOM:
            return transform_images(pixel_values, self.config.transform)
        if self._functions is None:
            raise ValueError("This model has custom transformations, which are not saved. Call `set_transforms`.")
        return transform_images(pixel_values, self._functions)

    def features(self, pixel_values: Tensor) -> Tensor:
        """What the head of the stock model would receive, `(B, D)`."""
        return self.backbone(pixel_values=pixel_values).logits

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        transform: bool = False,
        return_dict: bool | None = None,
    ) -> SLAOutput | tuple:
        """Class logits of the images; with `transform`, everything the SLA losses need, in one pass over `B * M` rows.

        Args:
            pixel_values (`Tensor` of shape `(B, C, H, W)`)
            labels (`Tensor` of shape `(B,)`, *optional*): For the plain cross-entropy of `logits`; -100 = missing.
            transform (`bool`, *optional*, defaults to `False`): Transform the images here, on their device.

        Raises:
            ValueError: Images that the transformations do not take, an empty batch, labels that are no class ids.
        """
        if pixel_values is None or not len(pixel_values):
            raise ValueError("The batch is empty: `pixel_values` has 0 rows.")
        found: Any = self._transformed(pixel_values) if transform else {"logits": self._plain(pixel_values)}
        loss = None if labels is None else plain_loss(found["logits"], labels)
        output = SLAOutput(loss=loss, **found)
        return output.to_tuple() if return_dict is False else output

    def _plain(self, pixel_values: Tensor) -> Tensor:
        features = self.features(pixel_values)
        if self.config.has_plain_head:
            return self.classifier(features)
        return single_logits(self.joint_classifier(features), self.config.num_transformations)

    def _transformed(self, pixel_values: Tensor) -> dict[str, Tensor]:
        config, number = self.config, self.config.num_transformations
        if config.mode == "baseline":
            return {"logits": self._plain(pixel_values)}
        features = self.features(self.transformed(pixel_values))
        if config.mode != "sla":
            rows = self.classifier(features)
            mean = rows.view(-1, number, rows.shape[1]).mean(1)
            found = {"logits": rows[::number], "aggregated_logits": mean, "class_logits": rows}
            return found | ({"transform_logits": self.transform_classifier(features)} if config.mode == "mt" else {})
        joint = self.joint_classifier(features)
        own = config.self_distillation
        return {
            "logits": self.classifier(features[::number]) if own else single_logits(joint[::number], number),
            "joint_logits": joint,
            "aggregated_logits": aggregate_logits(joint, number),
        }

    @torch.no_grad()
    def predict_aggregated(self, pixel_values: Tensor) -> Tensor:
        """Aggregated inference in eval mode: M forward passes, then the mean of the logits that belong together.

        Args:
            pixel_values (`Tensor` of shape `(B, C, H, W)`)

        Returns:
            `Tensor` of shape `(B, N)`: Logits; their softmax is P_agg of the paper.

        Raises:
            ValueError: As [`transformed`], or in mode `"baseline"`, which knows no transformations.
        """
        if self.config.mode == "baseline":
            raise ValueError("The mode `baseline` has nothing to aggregate. Use `forward`.")
        training = self.training
        self.eval()
        try:
            output = self(pixel_values, transform=True)
        finally:
            self.train(training)
        return output.aggregated_logits

    def to_plain(self) -> Any:
        """A copy as a stock `AutoModelForImageClassification` with N classes, which needs no `hf_labels`.

        Its head is the plain one; without self-distillation the identity's columns of the joint head. The logits are
        those of `forward`.
        """
        values = self.backbone.config.to_dict()
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        config.id2label, config.label2id = dict(self.config.id2label), dict(self.config.label2id)  # type: ignore
        stock: Any = AutoModelForImageClassification.from_config(config)
        name = find_head(stock).name
        head: Any = replace_head(stock, nn.Identity())
        stock.load_state_dict(self.backbone.state_dict())
        has_own = self.config.has_plain_head
        mine: Any = self.classifier if has_own else self.joint_classifier
        every = 1 if has_own else self.config.num_transformations
        with torch.no_grad():
            head.weight.copy_(mine.weight[::every])
            if head.bias is not None:
                head.bias.copy_(mine.bias[::every])
        set_module(stock, name, head)
        return stock.to(device=self.device, dtype=self.dtype).train(self.training)


AutoConfig.register(SLAConfig.model_type, SLAConfig, exist_ok=True)
AutoModelForImageClassification.register(SLAConfig, SLAForImageClassification, exist_ok=True)
