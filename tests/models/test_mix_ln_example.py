"""The experiment of Mix-LN in small: what is shared between placements, and the stream of the full preset."""

import dataclasses

import datasets
import mix_ln as example
import pytest
import torch
import transformers


@pytest.fixture
def small(monkeypatch):
    """The small preset with two steps, on bytes that need no package."""
    parts = {name: torch.arange(4000, dtype=torch.int64).mul(7 + i).remainder(251) for i, name in enumerate(PARTS)}
    monkeypatch.setattr(example, "bbc_bytes", lambda: parts)
    preset = dataclasses.replace(example.PRESETS["small"], steps=2, warmup=1, eval_windows=8, probe_windows=4)
    monkeypatch.setitem(example.PRESETS, "small", preset)
    return preset


PARTS = ("train", "dev", "test")


def test_placements_of_one_seed_share_weights_and_batches(small, monkeypatch):
    seen = {}

    def record(trainer):
        norms = ("input_layernorm", "post_feedforward_layernorm")
        state = {k: v.clone() for k, v in trainer.model.state_dict().items() if not any(n in k for n in norms)}
        seen[name] = state, torch.cat([batch["input_ids"] for batch in trainer.get_train_dataloader()])

    monkeypatch.setattr(transformers.Trainer, "train", record)
    for name in example.PLACEMENTS:
        example.train(name, small, 1e-3, seed=4)
    states = {name: state for name, (state, _) in seen.items()}
    ids = [ids for _, ids in seen.values()]
    assert ids[0].shape == (8, 64) and all(torch.equal(ids[0], other) for other in ids[1:])
    for name in (example.MIX, example.POST, example.TURNED):
        assert states[name].keys() == states[example.PRE].keys()
        assert all(torch.equal(states[name][k], v) for k, v in states[example.PRE].items())
    assert not all(torch.equal(states[example.DEEP][k], v) for k, v in states[example.PRE].items())


def test_tuning_never_reads_test_text(small, monkeypatch):
    read = []
    windows = example.byte_windows
    monkeypatch.setattr(example, "byte_windows", lambda part, *rest: read.append(part) or windows(part, *rest))
    result = example.one_run((example.MIX, "small", 1e-3, 100, True))
    assert set(result) == {"loss", "cpu"} and set(read) == {"train", "dev"}
    measured = example.one_run((example.MIX, "small", 1e-3, 0, False))
    assert "test" in read
    assert all(len(measured[key]) == example.LAYERS for key in ("start", "end", "angles", "drop"))
    assert 0 < measured["loss"] < 8 and all(norm > 0 for norm in measured["start"])


def test_lower_perplexity_wins(tmp_path, monkeypatch):
    monkeypatch.setattr(example.harness, "RESULTS", tmp_path)
    record = example.harness.Experiment("mix_ln", ["x"])
    same = dict.fromkeys(("start", "end", "angles", "drop"), [1.0] * example.LAYERS)
    runs = {name: [{"loss": 2.0, **same}] * 3 for name in example.PLACEMENTS}
    runs[example.MIX] = [{"loss": loss, **same} for loss in (1.0, 3.0, 1.0)]
    example.report(record, example.PRESETS["small"], [0, 1, 2], runs)
    e = 2.718281828459045
    assert [pair["b"] for pair in record.paired] == [example.PRE, example.POST, example.DEEP, example.TURNED]
    for pair in record.paired:
        assert (pair["a"], pair["wins"], pair["n"]) == (example.MIX, 2, 3)
        assert pair["mean_difference"] == pytest.approx((2 * (e - e**2) + e**3 - e**2) / 3)
    assert {row["kind"] for row in record.rows if row["name"] == example.TURNED} == {"control"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mix_ln_end.png", "mix_ln_start.png"]


def test_windows_of_the_full_preset_come_from_a_packed_stream(monkeypatch):
    """The Hub is replaced by rows made here; the packing and the splits are those of the real run."""

    class Tokenizer:
        def __call__(self, text):
            return {"input_ids": [int(word) for word in text.split()] + [1]}

    loaded = []

    def load(name, config, split, streaming):
        loaded.append((name, config, split, streaming))
        rows = [{"text": " ".join(str(10 * i + j) for j in range(i % 4))} for i in range(60)]
        return datasets.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: Tokenizer())
    dev, test = (example.c4_windows(part, 3, 5, seed=0) for part in ("dev", "test"))
    assert loaded == [("allenai/c4", "en", "validation", True)] * 2
    joined = [id for row in dev + test for id in row["input_ids"]]
    assert joined[:10] == [1, 10, 1, 20, 21, 1, 30, 31, 32, 1] and len(joined) == 30  # documents end to end, no gap
    train = list(example.c4_windows("train", 0, 5, seed=0))
    again, other = (list(example.c4_windows("train", 0, 5, seed=seed)) for seed in (0, 1))
    assert train == again and train != other and all(len(row["input_ids"]) == 5 for row in train)
    assert sorted(id for row in train for id in row["labels"])[:3] == [1, 1, 1]
