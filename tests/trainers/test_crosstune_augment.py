"""CrossTune with a language model that writes texts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_labels.lm import Budget, ScriptedLM
from hf_labels.trainers.crosstune import CrossTuneTrainer, CrossTuneTrainingArguments
from tiny_crosstune_runs import StopAt, make_trainer, same, weights_of
from tiny_text import DESCRIPTIONS, text_dataset

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))


class _Lines(ScriptedLM):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.capabilities = frozenset({"generate"})  # no JSON mode: texts come as lines


def _lm(**options):
    spots = ["oily spots on skin", "awake at night in bed", "OILY  spots on skin", "", "oily skin and spots one"]
    rules = [
        ("acne", "\n".join(f"- {text}" for text in spots)),
        ("insomnia", '["tired and awake at night", "awake in the bed", "bed"]'),
        ("migraine", "1. the head hurts bad\n2) ache in the head"),
    ]
    return _Lines([(rf"Topic of every text: {name}", answer) for name, answer in rules], **options)


def _teacher(texts):
    words = {"skin": 0, "spots": 0, "night": 1, "bed": 1, "head": 2}
    rows = np.full((len(texts), 3), 0.1)
    for i, text in enumerate(texts):
        rows[i, next((label for word, label in words.items() if word in text.split()), 0)] = 0.8
    return rows


def _augmented(folder, **options):
    lm = options.pop("lm", None) or _lm()
    settings = {"generated_per_class": 5, "teacher": _teacher, "dev": text_dataset(3), **options}
    trainer = make_trainer(folder, augment_with=lm, **settings)
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


def test_json_answers_and_what_is_no_json_after_all(tmp_path):
    answer = json.dumps({"texts": ["the head hurts  bad", "ache in the head"]})
    lm = ScriptedLM([("Topic of every text: migraine", answer), (".", "- awake at night in bed")])
    report = _augmented(tmp_path, lm=lm, switch="none").augmentation_report
    assert [item.text for item in report.kept if item.label == 2] == ["the head hurts bad", "ache in the head"]
    assert "awake at night in bed" in {item.text for item in report.texts}


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
    lm = _Lines([(".", "")])
    with_lm = _augmented(tmp_path / "a", lm=lm)
    without = make_trainer(tmp_path / "b", dev=text_dataset(3))
    without.train()
    assert not with_lm.augmentation_report.used and with_lm.augmentation_report.counts()["acne"]["kept"] == 0
    assert same(weights_of(with_lm), weights_of(without))


def test_exhausted_budget_keeps_what_was_written(tmp_path):
    lm = _lm(budget=Budget(max_calls=1), batch_size=1)
    report = _augmented(tmp_path, lm=lm).augmentation_report
    assert report.stopped and report.counts()["acne"]["generated"] == 5
    assert report.counts()["migraine"]["generated"] == 0


def test_resumed_run_takes_the_texts_of_the_interrupted_one(tmp_path):
    options = {"save_strategy": "epoch", "num_train_epochs": 6}
    straight = _augmented(tmp_path / "a", **options)
    first = make_trainer(
        tmp_path / "b", augment_with=_lm(), teacher=_teacher, dev=text_dataset(3), generated_per_class=5, **options
    )
    first.add_callback(StopAt(2))
    first.train()
    silent = _Lines([])  # any question raises
    again = make_trainer(
        tmp_path / "b", augment_with=silent, teacher=_teacher, dev=text_dataset(3), generated_per_class=5, **options
    )
    again.train(resume_from_checkpoint=True)
    assert not silent.log and same(weights_of(straight), weights_of(again))
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


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_augment_alike_and_ask_once(tmp_path):
    code = f"""
import sys, json
sys.path[:0] = {[str(TESTS), str(TESTS / "trainers")]!r}
import torch
from pathlib import Path
from test_crosstune_augment import _lm, _teacher, make_trainer, text_dataset
lm = _lm()
trainer = make_trainer(Path({str(tmp_path)!r}) / "out", augment_with=lm, generated_per_class=5, dev=text_dataset(3),
                   per_device_train_batch_size=4, num_train_epochs=3)
assert trainer.args.world_size == 2
trainer.train()
state = {{k: v.tolist() for k, v in trainer.bare_model.state_dict().items()}}
report = json.loads(trainer.augmentation_report.to_json())
rank = trainer.args.process_index
Path({str(tmp_path)!r}, f"{{rank}}.json").write_text(json.dumps([state, report, len(lm.log)]))
trainer.accelerator.wait_for_everyone()
trainer.accelerator.end_training()
"""
    (tmp_path / "script.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command += ["--rdzv_endpoint", "127.0.0.1:0", str(tmp_path / "script.py")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one[0] == two[0] and one[1] == two[1]
    assert one[2] == 3 and two[2] == 0  # only the main process asks
