"""Models that wrap or extend backbones. Names load on first use; loading one registers it with the Auto classes."""

from typing import Any

from hf_labels.catalog import public_names

_NAMES = {name: module for name, module in public_names().items() if module.startswith("hf_labels.models.")}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'hf_labels.models' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
