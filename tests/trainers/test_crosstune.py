import logging
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset

from hf_labels.losses.crosstune import crosstune_loss
from tiny_crosstune_runs import StopAt, make_trainer, same, weights_of
from tiny_text import DESCRIPTIONS, TEXTS, text_dataset, tiny_crosstune

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))


def test_training_lowers_the_loss_and_never_touches_the_backbone(tmp_path):
    trainer = make_trainer(tmp_path, dev=text_dataset(6), num_train_epochs=60, learning_rate=0.1)
    backbone = {k: v.clone() for k, v in trainer.model.backbone.state_dict().items()}
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.5 * before["eval_loss"] and after["eval_accuracy"] == 1
    assert {"eval_f1_macro", "eval_ece", "eval_nll"} <= set(after)
    assert same(backbone, trainer.model.backbone.state_dict())
    assert {name for name, p in trainer.model.named_parameters() if p.requires_grad} == {
        "query.weight",
        "query.bias",
        "key.weight",
    }


def test_steps_equal_adamw_written_by_hand(tmp_path):
    model = tiny_crosstune(dropout=0.0)
    features, labels = torch.tensor(model.encoder.encode(text_dataset()["text"][:])), text_dataset()["labels"][:]
    twin = tiny_crosstune(dropout=0.0)
    trainer = make_trainer(tmp_path, model=model, lr_scheduler_type="constant", max_grad_norm=0.0, num_train_epochs=3)
    trainer.train()
    rows = [p for n, p in twin.named_parameters() if p.requires_grad]
    decay = [p for p in rows if p.ndim == 2]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": [twin.query.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        crosstune_loss(twin.head(features), torch.tensor(labels)).backward()
        optimizer.step()
    assert same(weights_of(trainer), twin.state_dict(), atol=1e-5)


def test_features_are_encoded_once_and_cached(tmp_path):
    calls = []
    model = tiny_crosstune()
    encode = model.encoder.encode

    def counted(texts, batch_size=32):
        calls.extend(texts)
        return encode(texts, batch_size)

    model.encoder.encode = counted
    trainer = make_trainer(tmp_path / "a", model=model, dev=text_dataset(4))
    trainer.train()
    trainer.evaluate(text_dataset(6))
    distinct = set(text_dataset(8)["text"][:])
    assert sorted(calls) == sorted(distinct)
    make_trainer(tmp_path / "b", model=model).train()
    assert len(calls) == len(distinct)


def test_given_features_are_used_as_they_are(tmp_path):
    data = text_dataset()
    model = tiny_crosstune()
    rows = model.encoder.encode(data["text"][:])
    one = make_trainer(tmp_path / "a", model=tiny_crosstune())
    one.train()
    given = data.remove_columns("text").add_column("features", list(rows))
    model._encoder = None  # a black box that is not at hand any more
    two = make_trainer(tmp_path / "b", train=given, model=model)
    two.train()
    assert same(weights_of(one), weights_of(two), atol=1e-6)
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match="features of train_dataset.*row 3"):
        make_trainer(tmp_path, train=data.remove_columns("text").add_column("features", list(rows)))


def test_labels_as_names_or_in_another_order_mean_the_same(tmp_path):
    data = text_dataset()
    plain = make_trainer(tmp_path / "a")
    order = ["migraine", "acne", "insomnia"]
    names = [list(DESCRIPTIONS)[i] for i in data["labels"][:]]
    shuffled = data.remove_columns("labels").add_column("labels", [order.index(name) for name in names])
    shuffled = shuffled.cast_column("labels", ClassLabel(names=order))
    as_text = data.remove_columns("labels").add_column("labels", names)
    for other in (shuffled, as_text):
        trainer = make_trainer(tmp_path / "b", train=other)
        assert trainer.train_dataset["labels"][:] == plain.train_dataset["labels"][:]
    foreign = data.cast_column("labels", ClassLabel(names=["acne", "flu", "migraine"]))
    with pytest.raises(ValueError, match="flu"):
        make_trainer(tmp_path, train=foreign)


def test_missing_labels_and_classes_without_a_text(tmp_path, caplog):
    data = Dataset.from_dict({"text": [t for t, _ in TEXTS], "labels": [0, 0, 1, 1, -1, -1, 0, 1]})
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        trainer = make_trainer(tmp_path / "a", train=data)
        trainer.train()
    assert "No labelled text for: ['migraine']" in caplog.text
    fewer = make_trainer(tmp_path / "b", train=data.select([0, 1, 2, 3, 6, 7]))
    fewer.model.dropout.p = trainer.model.dropout.p = 0.0
    assert trainer.model.predict(["bad pain"], top_k=None)[0]


def test_best_epoch_is_kept_and_may_be_the_start(tmp_path):
    data = text_dataset()
    wrong = data.remove_columns("labels").add_column("labels", [(i + 1) % 3 for i in data["labels"][:]])
    start = tiny_crosstune().state_dict()
    model = tiny_crosstune()
    right = [row[0]["label"] for row in model.predict(data["text"][:], top_k=1_000)]
    dev = data.remove_columns("labels").add_column("labels", right)  # what the untrained head already says
    trainer = make_trainer(tmp_path / "a", train=wrong, dev=dev, model=model, num_train_epochs=30)
    trainer.train()
    assert same(trainer.model.state_dict(), start)
    last = make_trainer(tmp_path / "b", train=wrong, dev=dev, num_train_epochs=30, select_by="none")
    last.train()
    assert not same(last.model.state_dict(), start) and last.method_state is None


def test_patience_stops_early(tmp_path):
    data = text_dataset()
    wrong = data.remove_columns("labels").add_column("labels", [(i + 1) % 3 for i in data["labels"][:]])
    trainer = make_trainer(tmp_path, train=wrong, dev=data, num_train_epochs=60, patience=3, select_by="loss")
    trainer.train()
    assert trainer.state.global_step < 60


def test_resume_selects_what_a_straight_run_selects(tmp_path):
    options = {"save_strategy": "epoch", "num_train_epochs": 8, "dev": text_dataset(6), "learning_rate": 0.05}
    straight = make_trainer(tmp_path / "a", **options)
    straight.train()
    first = make_trainer(tmp_path / "b", **options)
    first.add_callback(StopAt(3))
    first.train()
    again = make_trainer(tmp_path / "b", **options)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8
    assert same(weights_of(straight), weights_of(again))
    assert straight.method_state.score.tolist() == again.method_state.score.tolist()


def test_accumulation_with_uneven_missing_labels(tmp_path):
    data = Dataset.from_dict({"text": [t for t, _ in TEXTS], "labels": [0, -1, -1, 1, 2, 2, 0, -1]})
    weights = []
    for batch, steps in ((8, 1), (2, 4)):
        trainer = make_trainer(
            tmp_path / str(batch),
            train=data,
            model=tiny_crosstune(dropout=0.0),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            max_grad_norm=0.0,
        )
        trainer.train()
        weights.append(weights_of(trainer))
    assert same(*weights, atol=1e-5)


def test_evaluation_sets_may_be_several(tmp_path):
    dev = datasets.DatasetDict({"a": text_dataset(4), "b": text_dataset(6)})
    trainer = make_trainer(tmp_path, dev=dev)
    trainer.train()
    assert trainer.method_state is None
    assert {"eval_a_loss", "eval_b_loss"} <= set(trainer.evaluate())
    assert trainer.predict(text_dataset(5)).predictions.shape == (5, 3)
