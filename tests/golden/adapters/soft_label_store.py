"""Replays soft-label-store.json through the codecs and recovery rules, in float64."""

import torch

from hf_labels.data.soft_label_codec import decode_values, encode_values, recover, smooth_values, top_k
from hf_labels.losses.soft_targets import sparse_soft_cross_entropy


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    given = inputs | params
    if "topk_ids" in given:
        return _decode(given)
    if "values" in given and "encode" in function:
        codec = "u8_log" if "largest" in function or "k" in params else "u8_linear"
        codec = given.get("codec", codec)
        values = _tensor(given["values"])
        if given.get("k", values.shape[-1]) < values.shape[-1]:
            values = top_k(values, given["k"])[1]
        codes = encode_values(values, codec)
        return {"codes": codes, "decoded": decode_values(codes, codec, torch.float64)}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _decode(given: dict) -> dict:
    ids, values, classes = torch.tensor(given["topk_ids"]), _tensor(given["values"]), given["num_labels"]
    residual = given.get("residual", "zero_logit")
    temperature = given.get("temperature", 1.0)
    out = {"dense": recover(ids, values, classes, residual, temperature)}
    if "logits" in given:
        smooth = smooth_values(ids, values, classes, residual, temperature)
        out["cross_entropy"] = sparse_soft_cross_entropy(_tensor(given["logits"]), ids, smooth)
    return out
