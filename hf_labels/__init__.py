"""Labels that are noisy, crowd-sourced, few, missing, plural, skewed, pooled, softened or machine-made.

Trainers, models, label tools and metrics for them on the Hugging Face stack.

Public names are loaded on first use, from the places that `catalog.py` names: `import hf_labels` itself loads neither
torch nor transformers.
"""

from typing import Any

from hf_labels._version import __version__
from hf_labels.catalog import METHODS, public_names

_NAMES = public_names()
__all__ = ["__version__", *sorted(_NAMES)]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        import importlib

        return getattr(importlib.import_module(_NAMES[name]), name)
    for method in METHODS:
        if method.status == "planned" and name in method.public:
            raise AttributeError(
                f"`hf_labels.{name}` belongs to `{method.slug}`, which is planned and not there yet. "
                "`hf-labels methods` shows what is ready."
            )
    raise AttributeError(f"module 'hf_labels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
