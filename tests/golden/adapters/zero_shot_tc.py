"""Replays the decisions and metrics of the zero-shot benchmark, the stock pipeline's scores and the ensembles."""

from hf_labels.labels.zero_shot_tc import (
    DECISIONS,
    DecisionRule,
    decide,
    ensemble_probs,
    entailment_probs,
    pipeline_scores,
)
from hf_labels.metrics.functional import zero_shot_accuracy, zero_shot_f1


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "hypothesis_to_label" in inputs:
        if "accuracy" in function:
            return _topic(inputs, params)
        return _situation(inputs, params) if "multi-label" in function else _emotion(inputs, params)
    if "entailment_id" in params:
        return {
            name: pipeline_scores(inputs["logits"], params["entailment_id"], multi_label=name == "multi_label")
            for name in ("single_label", "multi_label")
        }
    if "ensemble" in function:
        probs = entailment_probs(inputs["logits"])
        return {name: ensemble_probs(probs, name) for name in ("reference", "mean")}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)} and params {sorted(params)}.")


def _read(inputs: dict, params: dict) -> tuple:
    """Label names in the order of their hypotheses, and the arguments of `decide`."""
    names = list(dict.fromkeys(inputs["hypothesis_to_label"]))
    owner = [names.index(name) for name in inputs["hypothesis_to_label"]]
    seen = [names.index(name) for name in params["seen"] if name in names]
    return names, (entailment_probs(inputs["logits"]), owner, seen)


def _topic(inputs: dict, params: dict) -> dict:
    names, arguments = _read(inputs, params)
    found = {}
    for decision in DECISIONS:
        ids = decide(*arguments, DecisionRule(decision, seen_margin=params["seen_margin"]))
        scores = zero_shot_accuracy([names[i] for i in ids], inputs["gold"], params["seen"])
        found[decision] = {"seen_acc": scores["seen_accuracy"], "unseen_acc": scores["unseen_accuracy"]}
        found[decision]["predictions"] = [names[i] for i in ids]
    return found


def _emotion(inputs: dict, params: dict) -> dict:
    names, arguments = _read(inputs, params)
    found: dict = {}
    for decision in DECISIONS:
        none = params[f"none_label_{decision}"]
        rule = DecisionRule(decision, reject=True, seen_margin=params["seen_margin"])
        labels = [none if i < 0 else names[i] for i in decide(*arguments, rule)]
        scores = zero_shot_f1(labels, inputs["gold"], params["seen"])
        found[decision] = {"predictions": labels, **{key: scores[key] for key in ("seen_f1", "unseen_f1")}}
        if decision == "two_phase":
            others = [name for name in names if name not in params["seen"]]
            halves = {"v0": params["seen"], "v1": others}  # the same predictions, seen through either half
            for half, group in halves.items():
                swapped = zero_shot_f1(labels, inputs["gold"], group)
                found[half] = [swapped["seen_f1"], swapped["unseen_f1"]]
            found["label_weighted_f1_all"] = scores["all_f1"]
    return found


def _situation(inputs: dict, params: dict) -> dict:
    names, arguments = _read(inputs, params)
    found = {}
    for decision in DECISIONS:
        rule = DecisionRule(
            decision,
            multi_label=True,
            seen_threshold=params["seen_threshold"],
            threshold=params["unseen_threshold"] if decision == "two_phase" else 0.5,
        )
        rows = [[names[i] for i in row.nonzero()[0]] for row in decide(*arguments, rule)]
        labels = [sorted(row) or [params["none_label"]] for row in rows]
        scores = zero_shot_f1(labels, inputs["gold"], params["seen"], none_label=params["none_label"])
        found[decision] = {"predictions": labels, "label_weighted_f1_all": scores["all_f1"]}
        found[decision] |= {key: scores[key] for key in ("seen_f1", "unseen_f1")}
    return found
