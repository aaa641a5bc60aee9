"""Replays tail-vrd.json: classical ANLS per question, ANLS* of structures."""

from hf_labels.metrics import functional as fn
from hf_labels.metrics.functional.edit_distance import from_json_values


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "pairs" in inputs:
        options = {"threshold": params.get("leaf_threshold", params.get("threshold", 0.5))}
        if "count_empty_hallucinations" in params:
            options["count_empty_hallucinations"] = params["count_empty_hallucinations"]
        pairs = [(pair["pred"], from_json_values(pair["gold"])) for pair in inputs["pairs"]]
        return {"score": [fn.anls_star(pred, gold, **options) for pred, gold in pairs]}
    if "predictions" in inputs:
        out: dict = {}
        golds = inputs["golds"] if "golds" in inputs else inputs["references"]
        for threshold in params.get("thresholds", [params.get("threshold", 0.5)]):
            scores = fn.anls_scores(inputs["predictions"], golds, threshold)
            out[f"scores_threshold_{threshold}"] = scores
            out[f"mean_threshold_{threshold}"] = fn.anls(inputs["predictions"], golds, threshold)["anls"]
        return out
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")
