import json
import logging

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from tiny_text import DESCRIPTIONS, TEXTS, text_dataset, tiny_crosstune
from transformers import TrainerCallback, set_seed

from hf_labels.lm import Budget, ScriptedLM
from hf_labels.losses.crosstune import crosstune_loss
from hf_labels.trainers.crosstune import CrossTuneTrainer, CrossTuneTrainingArguments


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))


def _trainer(folder, train=None, dev=None, model=None, **options):
    mine = {k: options.pop(k) for k in ("augment_with", "switch", "teacher", "exclude_texts") if k in options}
    set_seed(0)
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "num_train_epochs": 6,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "seed": 0,
    }
    args = CrossTuneTrainingArguments(**{**settings, **options})
    train = text_dataset() if train is None else train
    return CrossTuneTrainer(model or tiny_crosstune(), args, train_dataset=train, eval_dataset=dev, **mine)


def _weights(trainer):
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def _same(one, two, atol=0.0):
    return all(torch.allclose(one[k], two[k], rtol=0, atol=atol) for k in one)


def test_training_lowers_the_loss_and_never_touches_the_backbone(tmp_path):
    trainer = _trainer(tmp_path, dev=text_dataset(6), num_train_epochs=40)
    backbone = {k: v.clone() for k, v in trainer.model.backbone.state_dict().items()}
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < 0.5 * before["eval_loss"] and after["eval_accuracy"] == 1
    assert {"eval_f1_macro", "eval_ece", "eval_nll"} <= set(after)
    assert _same(backbone, trainer.model.backbone.state_dict())
    assert {name for name, p in trainer.model.named_parameters() if p.requires_grad} == {
        "query.weight",
        "query.bias",
        "key.weight",
    }


def test_steps_equal_adamw_written_by_hand(tmp_path):
    model = tiny_crosstune(dropout=0.0)
    features, labels = torch.tensor(model.encoder.encode(text_dataset()["text"][:])), text_dataset()["labels"][:]
    twin = tiny_crosstune(dropout=0.0)
    trainer = _trainer(tmp_path, model=model, lr_scheduler_type="constant", max_grad_norm=0.0, num_train_epochs=3)
    trainer.train()
    rows = [p for n, p in twin.named_parameters() if p.requires_grad]
    decay = [p for p in rows if p.ndim == 2]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": [twin.query.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        crosstune_loss(twin.head(features), torch.tensor(labels)).backward()
        optimizer.step()
    assert _same(_weights(trainer), twin.state_dict(), atol=1e-5)


def test_features_are_encoded_once_and_cached(tmp_path):
    calls = []
    model = tiny_crosstune()
    encode = model.encoder.encode

    def counted(texts, batch_size=32):
        calls.extend(texts)
        return encode(texts, batch_size)

    model.encoder.encode = counted
    trainer = _trainer(tmp_path / "a", model=model, dev=text_dataset(4))
    trainer.train()
    trainer.evaluate(text_dataset(6))
    distinct = set(text_dataset(8)["text"][:])
    assert sorted(calls) == sorted(distinct)
    _trainer(tmp_path / "b", model=model).train()
    assert len(calls) == len(distinct)


def test_given_features_are_used_as_they_are(tmp_path):
    data = text_dataset()
    model = tiny_crosstune()
    rows = model.encoder.encode(data["text"][:])
    one = _trainer(tmp_path / "a", model=tiny_crosstune())
    one.train()
    given = data.remove_columns("text").add_column("features", list(rows))
    model._encoder = None  # a black box that is not at hand any more
    two = _trainer(tmp_path / "b", train=given, model=model)
    two.train()
    assert _same(_weights(one), _weights(two), atol=1e-6)
    rows[3, 2] = np.nan
    with pytest.raises(ValueError, match="features of train_dataset.*row 3"):
        _trainer(tmp_path, train=data.remove_columns("text").add_column("features", list(rows)))


def test_labels_as_names_or_in_another_order_mean_the_same(tmp_path):
    data = text_dataset()
    plain = _trainer(tmp_path / "a")
    order = ["migraine", "acne", "insomnia"]
    names = [list(DESCRIPTIONS)[i] for i in data["labels"][:]]
    shuffled = data.remove_columns("labels").add_column("labels", [order.index(name) for name in names])
    shuffled = shuffled.cast_column("labels", ClassLabel(names=order))
    as_text = data.remove_columns("labels").add_column("labels", names)
    for other in (shuffled, as_text):
        trainer = _trainer(tmp_path / "b", train=other)
        assert trainer.train_dataset["labels"][:] == plain.train_dataset["labels"][:]
    foreign = data.cast_column("labels", ClassLabel(names=["acne", "flu", "migraine"]))
    with pytest.raises(ValueError, match="flu"):
        _trainer(tmp_path, train=foreign)


def test_missing_labels_and_classes_without_a_text(tmp_path, caplog):
    data = Dataset.from_dict({"text": [t for t, _ in TEXTS], "labels": [0, 0, 1, 1, -1, -1, 0, 1]})
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        trainer = _trainer(tmp_path / "a", train=data)
        trainer.train()
    assert "No labelled text for: ['migraine']" in caplog.text
    fewer = _trainer(tmp_path / "b", train=data.select([0, 1, 2, 3, 6, 7]))
    fewer.model.dropout.p = trainer.model.dropout.p = 0.0
    assert trainer.model.predict(["bad pain"], top_k=None)[0]


def test_best_epoch_is_kept_and_may_be_the_start(tmp_path):
    data = text_dataset()
    wrong = data.remove_columns("labels").add_column("labels", [(i + 1) % 3 for i in data["labels"][:]])
    start = tiny_crosstune().state_dict()
    model = tiny_crosstune()
    right = [row[0]["label"] for row in model.predict(data["text"][:], top_k=1_000)]
    dev = data.remove_columns("labels").add_column("labels", right)  # what the untrained head already says
    trainer = _trainer(tmp_path / "a", train=wrong, dev=dev, model=model, num_train_epochs=30)
    trainer.train()
    assert _same(trainer.model.state_dict(), start)
    last = _trainer(tmp_path / "b", train=wrong, dev=dev, num_train_epochs=30, select_by="none")
    last.train()
    assert not _same(last.model.state_dict(), start) and last.method_state is None


def test_patience_stops_early(tmp_path):
    data = text_dataset()
    wrong = data.remove_columns("labels").add_column("labels", [(i + 1) % 3 for i in data["labels"][:]])
    trainer = _trainer(tmp_path, train=wrong, dev=data, num_train_epochs=60, patience=3, select_by="loss")
    trainer.train()
    assert trainer.state.global_step < 60


class _StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_resume_selects_what_a_straight_run_selects(tmp_path):
    options = {"save_strategy": "epoch", "num_train_epochs": 8, "dev": text_dataset(6), "learning_rate": 0.05}
    straight = _trainer(tmp_path / "a", **options)
    straight.train()
    first = _trainer(tmp_path / "b", **options)
    first.add_callback(_StopAt(3))
    first.train()
    again = _trainer(tmp_path / "b", **options)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8
    assert _same(_weights(straight), _weights(again))
    assert straight.method_state.score.tolist() == again.method_state.score.tolist()


def test_accumulation_with_uneven_missing_labels(tmp_path):
    data = Dataset.from_dict({"text": [t for t, _ in TEXTS], "labels": [0, -1, -1, 1, 2, 2, 0, -1]})
    weights = []
    for batch, steps in ((8, 1), (2, 4)):
        trainer = _trainer(
            tmp_path / str(batch),
            train=data,
            model=tiny_crosstune(dropout=0.0),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            max_grad_norm=0.0,
        )
        trainer.train()
        weights.append(_weights(trainer))
    assert _same(*weights, atol=1e-5)


# Augmentation


def _lm(**options):
    rules = [
        (
            "acne",
            "- oily spots on skin\n- awake at night in bed\n- OILY  spots on skin\n- \n- oily skin and spots one",
        ),
        ("insomnia", '["tired and awake at night", "awake in the bed", "bed"]'),
        ("migraine", "1. the head hurts bad\n2) ache in the head"),
    ]
    return ScriptedLM([(rf"Topic of every text: {name}", answer) for name, answer in rules], **options)


def _teacher(texts):
    words = {"skin": 0, "spots": 0, "night": 1, "bed": 1, "head": 2}
    rows = np.full((len(texts), 3), 0.1)
    for i, text in enumerate(texts):
        rows[i, next((label for word, label in words.items() if word in text.split()), 0)] = 0.8
    return rows


def _augmented(folder, **options):
    lm = options.pop("lm", None) or _lm()
    settings = {"generated_per_class": 5, "teacher": _teacher, "dev": text_dataset(3), **options}
    trainer = _trainer(folder, augment_with=lm, **settings)
    trainer.train()
    return trainer


def test_switch_by_example_keeps_what_the_teacher_agrees_with(tmp_path):
    trainer = _augmented(tmp_path)
    counts = trainer.augmentation_report.counts()
    assert counts["acne"] == {
        "asked": 5,
        "generated": 5,
        "kept": 1,
        "copy": 1,
        "disagrees": 1,
        "duplicate": 1,
        "empty": 1,
    }
    assert counts["insomnia"] == {"asked": 5, "generated": 3, "kept": 2, "short": 1}
    assert counts["migraine"] == {"asked": 5, "generated": 2, "kept": 2}
    assert len(trainer.train_dataset) == 8 + 5
    assert trainer.train_dataset["labels"][8:] == [0, 1, 1, 2, 2]
    assert "1 copy" in str(trainer.augmentation_report)


def test_demonstrations_are_shots_of_the_class_and_at_most_as_many_as_asked(tmp_path):
    lm = _lm()
    _augmented(tmp_path, lm=lm, demos=2)
    prompts = {request.metadata["label"]: request.messages[-1].text for request in lm.log}
    texts, labels = text_dataset()["text"][:], text_dataset()["labels"][:]
    for label, name in enumerate(DESCRIPTIONS):
        shown = [text for text in texts if f"- {text}" in prompts[name]]
        assert len(shown) == 2 and all(labels[texts.index(text)] == label for text in shown)
        assert DESCRIPTIONS[name] in prompts[name]


def test_no_dev_or_excluded_text_comes_back(tmp_path):
    dev = Dataset.from_dict({"text": ["Tired and awake at  night", "oily face"], "labels": [1, 0]})
    report = _augmented(tmp_path, dev=dev, exclude_texts=["ache in the head"]).augmentation_report
    copies = {item.text for item in report.texts if item.dropped == "copy"}
    assert copies == {"tired and awake at night", "ache in the head", "oily skin and spots one"}


def test_min_prob_top_k_and_weight(tmp_path):
    report = _augmented(tmp_path / "a", min_prob=0.9).augmentation_report
    assert not report.used and report.counts()["insomnia"]["unsure"] == 2
    one = _augmented(tmp_path / "b", top_k=1, aug_weight=0.25)
    assert one.augmentation_report.counts()["migraine"] == {"asked": 5, "generated": 2, "kept": 1, "rank": 1}
    assert one.train_dataset["sample_weight"][:] == [1.0] * 8 + [0.25] * 3


def test_default_teacher_is_the_head_trained_on_the_shots(tmp_path):
    trainer = _augmented(tmp_path, teacher=None, num_train_epochs=40)
    kept = {(item.text, item.label) for item in trainer.augmentation_report.kept}
    assert ("the head hurts bad", 2) in kept and ("awake at night in bed", 0) not in kept


def test_switch_by_data_set_compares_on_dev_and_prefers_without(tmp_path):
    report = _augmented(tmp_path / "a", switch="dataset", num_train_epochs=1, learning_rate=1e-9).augmentation_report
    assert set(report.dev_scores) == {"with", "without"}
    assert report.dev_scores["with"] == report.dev_scores["without"] and not report.used
    assert all(item.dropped for item in report.texts)
    with pytest.raises(ValueError, match="eval_dataset"):
        _augmented(tmp_path / "b", switch="dataset", dev=None, select_by="none")


def test_without_switch_everything_clean_is_used(tmp_path):
    trainer = _augmented(tmp_path, switch="none")
    assert len(trainer.augmentation_report.kept) == 6 and len(trainer.train_dataset) == 8 + 6


def test_nothing_generated_is_the_same_as_no_language_model(tmp_path):
    lm = ScriptedLM([(".", "")])
    with_lm = _augmented(tmp_path / "a", lm=lm)
    without = _trainer(tmp_path / "b", dev=text_dataset(3))
    without.train()
    assert not with_lm.augmentation_report.used and with_lm.augmentation_report.counts()["acne"]["kept"] == 0
    assert _same(_weights(with_lm), _weights(without))


def test_exhausted_budget_keeps_what_was_written(tmp_path):
    lm = _lm(budget=Budget(max_calls=1), batch_size=1)
    report = _augmented(tmp_path, lm=lm).augmentation_report
    assert report.stopped and report.counts()["acne"]["generated"] == 5
    assert report.counts()["migraine"]["generated"] == 0


def test_resumed_run_takes_the_texts_of_the_interrupted_one(tmp_path):
    options = {"save_strategy": "epoch", "num_train_epochs": 6}
    straight = _augmented(tmp_path / "a", **options)
    first = _trainer(
        tmp_path / "b", augment_with=_lm(), teacher=_teacher, dev=text_dataset(3), generated_per_class=5, **options
    )
    first.add_callback(_StopAt(2))
    first.train()
    silent = ScriptedLM([])  # any question raises
    again = _trainer(
        tmp_path / "b", augment_with=silent, teacher=_teacher, dev=text_dataset(3), generated_per_class=5, **options
    )
    again.train(resume_from_checkpoint=True)
    assert not silent.log and _same(_weights(straight), _weights(again))
    assert again.augmentation_report.to_json() == first.augmentation_report.to_json()


def test_bad_teacher_and_bad_options(tmp_path):
    with pytest.raises(ValueError, match=r"shape \(6, 3\), got \(6, 2\)"):
        _augmented(tmp_path, teacher=lambda texts: np.ones((len(texts), 2)))
    for option, message in (
        ({"switch": "sometimes"}, "switch"),
        ({"aug_weight": 0.0}, "aug_weight"),
        ({"min_prob": 2.0}, "min_prob"),
        ({"top_k": -1}, "top_k"),
        ({"generated_per_class": 0}, "generated_per_class"),
        ({"select_by": "f1"}, "select_by"),
        ({"patience": -1}, "patience"),
    ):
        with pytest.raises(ValueError, match=message):
            CrossTuneTrainingArguments(output_dir=str(tmp_path), **option)
    with pytest.raises(TypeError, match="from_backbone"):
        CrossTuneTrainer(torch.nn.Linear(2, 2), CrossTuneTrainingArguments(output_dir=str(tmp_path)))


def test_card_names_the_black_box_and_the_generated_texts(tmp_path):
    trainer = _augmented(tmp_path)
    trainer.model.config.backbone = "org/black-box"
    trainer.evaluate()
    trainer.create_model_card(model_name="tiny")
    card = (tmp_path / "README.md").read_text()
    for part in ("org/black-box", "frozen", "generated texts", "5 trained on", "2403.12468", "awake at night in bed"):
        assert part in card, part
    assert json.loads((tmp_path / "_augmentation.json").read_text())["switch"] == "example"


def test_evaluation_sets_may_be_several(tmp_path):
    dev = datasets.DatasetDict({"a": text_dataset(4), "b": text_dataset(6)})
    trainer = _trainer(tmp_path, dev=dev)
    trainer.train()
    assert trainer.method_state is None
    assert {"eval_a_loss", "eval_b_loss"} <= set(trainer.evaluate())
    assert trainer.predict(text_dataset(5)).predictions.shape == (5, 3)
