"""The projector's trainer, and students that learn from a projector."""

import hello_toys as toys
import pytest
import torch
from datasets import ClassLabel, Dataset
from transformers import ViTConfig, ViTForImageClassification

from hf_labels.data.hello import distill_images
from hf_labels.data.hello_views import DistilledCollator
from hf_labels.data.images import Normalizer
from hf_labels.data.soft_label_report import label_storage_report
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.losses.hello import projector_loss
from hf_labels.losses.soft_targets import soft_cross_entropy
from hf_labels.mixing import MixCollator, MixSampler
from hf_labels.models.hello import SameView
from hf_labels.models.hello_adapter import load_projector, projector_facts
from hf_labels.trainers.hello import ProjectorTrainer, ProjectorTrainingArguments, WeakTeachers, weak_teachers
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments
from toys import quick


def table(rows=8, **columns):
    columns = {"pixel_values": toys.pixels(rows).tolist(), "labels": [row % 3 for row in range(rows)]} | columns
    return Dataset.from_dict(columns).cast_column("labels", ClassLabel(names=toys.NAMES))


def make(folder, model=None, data=None, teachers=None, **options):
    data = table() if data is None else data
    teachers = [toys.teacher(5), toys.teacher(6)] if teachers is None else teachers
    args = ProjectorTrainingArguments(**quick(folder, per_device_train_batch_size=8, **options))
    return ProjectorTrainer(
        toys.adapted(noise=0.1) if model is None else model,
        args,
        train_dataset=data,
        eval_dataset=data,
        teachers=teachers,
    )


def batch_of(trainer):
    return trainer.data_collator([trainer.train_dataset[i] for i in range(8)])


@pytest.mark.parametrize("lam, center", [(1.0, False), (0.0, False), (0.4, True)])
def test_loss_is_that_of_the_paper_with_the_mean_of_the_teachers(tmp_path, lam, center):
    trainer = make(tmp_path, hard_label_weight=lam, center_logits=center)
    batch = batch_of(trainer)
    with torch.no_grad():
        got = trainer.compute_loss(trainer.model.eval(), dict(batch))
        logits = trainer.model(batch["pixel_values"]).logits
        teachers = torch.stack([toys.teacher(seed)(batch["pixel_values"]).logits for seed in (5, 6)])
    torch.testing.assert_close(got, projector_loss(logits, teachers, batch["labels"], lam, center))


def test_training_brings_the_projector_to_the_teachers_on_unseen_views(tmp_path):
    known = [toys.adapted(noise=0.6), toys.adapted(noise=0.7)]  # something that a projector can learn
    trainer = make(tmp_path, max_steps=60, learning_rate=2e-2, data=table(64), hard_label_weight=0.1, teachers=known)
    trainer.eval_dataset = table(32, pixel_values=toys.pixels(32, seed=9).tolist())
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_teacher_kl"] < 0.5 * before["eval_teacher_kl"]
    assert after["eval_teacher_mse"] < 0.5 * before["eval_teacher_mse"]
    batch = trainer.data_collator([trainer.eval_dataset[i] for i in range(32)])
    with torch.no_grad():
        logits = trainer.model.eval()(batch["pixel_values"]).logits
        target = sum(teacher(batch["pixel_values"]).logits for teacher in known) / 2
    want = soft_cross_entropy(logits, target, divergence="kl", targets_are_logits=True)
    assert after["eval_teacher_kl"] == pytest.approx(want.item(), abs=1e-5)
    plain = torch.nn.functional.cross_entropy(logits, batch["labels"])
    assert after["eval_loss"] == pytest.approx(plain.item(), abs=1e-5)


def test_saved_adapter_is_the_trained_one_and_clip_is_untouched(tmp_path):
    clip = toys.save_clip(tmp_path / "clip")
    from hf_labels.models.hello import LabelProjector

    base = LabelProjector.from_clip(clip, toys.NAMES)
    facts = projector_facts(base)
    trainer = make(tmp_path / "out", model=toys.adapted(base), max_steps=3, learning_rate=1e-2)
    trainer.train()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "README.md").write_text("mine")
    trainer.save_model(str(tmp_path / "saved"))
    trainer.save_model(str(tmp_path / "fresh"))
    assert (tmp_path / "saved" / "README.md").read_text() == "mine"
    assert not (tmp_path / "fresh" / "README.md").exists()
    again = load_projector(tmp_path / "fresh")
    with torch.no_grad():
        assert torch.equal(again(toys.pixels()).logits, trainer.model.eval()(toys.pixels()).logits)
    assert projector_facts(again.get_base_model()) == facts
    report = label_storage_report(SoftLabelStore.from_projector("me/p", 3), tmp_path / "fresh")
    assert report["file_bytes"] == sum(p.stat().st_size for p in (tmp_path / "fresh").iterdir())


def test_mixed_images_have_mixed_hard_labels_and_labels_of_the_mixture(tmp_path):
    data, norm = toys.images(12), Normalizer((0.5,) * 3, (0.5,) * 3)
    collate = MixCollator(DistilledCollator(8, norm, factor=1), MixSampler(1.0, kind="cutmix", seed="torch"))
    args = ProjectorTrainingArguments(**quick(tmp_path, max_steps=2, per_device_train_batch_size=6))
    trainer = ProjectorTrainer(
        toys.adapted(noise=0.1), args, collate, train_dataset=data, teachers=[toys.teacher(5)], eval_dataset=data
    )
    torch.manual_seed(3)
    batch = collate([data[i] for i in range(6)])
    with torch.no_grad():
        got = trainer.compute_loss(trainer.model.eval(), dict(batch))
        logits, target = trainer.model(batch["pixel_values"]).logits, toys.teacher(5)(batch["pixel_values"]).logits
        rows = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none") * batch["mix_lam"]
        rows += torch.nn.functional.cross_entropy(logits, batch["mix_labels_b"], reduction="none") * (
            1 - batch["mix_lam"]
        )
    torch.testing.assert_close(got, (logits - target).square().mean() + rows.mean())
    trainer.train()
    assert "eval_teacher_kl" in trainer.evaluate()


# Weak teachers


def test_checkpoints_of_a_run_are_spread_over_it(tmp_path):
    trainer = SoftLabelTrainer(
        toys.teacher(),
        SoftLabelTrainingArguments(**quick(tmp_path, max_steps=6, save_strategy="steps", save_steps=1)),
        train_dataset=table(soft_labels=[[1.0, 0.0, 0.0]] * 8),
    )
    trainer.train()
    weights = lambda model: model.classifier.weight  # noqa: E731
    kept = [ViTForImageClassification.from_pretrained(tmp_path / f"checkpoint-{step}") for step in (1, 3, 6)]
    found = weak_teachers(tmp_path, 3)
    assert [torch.equal(weights(a), weights(b)) for a, b in zip(found, kept, strict=True)] == [True, True, True]
    assert torch.equal(weights(weak_teachers(tmp_path, 1)[0]), weights(kept[2]))
    assert len(weak_teachers(tmp_path, 9)) == 6
    loaded = make(tmp_path / "out", teachers=str(tmp_path))
    assert len(loaded.label_source.model.teachers) == 6
    one = make(tmp_path / "out", teachers=[str(tmp_path / "checkpoint-3")])
    assert torch.equal(weights(one.label_source.model.teachers[0]), weights(kept[1]))
    with pytest.raises(ValueError, match="`count` must be at least 1, got 0"):
        weak_teachers(tmp_path, 0)
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        weak_teachers(tmp_path / "out")


def test_bad_teachers_and_data_are_named(tmp_path):
    with pytest.raises(ValueError, match="`teachers` is empty"):
        make(tmp_path, teachers=[])
    with pytest.raises(ValueError, match="teachers have different numbers of classes: 3, 2"):
        WeakTeachers([toys.teacher(), toys.teacher(num_labels=2)])(toys.pixels())
    with pytest.raises(ValueError, match="The teachers have 2 classes, the projector 3"):
        make(tmp_path, teachers=[toys.teacher(num_labels=2)]).train()
    args = ProjectorTrainingArguments(**quick(tmp_path))
    with pytest.raises(ValueError, match="Pass `teachers` .* or `label_source`, one of the two"):
        ProjectorTrainer(toys.adapted(), args, train_dataset=table())
    with pytest.raises(TypeError, match="must be ProjectorTrainingArguments, got SoftLabelTrainingArguments"):
        ProjectorTrainer(toys.adapted(), SoftLabelTrainingArguments(**quick(tmp_path)), teachers=[toys.teacher()])
    with pytest.raises(ValueError, match="Class 1 is 'bird' in column `labels` and 'dog' in the projector"):
        make(tmp_path, data=table().cast_column("labels", ClassLabel(names=["cat", "bird", "dog"]))).train()


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    broken = toys.teacher()
    with torch.no_grad():
        broken.classifier.bias.fill_(float("inf"))
    with pytest.raises(ValueError, match="The loss is inf at step 0. Lower `learning_rate`"):
        make(tmp_path, teachers=[broken]).train()


# Students


def student(side=8):
    torch.manual_seed(0)
    config = ViTConfig(image_size=side, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    config.intermediate_size, config.id2label = 16, dict(enumerate(toys.NAMES))
    return ViTForImageClassification(config)


def student_trainer(folder, source, collate=None, data=None, **options):
    args = SoftLabelTrainingArguments(**quick(folder, per_device_train_batch_size=6, **options))
    return SoftLabelTrainer(student(), args, collate, train_dataset=data or table(), label_source=source)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_student_loss_is_that_of_the_paper_and_no_gradient_reaches_the_projector(tmp_path, beta):
    projector = toys.adapted(noise=0.3)
    trainer = student_trainer(tmp_path, projector, soft_loss="mse", hard_label_weight=beta)
    batch = batch_of(trainer)
    loss = trainer.compute_loss(trainer.model.eval(), dict(batch))
    with torch.no_grad():
        logits, target = trainer.model(batch["pixel_values"]).logits, projector(batch["pixel_values"]).logits
    want = projector_loss(logits, target, batch["labels"], beta)
    torch.testing.assert_close(loss.detach(), want)
    loss.backward()
    assert all(p.grad is None for p in projector.parameters()) and not projector.training
    before = {name: value.clone() for name, value in projector.state_dict().items()}
    trainer.train()
    assert all(torch.equal(before[name], value) for name, value in projector.state_dict().items())


def test_student_with_its_own_normalisation_gets_the_projectors_labels_of_the_same_crop(tmp_path):
    mine, clips = Normalizer((0.3,) * 3, (0.2,) * 3), Normalizer((0.5,) * 3, (0.5,) * 3)
    projector = toys.adapted(noise=0.3).eval()
    trainer = student_trainer(
        tmp_path,
        SameView(projector, mine, clips, size=8),
        MixCollator(DistilledCollator(8, mine), MixSampler(1.0, kind="cutmix", seed="torch")),
        distill_images(toys.images(), lambda b: b["pixel_values"].mean((-1, -2)), ipc=2, factor=2, size=16),
        soft_loss="kl",
        temperature=20.0,
        hard_label_weight=0.1,
        num_train_epochs=2,
    )
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    targets = trainer.soft_targets(batch)
    with torch.no_grad():
        want = projector(clips(mine.undo(batch["pixel_values"]))).logits
    torch.testing.assert_close(targets.logits, want, atol=1e-5, rtol=1e-5)
    trainer.train()
    losses = [entry["train_loss"] for entry in trainer.state.log_history if "train_loss" in entry]
    assert losses and 0 < losses[0] < 100


def test_a_store_of_kind_projector_gives_the_same_targets(tmp_path):
    projector = toys.adapted(noise=0.3)
    store = SoftLabelStore.from_projector("me/p", 3, id2label=dict(enumerate(toys.NAMES))).attach(projector)
    one, two = student_trainer(tmp_path, projector), student_trainer(tmp_path, store)
    batch = batch_of(one)
    assert torch.equal(one.soft_targets(batch).logits, two.soft_targets(batch).logits)
