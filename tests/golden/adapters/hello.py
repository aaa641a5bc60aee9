"""Replays hello.json: selection and tiling of RDED, and the projector's formulas, in float64."""

import torch

from hf_labels.data.hello import rded_select, rded_tile
from hf_labels.data.soft_label_codec import recover, top_k
from hf_labels.losses.hello import image_update_loss, lora_floats, projector_logits, projector_loss, text_head


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    given = inputs | params
    if "ce_score" in given:
        return {"selected": rded_select(_tensor(given["ce_score"]), given["k"])}
    if "patches" in given:
        images = rded_tile(_tensor(given["patches"]), given["size"], given["factor"])
        assert len(images) == given.get("n", len(images))
        return {"images": images}
    if "probs" in given:
        probs = _tensor(given["probs"])
        return {"smoothed": recover(*top_k(probs, given["k"]), probs.shape[-1])}
    if "text_embeds" in given:
        return _projector(given)
    if "weak_teacher_logits" in given:
        logits, teachers = _tensor(given["logits"]), _tensor(given["weak_teacher_logits"])
        return {"loss": projector_loss(logits, teachers, torch.tensor(given["labels"]), given["lam"])}
    if "feat_resampled" in given:
        return {"loss": image_update_loss(_tensor(given["feat"]), _tensor(given["feat_resampled"]))}
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _projector(given: dict) -> dict:
    image, head = _tensor(given["image_embeds"]), text_head(_tensor(given["text_embeds"]))
    if "lora_A" not in given:
        return {"logits": projector_logits(image, head, given["logit_scale"])}
    a, b, rank = _tensor(given["lora_A"]), _tensor(given["lora_B"]), given["r"]
    logits = projector_logits(image, head, given["logit_scale"], a, b, given["alpha"] / rank)
    return {"logits": logits, "n_stored": lora_floats(rank, tuple(head.shape))}
