"""Replays llm-label-errors.json: ensemble, flags and treatments, agreement, votes of a crowd, intervals, ROC AUC."""

import itertools

import numpy as np
from datasets import Dataset
from sklearn.metrics import roc_auc_score

from hf_labels.labels.llm_label_errors import LabelErrorReport
from hf_labels.metrics import functional as fn


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "probs" in inputs:
        return _ensemble(inputs, params)
    if "k_n_N" in inputs:
        alpha = params.get("alpha", 0.05)
        return {
            "intervals": [
                {
                    "clopper_pearson": fn.clopper_pearson(k, n, alpha),
                    "hypergeometric": fn.hypergeometric_interval(k, n, total, alpha),
                }
                for k, n, total in inputs["k_n_N"]
            ]
        }
    if "score" in inputs:
        return {"auc": roc_auc_score(inputs["y"], inputs["score"])}
    if "num_classes" in params:
        return _agreement(np.array(inputs["annotations"]), params["num_classes"])
    if "annotations" in inputs:
        return {"strict": fn.strict_vote(inputs["annotations"]), "majority": fn.majority_vote(inputs["annotations"])}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _ensemble(inputs: dict, params: dict) -> dict:
    report = LabelErrorReport(inputs["probs"], np.array(inputs["original"]))
    experts, threshold = inputs["expert"], params["t0"]
    data = Dataset.from_dict({"labels": inputs["original"], "row": list(range(len(report)))})
    rate = report.error_rate(experts)
    return {
        "q": report.q,
        "pred": report.predicted,
        "conf": report.confidence,
        "disagree": np.flatnonzero(report.disputed),
        "flagged": {str(t): np.flatnonzero(report.flagged(t)) for t in params["thresholds"]},
        "kept_indices": report.apply(data, "filter", threshold, allow_empty_class=True)["row"][:],
        "flipped_labels": report.apply(data, "flip", threshold)["labels"][:],
        "gold": report.gold(experts),
        "bins": report.precision_by_confidence(experts, bins=params.get("bins", 3), draws=10),
        "detection": report.detection(experts, threshold),
        "error_rate": rate["error_rate"],
        "ci95": [rate["low"], rate["high"]],
    }


def _agreement(table: np.ndarray, classes: int) -> dict:
    pairs = itertools.combinations(range(table.shape[1]), 2)
    return {
        "fleiss_kappa": fn.fleiss_kappa(table, classes),
        "pairwise_agreement": fn.pairwise_agreement(table, classes),
        "cohen_kappa": [fn.cohen_kappa(table[:, i], table[:, j], classes) for i, j in pairs],
        "weighted_f1": fn.weighted_f1_matrix(table, classes),
        "majority": fn.majority_vote(table, classes),
    }
