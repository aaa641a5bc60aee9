"""Replays ferkd.json: stored forms of soft labels, soft cross-entropy, and the label adaptation, in float64."""

import re

import torch

from hf_labels.data.soft_label_codec import recover, top_k
from hf_labels.labels.ferkd import REGIONS, calibrate_labels
from hf_labels.losses.soft_targets import soft_cross_entropy


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    given = inputs | params
    if "label_type" in given:
        return _quantise(given)
    if "t_low" in given:
        return _calibrate(given)
    if "student_logits" in given:
        logits = _tensor(given["student_logits"]).requires_grad_()
        loss = soft_cross_entropy(logits, _tensor(given["teacher_probs"]), temperature=given.get("temperature", 1.0))
        loss.backward()
        return {"loss": loss, "grad_student_logits": logits.grad}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _quantise(given: dict) -> dict:
    kind = given["label_type"]
    if "teacher_logits" in given:
        probs = (_tensor(given["teacher_logits"]) / given.get("temperature", 1.0)).softmax(-1)
    else:
        probs = _tensor(given["teacher_probs"])
    classes = given.get("num_classes", probs.shape[-1])
    found = re.search(r"_k(\d+)$", kind)
    ids, values = top_k(probs, int(found.group(1)) if found else 1)
    if kind == "hard":
        return {"stored": ids[:, 0], "recovered": recover(ids, torch.ones_like(values), classes)}
    residual = "renorm" if "renorm" in kind else "smooth"
    both = torch.stack([ids.double(), values], 1)
    return {"stored": both if found else both[:, :, 0], "recovered": recover(ids, values, classes, residual)}


def _calibrate(given: dict) -> dict:
    options = {name: given[name] for name in ("t_low", "t_mid", "t_top", "epsilon", "confidence") if name in given}
    probs, labels = _tensor(given["teacher_probs"]), torch.tensor(given["labels"])
    found = calibrate_labels(probs, labels, **options)
    out = {
        "region": [REGIONS[number] for number in found.regions.tolist()],
        "keep": found.keep.int(),
        "target": found.targets,
    }
    if "student_logits" in given:
        out["loss"] = soft_cross_entropy(_tensor(given["student_logits"]), found.targets, mask=found.keep)
    return out
