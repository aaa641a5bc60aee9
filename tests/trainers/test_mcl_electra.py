import re

import numpy as np
import pytest
import torch
from matrix_case import load_case
from mcl_electra_toys import save_stock
from transformers import BertConfig, BertForMaskedLM

from hf_labels.hub_cards import method_text, validate_card
from hf_labels.losses.mcl_electra import COURSES
from hf_labels.trainers.mcl_electra import (
    MCLElectraTrainer,
    MCLElectraTrainingArguments,
    label_balance_history,
    plot_label_balance,
)
from toys import assert_same, weights

CASE = load_case("mcl_electra")


def make(folder, courses=COURSES, schedule="joint", dropout=0.0, **settings):
    """The matrix trainer with other courses; their order and number do not change the weights it starts from."""
    trainer = CASE.make(folder, **settings)
    trainer.model.config.courses = list(courses)
    trainer.model.config.course_schedule = schedule
    for module in trainer.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return trainer


@pytest.mark.parametrize("schedule", ["joint", "round_robin"])
def test_resume_is_exact_with_all_courses_dropout_and_a_late_start(tmp_path, schedule):
    options = {"schedule": schedule, "dropout": 0.1, "max_steps": 6, "correction_start": 0.4}
    options |= {"save_strategy": "steps", "save_steps": 2, "num_train_epochs": 3}
    straight = make(tmp_path / "a", **options)
    straight.train()
    make(tmp_path / "b", **options).train()
    again = make(tmp_path / "b", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "b" / "out" / "checkpoint-4"))
    assert_same(weights(straight.model), weights(again.model))
    found = [sorted(k for k in e if k.endswith("balance")) for e in straight.state.log_history if "loss" in e]
    late = [sorted(k for k in e if k.endswith("balance")) for e in again.state.log_history if "loss" in e]
    assert found == late
    if schedule == "joint":
        assert [len(names) for names in found] == [3, 3, 3, 5, 5, 5], "corrections begin after 40% of 6 steps"
    else:
        courses = [name.removesuffix("_label_balance") for names in found for name in names]
        assert courses == ["rtd", "std", "itd", "re_rtd", "re_std", "rtd"]


def test_draws_differ_by_step_and_seed_and_not_by_batch(tmp_path):
    trainer = make(tmp_path / "a")
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    half = {name: value[4:] for name, value in batch.items()}
    first = trainer.noise(batch).uniform(5)
    assert torch.equal(trainer.noise(half).uniform(5), first[4:])
    trainer.state.global_step = 1
    assert not torch.equal(trainer.noise(batch).uniform(5), first)
    assert not torch.equal(make(tmp_path / "b", seed=1).noise(batch).uniform(5), first)


def test_five_courses_accumulate_with_all_tokens_in_the_mean(tmp_path):
    """With `correction_scope="all"` the discriminator's second loss has a fixed size too; the notebook's has not."""
    runs = []
    for rows, steps in ((8, 1), (2, 4)):
        trainer = make(tmp_path / str(rows), max_steps=1, per_device_train_batch_size=rows)
        trainer.args.gradient_accumulation_steps = steps
        trainer.model.config.correction_scope = "all"
        trainer.train()
        runs.append(trainer)
    one, two = (run.state.log_history[0] for run in runs)
    for name in ("rtd", "std", "itd"):
        assert one[f"{name}_disc_loss"] == pytest.approx(two[f"{name}_disc_loss"], rel=0.02)
    assert runs[0].disc_tokens == runs[1].disc_tokens, "the same tokens are read"


def test_it_learns_and_logs_every_course(tmp_path):
    trainer = make(tmp_path, num_train_epochs=12, logging_steps=4, adam_epsilon=1e-6)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for name in COURSES:
        assert all(0 <= entry[f"{name}_label_balance"] <= 1 for entry in logs)
        if name != "itd":
            assert np.isfinite([entry[f"{name}_gen_loss"] for entry in logs]).all()
    for name in ("rtd_gen_loss", "std_gen_loss", "itd_disc_loss"):
        assert logs[-1][name] < logs[0][name], name
    history = label_balance_history(trainer.state.log_history)
    assert list(history) == list(COURSES) and [step for step, _ in history["itd"]] == [e["step"] for e in logs]
    shares = [share for _, share in history["itd"]]
    assert max(shares) - min(shares) < 1e-3, "insertion keeps its share; batches mix rows of other lengths"
    picture = plot_label_balance(trainer.state.log_history, tmp_path / "balance.png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="logging_steps"):
        plot_label_balance([], tmp_path / "none.png")


def test_evaluation_repeats_and_gives_scores_and_labels(tmp_path):
    trainer = make(tmp_path, schedule="round_robin")
    seen = []
    trainer.compute_metrics = lambda p: seen.append((p.predictions, p.label_ids)) or {}
    one, two = trainer.evaluate(), trainer.evaluate()
    assert one["eval_loss"] == two["eval_loss"]
    assert all(f"eval_{name}_disc_loss" in one for name in COURSES), "all courses, whatever the schedule"
    scores, labels = seen[0]
    assert scores.shape == labels.shape and set(np.unique(labels)) == {-100, 0, 1}


def test_bad_settings_and_models_are_named(tmp_path):
    for options, message in (({"correction_start": 1.0}, "correction_start"), ({"push_part": "head"}, "push_part")):
        with pytest.raises(ValueError, match=message):
            MCLElectraTrainingArguments(str(tmp_path), **options)
    with pytest.raises(TypeError, match="got BertForMaskedLM.*from_electra"):
        MCLElectraTrainer(BertForMaskedLM(BertConfig(num_hidden_layers=1, vocab_size=9, hidden_size=12)))


def test_what_is_exported_is_chosen(tmp_path):
    for part, architecture in (("discriminator", "ElectraModel"), ("generator", "ElectraForMaskedLM")):
        trainer = make(tmp_path / part, push_part=part)
        trainer.export(tmp_path / f"{part}-folder")
        text = (tmp_path / f"{part}-folder" / "config.json").read_text()
        assert f'"{architecture}"' in text and "mcl" not in text


def test_usage_and_loading_of_the_card_run_as_written(tmp_path, monkeypatch, capsys):
    save_stock(tmp_path, "g", "d")
    monkeypatch.chdir(tmp_path)
    method = method_text("mcl_electra")
    code, first = re.subn(r'(?m)^generator = "[^"]+"', "generator = 'g'", method.usage_code)
    code, second = re.subn(r'(?m)^discriminator = "[^"]+"', "discriminator = 'd'", code)
    assert first == second == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    shown = capsys.readouterr().out
    assert "[0, 1]" in shown and "torch.Size([1, 3])" in shown
    assert (tmp_path / "out" / "label_balance.png").exists()
    exec(compile(method.loading_code("out/encoder"), "loading", "exec"), {})
    assert "torch.Size([1, " in capsys.readouterr().out
    trainer = run["trainer"]
    trainer.create_model_card(model_name="mcl")
    folder = tmp_path / "out" / "re_std"
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, folder, slug="mcl_electra") == [] and "2305.03981" in card
