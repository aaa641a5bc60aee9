"""`hf-labels doctor`: what ails the labels of a data set, how sure that is, and which methods treat it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_labels.doctor.examination import examine
    from hf_labels.doctor.report import DoctorReport, Finding

__all__ = ["DoctorReport", "Finding", "examine"]

_PLACES = {"DoctorReport": "report", "Finding": "report", "examine": "examination"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
