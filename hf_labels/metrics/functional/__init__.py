"""Pure metric functions: arrays (NumPy, torch, lists) in, Python numbers out. NumPy is all that an import loads."""

from hf_labels.metrics.functional.calibration import calibration_scores, temperature_scaling
from hf_labels.metrics.functional.conformal import conformal_pvalues, conformal_sets
from hf_labels.metrics.functional.jacobi import jacobi_efficiency
from hf_labels.metrics.functional.multilabel import (
    average_precision,
    best_threshold,
    episode_map,
    multilabel_f1,
    multilabel_map,
    ndcg_at_k,
    precision_at_k,
)
from hf_labels.metrics.functional.representation import knn_accuracy, linear_probe, pair_cosines
from hf_labels.metrics.functional.retrieval import label_iou, label_set_retrieval

__all__ = [
    "average_precision",
    "best_threshold",
    "calibration_scores",
    "conformal_pvalues",
    "conformal_sets",
    "episode_map",
    "jacobi_efficiency",
    "knn_accuracy",
    "label_iou",
    "label_set_retrieval",
    "linear_probe",
    "multilabel_f1",
    "multilabel_map",
    "ndcg_at_k",
    "pair_cosines",
    "precision_at_k",
    "temperature_scaling",
]
