"""Replays lad.json through `hf_labels.losses.lad`, in float64."""

import torch

from hf_labels.losses.lad import (
    class_codes,
    cwd_student_loss,
    dist_distillation,
    dual_path_consistency,
    label_channel,
    lad_teacher_loss,
    pixel_distillation,
)
from hf_labels.losses.soft_targets import channel_wise_distillation


def _tensor(value):
    return torch.tensor(value, dtype=torch.float64)


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "pixel_noise" in inputs:
        return _channel(inputs, params)
    if "path1" in inputs:
        return _paths(inputs, params)
    if "student" in inputs:
        return _student(function, inputs, params)
    raise LookupError(f"No function for {function!r} with inputs {sorted(inputs)}.")


def _channel(inputs: dict, params: dict) -> dict:
    labels = torch.tensor(inputs["labels"])
    codes = _tensor(inputs["class_noise"]) if "class_noise" in inputs else class_codes(params["num_labels"])
    options = {"pixel_std": params["sigma"], "gain": params["gain"], "ignore_index": params["ignore_index"]}
    return {"label_channel": label_channel(labels, codes, _tensor(inputs["pixel_noise"]), **options)}


def _paths(inputs: dict, params: dict) -> dict:
    paths = [_tensor(inputs[name]).requires_grad_() for name in ("path1", "path2")]
    if "labels" not in inputs:
        return {"loss": dual_path_consistency(*paths, **params)}
    parts = lad_teacher_loss(*paths, torch.tensor(inputs["labels"]), **params)
    parts["loss"].backward()
    return parts | {"grad_path1": paths[0].grad, "grad_path2": paths[1].grad}


def _student(function: str, inputs: dict, params: dict) -> dict:
    student, teacher = _tensor(inputs["student"]).requires_grad_(), _tensor(inputs["teacher"])
    if "labels" in inputs:
        loss = cwd_student_loss(student, teacher, torch.tensor(inputs["labels"]), **params)["loss"]
    elif "beta" in params:
        loss = dist_distillation(student, teacher, **params)
    elif "channel-wise" in function:
        loss = channel_wise_distillation(student, teacher, **params)
    elif "pixel-wise" in function:
        loss = pixel_distillation(student, teacher, **params)
    else:
        raise LookupError(f"No function for {function!r}.")
    loss.backward()
    return {"loss": loss, "grad_student": student.grad}
