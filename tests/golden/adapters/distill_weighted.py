"""Replays distill-weighted.json: similarity metrics, source weights and the student's loss, in float64."""

import torch

from hf_labels.labels import task_similarity as ts
from hf_labels.losses.distill_weighted import mix_sources, source_weights, weighted_distillation_loss


def replay(function: str, inputs: dict, params: dict) -> dict:
    given = inputs | params
    if "similarities" in given:
        return {"weights": source_weights(given["similarities"], float(given["power"]))}
    if "source_target_logits" in given:
        return _loss(given)
    if "features_a" in given:
        score = ts.rsa if "RSA" in function else ts.dds
        return {"score": score(given["features_a"], given["features_b"])}
    if "source_probs" in given:
        if function.startswith("LEEP"):
            return {"score": ts.leep(given["source_probs"], given["labels"])}
        return {"score": ts.nce(given["source_probs"], given["labels"], given.get("eps", 1e-5))}
    if "k" in given:
        options = {"k": given["k"], "metric": given.get("metric", "euclidean"), "reference_ties": True}
        return {"score": ts.knn_leave_one_out(given["features"], given["labels"], **options)}
    if "H-score" in function:
        return {"score": ts.h_score(given["features"], given["labels"])}
    if "PARC" in function:
        labels = given.get("label_matrix", given.get("labels"))
        dims = None if "unreduced_features" in given else given.get("n_dims")  # reduced by the reference already
        features = ts.reduce_dims(ts.check_features(given["features"]), dims)
        return {"score": ts.parc(features, labels, given.get("num_target_classes"))}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _loss(given: dict) -> dict:
    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(given[name], dtype=torch.float64)

    targets = mix_sources(tensor("source_target_logits").softmax(-1), tensor("weights"))
    labels = torch.tensor(given["labels"])
    parts = weighted_distillation_loss(
        tensor("student_logits_labeled"), labels, tensor("student_logits_unlabeled"), targets, given.get("lam", 0.8)
    )
    return dict(zip(("loss", "ce", "distill"), parts, strict=True))
