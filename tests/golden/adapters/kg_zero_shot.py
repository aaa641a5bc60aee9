"""Replays kg-zero-shot.json: groups, propagation, losses, filtered ranks, generalised scores and closed forms."""

import numpy as np
import torch

from hf_labels.labels.kg_zero_shot import distance_groups, eszsl_map, normalise_in, ridge_map
from hf_labels.losses.kg_zero_shot import classifier_weight_loss
from hf_labels.metrics.functional import gzsl_scores, kg_ranking_scores
from hf_labels.models.kg_zero_shot_embedding import KGEmbeddingConfig, KGEmbeddingModel
from hf_labels.models.kg_zero_shot_propagation import DGPConfig, DGPModel


def replay(function: str, inputs: dict, params: dict) -> dict:
    count = params.get("n")
    if "groups" in inputs or "W1" in inputs:
        return {"out": _propagated(inputs, count)}
    if "lim" in params:
        return {"groups": [group.tolist() for group in distance_groups(inputs["edges"], count, params["lim"])]}
    if "edges" in inputs:
        dense = {"dense": False, "dense_of_reverse": True}
        return {k: normalise_in(inputs["edges"], count, reverse).toarray() for k, reverse in dense.items()}
    if "test_triples" in inputs:
        return _ranks(inputs, params)
    if "y_pred" in inputs:
        found = gzsl_scores(inputs["y_pred"], inputs["y_true"], range(params["num_seen"]))
        return {"seen": found["seen"], "unseen": found["unseen"], "H": found["harmonic_mean"]}
    if "S" in inputs:
        return _closed_forms(inputs, params)
    a, b = (torch.tensor(inputs[name], dtype=torch.float64) for name in ("a", "b"))
    return {"loss": classifier_weight_loss(a, b).item()}


def _propagated(inputs: dict, count: int) -> np.ndarray:
    x = np.array(inputs["x"])
    weights = [(np.array(inputs[f"W{i}"]), np.array(inputs[f"b{i}"])) for i in (1, 2)]
    grouped = "groups" in inputs
    pairs = [p for k in (1,) for p in inputs["groups"][k]] if grouped else inputs["edges"]
    config = DGPConfig(
        variant="dgp" if grouped else "gcn_dense",
        num_nodes=count,
        num_edges=len(pairs),
        input_size=x.shape[1],
        hidden_sizes=[weights[0][0].shape[1]],
        output_size=weights[1][0].shape[1],
        lim=len(inputs["groups"]) - 1 if grouped else 4,
    )
    model = DGPModel(config).double().eval()
    with torch.no_grad():
        for layer, (weight, bias) in zip(model.layers, weights, strict=True):
            layer.weight.copy_(torch.tensor(weight.T))
            layer.bias.copy_(torch.tensor(bias))
        if grouped:
            model.attention.copy_(torch.tensor([inputs["a_att"], inputs["r_att"]]))
            model.set_groups([np.array(group).reshape(-1, 2) for group in inputs["groups"]])
        else:
            model.set_graph(torch.tensor(pairs), torch.tensor(x))
        return model(node_features=torch.tensor(x)).weights.numpy()


def _ranks(inputs: dict, params: dict) -> dict:
    entities, relations = np.array(inputs["entities"]), np.array(inputs["relations"])
    sizes = {"num_entities": len(entities), "num_relations": len(relations), "hidden_size": entities.shape[1]}
    model = KGEmbeddingModel(KGEmbeddingConfig(**sizes, norm=params.get("norm", 1))).double()
    with torch.no_grad():
        model.entity.weight.copy_(torch.tensor(entities))
        model.relation.weight.copy_(torch.tensor(relations))
    ranks = model.ranks(inputs["test_triples"], inputs["known_triples"])
    found = kg_ranking_scores(ranks)
    return {"ranks": ranks.ravel(), **found}


def _closed_forms(inputs: dict, params: dict) -> dict:
    x, s, y, seen = np.array(inputs["X"]), np.array(inputs["S"]), np.array(inputs["y"]), params["num_seen"]
    table = eszsl_map(x, y, s[:seen], params["gamma"], params["lambda"])
    return {"W": ridge_map(x, s[y], params["lam"]), "V": table, "eszsl_scores_unseen": x @ table @ s[seen:].T}
