"""Replays llp-bp.json: the graph, pairwise potentials and marginals, enumeration, count messages, and the loss."""

import numpy as np
import torch

from hf_labels.labels.llp_bp_graph import knn_graph
from hf_labels.labels.llp_bp_inference import (
    belief_propagation,
    exact_marginals,
    pairwise_potentials,
    pairwise_propagation,
)
from hf_labels.labels.llp_bp_messages import CountFactors, exact_messages, sigmoid
from hf_labels.losses.llp_bp import aggregate_embedding_loss


def _messages(log_odds, count, strength):
    return exact_messages(np.array([log_odds]), np.array([float(count)]), np.array([len(log_odds)]), strength)[0][0]


def _propagated(inputs, params):
    bag, counts = np.array(inputs["bag"]), np.array(inputs["bag_counts"], dtype=float)
    edges = np.array(inputs.get("edges", []), dtype=np.int64).reshape(-1, 2)
    weights = np.array(inputs.get("weights", []), dtype=float)
    lambda_b, lambda_s = params["bag_lambda"], params.get("sim_lambda", 1.0)
    unary = np.array(inputs.get("unary", np.zeros(len(bag))))
    factors = CountFactors(bag, counts, lambda_b, "auto")
    found = belief_propagation(factors, edges, weights, lambda_s, unary, tol=1e-12, max_iter=1000)
    result = {"marginals": found.probs}
    if len(bag) <= 20:  # by enumeration
        result["log_partition"] = exact_marginals(bag, counts, edges, weights, lambda_b, lambda_s, unary)[1]
    return result


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "features" in inputs:
        edges, weights = knn_graph(np.array(inputs["features"]), params["k"], standardize=False)
        return {"edges": edges, "weights": weights}
    if "instance_prob" in inputs:
        names = ("instance_prob", "pseudo_label", "bag_prob", "bag_proportion")
        tensors = [torch.tensor(inputs[name], dtype=torch.float64) for name in names]
        return {"loss": aggregate_embedding_loss(*tensors, weight=params["loss_lambda"])}
    if "incoming_log_odds" in inputs:
        own = np.array(inputs["incoming_log_odds"])
        out = _messages(own, params["count"], params["bag_lambda"])
        return {"outgoing_log_odds": out, "belief": sigmoid(own + out)}
    if "log_odds" in inputs:
        own = np.array(inputs["log_odds"])
        return {"marginals": sigmoid(own + _messages(own, params["count"], np.inf))}
    if "potentials" not in function and "REFERENCE" not in function and "EXACT" not in function:
        return _propagated(inputs, params)
    count = params["num_instances"]
    edges, weights = np.array(inputs["edges"]), np.array(inputs["weights"])
    bag, counts = np.array(inputs["bag"]), np.array(inputs["bag_counts"], dtype=float)
    both = (params["bag_lambda"], params["sim_lambda"])
    if "EXACT" in function:
        probs, log_partition = exact_marginals(bag, counts, edges, weights, *both, np.zeros(count))
        return {"marginals": probs, "log_partition": log_partition}
    unary, pairs, values = pairwise_potentials(bag, counts, edges, weights, *both)
    if "REFERENCE" in function:
        found = pairwise_propagation(unary, pairs, values, params["num_iters"], params["damping"])
        return {"marginals": found.probs}
    return {"unary": unary, "pairs": pairs, "values": values, "pair_values": values}
