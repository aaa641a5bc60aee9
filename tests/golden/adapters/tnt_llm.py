"""Replays tnt-llm.json: coverage, sets of labels, agreement of two annotators, a judge's choices."""

from hf_labels.metrics import functional as fn


def replay(function: str, inputs: dict, params: dict) -> dict:
    out: dict = {}
    labels = params.get("labels")
    if "primary" in inputs:
        out["coverage"] = fn.taxonomy_coverage(inputs["primary"], params.get("fallback", ["Other", "Undefined"]))
    if "multi_true" in inputs:
        out |= fn.label_set_scores(inputs["multi_pred"], inputs["multi_true"], labels)
    if "annot_a" in inputs:
        names = dict.fromkeys([*(labels or []), *inputs["annot_a"], *inputs["annot_b"]])  # a fallback is no label
        place = {name: number for number, name in enumerate(names)}
        one, two = ([place[name] for name in inputs[key]] for key in ("annot_a", "annot_b"))
        out["cohen_kappa"] = fn.cohen_kappa(one, two, len(names))
    if "pairwise_choice" in inputs:
        choices = inputs["pairwise_choice"]
        out["pairwise_accuracy"] = fn.pairwise_label_accuracy(choices, params.get("choice_positive", 0))
    if not out:
        raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")
    return out
