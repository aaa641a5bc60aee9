"""Replays name-tagging-metric.json: loss, pooling, similarity of events, clusters, pseudo tags, entity F1; float64."""

import numpy as np
import torch

from hf_labels.labels.name_tagging_metric import choose_clusters, concat_event, event_similarity, pseudo_tags
from hf_labels.losses.name_tagging_metric import multi_similarity_loss, pool_entities
from hf_labels.metrics.functional import entity_f1


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "label_mask" in inputs:
        return _pool(inputs, params)
    if "feats" in inputs:
        return _loss(inputs, params)
    if "event_embeddings" in inputs:
        return {"sim_weight": event_similarity(inputs["event_embeddings"], params.get("agg", "max"))}
    if "nested_events" in inputs:
        options = {"self_embedding": inputs["self_emb"], "nested": inputs["nested_events"]}
        roles = params.get("role_order", ["Theme", "Cause", "Product", "Site"])
        events = [concat_event(e, inputs["embeddings"], roles=roles, **options) for e in inputs["events"]]
        return {"embedding": np.stack(events)}
    if "X" in inputs:
        best, scores = choose_clusters(inputs["X"], params["k_range"], params["alpha_k"])
        return {"best_k": best, "scaled_inertia": scores}
    if "source_predictions" in inputs:
        found = pseudo_tags(inputs["ner_tags"], inputs["source_predictions"])
        return {"pse_tags": found, "ner_tags": inputs["ner_tags"]}
    if "y_true" in inputs:
        found = entity_f1(inputs["y_pred"], inputs["y_true"])
        counts = {"pred_sum": "predicted", "tp_sum": "correct", "true_sum": "there"}
        return found | {key: [one[name] for one in found["per_type"].values()] for key, name in counts.items()}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _loss(inputs: dict, params: dict) -> dict:
    features = torch.tensor(inputs["feats"], dtype=torch.float64, requires_grad=True)
    known = inputs.get("sim_weight")
    found = multi_similarity_loss(
        features,
        torch.tensor(inputs["labels"]),
        None if known is None else torch.tensor(known, dtype=torch.float64),
        alpha=params["scale_pos"],
        beta=params["scale_neg"],
        threshold=params["thresh"],
        margin=params["margin"],
        alpha_weight=params.get("scale_pos_weight", 8.0),
        beta_weight=params.get("scale_neg_weight", 6.0),
    )
    found.loss.backward()
    used = (found.positives + found.negatives) > 0
    gradient = features.grad if bool(used.any()) else None
    kept = {"n_pos_kept": found.positives[used], "n_neg_kept": found.negatives[used]}
    return {"loss": found.loss, "grad_feats": gradient, **kept}


def _pool(inputs: dict, params: dict) -> dict:
    """The reference counts tags by words; here they stand at the first tokens."""
    mask = torch.tensor(inputs["label_mask"]) == 1

    def at_tokens(name: str, filler: int) -> torch.Tensor:
        words = torch.tensor(inputs[name])
        out = torch.full_like(words, filler)
        for row, place in enumerate(mask):
            out[row, place] = words[row, : int(place.sum())]
        return out

    pseudo = at_tokens("pse_tags", 0) if "pse_tags" in inputs else None
    features = torch.tensor(inputs["feats"], dtype=torch.float64)
    found = pool_entities(features, at_tokens("ner_tags", -100), pseudo, at_tokens("token_id", -1))
    labels = {"plain": found.labels, "pseudo": found.is_pseudo.long()}
    if params["mode"] == "cluster":
        labels["cluster"] = torch.tensor(inputs["cluster_map"])[found.ids]
    return {"ids": found.ids, "pooled": found.features, "labels": labels[params["mode"]]}
