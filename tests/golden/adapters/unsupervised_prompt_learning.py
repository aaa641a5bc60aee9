"""Replays the policy gradients, the projections, the enumerated gradient and the reliable sets in float64."""

import numpy as np
import torch

from hf_labels.labels.pseudo import PseudoLabelSet, select_threshold, select_top_k
from hf_labels.lm.scoring import softmax
from hf_labels.losses.unsupervised_prompt_learning import expected_loss, project_simplex, variance_reduced_gradient


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "sampled_indices" in inputs:
        probs, losses = _tensor(inputs["probs"]), _tensor(inputs["losses"])
        indices = torch.tensor(inputs["sampled_indices"], dtype=torch.long)
        forms = ("reference", "paper", "score", "logits")
        return {f"grad_{form}": variance_reduced_gradient(probs, indices, losses, form) for form in forms}
    if "x" in inputs:
        x = _tensor(inputs["x"])
        return {"exact": project_simplex(x), "bisection": project_simplex(x, "bisection")}
    if "loss_table" in inputs:
        logits = _tensor(inputs["logits"]).requires_grad_()
        value = expected_loss(logits, _tensor(inputs["loss_table"]))
        value.backward()
        return {"probs": logits.detach().softmax(1), "J": value, "grad_logits": logits.grad}
    if "label_logprobs" in inputs:
        q = softmax(np.array(inputs["label_logprobs"]))
        found = PseudoLabelSet.from_probs(q)
        result = {"q": q, "pseudo": found.labels, "confidence": found.confidence}
        result["reliable_threshold"] = select_threshold(found.confidence, params.get("tau", 0.9))
        k = params.get("top_k_per_class", params.get("top_k", 8))
        return result | {"reliable_balanced": select_top_k(found.confidence, found.labels, k)}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")
