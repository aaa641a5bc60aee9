"""The forms of the methods that use these losses, against their reference numbers."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hf_labels.losses.soft_targets import (
    channel_wise_distillation,
    logit_mse,
    soft_cross_entropy,
    sparse_soft_cross_entropy,
)

VECTORS = {
    (case["method"], case["name"]): case
    for case in json.loads((Path(__file__).parent / "soft_targets_vectors.json").read_text())
}


def vector(method, name, *inputs, dtype=torch.float64):
    case = VECTORS[method, name]
    arrays = [np.asarray(case["inputs"][key]) for key in inputs]
    tensors = [torch.tensor(a, dtype=dtype if a.dtype.kind == "f" else None) for a in arrays]
    return tensors, case["params"], case["expected"]


def test_crowd_kl_and_its_gradient():
    (logits, soft), _, expected = vector("crowd_soft_labels", "kl_loss", "logits", "soft_labels")
    logits.requires_grad_()
    loss = soft_cross_entropy(logits, soft, divergence="kl")
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-8)
    torch.testing.assert_close(logits.grad, torch.tensor(expected["grad"], dtype=torch.float64), atol=1e-8, rtol=0)


def test_crowd_class_weights_divide_by_the_batch():
    inputs, _, expected = vector(
        "crowd_soft_labels", "kl_loss_class_weights", "logits", "soft_labels", "class_weights"
    )
    logits, soft, class_weights = inputs
    loss = soft_cross_entropy(logits, soft, divergence="kl", weight=class_weights[soft.argmax(-1)])
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-8)


def test_crowd_soft_cross_entropy_and_multi_task():
    (logits, soft), _, expected = vector("crowd_soft_labels", "soft_cross_entropy", "logits", "soft_labels")
    assert soft_cross_entropy(logits, soft).item() == pytest.approx(expected["loss"], abs=1e-8)
    inputs, _, expected = vector(
        "crowd_soft_labels", "multi_task_loss", "logits", "soft_logits", "soft_labels", "labels"
    )
    hard = F.cross_entropy(inputs[0], inputs[3])
    assert (hard + soft_cross_entropy(inputs[1], inputs[2], divergence="kl")).item() == pytest.approx(
        expected["loss"], abs=1e-8
    )


def test_ferkd_value_and_gradient_and_discarded_rows():
    (logits, soft), _, expected = vector("ferkd", "soft_cross_entropy", "student_logits", "teacher_probs")
    logits.requires_grad_()
    loss = soft_cross_entropy(logits, soft)
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-6)
    torch.testing.assert_close(
        logits.grad, torch.tensor(expected["grad_student_logits"], dtype=torch.float64), atol=1e-6, rtol=0
    )
    (logits,), _, expected = vector("ferkd", "calibrate_label", "student_logits")
    target = torch.tensor(expected["target"], dtype=torch.float64)
    kept = torch.tensor(expected["keep"]).bool()
    assert soft_cross_entropy(logits, target, mask=kept).item() == pytest.approx(expected["loss"], abs=1e-6)


@pytest.mark.parametrize("name", ["exact_smooth", "exact_renorm", "u8_log_smooth", "u8_log_renorm"])
def test_store_sparse_cross_entropy(name):
    (ids, values, logits), params, expected = vector(
        "soft_label_store", f"decode_{name}", "topk_ids", "values", "logits"
    )
    if "u8" in name:  # the codec of the store, from its specification: relative error of at most 2.21 %
        codes = torch.where(values < 2.0**-16, 0, 1 + torch.round(254 * (1 + torch.log2(values) / 16)))
        values = torch.where(codes == 0, 0.0, 2.0 ** (16 * ((codes - 1) / 254 - 1)))
    loss = sparse_soft_cross_entropy(logits, ids, values, residual=params["residual"])
    assert loss.item() == pytest.approx(expected["cross_entropy"], abs=1e-6)
    again = soft_cross_entropy(logits, torch.tensor(expected["dense"], dtype=torch.float64))
    assert loss.item() == pytest.approx(again.item(), abs=1e-6)


@pytest.mark.parametrize("name", ["cwd_T1.0", "cwd_T4.0"])
def test_lad_channel_wise(name):
    (student, teacher), params, expected = vector("lad", name, "student", "teacher")
    student.requires_grad_()
    teacher.requires_grad_()
    loss = channel_wise_distillation(student, teacher, params["temperature"])
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-5)
    torch.testing.assert_close(
        student.grad, torch.tensor(expected["grad_student"], dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert teacher.grad is None


def test_lad_dual_path_and_pixel_form():
    (one, two), params, expected = vector("lad", "dual_path_consistency", "path1", "path2")
    both = channel_wise_distillation(one, two, params["temperature"]) + channel_wise_distillation(two, one, 4.0)
    assert both.item() == pytest.approx(expected["loss"], abs=1e-5)
    (student, teacher), params, expected = vector("lad", "pixel_kd", "student", "teacher")
    pixel = soft_cross_entropy(
        student,
        teacher,
        class_dim=1,
        divergence="kl",
        targets_are_logits=True,
        temperature=params["temperature"],
        scale_by_temperature=True,
    )
    assert pixel.item() == pytest.approx(expected["loss"], abs=1e-5)


def test_distill_weighted_mixture_equals_the_sum_over_sources():
    inputs, params, expected = vector(
        "distill_weighted",
        "weighted_loss",
        "student_logits_labeled",
        "labels",
        "student_logits_unlabeled",
        "source_target_logits",
        "weights",
    )
    labeled, labels, unlabeled, sources, weights = inputs
    mixture = (weights[:, None, None] * torch.softmax(sources, -1)).sum(0)
    distill = soft_cross_entropy(unlabeled, mixture)
    assert distill.item() == pytest.approx(expected["distill"], abs=1e-8)
    loss = params["lam"] * F.cross_entropy(labeled, labels) + (1 - params["lam"]) * distill
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-8)


def test_self_training_kl_on_logits_and_tokens():
    (teacher, student), params, expected = vector(
        "self_training_pretraining", "kl_logits", "teacher_logits", "student_logits"
    )
    loss_of = partial(
        soft_cross_entropy,
        divergence="kl",
        targets_are_logits=True,
        temperature=params["temperature"],
        scale_by_temperature=True,
    )
    assert loss_of(student, teacher).item() == pytest.approx(expected["loss"], abs=1e-9)
    (teacher, student, mask), _, expected = vector(
        "self_training_pretraining", "token_kl", "teacher_logits", "student_logits", "mask"
    )
    assert loss_of(student, teacher, mask=mask.bool()).item() == pytest.approx(expected["loss"], abs=1e-9)


def test_ceed_vla_consistency_counts_positions_of_the_whole_batch():
    (logits, target, ignored), _, expected = vector(
        "ceed_vla", "consistency_soft_ce", "pred_logits", "target_logits", "ignore_mask"
    )
    loss = soft_cross_entropy(logits, target, targets_are_logits=True, mask=~ignored.bool())
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-5)


def test_relabel_and_hello():
    (logits, targets), _, expected = vector("relabel", "soft_target_ce", "logits", "targets")
    assert soft_cross_entropy(logits, targets).item() == pytest.approx(expected["loss"], abs=1e-5)
    (logits, teachers, labels), params, expected = vector(
        "hello", "label_loss_projector", "logits", "weak_teacher_logits", "labels"
    )
    loss = logit_mse(logits, teachers.mean(0)) + params["lam"] * F.cross_entropy(logits, labels)
    assert loss.item() == pytest.approx(expected["loss"], abs=1e-6)
