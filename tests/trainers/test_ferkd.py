"""FerKD training: what is logged and counted, SelfMix and resume, offline against online, settings."""

import pytest
import torch
from soft_view_toys import pictures, view_store, vit

import toys
from hf_labels.data.ferkd import FerKDCalibrator
from hf_labels.labels.ferkd import UNINFORMATIVE
from hf_labels.trainers.ferkd import FerKDTrainer, FerKDTrainingArguments

DATA = pictures(12)
QUANTILES = [0.1, 0.5, 0.9]


def _trainer(folder, store=None, model=None, **options):
    settings = {"views_per_example": 3, "quantiles": QUANTILES, "self_mix_prob": 0.0, "logging_steps": 1}
    args = FerKDTrainingArguments(**toys.quick(folder, **settings | options))
    return FerKDTrainer(
        model or vit(), args, train_dataset=DATA, eval_dataset=DATA, soft_label_store=store or view_store(DATA)
    )


def test_loss_is_the_mean_over_kept_views_and_shares_are_logged(tmp_path):
    trainer = _trainer(tmp_path, max_steps=1, per_device_train_batch_size=12)
    before = toys.weights(trainer.model)
    trainer.train()
    log = trainer.state.log_history[0]
    trainer.model.load_state_dict(before)
    trainer.data_collator.set_epoch(0)
    batch = trainer.data_collator([DATA[n] for n in range(12)])
    keep = batch["soft_label_region"] != UNINFORMATIVE
    assert 0 < keep.sum() < 36
    with torch.no_grad():
        log_p = trainer.model(batch["pixel_values"]).logits.log_softmax(-1)
    ids, values = batch["soft_label_ids"], batch["soft_label_values"]
    rest = (1 - values.sum(1, keepdim=True)).expand(-1, 3)  # two of three classes are stored
    target = rest.scatter(1, ids, values)
    want = -(target * log_p).sum(1)[keep].mean()
    assert log["loss"] == pytest.approx(want.item(), abs=2e-4)
    assert log["kept"] == pytest.approx(keep.float().mean().item(), abs=1e-4)
    assert log["hard_region"] == pytest.approx((batch["soft_label_region"] == 1).float().mean().item(), abs=1e-4)


def test_a_batch_of_dropped_views_moves_nothing(tmp_path):
    trainer = _trainer(tmp_path, max_steps=2, weight_decay=0.0)
    trainer.data_collator.found.regions.zero_()
    before = toys.weights(trainer.model)
    trainer.train()
    toys.assert_same(before, toys.weights(trainer.model))
    assert trainer.state.log_history[0]["loss"] == 0 and trainer.state.log_history[0]["kept"] == 0


def test_self_mix_resumes_exactly(tmp_path):
    options = {"self_mix_prob": 1.0, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    straight = _trainer(tmp_path / "a", **options)
    straight.train()
    again = _trainer(tmp_path / "a", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    toys.assert_same(toys.weights(straight.model), toys.weights(again.model), atol=1e-6)
    plain = _trainer(tmp_path / "b", max_steps=4)
    plain.train()
    moved = toys.weights(plain.model)["classifier.weight"] - toys.weights(straight.model)["classifier.weight"]
    assert moved.abs().max() > 1e-6, "SelfMix did nothing"


def test_a_calibrated_store_trains_and_its_thresholds_are_on_the_card(tmp_path):
    smaller = FerKDCalibrator(quantiles=tuple(QUANTILES)).apply(view_store(DATA))
    trainer = _trainer(tmp_path, smaller, max_steps=2)
    trainer.train()
    assert "kept" not in trainer.state.log_history[0] and trainer.state.log_history[0]["loss"] > 0
    trainer.create_model_card(model_name="m")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "2312.17473" in card
    assert f"{smaller.info.extra['ferkd']['t_mid']:.4f}".rstrip("0") in card


def test_evaluation_is_plain_cross_entropy_on_whole_images(tmp_path):
    trainer = _trainer(tmp_path)
    metrics = trainer.evaluate()
    batch = trainer.data_collator.evaluation_collator([DATA[n] for n in range(12)])
    with torch.no_grad():
        want = torch.nn.functional.cross_entropy(trainer.model(batch["pixel_values"]).logits, batch["labels"])
    assert metrics["eval_loss"] == pytest.approx(want.item(), abs=1e-5)


def test_bad_settings_are_named(tmp_path):
    quick = toys.quick(tmp_path)
    for options, message in (
        ({"views_per_example": 0}, "`views_per_example` must be at least 1"),
        ({"t_low": 0.5, "t_mid": 0.4, "t_top": 0.9}, "Thresholds must rise"),
        ({"t_low": 0.5}, "or none of them"),
        ({"epsilon": 1.0}, "`epsilon` must be in"),
        ({"quantiles": [0.1, 0.2]}, "`quantiles` must be three numbers"),
        ({"quantiles": [0.5, 0.2, 0.9]}, "`quantiles` must rise"),
        ({"self_mix_prob": 1.5}, "`self_mix_prob` must be in"),
        ({"confidence": "mean"}, "`confidence` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            FerKDTrainingArguments(**quick | options)
    with pytest.raises(ValueError, match="Give `soft_label_store`"):
        FerKDTrainer(vit(), FerKDTrainingArguments(**quick), train_dataset=DATA)
    with pytest.raises(TypeError, match="must be FerKDTrainingArguments"):
        FerKDTrainer(vit(), toys, soft_label_store=view_store(DATA))
    other = view_store(DATA, id2label={0: "left", 1: "wrong", 2: "both"})
    with pytest.raises(ValueError, match="Class 1 is 'wrong' in the store and 'right' in the model"):
        _trainer(tmp_path, other).train()
    wide = vit()
    wide.config.id2label = {n: str(n) for n in range(5)}
    with pytest.raises(ValueError, match="The store has 3 classes, the model 5"):
        _trainer(tmp_path, model=wide).train()
