"""Pure metric functions: arrays (NumPy, torch, lists) in, Python numbers out. NumPy is all that an import loads."""

from hf_labels.metrics.functional.agreement import (
    agreement,
    cohen_kappa,
    fleiss_kappa,
    majority_vote,
    pairwise_agreement,
    strict_vote,
    weighted_f1_matrix,
)
from hf_labels.metrics.functional.bags import bag_proportion_error
from hf_labels.metrics.functional.calibration import calibrated_scores, calibration_scores, temperature_scaling
from hf_labels.metrics.functional.conformal import conformal_pvalues, conformal_sets
from hf_labels.metrics.functional.corrected import accuracy_at_prevalence, corrected_benchmark, crossing_prevalence
from hf_labels.metrics.functional.edit_distance import anls, anls_scores, anls_star, levenshtein
from hf_labels.metrics.functional.entities import entity_f1, entity_spans, source_as_target_rate, tag_rows
from hf_labels.metrics.functional.intervals import (
    clopper_pearson,
    hypergeometric_interval,
    label_issue_detection,
    rank_shift,
)
from hf_labels.metrics.functional.jacobi import jacobi_efficiency
from hf_labels.metrics.functional.kg_ranking import gzsl_scores, kg_ranking_scores, realistic_ranks, seen_unseen_curve
from hf_labels.metrics.functional.matching import match_classes, matched_accuracy, mixture_l1
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
from hf_labels.metrics.functional.taxonomy import label_set_scores, pairwise_label_accuracy, taxonomy_coverage
from hf_labels.metrics.functional.zero_shot import harmonic_mean, zero_shot_accuracy, zero_shot_f1

__all__ = [
    "accuracy_at_prevalence",
    "agreement",
    "anls",
    "anls_scores",
    "anls_star",
    "average_precision",
    "bag_proportion_error",
    "best_threshold",
    "calibrated_scores",
    "calibration_scores",
    "clopper_pearson",
    "cohen_kappa",
    "conformal_pvalues",
    "conformal_sets",
    "corrected_benchmark",
    "crossing_prevalence",
    "entity_f1",
    "entity_spans",
    "episode_map",
    "fleiss_kappa",
    "gzsl_scores",
    "harmonic_mean",
    "hypergeometric_interval",
    "jacobi_efficiency",
    "kg_ranking_scores",
    "knn_accuracy",
    "label_iou",
    "label_issue_detection",
    "label_set_retrieval",
    "label_set_scores",
    "levenshtein",
    "linear_probe",
    "majority_vote",
    "match_classes",
    "matched_accuracy",
    "mixture_l1",
    "multilabel_f1",
    "multilabel_map",
    "ndcg_at_k",
    "pair_cosines",
    "pairwise_agreement",
    "pairwise_label_accuracy",
    "pixel_confusion",
    "precision_at_k",
    "pseudo_label_quality",
    "rank_shift",
    "real_accuracy",
    "realistic_ranks",
    "seen_unseen_curve",
    "segmentation_scores",
    "source_as_target_rate",
    "strict_vote",
    "tag_rows",
    "taxonomy_coverage",
    "temperature_scaling",
    "weighted_f1_matrix",
    "wrong_query_rate",
    "zero_shot_accuracy",
    "zero_shot_f1",
]
