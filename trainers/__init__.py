"""Trainers: `base.py` and shared parts, and one file per method. Names load on first use (they need transformers)."""

from typing import Any

from hf_labels.catalog import public_names

_NAMES = {name: module for name, module in public_names().items() if module.startswith("hf_labels.trainers.")} | {
    "EMATeacher": "hf_labels.trainers.teachers",
    "FrozenTeacher": "hf_labels.trainers.teachers",
    "LabelTrainer": "hf_labels.trainers.base",
    "LabelTrainingArguments": "hf_labels.trainers.base",
    "Stage": "hf_labels.trainers.rounds",
    "fit_queries": "hf_labels.trainers.queries",
    "fit_rounds": "hf_labels.trainers.rounds",
    "fit_stages": "hf_labels.trainers.rounds",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'hf_labels.trainers' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
