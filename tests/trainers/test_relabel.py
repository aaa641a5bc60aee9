"""ReLabel training: the loss, CutMix and resume, learning where things are, settings."""

import pytest
import torch
from soft_view_toys import map_store, pictures, vit

import toys
from hf_labels.trainers.relabel import ReLabelTrainer, ReLabelTrainingArguments

DATA = pictures(12)


def _trainer(folder, maps=None, **options):
    settings = {"crop_size": 8, "crop_scale": [0.2, 1.0], "logging_steps": 1}
    args = ReLabelTrainingArguments(**toys.quick(folder, **settings | options))
    return ReLabelTrainer(vit(), args, train_dataset=DATA, eval_dataset=DATA, label_maps=maps or map_store(DATA))


def test_loss_is_soft_cross_entropy_with_the_pooled_label(tmp_path):
    trainer = _trainer(tmp_path, max_steps=1, per_device_train_batch_size=12)
    before = toys.weights(trainer.model)
    trainer.train()
    trainer.model.load_state_dict(before)
    trainer.data_collator.set_epoch(0)
    batch = trainer.data_collator([DATA[n] for n in range(12)])
    with torch.no_grad():
        log_p = trainer.model(batch["pixel_values"]).logits.log_softmax(-1)
    want = -(batch["soft_labels"] * log_p).sum(1).mean()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(want.item(), abs=2e-4)


def test_cutmix_resumes_exactly_and_is_off_in_the_last_epochs(tmp_path):
    options = {"cutmix_alpha": 1.0, "cutmix_off_epochs": 1, "num_train_epochs": 3, "save_strategy": "epoch"}
    straight = _trainer(tmp_path / "a", **options)
    seen = []
    collate = straight.data_collator._cutmix
    straight.data_collator._cutmix = lambda batch: (seen.append(int(straight.data_collator._epoch)), collate(batch))
    straight.train()
    assert set(seen) == {0, 1} and straight.data_collator.cutmix_epochs == 2
    again = _trainer(tmp_path / "a", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    toys.assert_same(toys.weights(straight.model), toys.weights(again.model), atol=1e-6)
    by_steps = _trainer(tmp_path / "b", max_steps=7, cutmix_alpha=1.0, cutmix_off_epochs=1)
    by_steps.train()
    assert by_steps.data_collator.cutmix_epochs == 2  # 3 steps an epoch: 7 steps begin a third one


def test_bad_settings_are_named(tmp_path):
    quick = toys.quick(tmp_path)
    for options, message in (
        ({"crop_scale": [0.5, 0.2]}, "`crop_scale` must be two rising positive numbers"),
        ({"crop_ratio": [0.0, 1.0]}, "`crop_ratio` must be two rising positive numbers"),
        ({"pooling": "cell"}, "`pooling` must be crop or image"),
        ({"cutmix_alpha": -1.0}, "`cutmix_alpha` and `cutmix_off_epochs` must be 0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            ReLabelTrainingArguments(**quick | options)
    with pytest.raises(ValueError, match="Give `label_maps`"):
        ReLabelTrainer(vit(), ReLabelTrainingArguments(**quick), train_dataset=DATA)
    with pytest.raises(TypeError, match="must be ReLabelTrainingArguments"):
        ReLabelTrainer(vit(), toys, label_maps=map_store(DATA))
    with pytest.raises(KeyError, match="no soft label for example 77"):
        _trainer(tmp_path, map_store(DATA.select(range(11)))).train()
