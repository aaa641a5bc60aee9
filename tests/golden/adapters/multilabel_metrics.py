"""Replays multilabel-metrics.json through `hf_labels.metrics.functional`."""

from hf_labels.metrics.functional import conformal_pvalues, label_set_retrieval, multilabel_f1, multilabel_map


def replay(function: str, inputs: dict, params: dict) -> dict:
    if {"query_embeddings", "gallery_embeddings", "query_labels", "gallery_labels"} <= set(inputs):
        return _retrieval(inputs, params)
    if {"pvalues", "labels"} <= set(inputs):
        return _conformal(inputs, params)
    if {"scores", "labels"} <= set(inputs):
        if "average precision" in function:
            return _map(inputs, params)
        if "threshold" in params or "k" in params:
            return _f1(inputs, params)
    raise LookupError(f"Unknown function: {function!r} with inputs {sorted(inputs)} and params {sorted(params)}.")


def _map(inputs: dict, params: dict) -> dict:
    """The reference reports percent, and AP 0 for a class without positives."""
    limits = {name: params[name] for name in ("many", "few") if name in params}
    scores = multilabel_map(
        inputs["scores"],
        inputs["labels"],
        train_counts=inputs.get("train_counts"),
        empty_class="zero",
        per_class=True,
        **limits,
    )
    ap = scores.pop("ap")
    percent = {name: 100 * value for name, value in scores.items() if "map" in name}
    return percent | {"ap": ap, "map_total": percent["map"]}


def _f1(inputs: dict, params: dict) -> dict:
    """OP and OF1 of the reference count one prediction for a class without any; its micro and macro F1 do not."""
    decision = {"top_k": params["k"]} if "k" in params else {"threshold": params["threshold"]}
    return multilabel_f1(inputs["scores"], inputs["labels"], reference_op=True, **decision)


def _retrieval(inputs: dict, params: dict) -> dict:
    names = ("query_embeddings", "gallery_embeddings", "query_labels", "gallery_labels")
    cutoffs = params.get("k", [1, 3, 5])
    scores = label_set_retrieval(*(inputs[name] for name in names), k=cutoffs, relevance=None, per_query=True)
    cutoffs = cutoffs if isinstance(cutoffs, list) else [cutoffs]
    return {"per_query": scores["iou"], "mean": [scores[f"iou_at_{cutoff}"] for cutoff in cutoffs]}


def _conformal(inputs: dict, params: dict) -> dict:
    names = {"coverage": "coverage", "n_criterion": "mean_size", "observed_excess": "excess"}
    result = {}
    for epsilon in params["epsilons"]:
        scores = conformal_pvalues(inputs["pvalues"], inputs["labels"], epsilon)
        result |= {f"eps_{epsilon}_{name}": scores[f"eps_{epsilon}_{ours}"] for name, ours in names.items()}
        result |= {f"eps_{epsilon}_{name}": scores[name] for name in ("s_criterion", "observed_fuzziness")}
    return result
