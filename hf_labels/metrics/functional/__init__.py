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
from hf_labels.metrics.functional.pseudo import pseudo_label_quality
from hf_labels.metrics.functional.queries import wrong_query_rate
from hf_labels.metrics.functional.real import real_accuracy
from hf_labels.metrics.functional.representation import knn_accuracy, linear_probe, pair_cosines
from hf_labels.metrics.functional.retrieval import label_iou, label_set_retrieval
from hf_labels.metrics.functional.segmentation import pixel_confusion, segmentation_scores
from hf_labels.metrics.functional.zero_shot import harmonic_mean, zero_shot_accuracy, zero_shot_f1

__all__ = [
    "average_precision",
    "best_threshold",
    "calibration_scores",
    "conformal_pvalues",
    "conformal_sets",
    "episode_map",
    "harmonic_mean",
    "jacobi_efficiency",
    "knn_accuracy",
    "label_iou",
    "label_set_retrieval",
    "linear_probe",
    "multilabel_f1",
    "multilabel_map",
    "ndcg_at_k",
    "pair_cosines",
    "pixel_confusion",
    "precision_at_k",
    "pseudo_label_quality",
    "real_accuracy",
    "segmentation_scores",
    "temperature_scaling",
    "zero_shot_accuracy",
    "zero_shot_f1",
    "wrong_query_rate",
]
