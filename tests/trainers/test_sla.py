import numpy as np
import pytest
import torch
from sla_toys import images, resnet_config, sla_model, with_labels
from torch.nn import functional as F

import toys
from hf_labels.losses.sla import joint_labels, transform_images
from hf_labels.trainers.sla import SLATrainer, SLATrainingArguments


def trainer(folder, model=None, data=None, **options):
    settings = {"max_steps": 1, "per_device_train_batch_size": 8, "logging_steps": 1, **options}
    args = SLATrainingArguments(**toys.quick(folder, **settings))
    data = images() if data is None else data
    return SLATrainer(sla_model() if model is None else model, args, train_dataset=data, eval_dataset=images(8))


def first_batch_loss(made):
    """The logged loss of the first batch, and that batch."""
    seen = []
    inner = made.compute_loss

    def spy(model, inputs, *args, **kwargs):
        seen.append({name: value.clone() for name, value in inputs.items()})
        return inner(model, inputs, *args, **kwargs)

    made.compute_loss = spy
    made.train()
    logs = made.state.log_history[0]
    return logs, seen[0]


def parts_by_hand(model, batch, temperature=1.0):
    model = model.train()
    pixels, labels = batch["pixel_values"], batch["labels"]
    features = model.features(transform_images(pixels, "rotation"))
    joint, single = model.joint_classifier(features), model.classifier(features[::4])
    mean = torch.stack([joint[j::4, j::4] for j in range(4)]).mean(0)
    divergence = F.kl_div(
        F.log_softmax(single / temperature, 1), F.softmax(mean / temperature, 1), reduction="batchmean"
    )
    return {
        "joint": F.cross_entropy(joint, joint_labels(labels, 4)).item(),
        "hard": F.cross_entropy(single, labels).item(),
        "distillation": divergence.item() * temperature**2,
    }


def test_loss_and_its_logged_parts_are_those_of_the_paper(tmp_path):
    logs, batch = first_batch_loss(trainer(tmp_path, sd_temperature=3.0))
    want = parts_by_hand(sla_model(), batch, 3.0)
    for name, value in want.items():
        assert abs(logs[name] - value) < 1e-5, name
    assert abs(logs["loss"] - sum(want.values())) < 1e-4


@pytest.mark.parametrize("steps", [1, 4])
def test_accumulation_is_one_mean_over_all_labelled_images(tmp_path, steps):
    """Micro-batches with different numbers of labelled images must not change the mean."""
    labels = [0, -1, -1, -1, 1, 2, -1, 0] + [1] * 8
    options = {"per_device_train_batch_size": 8 // steps, "gradient_accumulation_steps": steps, "optim": "sgd"}
    made = trainer(
        tmp_path,
        data=with_labels(images(), labels),
        learning_rate=0.5,
        train_sampling_strategy="sequential",
        **options,
    )
    made.train()
    model = sla_model().train()
    data = images().with_format("torch")[:8]
    target = torch.tensor(labels[:8]).masked_fill(torch.tensor(labels[:8]) == -1, -100)
    known = target != -100
    features = model.features(transform_images(data["pixel_values"], "rotation"))
    joint, single = model.joint_classifier(features), model.classifier(features[::4])
    mean = torch.stack([joint[j::4, j::4] for j in range(4)]).mean(0).detach()
    loss = F.cross_entropy(joint, joint_labels(target, 4)) + F.cross_entropy(single, target)
    loss = loss + F.kl_div(F.log_softmax(single[known], 1), F.softmax(mean[known], 1), reduction="batchmean")
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert norm > 0
    for (name, p), q in zip(model.named_parameters(), made.model.parameters(), strict=True):
        torch.testing.assert_close(q, p - 0.5 * p.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_large_loss_and_weight_of_the_plain_head(tmp_path):
    plain, _ = first_batch_loss(trainer(tmp_path / "a"))
    large, _ = first_batch_loss(trainer(tmp_path / "b", with_large_loss=True, hard_label_weight=0.0))
    assert abs(large["joint"] - 4 * plain["joint"]) < 1e-4
    assert abs(large["loss"] - large["joint"] - large["distillation"]) < 1e-4 < large["hard"]


@pytest.mark.parametrize("mode, terms", [("baseline", ()), ("da", ()), ("mt", ("hard", "transformation"))])
def test_baselines_train_on_the_same_data_flow(tmp_path, mode, terms):
    made = trainer(tmp_path, sla_model(mode=mode))
    logs, batch = first_batch_loss(made)
    assert set(terms) <= set(logs) and "joint" not in logs
    model, labels = sla_model(mode=mode).train(), batch["labels"]
    pixels = batch["pixel_values"] if mode == "baseline" else transform_images(batch["pixel_values"], "rotation")
    features = model.features(pixels)
    rows = labels if mode == "baseline" else labels.repeat_interleave(4)
    want = F.cross_entropy(model.classifier(features), rows)
    if mode == "mt":
        want = want + F.cross_entropy(model.transform_classifier(features), torch.arange(4).repeat(8))
    assert abs(logs["loss"] - want.item()) < 1e-4


def test_without_a_plain_head_only_the_joint_loss_trains(tmp_path):
    made = trainer(tmp_path, sla_model(self_distillation=False))
    logs, batch = first_batch_loss(made)
    model = sla_model(self_distillation=False).train()
    joint = model.joint_classifier(model.features(transform_images(batch["pixel_values"], "rotation")))
    assert abs(logs["loss"] - F.cross_entropy(joint, joint_labels(batch["labels"], 4)).item()) < 1e-4


def test_evaluation_is_plain_or_with_all_transformations(tmp_path):
    made = trainer(tmp_path, evaluate_aggregated=True, per_device_eval_batch_size=3)
    model, data = made.model.eval(), images(8).with_format("torch")[:]
    metrics = made.evaluate()
    with torch.no_grad():
        logits = model(data["pixel_values"]).logits
        mean = model.predict_aggregated(data["pixel_values"])
        joint = model(data["pixel_values"], transform=True).joint_logits.softmax(1).view(32, 3, 4).sum(1)
    assert metrics["eval_accuracy"] == pytest.approx((logits.argmax(1) == data["labels"]).float().mean().item())
    right = (mean.argmax(1) == data["labels"]).float().mean().item()
    assert metrics["eval_aggregated_accuracy"] == pytest.approx(right)
    which = (joint.argmax(1) == torch.arange(4).repeat(8)).float().mean().item()
    assert metrics["eval_transform_accuracy"] == pytest.approx(which)
    made.args.evaluate_aggregated = False
    assert not any("aggregated" in name for name in made.evaluate())
    predictions = made.predict(images(8)).predictions
    assert isinstance(predictions, np.ndarray) and predictions.shape == (8, 3)
    assert made.predict(images(8).remove_columns("labels")).predictions.shape == (8, 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_colour_images_are_learned(tmp_path, seed):
    """Three colours of noise: a task that a few steps must solve, with batch norm and permuted channels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(48) % 3
    pixels = 0.3 * rng.normal(size=(48, 3, 8, 8)).astype("float32")
    pixels[np.arange(48), labels] += 1.0
    from datasets import Dataset

    data = Dataset.from_dict({"pixel_values": pixels.tolist(), "labels": labels.tolist()})
    model = sla_model(resnet_config(), seed, transform="color_perm3")
    made = trainer(tmp_path, model, data, max_steps=40, learning_rate=5e-3, evaluate_aggregated=True, seed=seed)
    made.eval_dataset = data
    made.train()
    metrics = made.evaluate()
    assert metrics["eval_accuracy"] > 0.9 and metrics["eval_aggregated_accuracy"] > 0.9


def test_bad_settings_and_models():
    with pytest.raises(ValueError, match="`sd_temperature` must be above 0, got 0"):
        SLATrainingArguments("out", sd_temperature=0)
    with pytest.raises(ValueError, match="`hard_label_weight` must be 0 or more"):
        SLATrainingArguments("out", hard_label_weight=-1)
    with pytest.raises(TypeError, match="from_backbone"):
        SLATrainer(toys.tiny_vit(), SLATrainingArguments("out"))


def test_nan_pixels_reach_the_loss(tmp_path):
    data = images()
    broken = np.array(data["pixel_values"][:])
    broken[:, 0, 0, 0] = np.nan
    made = trainer(tmp_path, data=data.remove_columns("pixel_values").add_column("pixel_values", broken.tolist()))
    made.args.logging_nan_inf_filter = False
    logs, _ = first_batch_loss(made)
    assert np.isnan(logs["loss"])
