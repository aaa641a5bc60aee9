"""Replays mixing-core.json through `hf_labels.mixing`, in float64."""

import numpy as np
import torch

from hf_labels.mixing import MixedLabels, box_lam, cutmix, cutmix_box, mixup


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    given = inputs | params
    if "cy" in given:
        return _boxes(given)
    if "x" in given:
        x, perm = _tensor(given["x"]), torch.tensor(given["permutation"])
        box = torch.tensor(given["box"])
        return {
            "mixup": mixup(x, perm, _tensor(given["mixup_lam"])),
            "cutmix": cutmix(x, perm, box),
            "cutmix_lam": float(box_lam(box, x.shape[-2:])),
        }
    if "logits" in given:
        labels = MixedLabels(_labels(given["y_a"]), _labels(given["y_b"]), _tensor(given["lam"]))
        logits = _tensor(given["logits"])
        return {"per_row": labels.cross_entropy(logits, "none"), "mean": labels.cross_entropy(logits)}
    if "permutation" in given:
        labels, perm = _labels(given["labels"]), torch.tensor(given["permutation"])
        lam = _tensor(given["lam"]).expand(len(labels))
        mixed = MixedLabels(labels, labels[perm], lam)
        return {"target": mixed.dense(given["num_classes"], given.get("smoothing", 0.0), torch.float64)}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _labels(value):
    """Class ids or distributions."""
    return torch.tensor(value) if np.asarray(value).dtype.kind == "i" else _tensor(value)


def _boxes(given: dict) -> dict:
    names = ("H", "W", "lam", "cy", "cx")
    rows = zip(*(np.atleast_1d(given[name]).tolist() for name in names), strict=True)
    found = [cutmix_box((height, width), lam, (cy, cx)) for height, width, lam, cy, cx in rows]
    lam = [float(kept) for _, kept in found] if given.get("correct_lam", True) else given["lam"]
    return {"box": [box.tolist() for box, _ in found], "lam_corrected": lam}
