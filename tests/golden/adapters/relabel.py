"""Replays relabel.json: pooling of label maps, soft cross-entropy, and CutMix of soft labels, in float64."""

import torch

from hf_labels.losses.label_pooling import pooled_logits
from hf_labels.losses.soft_targets import soft_cross_entropy
from hf_labels.mixing import MixedLabels, box_lam, cutmix, mixup


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    given = inputs | params
    if "topk_indices" in given:
        return _pooling(given)
    if "permutation" in given:
        return _cutmix(given)
    if "target_a" in given:
        a, b = _tensor(given["target_a"]), _tensor(given["target_b"])
        mixed = MixedLabels(a, b, _tensor(given["lam"]).expand(len(a)))
        classes = given.get("num_classes", a.shape[1])
        return {"mixed": mixed.dense(classes, given.get("smoothing", 0.0), torch.float64)}
    if "logits" in given:
        return {"loss": soft_cross_entropy(_tensor(given["logits"]), _tensor(given["targets"]))}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _pooling(given: dict) -> dict:
    classes = given.get("num_classes", 1000)
    count = given.get("n_report", classes)
    boxes = _tensor(given["boxes_xyxy_fraction"])
    pooled = pooled_logits(_tensor(given["topk_values"]), torch.tensor(given["topk_indices"]), boxes, classes)
    soft = pooled.softmax(-1)
    return {
        "pooled_logits_first_n": pooled[:, :count],
        "soft_label_first_n": soft[:, :count],
        "soft_label_of_any_class_ge_n": soft[:, -1],
    }


def _cutmix(given: dict) -> dict:
    images, targets, perm = _tensor(given["images"]), _tensor(given["targets"]), torch.tensor(given["permutation"])
    box = torch.tensor([*given["box_dim2"], *given["box_dim3"]])
    lam = float(box_lam(box, images.shape[-2:]))
    return {"images": cutmix(images, perm, box), "targets": mixup(targets, perm, lam), "lam": lam}
