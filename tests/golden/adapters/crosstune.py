"""Replays the head and the filters of CrossTune in float64."""

import torch

from hf_labels.losses.crosstune import agree, agree_confident, crosstune_loss, head_log_probs, masked_max, top_k


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "text_features" in inputs:
        return _head(inputs, params)
    if "teacher_probs" in inputs:
        probs, intended = _tensor(inputs["teacher_probs"]), torch.tensor(inputs["intended"], dtype=torch.long)
        return {
            "agree": agree(probs, intended),
            "agree_confident": agree_confident(probs, intended, params["min_prob"]),
            "top_k": top_k(probs, intended, params["k"]),
        }
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _head(inputs: dict, params: dict) -> dict:
    label_vectors = masked_max(_tensor(inputs["label_hidden"]), torch.tensor(inputs["label_mask"]))
    weights = {name: _tensor(inputs[name]).requires_grad_() for name in ("W_q", "b_q", "W_k", "b_k")}
    queries = torch.nn.functional.linear(_tensor(inputs["text_features"]), weights["W_q"], weights["b_q"])
    keys = torch.nn.functional.linear(label_vectors, weights["W_k"], weights["b_k"])
    log_probs = head_log_probs(queries, keys, params["num_heads"])
    loss = crosstune_loss(log_probs, torch.tensor(inputs["labels"], dtype=torch.long))
    loss.backward()
    return {
        "label_vectors": label_vectors,
        "head_probs": head_log_probs(queries, keys, params["num_heads"], average=False).exp(),
        "probs": log_probs.exp(),
        "loss": loss,
        "grad_W_q": weights["W_q"].grad,
        "grad_W_k": weights["W_k"].grad,
    }
