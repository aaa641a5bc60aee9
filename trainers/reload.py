"""Weights of a checkpoint back into a model whose file names its tensors differently (ViT and others).

transformers 5 saves some architectures under the names of older releases (`vit.encoder.layer.0` for `vit.layers.0`)
and translates them in `from_pretrained`, but `Trainer` reads checkpoints without translating: a resumed run would
silently go on with fresh weights.
"""

from pathlib import Path
from typing import Any

from safetensors import safe_open

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def load_renamed_weights(model: Any, folder: str | Path) -> bool:
    """Load a checkpoint whose tensors have other names than the model's, through `from_pretrained`.

    Returns:
        `bool`: `False`, and nothing is done, when `Trainer` reads the checkpoint right: the names agree, or it is no
            `PreTrainedModel` with weights in safetensors.

    Raises:
        RuntimeError: If the model that `from_pretrained` makes does not fit.
    """
    from transformers import PreTrainedModel

    place = Path(folder)
    if not isinstance(model, PreTrainedModel) or not ((place / WEIGHTS).is_file() or (place / INDEX).is_file()):
        return False
    if _names(place) <= set(model.state_dict()):
        return False
    fresh = type(model).from_pretrained(place, dtype=model.dtype, config=model.config)
    model.load_state_dict(fresh.state_dict())
    return True


def _names(place: Path) -> set[str]:
    if (place / INDEX).is_file():
        import json

        return set(json.loads((place / INDEX).read_text(encoding="utf-8"))["weight_map"])
    with safe_open(place / WEIGHTS, "pt") as file:
        return set(file.keys())
