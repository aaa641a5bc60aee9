"""Tools that check, convert, estimate, repair, find or choose labels without training a network of their own.

Names load on first use, so that `import hf_labels.labels` stays light.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "ActionBinner": "action_bins",
    "IGNORE_INDEX": "kinds",
    "KINDS": "kinds",
    "MISSING": "kinds",
    "ColumnReport": "kinds",
    "LabelIssues": "issues",
    "LabelKind": "kinds",
    "LabelSpace": "verbalize",
    "StateBinner": "action_bins",
    "align_labels": "encode",
    "check_column": "kinds",
    "check_same_label_space": "kinds",
    "check_stream": "kinds",
    "check_values": "kinds",
    "combine": "issues",
    "convert_column": "convert",
    "decode_actions": "action_bins",
    "encode_actions": "action_bins",
    "encode_labels": "encode",
    "find_kinds": "kinds",
    "repair_column": "encode",
    "require_columns": "kinds",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f"hf_labels.labels.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'hf_labels.labels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
