"""Data: collators, streams, per-row memory, features, images, soft-label stores and corpora.

Names load on first use (they need torch).
"""

from typing import Any

_NAMES = {
    "EvaluationCollator": "soft_label_collator",
    "LabelCollator": "collators",
    "MomentumQueue": "memory",
    "Normalizer": "images",
    "RandomResizedCrop": "images",
    "SampleMemory": "memory",
    "SeededRows": "streams",
    "SoftLabelCollator": "soft_label_collator",
    "SoftLabelStore": "soft_label_store",
    "SoftLabelWriter": "soft_label_writer",
    "StoreInfo": "soft_label_info",
    "Stream": "streams",
    "View": "images",
    "add_index": "memory",
    "derive_seed": "rng",
    "isolated_rng": "rng",
    "label_storage_report": "soft_label_report",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'hf_labels.data' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"hf_labels.data.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
