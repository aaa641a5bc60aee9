"""The adapter of a label projector: LoRA of two ranks, saved without CLIP and without the head.

Loading checks that CLIP and class names are those that it was trained with.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel

from hf_labels.models.hello import LabelProjector, LabelProjectorConfig, vision_config_of

logger = logging.getLogger(__name__)

HEAD_FILE = "head.safetensors"
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
_SKETCH = 16
_SKETCH_TOLERANCE = 1e-3


@dataclass
class HelloLoraConfig(LoraConfig):
    """peft's `LoraConfig` that also says on which projector it stands.

    Parameters:
        projector (`dict`): What [`projector_facts`] tells. Stock peft ignores it, with a warning.
    """

    projector: dict[str, Any] = field(default_factory=dict)


def hello_lora_config(
    projector: LabelProjector,
    rank: int = 8,
    head_rank: int | None = None,
    target_modules: Sequence[str] = ATTENTION,
    scaling: float = 1.0,
    dropout: float = 0.0,
) -> HelloLoraConfig:
    """Adapters of one rank on the encoder and another on the head.

    Args:
        projector ([`LabelProjector`]): What will be adapted.
        rank (`int`, *optional*, defaults to 8): In the encoder.
        head_rank (`int`, *optional*): On the head; 64 for up to 200 classes, else 128, and not more than the head's
            own rank, by default.
        target_modules (sequence of `str`, *optional*): Layers of the encoder, by the end of their name. The attention
            projections by default; `fc1`, `fc2`, `patch_embedding` and `visual_projection` are there too.
        scaling (`float`, *optional*, defaults to 1.0): alpha / r, for both.
        dropout (`float`, *optional*, defaults to 0.0): Before the adapters.

    Raises:
        ValueError: If a rank is below 1, or no layer has one of the names.

    Source: arXiv:2408.08201, section 3.2 and appendix: ranks (8, 64) for ImageNet-100, (8, 128) for ImageNet-1k. The
    paper adapts the convolutions of CLIP's ResNet, which transformers does not have.
    """
    classes, width = projector.head.weight.shape
    if head_rank is None:
        head_rank = min(64 if classes <= 200 else 128, classes, width)
    if rank < 1 or head_rank < 1:
        raise ValueError(f"Ranks must be at least 1, got rank={rank} and head_rank={head_rank}.")
    layers = {name.rpartition(".")[2] for name, _ in projector.encoder.named_modules()}
    unknown = sorted(set(target_modules) - layers)
    if unknown or not target_modules:
        raise ValueError(
            f"`target_modules` must name layers of the image encoder, got {', '.join(unknown) or 'none'}. "
            f"The default is {', '.join(ATTENTION)}."
        )
    return HelloLoraConfig(
        r=rank,
        lora_alpha=scaling * rank,  # type: ignore[arg-type]  # peft divides it by r: it need not be whole
        target_modules=rf".*\.({'|'.join(target_modules)})|head",
        rank_pattern={"head": head_rank},
        alpha_pattern={"head": scaling * head_rank},
        lora_dropout=dropout,
        bias="none",
        base_model_name_or_path=projector.config.clip_id,
        revision=projector.config.clip_revision,
        projector=projector_facts(projector),
    )


def projector_facts(projector: LabelProjector) -> dict[str, Any]:
    """What must agree when an adapter is put on a projector again, as JSON values."""
    config: Any = projector.config
    weight = _base_weight(projector)
    return {
        "clip_id": config.clip_id,
        "clip_revision": config.clip_revision,
        "prompt_template": config.prompt_template,
        "class_names": [config.id2label[number] for number in range(config.num_labels)],
        "class_texts": config.class_texts,
        "logit_scale": config.logit_scale,
        "head_sha256": head_sha256(weight),
        "head_sketch": sketch(weight),
        "vision_sketch": sketch(_projection(projector.encoder)),
    }


def head_sha256(weight: Tensor) -> str:
    """Hash of the head, rounded to 1e-4."""
    rounded = np.rint(weight.detach().double().cpu().numpy() * 1e4).astype("<i4")
    return hashlib.sha256(np.ascontiguousarray(rounded).tobytes()).hexdigest()


def sketch(weight: Tensor) -> list[float]:
    """Sixteen numbers that tell one matrix from another within rounding.

    Another processor computes text embeddings that differ in the last bits. Of many thousand values some then round to
    another 1e-4, and the hash differs although nothing is wrong. These are sums with fixed random signs, divided by
    the root of the number of rows: bits in the last place change them by 1e-6, another class by 1e-2.
    """
    values = weight.detach().double().cpu().numpy().ravel()
    found = []
    for number in range(_SKETCH):
        digest = hashlib.shake_128(f"hf_labels {number}".encode()).digest(-(-len(values) // 8))
        signs = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[: len(values)] * 2.0 - 1
        found.append(round(float(values @ signs) / len(weight) ** 0.5, 7))
    return found


def check_projector(projector: LabelProjector, told: dict[str, Any]) -> None:
    """Compare a projector with what an adapter was trained on.

    Raises:
        ValueError: If class names, prompt, head, image encoder or scale differ; says which, and the repair.
    """
    mine = projector_facts(projector)
    theirs = told["class_names"]
    if mine["class_names"] != theirs:
        pairs = zip(mine["class_names"], theirs, strict=False)
        number = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(mine["class_names"]), len(theirs)))
        raise ValueError(
            f"The adapter was trained for other classes: they differ from class {number} on. It has {len(theirs)}: "
            f"{', '.join(theirs[:5])}{', ...' if len(theirs) > 5 else ''}. Build the projector with these names."
        )
    where = f"{told['clip_id']!r} at revision {told['clip_revision']!r}"
    if mine["head_sha256"] != told["head_sha256"]:
        if not _close(mine["head_sketch"], told["head_sketch"]):
            raise ValueError(
                f"The head does not fit the adapter (sha256 {mine['head_sha256'][:12]}, wanted "
                f"{told['head_sha256'][:12]}): it was trained on the CLIP {where} with the prompt "
                f"{told['prompt_template']!r}. Load that CLIP (`clip=`, `clip_revision=`)."
            )
        logger.info("The head differs from the adapter's in the last bits only: it was computed on another machine.")
    scale = abs(mine["logit_scale"] / told["logit_scale"] - 1)
    if scale > 1e-3 or not _close(mine["vision_sketch"], told["vision_sketch"]):
        raise ValueError(
            f"The image encoder or its scale is not that of the CLIP {where}, on which the adapter was trained. "
            "Load that CLIP (`clip=`, `clip_revision=`)."
        )


def save_projector(model: PeftModel, folder: str | Path) -> Path:
    """Save the adapter without the card that peft writes; with the head when the config says `save_head`.

    Returns:
        `Path`: The folder.
    """
    place = Path(folder)
    card = place / "README.md"
    before = card.read_bytes() if card.is_file() else None
    model.save_pretrained(str(place))
    if before is None:
        card.unlink(missing_ok=True)  # peft's is a form to fill in
    else:
        card.write_bytes(before)
    save_head(model, place)
    return place


def save_head(model: Any, folder: str | Path) -> None:
    """Write the head beside an adapter when its config says so."""
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if base.config.save_head:
        save_file({"head": _base_weight(base).detach().cpu().contiguous()}, Path(folder) / HEAD_FILE)


def load_projector(
    source: str | Path,
    clip: Any = None,
    *,
    clip_revision: str | None = None,
    tokenizer: Any = None,
    class_names: Sequence[str] | None = None,
    is_trainable: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
) -> PeftModel:
    """An adapted projector: CLIP is loaded, the head built again from the class names and checked, the adapter added.

    Args:
        source (`str` or `Path`): Folder or Hub id of the adapter.
        clip (`str`, `Path` or `CLIPModel`, *optional*), clip_revision (`str`, *optional*), tokenizer (*optional*):
            Where CLIP is; by default what the adapter names.
        class_names (sequence of `str`, *optional*): The classes that you expect; checked.
        is_trainable (`bool`, *optional*, defaults to `False`): Go on training the adapter.
        revision, token, cache_dir (*optional*): Of the adapter, as in `from_pretrained`.

    Raises:
        FileNotFoundError: If there is no adapter.
        ValueError: If it is not a label projector's, or was trained on another CLIP, prompt or class list.
    """
    asked = {"revision": revision, "token": token, "cache_dir": cache_dir}
    hub: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    saved = _adapter_config(str(source), hub)
    told = saved.get("projector")
    if not told:
        raise ValueError(
            f"The adapter at {source} is no label projector: its adapter_config.json names no `projector`."
        )
    if class_names is not None and list(class_names) != told["class_names"]:
        raise ValueError(
            f"The adapter at {source} has the classes {', '.join(told['class_names'][:8])} "
            f"({len(told['class_names'])} in all), you expect {', '.join(list(class_names)[:8])} ({len(class_names)})."
        )
    place = told["clip_id"] if clip is None else clip
    if place is None:
        raise ValueError(f"The adapter at {source} does not name its CLIP. Pass `clip=`.")
    wanted = clip_revision or (told["clip_revision"] if clip is None else None)
    head = _stored_head(str(source), hub)
    if head is not None and isinstance(place, (str, Path)):
        base = _with_head(place, wanted, told, head)
    else:
        names = dict(zip(told["class_names"], told["class_texts"] or told["class_names"], strict=True))
        base = LabelProjector.from_clip(place, names, told["prompt_template"], revision=wanted, tokenizer=tokenizer)
    base.config.save_head = head is not None
    check_projector(base, told)
    known = {item.name for item in fields(HelloLoraConfig) if item.init}
    config = HelloLoraConfig(**{name: value for name, value in saved.items() if name in known})
    config.inference_mode = not is_trainable
    model = PeftModel.from_pretrained(base, str(source), config=config, is_trainable=is_trainable, **hub)
    return model if is_trainable else model.eval()


def _with_head(place: str | Path, revision: str | None, told: dict[str, Any], head: Tensor) -> LabelProjector:
    """With the head that was stored: no text is read."""
    clip = CLIPModel.from_pretrained(place, revision=revision or "main", dtype=torch.float32)
    names = dict(enumerate(told["class_names"]))
    config = LabelProjectorConfig(
        vision_config=vision_config_of(clip),
        logit_scale=told["logit_scale"],
        prompt_template=told["prompt_template"],
        class_texts=told["class_texts"],
        clip_id=told["clip_id"],
        clip_revision=told["clip_revision"],
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    return LabelProjector.from_parts(config, clip.state_dict(), head)


def _adapter_config(source: str, hub: dict[str, Any]) -> dict[str, Any]:
    from transformers.utils import find_adapter_config_file

    path = find_adapter_config_file(source, **hub)
    if path is None:
        raise FileNotFoundError(f"There is no adapter_config.json at {source}.")
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _stored_head(source: str, hub: dict[str, Any]) -> Tensor | None:
    from transformers.utils import cached_file

    path = cached_file(source, HEAD_FILE, _raise_exceptions_for_missing_entries=False, **hub)
    return None if path is None else load_file(path)["head"]


def _base_weight(projector: Any) -> Tensor:
    """The head without its adapter."""
    head = projector.head
    return head.get_base_layer().weight if hasattr(head, "get_base_layer") else head.weight


def _projection(encoder: Any) -> Tensor:
    layer = encoder.visual_projection
    return layer.get_base_layer().weight if hasattr(layer, "get_base_layer") else layer.weight


def _close(one: Sequence[float], two: Sequence[float]) -> bool:
    return len(one) == len(two) and max(abs(a - b) for a, b in zip(one, two, strict=True)) < _SKETCH_TOLERANCE
