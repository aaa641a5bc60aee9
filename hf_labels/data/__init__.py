"""Data: collators, streams, per-row memory, features and corpora. Names load on first use (they need torch)."""

from typing import Any

_NAMES = {
    "LabelCollator": "collators",
    "MomentumQueue": "memory",
    "SampleMemory": "memory",
    "SeededRows": "streams",
    "Stream": "streams",
    "add_index": "memory",
    "derive_seed": "rng",
    "isolated_rng": "rng",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'hf_labels.data' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"hf_labels.data.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
