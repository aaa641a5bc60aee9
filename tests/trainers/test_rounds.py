"""Loops: what is finished is not done again, whatever the place of the interruption."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from toy_trainers import PlainTrainer
from transformers import BertForSequenceClassification

import toys
from hf_labels.trainers.base import LabelTrainingArguments
from hf_labels.trainers.rounds import Stage, fit_queries, fit_rounds, fit_stages, load_labels, save_labels


class Loop:
    """Rounds of a deterministic computation that can be cut off at a given call."""

    def __init__(self, stop_at=None, table=True):
        self.calls, self.stop_at, self.table = [], stop_at, table

    def _call(self, name, place):
        if self.stop_at == (name, place.number):
            raise KeyboardInterrupt
        self.calls.append((name, place.number))

    def estimate(self, state, place):
        self._call("estimate", place)
        values = np.arange(4) * 0.1 + state
        return Dataset.from_dict({"index": range(4), "value": values}) if self.table else {"value": values}

    def train(self, labels, place):
        self._call("train", place)
        state = float(np.asarray(labels["value"][:]).sum())
        (place.folder / "state.json").write_text(json.dumps(state))
        return state, {"total": np.float64(state)}

    def load(self, place):
        self.calls.append(("load", place.number))
        return json.loads((place.folder / "state.json").read_text())

    def run(self, folder, rounds=3, **options):
        return fit_rounds(self.estimate, self.train, rounds, folder, initial=1.0, load=self.load, **options)


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("stop_at", [("estimate", 0), ("train", 0), ("estimate", 1), ("train", 2)])
def test_rounds_resume_where_they_stopped(tmp_path, stop_at, table):
    whole = Loop(table=table).run(tmp_path / "whole")
    cut = Loop(stop_at, table)
    with pytest.raises(KeyboardInterrupt):
        cut.run(tmp_path / "part")
    again = Loop(table=table)
    result = again.run(tmp_path / "part")
    assert result.state == whole.state and result.history == whole.history
    done = [call for call in cut.calls + again.calls if call[0] != "load"]
    assert done == [(name, number) for number in range(3) for name in ("estimate", "train")]
    for number in range(3):
        folders = [tmp_path / run / f"round-{number:03d}" for run in ("whole", "part")]
        one, two = (np.asarray(load_labels(folder)["value"][:]) for folder in folders)
        np.testing.assert_array_equal(one, two)


def test_finished_rounds_are_only_loaded_and_more_can_follow(tmp_path):
    first = Loop().run(tmp_path)
    again = Loop()
    assert again.run(tmp_path).state == first.state and again.calls == [("load", 2)]
    more = Loop()
    assert len(more.run(tmp_path, rounds=4).history) == 4
    assert more.calls == [("load", 2), ("estimate", 3), ("train", 3)]
    early = Loop().run(tmp_path / "early", stop=lambda history: history[-1]["total"] > 10)
    assert len(early.history) == 2 and early.history[-1]["total"] > 10


def test_rounds_refuse_other_settings_and_bad_labels(tmp_path):
    Loop().run(tmp_path, settings={"threshold": 0.5})
    with pytest.raises(ValueError, match="threshold.*another `output_dir`"):
        Loop().run(tmp_path, settings={"threshold": 0.6})
    with pytest.raises(ValueError, match="rounds"):
        Loop().run(tmp_path / "a", rounds=0)
    with pytest.raises(TypeError, match="Dataset or a dict"):
        fit_rounds(lambda s, p: [1], lambda labels, p: None, 1, tmp_path / "b")
    loop = Loop()
    with pytest.raises(ValueError, match="pass `load=`"):
        fit_rounds(loop.estimate, loop.train, 3, tmp_path, settings={"threshold": 0.5})


def test_labels_round_trip(tmp_path):
    for number, labels in enumerate(
        ({"soft": np.eye(3, dtype=np.float32), "keep": torch.tensor([True, False])}, toys.text_dataset(5))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert load_labels(folder) is None
        save_labels(labels, folder)
        found = load_labels(folder)
        for name in labels if isinstance(labels, dict) else labels.column_names:
            np.testing.assert_array_equal(np.asarray(found[name][:]), np.asarray(labels[name][:]))
        assert not list(folder.glob("*.part"))


# Stages


def stages(log, stop_in=None, skip=False):
    def maker(name, rate):
        def make(model, place):
            log.append(name)
            if name == stop_in:
                raise KeyboardInterrupt
            if name == "middle" and skip:
                return None
            args = LabelTrainingArguments(
                **toys.quick(place.folder, learning_rate=rate, save_strategy="steps", save_steps=1)
            )
            return PlainTrainer(model, args, train_dataset=toys.text_dataset(12, seed=len(name)))

        return Stage(name, make)

    return [maker("first", 1e-3), maker("middle", 5e-4), maker("last-1", 1e-4)]


def test_stages_have_fresh_optimizers_and_resume_at_a_stage(tmp_path):
    whole = fit_stages(stages([]), tmp_path / "whole", model=toys.tiny_bert())
    assert [entry["steps"] for entry in whole.history] == [3, 3, 3]
    for name, rate in (("first", 1e-3), ("last-1", 1e-4)):
        state = json.loads((tmp_path / "whole" / name / "checkpoint-1" / "trainer_state.json").read_text())
        assert state["max_steps"] == 3 and state["global_step"] == 1
        saved = torch.load(tmp_path / "whole" / name / "checkpoint-1" / "optimizer.pt", weights_only=True)
        assert saved["param_groups"][0]["initial_lr"] == rate
        assert all(int(entry["step"]) == 1 for entry in saved["state"].values())
    log = []
    with pytest.raises(KeyboardInterrupt):
        fit_stages(stages(log, stop_in="last-1"), tmp_path / "part", model=toys.tiny_bert())
    part = fit_stages(stages(log), tmp_path / "part", model=toys.tiny_bert(seed=5))  # not trained: loaded
    assert log == ["first", "middle", "last-1", "last-1"]
    toys.assert_same(toys.weights(whole.state), toys.weights(part.state))
    assert part.history == whole.history
    again = fit_stages(stages(log), tmp_path / "part", model=toys.tiny_bert(seed=5))
    toys.assert_same(toys.weights(whole.state), toys.weights(again.state))
    loaded = BertForSequenceClassification.from_pretrained(tmp_path / "part" / "last-1" / "model")
    toys.assert_same(toys.weights(whole.state), toys.weights(loaded))


def test_stage_cut_off_in_the_middle_continues_from_its_checkpoint(tmp_path):
    import os
    import signal

    from transformers import TrainerCallback

    class CtrlC(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            if state.global_step == 1:
                os.kill(os.getpid(), signal.SIGINT)

    def interrupted(model, place):
        trainer = stages([])[0].make_trainer(model, place)
        trainer.add_callback(CtrlC)
        return trainer

    whole = fit_stages(stages([])[:1], tmp_path / "whole", model=toys.tiny_bert())
    with pytest.raises(KeyboardInterrupt, match="after step 2"):
        fit_stages([Stage("first", interrupted)], tmp_path / "part", model=toys.tiny_bert())
    part = fit_stages(stages([])[:1], tmp_path / "part", model=toys.tiny_bert())
    toys.assert_same(toys.weights(whole.state), toys.weights(part.state))


def test_stages_may_be_skipped_and_bad_ones_are_refused(tmp_path):
    result = fit_stages(stages([], skip=True), tmp_path / "a", model=toys.tiny_bert())
    assert result.history[1]["skipped"] is True
    with pytest.raises(ValueError, match="holds stages"):
        fit_stages(stages([])[:2], tmp_path / "a", model=toys.tiny_bert())
    with pytest.raises(ValueError, match="distinct names"):
        fit_stages([stages([])[0]] * 2, tmp_path / "b", model=toys.tiny_bert())
    used = PlainTrainer(
        toys.tiny_bert(), LabelTrainingArguments(**toys.quick(tmp_path / "u")), train_dataset=toys.text_dataset(8)
    )
    used.train()
    with pytest.raises(ValueError, match="already has an optimizer"):
        fit_stages([Stage("x", lambda model, place: used)], tmp_path / "c", model=toys.tiny_bert())


# Queries


class Buying:
    """A learner that wants the largest remaining ids; the oracle can fail after some answers."""

    def __init__(self, fail_after=None, refuse=()):
        self.asked, self.fail_after, self.refuse, self.updates = [], fail_after, refuse, 0

    def query(self, state, candidates, k, place):
        return sorted(candidates.tolist(), reverse=True)[:k]

    def oracle(self, rows):
        if self.fail_after is not None and len(self.asked) + len(rows) > self.fail_after:
            raise KeyboardInterrupt
        self.asked += rows
        return [None if row in self.refuse else np.array([row, 1.0]) for row in rows]

    def update(self, state, answers, place):
        self.updates += 1
        assert all(answer == [row, 1.0] for row, answer in answers.items())
        return sum(answers), {"accuracy": len(answers) / 10}

    def run(self, folder, **options):
        settings = {"pool": 10, "budget": 3, "rounds": 3, "oracle_batch": 2, "initial": 0} | options
        return fit_queries(self.query, self.oracle, self.update, output_dir=folder, **settings)


def test_queries_and_their_curve(tmp_path):
    buying = Buying(refuse=(8,))
    result = buying.run(tmp_path)
    assert buying.asked == [9, 8, 7, 6, 5, 4, 3, 2, 1] and result.state == sum(range(1, 10)) - 8
    assert [entry["spent"] for entry in result.history] == [3, 6, 9]
    assert [entry["unanswered"] for entry in result.history] == [1, 1, 1]
    assert result.area("accuracy") == pytest.approx((0.2 + 0.5) / 4 + (0.5 + 0.8) / 4)
    again = Buying()
    assert again.run(tmp_path).history == result.history and again.asked == []
    assert again.updates == 1  # without `load` the last update is done again
    loaded = Buying()
    assert loaded.run(tmp_path, load=lambda place: place.number).state == 2 and loaded.updates == 0


@pytest.mark.parametrize("fail_after", range(0, 9))
def test_interrupted_queries_ask_nothing_twice(tmp_path, fail_after):
    whole = Buying().run(tmp_path / "whole")
    cut = Buying(fail_after)
    with pytest.raises(KeyboardInterrupt):
        cut.run(tmp_path / "part")
    ledger = tmp_path / "part" / "answers.jsonl"
    if ledger.exists():
        with ledger.open("a") as file:
            file.write('{"row": 0, "ans')  # a line that was cut off while it was written
    rest = Buying()
    result = rest.run(tmp_path / "part")
    assert sorted(cut.asked + rest.asked) == list(range(1, 10))  # each once
    assert result.history == whole.history and result.state == whole.state
    assert len(ledger.read_text().splitlines()) == 9


def test_used_up_pool_ends_the_loop(tmp_path):
    result = Buying().run(tmp_path, budget=[4, 4, 4, 4])
    assert [entry["spent"] for entry in result.history] == [4, 8, 10]
    none = Buying()
    assert none.run(tmp_path / "none", budget=0).history[-1]["spent"] == 0 and none.asked == []


def test_bad_queries_and_oracles_are_named(tmp_path):
    class Bad(Buying):
        def __init__(self, rows):
            super().__init__()
            self.rows = rows

        def query(self, state, candidates, k, place):
            return self.rows

    for number, (rows, text) in enumerate(
        [([77], "row 77 is not a candidate"), ([1, 1], "2 rows, 1 distinct"), ([1, 2, 3, 4], "up to 3")]
    ):
        with pytest.raises(ValueError, match=text):
            Bad(rows).run(tmp_path / str(number))
    with pytest.raises(ValueError, match="asked for 2 rows and gave 1"):
        fit_queries(
            Buying().query, lambda rows: [0], Buying().update, pool=10, budget=2, rounds=1, output_dir=tmp_path / "o"
        )
    with pytest.raises(ValueError, match="budget"):
        Buying().run(tmp_path / "n", budget=[-1])
