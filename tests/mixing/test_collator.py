"""`MixCollator`: what it does to a batch, and inside a `SoftLabelTrainer`."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F

from hf_labels.data.collators import LabelCollator
from hf_labels.mixing import MixCollator, MixedLabels, MixSampler
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments
from toys import tiny_vit


def _rows(count=12, soft=False, seed=0):
    rng = np.random.default_rng(seed)
    columns = {"pixel_values": rng.normal(size=(count, 1, 8, 8)).astype(np.float32)}
    columns["labels"] = np.arange(count) % 3
    if soft:
        columns["soft_labels"] = rng.dirichlet(np.ones(3), count).astype(np.float32)
    return Dataset.from_dict(columns)


def test_hard_soft_and_float_labels():
    rows = [_rows(soft=True)[n] for n in range(6)]
    plain = LabelCollator()(rows)
    torch.manual_seed(0)
    mixed = MixCollator(LabelCollator(), MixSampler(kind="cutmix", seed=4))(rows)
    plan = MixSampler(kind="cutmix", seed=4).draw(6, (8, 8))
    assert torch.equal(mixed["pixel_values"], plan.apply(plain["pixel_values"]))
    labels = MixedLabels.from_batch_fields(mixed)
    assert torch.equal(labels.y_b, plain["labels"][plan.perm]) and torch.equal(labels.lam, plan.lam)
    dense = MixedLabels(plain["soft_labels"], plain["soft_labels"][plan.perm], plan.lam).dense(3)
    torch.testing.assert_close(mixed["soft_labels"], dense)
    values = [{"features": [float(n)] * 4, "labels": float(n)} for n in range(6)]
    regress = MixCollator(LabelCollator(), MixSampler(seed=1), key="features")(values)
    torch.testing.assert_close(regress["labels"], regress["features"][:, 0])


def test_what_cannot_be_mixed_is_named():
    mix = MixCollator(LabelCollator(), MixSampler(seed=0))
    with pytest.raises(KeyError, match=r"no `pixel_values` to mix. It has: input_ids"):
        mix([{"input_ids": [1, 2]}] * 2)
    with pytest.raises(TypeError, match="Normalise images to float"):
        mix([{"pixel_values": [[[1, 2]]]}] * 2)
    with pytest.raises(ValueError, match=r"`SoftLabelCollator\(dense=True\)`"):
        mix([{"pixel_values": [[[1.0]]], "soft_label_ids": [0], "soft_label_values": [1.0]}] * 2)


def _trainer(tmp_path, data, collator=None, **options):
    settings = dict(report_to=[], use_cpu=True, save_strategy="no", per_device_train_batch_size=4, disable_tqdm=True)
    args = SoftLabelTrainingArguments(str(tmp_path), **settings | options)
    return SoftLabelTrainer(tiny_vit(), args, collator, train_dataset=data, eval_dataset=data)


def test_trainer_mixes_hard_and_soft_targets_in_training_only(tmp_path):
    data = _rows(soft=True)
    run = _trainer(
        tmp_path, data, MixCollator(LabelCollator(), MixSampler(kind="mixup")), hard_label_weight=0.5, max_steps=1
    )
    plain = _trainer(tmp_path, data, hard_label_weight=0.5, max_steps=1)
    batch = run.data_collator([data[n] for n in range(4)])
    logits = run.model(batch["pixel_values"]).logits
    want = F.cross_entropy(logits, batch["soft_labels"])
    want = want + 0.5 * MixedLabels.from_batch_fields(batch).cross_entropy(logits)
    torch.testing.assert_close(run.compute_loss(run.model, batch), want)
    assert run.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    run.train()
    assert np.isfinite(run.state.log_history[-1]["train_loss"])


def test_resumed_run_mixes_as_an_uninterrupted_one(tmp_path):
    def weights(run):
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    data = _rows(soft=True)
    collate = lambda: MixCollator(LabelCollator(), MixSampler(kind="both", seed="torch"), epochs=2)  # noqa: E731
    whole = _trainer(tmp_path / "whole", data, collate(), max_steps=8)
    whole.train()
    half = _trainer(tmp_path / "half", data, collate(), max_steps=8, save_strategy="steps", save_steps=4)
    half.train()
    again = _trainer(tmp_path / "half", data, collate(), max_steps=8)
    again.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-4"))
    assert torch.equal(weights(again), weights(whole))


def test_mixing_can_end_before_training_does():
    rows = [_rows()[n] for n in range(4)]
    mix = MixCollator(LabelCollator(), MixSampler(seed=0), epochs=2)
    for epoch, mixed in ((0, True), (1, True), (2, False)):
        mix.set_epoch(epoch)
        assert ("mix_lam" in mix(rows)) == mixed
