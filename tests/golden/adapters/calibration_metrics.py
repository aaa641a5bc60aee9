"""Replays calibration-metrics.json through `hf_labels.metrics.functional`."""

import numpy as np

from hf_labels.metrics.functional import calibration_scores

_KNOWN = ("ece", "bin edges", "calibration", "brier")


def replay(function: str, inputs: dict, params: dict) -> dict:
    text = function.lower()
    if not any(word in text for word in _KNOWN) or "labels" not in inputs:
        raise LookupError(f"Unknown function: {function!r} with inputs {sorted(inputs)}.")
    from_logits = "logits" in inputs
    if not from_logits and "probabilities" not in inputs:
        raise LookupError(f"Neither `logits` nor `probabilities` in {sorted(inputs)}.")
    values = inputs["logits" if from_logits else "probabilities"]
    options = {"n_bins": params.get("n_bins", 15), "from_logits": from_logits}
    result = calibration_scores(values, inputs["labels"], per_bin=True, **options)
    reference = calibration_scores(values, inputs["labels"], aece_mode="reference", **options)
    per_class = result["classwise_ece_per_class"]
    if "as computed by the reference" in text:  # it takes the largest label for the last class
        result["classwise_ece"] = float(np.mean(per_class[: max(inputs["labels"]) + 1]))
    return result | {"aece_equal_count": result["aece"], "aece_reference": reference["aece"]}
