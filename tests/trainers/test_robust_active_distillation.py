"""The loop that buys soft labels: what it asks, what it keeps, what it reports, and that it resumes."""

import numpy as np
import pytest
import torch
from datasets import Dataset

import toys
from hf_labels.trainers.robust_active_distillation import ActiveDistillation
from hf_labels.trainers.soft_labels import SoftLabelTrainingArguments


def rows(count: int, seed: int = 0) -> Dataset:
    """Columns `input_ids`, `attention_mask`, `labels`, `index`; the first token tells the class."""
    return toys.text_dataset(count, seed=seed)


NOBODY = rows(4).remove_columns("labels").add_column("labels", [-1] * 4)


class Teacher:
    """Says 0.8 for the class of the first token; wrong on every fifth row id, which it keeps in `asked`."""

    def __init__(self, refuse: int | None = None):
        self.asked: list[int] = []
        self.refuse = refuse

    def __call__(self, batch):
        assert "labels" not in batch and "index" not in batch
        answers = []
        for tokens in batch["input_ids"]:
            self.asked.append(tokens[1])
            answer = np.full(3, 0.1)
            answer[(tokens[0] - 2 + (tokens[1] % 5 == 0)) % 3] = 0.8
            answers.append(answer if tokens[1] != self.refuse else None)
        return answers


def loop(folder, teacher=None, strategy="rad", **options):
    known = {"teacher_error": 0.2} if strategy == "rad" else {}
    args = SoftLabelTrainingArguments(**toys.quick(folder, learning_rate=1e-2, seed=3, num_train_epochs=2))
    settings = {"budget": 6, "rounds": 2, "args": args, "eval_dataset": rows(12, seed=9), **known} | options
    return ActiveDistillation(
        lambda: toys.tiny_bert(dropout=0.0),
        Teacher() if teacher is None else teacher,
        rows(9),
        rows(40, seed=5),
        output_dir=folder,
        strategy=strategy,
        **settings,
    )


@pytest.mark.parametrize("strategy", ["rad", "margin", "entropy", "coreset", "uniform"])
def test_every_strategy_buys_its_budget_and_reports(strategy, tmp_path):
    teacher = Teacher()
    run = loop(tmp_path, teacher, strategy)
    model = run.run()
    assert len(teacher.asked) == 12 and not model.training
    assert [entry["spent"] for entry in run.history] == [0, 6, 12]
    log = run.query_log
    assert len(set(log["index"][:])) == 12 and log["round"][:] == [0] * 6 + [1] * 6
    for entry in run.history[1:]:
        assert 0 <= entry["wrong_query_rate"] <= 1 and 0 <= entry["accuracy"] <= 1 and entry["loss"] > 0
    assert 0 <= run.area() <= 1
    inclusion = np.array(log["inclusion"][:])
    assert ((inclusion > 0) & (inclusion <= 1)).all() if strategy in ("rad", "uniform") else (inclusion == -1).all()
    if strategy == "rad":
        assert run.history[1]["num_errors"] == 8 and run.history[1]["k_star"] > 16  # 0.2 of 40; c K = 16


def test_wrong_rate_is_that_of_the_answers(tmp_path):
    run = loop(tmp_path, strategy="uniform", budget=[5, 5], rounds=None)
    run.run()
    user = np.random.default_rng(0)  # the user's own stream of the same seed (numpy: equal to that of [0, 0])
    assert sorted(run.query_log["index"][:5]) != np.sort(user.choice(40, size=5, replace=False)).tolist()
    pool = rows(40, seed=5)
    asked = [pool[row]["input_ids"][1] for row in run.query_log["index"][:]]
    assert run.history[-1]["wrong_query_rate"] == pytest.approx(np.mean([token % 5 == 0 for token in asked]))


def test_one_round_is_plain_soft_label_training(tmp_path):
    """Oracle: the same rows and labels, one-hot for the labelled ones, given to the trainer by hand."""
    from hf_labels.trainers.soft_labels import SoftLabelTrainer

    run = loop(tmp_path / "a", strategy="uniform", rounds=1)
    model = run.run()
    pool, teacher = rows(40, seed=5), Teacher()
    chosen = pool.select(sorted(run.query_log["index"][:]))
    first = rows(9)
    columns = {name: [*first[name], *chosen[name]] for name in ("input_ids", "attention_mask")}
    soft = [*np.eye(3)[first["labels"][:]], *teacher(chosen.remove_columns(["labels", "index"])[:])]
    data = Dataset.from_dict(columns | {"soft_labels": [list(map(float, row)) for row in soft]})
    args = SoftLabelTrainingArguments(**toys.quick(tmp_path / "b", learning_rate=1e-2, seed=3, num_train_epochs=2))
    by_hand = SoftLabelTrainer(toys.tiny_bert(dropout=0.0), args, train_dataset=data)
    by_hand.train()
    toys.assert_same(toys.weights(model), toys.weights(by_hand.model), atol=1e-6)


@pytest.mark.parametrize("warm", [False, True])
def test_interrupted_run_pays_nothing_twice_and_ends_the_same(warm, tmp_path, monkeypatch):
    straight = loop(tmp_path / "a", warm_start=warm).run()

    class Dies(Teacher):
        def __call__(self, batch):
            if len(self.asked) >= 8:
                raise KeyboardInterrupt
            return super().__call__(batch)

    cut = Dies()
    with pytest.raises(KeyboardInterrupt):
        loop(tmp_path / "b", cut, warm_start=warm).run()
    teacher = Teacher()
    again = loop(tmp_path / "b", teacher, warm_start=warm)
    model = again.run()
    assert len(cut.asked) + len(teacher.asked) == 12
    toys.assert_same(toys.weights(straight), toys.weights(model), atol=1e-6)
    silent = Teacher()
    done = loop(tmp_path / "b", silent, warm_start=warm)
    toys.assert_same(toys.weights(done.run()), toys.weights(model))
    assert not silent.asked and done.history == again.history and len(done.soft_labels()) == 12


def test_same_seed_same_queries_and_another_seed_others(tmp_path):
    logs = []
    for number, seed in enumerate((0, 0, 1)):
        run = loop(tmp_path / str(number), seed=seed, rounds=1)
        run.run()
        logs.append(run.query_log["index"][:])
    assert logs[0] == logs[1] != logs[2]


def test_error_rate_is_estimated_on_held_out_rows_once(tmp_path):
    teacher = Teacher()
    held = rows(23, seed=7)
    run = loop(tmp_path, teacher, teacher_error=None, holdout=held, rounds=1)
    run.run()
    wrong = sum(tokens[1] % 5 == 0 for tokens in held["input_ids"])
    assert run.history[1]["error_rate"] == pytest.approx((wrong + 1) / 25)
    assert len(teacher.asked) == 23 + 6
    assert run.history[1]["num_errors"] == int(np.ceil(40 * (wrong + 1) / 25))


def test_an_interrupted_check_of_the_teacher_goes_on_where_it_stopped(tmp_path):
    options = {"teacher_error": None, "holdout": rows(23, seed=7), "rounds": 1}

    class Dies(Teacher):
        def __call__(self, batch):
            if len(self.asked) >= 12:
                raise KeyboardInterrupt
            return super().__call__(batch)

    cut, teacher = Dies(), Teacher()
    with pytest.raises(KeyboardInterrupt):
        loop(tmp_path, cut, **options).run()
    again = loop(tmp_path, teacher, **options)
    again.run()
    assert len(cut.asked) == 12 and len(teacher.asked) == 11 + 6
    wrong = sum(tokens[1] % 5 == 0 for tokens in options["holdout"]["input_ids"])
    assert again.history[1]["error_rate"] == pytest.approx((wrong + 1) / 25)


def test_module_as_teacher_and_scores_of_a_part_of_the_pool(tmp_path):
    torch.manual_seed(5)
    run = loop(tmp_path, toys.tiny_bert(seed=4), max_scored=10, rounds=1)
    run.run()
    assert run.history[1]["candidates"] == 10 and run.history[1]["num_errors"] == 2
    assert torch.allclose(
        run.soft_labels().decode(run.soft_labels().lookup(run.query_log["index"][:])).sum(1).float(), torch.ones(6)
    )


@pytest.mark.parametrize("bad", [[0.5, float("nan"), 0.5], [0.5, 0.5], [0.9, 0.9, 0.9], None, "cat"])
def test_answers_that_cannot_be_used_are_spent_and_reported(bad, tmp_path, caplog):
    good = Teacher()

    def teacher(batch):
        answers = good(batch)
        answers[0] = bad
        return answers

    run = loop(tmp_path, teacher, rounds=1)
    run.run()
    assert run.history[1]["spent"] == 6 and run.history[1]["unanswered"] == 2  # batches of 4 and 2
    assert "1 of 4 answers of the teacher are left out" in caplog.text and len(run.soft_labels()) == 4


def test_a_pool_that_ends_and_a_budget_of_nothing(tmp_path):
    run = loop(tmp_path / "a", budget=30, rounds=3)
    run.run()
    assert [entry["spent"] for entry in run.history] == [0, 30, 40]
    nothing = loop(tmp_path / "b", budget=0, rounds=1)
    nothing.run()
    assert nothing.history[1]["spent"] == 0 and "wrong_query_rate" not in nothing.history[1]


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"strategy": "hardest"}, ValueError, "`strategy` must be one of rad, margin"),
        ({"gain": "loss"}, ValueError, "`gain` must be margin or entropy or a function"),
        ({"teacher_error": None}, ValueError, "`teacher_error` or `holdout`"),
        ({"holdout": "both"}, ValueError, "`teacher_error` or `holdout`"),
        ({"teacher_error": 1.2}, ValueError, r"error rate must be in \[0, 1\], got 1.2"),
        ({"teacher_error": None, "holdout": NOBODY}, ValueError, "has no label at all"),
        ({"args": "none"}, TypeError, "`args` must be SoftLabelTrainingArguments, got str"),
    ],
)
def test_bad_options_are_named(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        loop(tmp_path, **options)


@pytest.mark.parametrize(
    "labeled, pool, error, message",
    [
        (rows(9), rows(9).select([]), ValueError, "`pool` is empty"),
        (rows(9).remove_columns("labels"), rows(9), KeyError, "labels"),
        (rows(9).remove_columns("attention_mask"), rows(9), KeyError, "attention_mask"),
    ],
)
def test_bad_data_is_named(labeled, pool, error, message, tmp_path):
    with pytest.raises(error, match=message):
        ActiveDistillation(
            toys.tiny_bert, Teacher(), labeled, pool, output_dir=tmp_path, budget=1, rounds=1, teacher_error=0.1
        )


def test_nothing_labelled_and_a_student_that_is_no_pretrained_model(tmp_path):
    options = {"output_dir": tmp_path, "budget": 1, "rounds": 1, "teacher_error": 0.1}
    with pytest.raises(ValueError, match="has no label at all"):
        ActiveDistillation(toys.tiny_bert, Teacher(), NOBODY, rows(9), **options)
    with pytest.raises(TypeError, match="PreTrainedModel, got Linear"):
        ActiveDistillation(lambda: torch.nn.Linear(2, 3), Teacher(), rows(9), rows(9), **options)
