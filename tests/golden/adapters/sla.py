"""Replays sla.json through `hf_labels.losses.sla`, in float64."""

import torch

from hf_labels.losses.sla import (
    aggregate_logits,
    joint_labels,
    single_logits,
    sla_loss,
    sla_sd_loss,
    transform_images,
)


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "images" in inputs:
        return {"transformed": transform_images(_tensor(inputs["images"]), params["transform"])}
    if "joint_logits" in inputs:
        return _losses(inputs, params)
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _losses(inputs: dict, params: dict) -> dict:
    number, large = params["num_transformations"], params.get("with_large_loss", False)
    joint = _tensor(inputs["joint_logits"]).requires_grad_()
    labels = torch.tensor(inputs["labels"], dtype=torch.long)
    found = {
        "joint_labels": joint_labels(labels, number),
        "aggregated_logits": aggregate_logits(joint, number),
        "single_logits": single_logits(joint[::number], number),
    }
    if "single_head_logits_all_rows" not in inputs:
        loss = sla_loss(joint, labels, number, large)
        loss.backward()
        return found | {"loss": loss, "grad_joint_logits": joint.grad}
    single = _tensor(inputs["single_head_logits_all_rows"]).requires_grad_()
    parts = sla_sd_loss(joint, single[::number], labels, number, params.get("temperature", 1.0), large)
    parts["loss"].backward()
    found["single_logits"] = single[::number]
    return found | {"loss": parts["loss"], "grad_joint_logits": joint.grad, "grad_single_logits": single.grad}
