"""Decoding loops for `generate(custom_generate=...)`, and what they leave behind. Names are loaded on first use."""

from importlib import import_module
from typing import Any

_PLACES = {
    "JacobiOutput": "jacobi",
    "JacobiStats": "jacobi",
    "augment_trajectory": "trajectories",
    "collect_jacobi_trajectories": "trajectories",
    "jacobi_generate": "jacobi",
    "plot_decoding_trace": "trace",
    "push_custom_generate": "custom_generate",
    "save_custom_generate": "custom_generate",
}

__all__ = list(_PLACES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"hf_labels.generation.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
