"""Mixing of samples: seeded draws of lambda, partners and boxes, the mixing itself, and its labels.

    plan = MixSampler(alpha=1.0, kind="cutmix", seed="torch").draw(len(labels), image_size=(224, 224))
    mixed, targets = plan.apply(pixel_values), plan.labels(labels)
    loss = targets.cross_entropy(model(mixed).logits)

The same functions serve in a collator ([`MixCollator`], on the CPU, before the model) and in `compute_loss` (on the
device, when the mixing depends on the model). Names load on first use (they need torch).
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "MixCollator": "collator",
    "MixPlan": "sampler",
    "MixSampler": "sampler",
    "MixedLabels": "labels",
    "SelfMix": "self_mix",
    "WindowMix": "regions",
    "box_lam": "ops",
    "cutmix": "ops",
    "cutmix_box": "sampler",
    "extreme_windows": "regions",
    "mix_features": "ops",
    "mixup": "ops",
    "paste_regions": "regions",
    "paste_windows": "ops",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"hf_labels.mixing.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'hf_labels.mixing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
