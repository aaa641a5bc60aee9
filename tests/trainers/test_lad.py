import logging

import numpy as np
import pytest
import torch
from lad_toys import noiser, scenes, segformer, teacher, upernet
from torch.nn import functional as F

import toys
from hf_labels.losses.lad import LabelNoiser
from hf_labels.losses.soft_targets import channel_wise_distillation as cwd
from hf_labels.metrics.functional.segmentation import pixel_confusion, segmentation_scores
from hf_labels.models.lad import add_input_channel, find_stem, saved_noiser, strip_input_channel
from hf_labels.trainers.lad import CWDDistillTrainer, LADTeacherTrainer, LADTrainingArguments

HELD = {"freeze_batch_norm": True}


def arguments(folder, **options):
    settings = {"max_steps": 2, "per_device_train_batch_size": 8, "logging_steps": 1, "learning_rate": 1e-2}
    return LADTrainingArguments(**toys.quick(folder, **settings | options))


def teach(folder, model=None, data=None, **options):
    data = scenes() if data is None else data
    model = teacher() if model is None else model
    return LADTeacherTrainer(model, arguments(folder, **options), train_dataset=data, eval_dataset=scenes(6, seed=1))


def learn(folder, model=None, data=None, by="lad", args=None, **options):
    by = teacher() if by == "lad" else by
    data = scenes() if data is None else data
    return CWDDistillTrainer(
        segformer() if model is None else model,
        arguments(folder, **options),
        train_dataset=data,
        eval_dataset=scenes(6, seed=1),
        teacher=by,
    )


def first_step(made):
    """Logs of the first step, its batch, and what the trained model read in it."""
    seen = {}
    inner, model = made.compute_loss, made.model

    def keep(module, args, kwargs):
        seen.setdefault("inputs", kwargs["pixel_values"])

    hook = model.register_forward_pre_hook(keep, with_kwargs=True)

    def spy(model, inputs, *args, **kwargs):
        seen.setdefault("batch", {name: value.clone() for name, value in inputs.items()})
        return inner(model, inputs, *args, **kwargs)

    made.compute_loss = spy
    made.train()
    hook.remove()
    return made.state.log_history[0], seen


def ce(logits, labels):
    large = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=True)
    return F.cross_entropy(large, labels, ignore_index=255)


def test_teacher_sees_two_noisings_and_minimises_the_loss_of_the_paper(tmp_path):
    logs, seen = first_step(teach(tmp_path, max_steps=1, **HELD))
    images, labels = seen["batch"]["pixel_values"], seen["batch"]["labels"]
    assert seen["inputs"].shape == (16, 4, 16, 16)
    for half in seen["inputs"].chunk(2):
        assert torch.equal(half[:, :3], images)
        for image in range(8):  # one value per class in each image, up to the pixel noise
            for label in labels[image].unique():
                assert half[image, 3][labels[image] == label].std(unbiased=False) < 0.03 * 1.7 * 2
    gap = (seen["inputs"][:8, 3] - seen["inputs"][8:, 3]).abs().mean()
    assert gap > 0.5  # independent
    model = teacher().eval()
    with torch.no_grad():
        one, two = (model(half).logits for half in seen["inputs"].chunk(2))
    want = ce(one, labels) + ce(two, labels)
    consistency = cwd(one, two, 4.0) + cwd(two, one, 4.0)
    assert logs["ce"] == pytest.approx(want.item(), abs=1e-4)
    assert logs["consistency"] == pytest.approx(consistency.item(), rel=1e-3, abs=1e-6)
    assert logs["loss"] == pytest.approx((want + 5 * consistency).item(), abs=1e-3)


def test_teacher_accumulates_and_resumes_exactly(tmp_path):
    whole = teach(tmp_path / "a", max_steps=4, save_strategy="steps", save_steps=2, **HELD)
    whole.train()
    parts = teach(tmp_path / "b", max_steps=4, per_device_train_batch_size=2, gradient_accumulation_steps=4, **HELD)
    parts.train()
    toys.assert_same(toys.weights(whole.model), toys.weights(parts.model), atol=1e-4)
    again = teach(tmp_path / "a", max_steps=4, save_strategy="steps", save_steps=2, **HELD)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    toys.assert_same(toys.weights(whole.model), toys.weights(again.model), atol=1e-6)


def test_student_loss_against_a_lad_teacher_by_hand(tmp_path):
    by = teacher()
    by.config.label_channel["fixed_pixel_std"] = 0.0
    made = learn(tmp_path, by=by, max_steps=1, **HELD)
    logs, seen = first_step(made)
    images, labels = seen["batch"]["pixel_values"], seen["batch"]["labels"]
    assert torch.equal(seen["inputs"], images)
    quiet = LabelNoiser(3, fixed_pixel_std=0.0).fixed(labels)
    with torch.no_grad():
        student = segformer().eval()(images).logits
        target = teacher().eval()(torch.cat([images, quiet], 1)).logits
    assert logs["ce"] == pytest.approx(ce(student, labels).item(), abs=1e-4)
    assert logs["distillation"] == pytest.approx(cwd(student, target, 4.0).item(), rel=1e-3)
    assert logs["loss"] == pytest.approx(logs["ce"] + 3 * logs["distillation"], abs=1e-3)


@pytest.mark.parametrize("kind", ["cwd", "pixel", "dist"])
def test_an_image_teacher_makes_it_plain_distillation(tmp_path, kind):
    made = learn(tmp_path, by=segformer(2), max_steps=1, distill_loss=kind, temperature=2.0, **HELD)
    assert made.label_noiser is None
    logs, seen = first_step(made)
    from hf_labels.losses.lad import dist_distillation, pixel_distillation

    with torch.no_grad():
        student, target = (segformer(s).eval()(seen["inputs"]).logits for s in (0, 2))
    wanted = {"cwd": lambda: cwd(student, target, 2.0), "pixel": lambda: pixel_distillation(student, target, 2.0)}
    want = wanted.get(kind, lambda: dist_distillation(student, target))()
    assert logs["distillation"] == pytest.approx(want.item(), rel=1e-3)


def test_without_weight_it_is_plain_training(tmp_path):
    one = learn(tmp_path / "a", distill_weight=0.0)
    two = learn(tmp_path / "b", by=None, distill_weight=0.0)
    one.train()
    two.train()
    toys.assert_same(toys.weights(one.model), toys.weights(two.model))
    other = learn(tmp_path / "c")
    other.train()
    assert any(not torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_a_student_with_a_zero_channel_equals_one_without(tmp_path):
    generator = torch.Generator().manual_seed(0)
    four = learn(tmp_path / "a", model=add_input_channel(segformer(), 0.5, generator), weight_decay=0.0)
    three = learn(tmp_path / "b", weight_decay=0.0)
    start = find_stem(four.model)[1].weight[:, 3].detach().clone()
    for made in (four, three):
        made.train()
    assert torch.equal(find_stem(four.model)[1].weight[:, 3], start)
    assert four.predict(scenes(4).remove_columns("labels")).predictions.shape[0] == 4
    stripped = strip_input_channel(four.model)
    toys.assert_same(toys.weights(three.model), toys.weights(stripped), atol=1e-5)


def test_auxiliary_head_has_its_weight(tmp_path):
    data = scenes(size=32)
    for weight in (0.0, 0.4):
        made = teach(
            tmp_path / str(weight), add_input_channel(upernet()), data, max_steps=1, teacher_aux_weight=weight, **HELD
        )
        made.eval_dataset = None
        logs, _ = first_step(made)
        parts = logs["ce"] + 5 * logs["consistency"] + weight * logs["aux"]
        assert logs["aux"] > 0 and logs["loss"] == pytest.approx(parts, rel=1e-4)


def test_evaluation_gives_mean_iou_of_the_whole_set(tmp_path):
    made = learn(tmp_path, per_device_eval_batch_size=4)
    metrics = made.evaluate()
    data = scenes(6, seed=1).with_format("torch")[:]
    with torch.no_grad():
        logits = F.interpolate(
            made.model.eval()(data["pixel_values"]).logits, (16, 16), mode="bilinear", align_corners=True
        )
    want = segmentation_scores(pixel_confusion(logits.argmax(1), data["labels"], 3))
    for name, value in want.items():
        assert metrics[f"eval_{name}"] == pytest.approx(value)
    assert "eval_distillation" not in metrics


def test_copy_gap_of_a_teacher_that_copies(tmp_path):
    """A model made to read the class off the fixed code has all of its score from there."""

    class Copies(torch.nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config, self.stem = config, torch.nn.Conv2d(4, 1, 1)

        def forward(self, pixel_values):
            from transformers.modeling_outputs import SemanticSegmenterOutput

            level = pixel_values[:, 3:] / (1.7 * 0.1) + 2.0  # back to the class id
            ids = torch.arange(3.0).view(1, 3, 1, 1)
            return SemanticSegmenterOutput(logits=-(level - ids).abs() + 0 * self.stem.weight.sum())

    made = teach(tmp_path, Copies(teacher().config))
    made.label_noiser = LabelNoiser(3, fixed_pixel_std=0.0)
    found = made.copy_gap()
    assert found["right_code"] > 0.99 and found["wrong_code"] < 0.01
    assert found["copy_gap"] == pytest.approx(found["right_code"] - found["wrong_code"])
    assert found["no_code"] < 0.1  # all pixels look like class 2
    assert made.copy_gap(scenes(3, seed=2))["right_code"] > 0.99
    made = teach(tmp_path, add_input_channel(segformer(5), std=0.0))
    found = made.copy_gap()
    assert found["right_code"] == found["wrong_code"] == found["no_code"] > 0, (
        "a channel without weight changes nothing"
    )


def test_wrong_codes_are_those_of_the_next_class(tmp_path):
    made, given = teach(tmp_path), []
    inner = made.with_label
    made.with_label = lambda images, labels, codes: given.append(codes) or inner(images, labels, codes)
    made.copy_gap(scenes(2))
    own, wrong, none = given
    assert own.tolist() == pytest.approx([-0.2, -0.1, 0.0, 0.1])
    assert wrong.tolist() == pytest.approx([-0.1, 0.0, -0.2, 0.1]) and not none.any()  # "ignore" keeps its own


@pytest.mark.parametrize("seed", [0, 1])
def test_teacher_learns_and_hands_on(tmp_path, seed):
    fine = {"strides": [2, 2], "hidden_sizes": [16, 16], "patch_sizes": [3, 3], "initializer_range": 0.2}
    options = {"max_steps": 60, "learning_rate": 2e-2, "lr_scheduler_type": "constant", "seed": seed}
    made = teach(tmp_path / "t", teacher(seed + 1, **fine), consistency_weight=0.5, **options)
    made.train()
    assert made.evaluate()["eval_mean_iou"] > 0.45  # background everywhere gives 0.25
    student = learn(tmp_path / "s", segformer(seed, **fine), by=made.model, **options)
    student.train()
    assert student.evaluate()["eval_mean_iou"] > 0.45
    losses = [log["distillation"] for log in student.state.log_history if "distillation" in log]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_settings_of_the_channel_travel_with_the_teacher(tmp_path):
    own = LabelNoiser(3, gain=100.0)
    made = LADTeacherTrainer(teacher(), arguments(tmp_path), train_dataset=scenes(), label_noiser=own)
    made.save_model(str(tmp_path / "saved"))
    from transformers import AutoModelForSemanticSegmentation

    again = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "saved")
    assert saved_noiser(again) == own and learn(tmp_path / "s", by=again).label_noiser == own
    made.create_model_card(model_name="t")
    assert "no predictor" in (tmp_path / "README.md").read_text()


def test_a_teacher_of_another_resolution_is_resized_with_a_warning(tmp_path, caplog):
    coarse = add_input_channel(segformer(3, strides=[8, 2]), noiser=noiser())
    with caplog.at_level(logging.WARNING):
        learn(tmp_path, by=coarse).train()
    assert sum("are resized" in record.message for record in caplog.records) == 1


def test_images_without_labelled_pixels_do_not_break_a_step(tmp_path):
    data = scenes()
    blank = data.map(lambda row: {"labels": np.full((16, 16), 255).tolist()})
    for made in (teach(tmp_path / "t", data=blank), learn(tmp_path / "s", data=blank)):
        made.train()
        assert all(p.isfinite().all() for p in made.model.parameters())


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda p: learn(p, by=segformer(num_labels=4)), ValueError, "teacher has 4 classes, the student 3"),
        (lambda p: learn(p, by=None), TypeError, "`teacher` is missing"),
        (lambda p: learn(p, by=add_input_channel(segformer())), ValueError, "needs `label_noiser`"),
        (lambda p: teach(p, segformer()).train(), ValueError, r"\(2, H, W\), got \(3, 16, 16\).*add_input_channel"),
        (lambda p: teach(p, segformer(num_labels=1, num_channels=4)), ValueError, "at least 2, got 1"),
        (lambda p: LADTeacherTrainer(teacher(), toys.quick(p)), TypeError, "must be LADTrainingArguments"),
        (
            lambda p: LADTeacherTrainer(teacher(), arguments(p), label_noiser=LabelNoiser(5)),
            ValueError,
            "made for 5 classes.*model has 3",
        ),
        (lambda p: arguments(p, temperature=0.0), ValueError, "`temperature` must be above 0"),
        (lambda p: arguments(p, distill_weight=-1.0), ValueError, "`distill_weight` must be 0 or more"),
        (lambda p: arguments(p, distill_loss="l2"), ValueError, "cwd, pixel or dist, got 'l2'"),
    ],
)
def test_bad_input_is_explained(call, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        call(tmp_path)
