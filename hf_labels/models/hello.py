"""`LabelProjector`: the image encoder of a CLIP with one text embedding per class as its head.

    projector = LabelProjector.from_clip("openai/clip-vit-base-patch32", ["cat", "dog"], prompt="a photo of a {}.")
    projector = get_peft_model(projector, hello_lora_config(projector, rank=8, head_rank=64))

What is published is the adapter: see [`~hf_labels.models.hello_adapter.load_projector`].

Source: Yu et al., HeLlO, arXiv:2408.08201.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput

from hf_labels.data.images import Normalizer, resize
from hf_labels.labels.verbalize import LabelSpace
from hf_labels.losses.hello import text_head

logger = logging.getLogger(__name__)

DEFAULT_PROMPT = "a photo of a {}."


@strict
class LabelProjectorConfig(PreTrainedConfig):
    """Settings of [`LabelProjector`]. The class names are `id2label`.

    Parameters:
        vision_config (`CLIPVisionConfig` or `dict`, *optional*): The image encoder.
        logit_scale (`float`, *optional*, defaults to 100.0): s, after `exp`; stays fixed.
        prompt_template (`str`, *optional*): What was read with each class in place of `{}`.
        class_texts (`list[str]`, *optional*): The words that stood for each class there; its names by default.
        clip_id, clip_revision (`str`, *optional*): Hub id and commit of the CLIP.
        save_head (`bool`, *optional*, defaults to `False`): Store the head beside the adapter, so that loading needs
            no tokenizer and reads no text.
    """

    model_type = "hfl-label-projector"
    sub_configs = {"vision_config": CLIPVisionConfig}

    vision_config: Any = None
    logit_scale: float | int = 100.0
    prompt_template: str = DEFAULT_PROMPT
    class_texts: Any = None
    clip_id: str | None = None
    clip_revision: str | None = None
    save_head: bool = False

    def __post_init__(self, **kwargs):
        if not isinstance(self.vision_config, CLIPVisionConfig):
            self.vision_config = CLIPVisionConfig(**(self.vision_config or {}))
        super().__post_init__(**kwargs)
        if self.class_texts is not None:
            self.class_texts = list(self.class_texts)
        if not self.logit_scale > 0:
            raise ValueError(f"`logit_scale` must be above 0, got {self.logit_scale}.")


class LabelProjector(PreTrainedModel):
    """`logits = s * normalise(E(image)) W^T`, with W the normalised text embeddings of the class prompts.

    Fresh from [`from_clip`] it is exactly CLIP's zero-shot classifier. peft adapts encoder and head.

    | input | shape |
    | --- | --- |
    | `pixel_values` | (B, C, H, W), normalised as the CLIP expects |
    | `labels` | (B,), *optional*: cross-entropy as `loss` |
    """

    config_class = LabelProjectorConfig
    base_model_prefix = "encoder"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["CLIPEncoderLayer"]

    def __init__(self, config: LabelProjectorConfig) -> None:
        super().__init__(config)
        self.encoder = CLIPVisionModelWithProjection._from_config(config.vision_config)
        self.head = nn.Linear(config.vision_config.projection_dim, int(config.num_labels or 0), bias=False)
        self.post_init()

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Projected image features `(B, d)`, not normalised."""
        return self.encoder(pixel_values=pixel_values).image_embeds

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, return_dict: bool | None = None
    ) -> ImageClassifierOutput | tuple[Tensor, ...]:
        features = F.normalize(self.image_features(pixel_values), dim=-1)
        logits = self.config.logit_scale * self.head(features)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return ImageClassifierOutput(loss=loss, logits=logits)

    @classmethod
    def from_clip(
        cls,
        clip: Any,
        class_names: Sequence[str] | Mapping[str, str],
        prompt: str = DEFAULT_PROMPT,
        *,
        revision: str | None = None,
        tokenizer: Any = None,
        clip_id: str | None = None,
        save_head: bool = False,
    ) -> "LabelProjector":
        """Build from a CLIP and the names of the classes.

        Args:
            clip (`str`, `Path` or `CLIPModel`): Hub id, folder, or a model (then with `tokenizer`); it is not changed.
            class_names (sequence of `str`, or `dict[str, str]`): Names in the order of the class ids; a dict gives the
                words that stand for each name in the prompt.
            prompt (`str`, *optional*, defaults to `"a photo of a {}."`): With one `{}`.
            revision (`str`, *optional*): Of the Hub id; the commit is remembered.
            tokenizer (*optional*): Of the CLIP.
            clip_id (`str`, *optional*): Name under which others find this CLIP, if not `clip` itself.
            save_head (`bool`, *optional*, defaults to `False`): See [`LabelProjectorConfig`].

        Raises:
            ValueError: If a name is double, two classes get one embedding, or a model comes without tokenizer.
            OSError: If the CLIP cannot be found.
        """
        space = label_space(class_names, prompt)
        model, tokenizer, found_id, commit = find_clip(clip, revision, tokenizer)
        words = [prompt.replace("{}", text) for text in space.texts()]
        weight = encode_prompts(model, tokenizer, words)
        check_distinct(weight, space.names, words)
        config = LabelProjectorConfig(
            vision_config=vision_config_of(model),
            logit_scale=float(model.logit_scale.detach().double().exp()),
            prompt_template=prompt,
            class_texts=space.texts(),
            clip_id=clip_id or found_id,
            clip_revision=commit,
            save_head=save_head,
            id2label=space.id2label,
            label2id=space.label2id,
        )
        return cls.from_parts(config, model.state_dict(), weight)

    @classmethod
    def from_parts(cls, config: LabelProjectorConfig, clip_state: Mapping[str, Tensor], weight: Tensor) -> Any:
        """From the weights of a CLIP, of which the image encoder is taken, and the head `(N, d)`."""
        projector = cls(config)
        wanted = ("vision_model.", "visual_projection.")
        projector.encoder.load_state_dict({n: value for n, value in clip_state.items() if n.startswith(wanted)})
        with torch.no_grad():
            projector.head.weight.copy_(weight)
        config._name_or_path = projector.name_or_path = config.clip_id or ""  # what peft names as its base model
        return projector.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a whole projector, or an adapter: then CLIP is loaded too, checked, and the adapter merged into it.

        Args:
            pretrained_model_name_or_path (`str`): Folder or Hub id.
            clip, tokenizer (*optional*): For an adapter: as in [`~hf_labels.models.hello_adapter.load_projector`].
        """
        from transformers.utils import find_adapter_config_file

        hub = {name: kwargs[name] for name in ("revision", "token", "cache_dir") if kwargs.get(name) is not None}
        source = str(pretrained_model_name_or_path)
        if find_adapter_config_file(source, **hub) is not None:
            from hf_labels.models.hello_adapter import load_projector

            own = {name: kwargs[name] for name in ("clip", "tokenizer") if name in kwargs}
            return load_projector(source, **own, **hub).merge_and_unload().eval()
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)


class SameView(nn.Module):
    """A model that answers for the views of another: undoes their normalisation, resizes, applies its own.

    Projector and student need the same crop, and have different means and sizes.

    Args:
        model (`nn.Module`): Takes `pixel_values`.
        given ([`Normalizer`]): How the incoming pixels were normalised.
        wanted ([`Normalizer`]): What `model` expects.
        size (`int`, *optional*): Input side of `model`; by default that of the views.
    """

    def __init__(self, model: nn.Module, given: Normalizer, wanted: Normalizer, size: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.given = given
        self.wanted = wanted
        self.size = size

    def view(self, pixel_values: Tensor) -> Tensor:
        """The pixels as `model` expects them."""
        pixels = self.given.undo(pixel_values)
        return self.wanted(pixels if self.size is None else resize(pixels, self.size))

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model(pixel_values=self.view(pixel_values))

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Features of [`LabelProjector`], adapted or not."""
        model: Any = self.model
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        return base.image_features(self.view(pixel_values))


def label_space(class_names: Sequence[str] | Mapping[str, str], prompt: str) -> LabelSpace:
    """Names and the words for the prompt, checked."""
    if isinstance(class_names, Mapping):
        return LabelSpace.from_descriptions(class_names, (prompt,))
    return LabelSpace.from_names(list(class_names) if not isinstance(class_names, str) else class_names, (prompt,))


def vision_config_of(clip: CLIPModel) -> CLIPVisionConfig:
    """Settings of the image encoder; CLIP keeps the width of its projection elsewhere."""
    config: Any = clip.config
    settings = config.vision_config.to_dict() | {"projection_dim": config.projection_dim}
    return CLIPVisionConfig.from_dict(settings)


def find_clip(clip: Any, revision: str | None, tokenizer: Any) -> tuple[CLIPModel, Any, str | None, str | None]:
    """Model, tokenizer, id and commit."""
    if isinstance(clip, (str, Path)):
        from transformers import AutoTokenizer

        from hf_labels.hub import commit_of

        place = os.fspath(clip)
        try:
            commit = commit_of(place, revision) or revision
            model = CLIPModel.from_pretrained(place, revision=commit or "main", dtype=torch.float32)
            words = tokenizer or AutoTokenizer.from_pretrained(place, revision=commit or "main")
        except (OSError, ValueError) as error:
            raise OSError(f"The CLIP `{place}` (revision {revision or 'main'}) cannot be loaded: {error}") from error
        return model.eval(), words, place, commit
    if not isinstance(clip, CLIPModel):
        raise TypeError(f"`clip` must be a Hub id, a folder or a CLIPModel, got {type(clip).__name__}.")
    if tokenizer is None:
        raise ValueError("Pass `tokenizer` with a CLIPModel: the class names are read by its text encoder.")
    return clip, tokenizer, clip.name_or_path or None, getattr(clip.config, "_commit_hash", None)


@torch.no_grad()
def encode_prompts(model: CLIPModel, tokenizer: Any, prompts: Sequence[str], batch_size: int = 64) -> Tensor:
    """Normalised text embeddings `(N, d)`, float32. Prompts beyond the text encoder's length are cut, with a warning.

    Raises:
        ValueError: If an embedding is not finite.
    """
    config: Any = model.config
    limit = min(tokenizer.model_max_length, config.text_config.max_position_embeddings)
    long = [text for text, ids in zip(prompts, tokenizer(list(prompts))["input_ids"], strict=True) if len(ids) > limit]
    if long:
        logger.warning(
            "%d class prompts are longer than the %d tokens that the text encoder reads, and are cut. The first: %r.",
            len(long),
            limit,
            long[0],
        )
    was = model.training
    model.eval()
    found = []
    for start in range(0, len(prompts), batch_size):
        part = list(prompts[start : start + batch_size])
        batch = tokenizer(part, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(model.device)
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask") if name in batch}
        found.append(model.get_text_features(**inputs).pooler_output.float().cpu())
    model.train(was)
    weight = text_head(torch.cat(found))
    if not bool(torch.isfinite(weight).all()):
        row = int(torch.nonzero(~torch.isfinite(weight).all(-1))[0])
        raise ValueError(f"The text embedding of {prompts[row]!r} is not finite: the CLIP checkpoint is damaged.")
    return weight


def check_distinct(weight: Tensor, names: Sequence[str], prompts: Sequence[str]) -> None:
    """Refuse two classes with one embedding: their labels would always be equal.

    Raises:
        ValueError: Names both.
    """
    for first in range(len(weight)):
        same = torch.nonzero((weight[first + 1 :] - weight[first]).abs().amax(-1) < 1e-6)
        if len(same):
            second = first + 1 + int(same[0])
            raise ValueError(
                f"Classes {names[first]!r} and {names[second]!r} have the same text embedding (prompts "
                f"{prompts[first]!r} and {prompts[second]!r}). Give them words that differ, within the length that "
                "the text encoder reads."
            )


AutoConfig.register(LabelProjectorConfig.model_type, LabelProjectorConfig, exist_ok=True)
AutoModelForImageClassification.register(LabelProjectorConfig, LabelProjector, exist_ok=True)
