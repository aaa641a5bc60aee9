"""Metrics: pure functions, `evaluate` modules over them, and functions for `Trainer(compute_metrics=...)`.

Names are loaded on first use; only the `evaluate` classes load `evaluate`.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from hf_labels.metrics.compute_metrics import make_calibration_metrics, make_entity_metrics, multilabel_metrics

MODULES = {
    "anls": "Anls",
    "anls_star": "AnlsStar",
    "bag_proportion_error": "BagProportionError",
    "calibration": "Calibration",
    "conformal_multilabel": "ConformalMultilabel",
    "corrected_benchmark": "CorrectedBenchmark",
    "entity_f1": "EntityF1",
    "gzsl": "Gzsl",
    "jacobi_efficiency": "JacobiEfficiency",
    "kg_ranking": "KgRanking",
    "label_issue_detection": "LabelIssueDetection",
    "label_set_retrieval": "LabelSetRetrieval",
    "matched_accuracy": "MatchedAccuracy",
    "mixture_l1": "MixtureL1",
    "multilabel_f1": "MultilabelF1",
    "multilabel_map": "MultilabelMap",
    "parc": "Parc",
    "real_accuracy": "RealAccuracy",
    "zero_shot_accuracy": "ZeroShotAccuracy",
    "zero_shot_f1": "ZeroShotF1",
}
"""Folder name of each `evaluate` module and its class."""

_CLASSES = {name: folder for folder, name in MODULES.items()}

__all__ = [
    "Anls",
    "AnlsStar",
    "BagProportionError",
    "Calibration",
    "ConformalMultilabel",
    "CorrectedBenchmark",
    "EntityF1",
    "Gzsl",
    "JacobiEfficiency",
    "KgRanking",
    "LabelIssueDetection",
    "LabelSetRetrieval",
    "MODULES",
    "MatchedAccuracy",
    "MixtureL1",
    "MultilabelF1",
    "MultilabelMap",
    "Parc",
    "RealAccuracy",
    "ZeroShotAccuracy",
    "ZeroShotF1",
    "calibration_scores",
    "make_calibration_metrics",
    "make_entity_metrics",
    "multilabel_metrics",
    "path_of",
    "temperature_scaling",
]


def path_of(name: str) -> str:
    """Folder of an `evaluate` module, for `evaluate.load(path_of("calibration"))`; needs no network.

    Args:
        name (`str`): One of the keys of `MODULES`.

    Raises:
        KeyError: If there is no such module.
    """
    if name not in MODULES:
        raise KeyError(f"No metric module {name!r}; there are: {', '.join(MODULES)}.")
    return str(Path(__file__).parent / name)


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        folder = _CLASSES[name]
        return getattr(import_module(f"hf_labels.metrics.{folder}.{folder}"), name)
    if name in ("calibration_scores", "temperature_scaling"):
        return getattr(import_module("hf_labels.metrics.functional.calibration"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
