"""Replays confident-learning.json: thresholds, joints, noise matrices, scores, every filter, rankings, ensembles."""

import numpy as np

from hf_labels.labels.confident_joint import estimate_noise
from hf_labels.labels.confident_learning import ConfidentLearning
from hf_labels.labels.label_quality import SCORES, ensemble_label_quality, label_quality


def replay(function: str, inputs: dict, params: dict) -> dict:
    labels = np.array(inputs["labels"])
    if "pred_probs_list" in inputs:
        how = params["weight_ensemble_members_by"]
        method, adjust = params.get("method", "self_confidence"), params.get("adjust_pred_probs", False)
        return {"scores": ensemble_label_quality(labels, inputs["pred_probs_list"], method, how, adjust)}
    probs = np.array(inputs["pred_probs"])
    if "confident_joint" in inputs:
        counts = np.bincount(labels, minlength=probs.shape[1])
        found = estimate_noise(np.array(inputs["confident_joint"]), counts)
        return {"py": found.prior, "noise_matrix": found.noise, "inverse_noise_matrix": found.inverse}
    if "method" in params:
        return {"scores": label_quality(labels, probs, params["method"], params.get("adjust_pred_probs", False))}
    cl = ConfidentLearning(labels, probs)
    if "filter_by" in params:
        issues = cl.issues(**params)
        ranked = {f"ranked_by_{score}": cl.issues(**params, rank_by=score).ranked() for score in SCORES}
        return {"mask": issues.is_issue.astype(int)} | ranked
    return {
        "thresholds": cl.thresholds,
        "raw": cl.confident_joint,
        "calibrated": cl.calibrated_joint,
        "off_diagonal_indices": cl.off_diagonal(),
        "joint": cl.joint,
        "off_diagonal": cl.num_issues(),
        "off_diagonal_calibrated": cl.num_issues("off_diagonal_calibrated"),
        "confident_learning": cl.find("confident_learning").astype(int),
        "predicted_neq_given": cl.find("predicted_neq_given").astype(int),
    }
