"""The experiment of HeLlO on toys: every row, its bytes, the table and the picture; and what is said of emoji."""

import emoji_clip
import hello as example
import hello_toys as toys
import numpy as np
import pytest
from emoji_clip import tasks
from transformers import ResNetConfig

import harness
from hf_labels.data.images import Normalizer

NAMES = ("cat", "dog", "bird", "fish", "horse")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    data = toys.images(40, names=NAMES)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "layer_type": "basic"}
    quick = {"side": 8, "ipc": 1, "views": 3, "batch": 5, "teacher_epochs": 1, "real_batch": 20, "teachers": 2}
    work = tasks.Task(
        *(data, data.select(range(10)), data.select(range(10, 20))),
        clip=toys.save_clip(tmp_path / "clip"),
        words={name: name for name in NAMES},
        prompt="a photo of a {}.",
        normalizer=Normalizer((0.5,) * 3, (0.5,) * 3),
        network=lambda seed: tasks.fresh(ResNetConfig(**sizes), list(NAMES), seed),
        clip_bytes=1000,
        settings=tasks.SMALL | quick | {"projector_epochs": 1, "rank": 2, "update_steps": 1},
    )
    monkeypatch.setattr(example, "task", lambda preset: work)
    return work


def test_every_row_is_measured_and_its_bytes_are_those_of_the_files(toy, tmp_path):
    run = example.one_run(("toy", 0, "test"))
    rows = {example.HARD, example.ZERO, example.LORA, example.LORA_KL, example.SHUFFLED, example.DENSE}
    assert set(run["rows"]) == rows | set(example.TOP.values())
    assert all(0 <= row["accuracy"] <= 1 for row in run["rows"].values())
    assert run["rows"][example.LORA]["projector KL"] != run["rows"][example.ZERO]["projector KL"] >= 0
    labels = {name: size["labels"] for name, size in run["bytes"].items()}
    views = 5 * 3
    assert labels[example.HARD] == 5 * 2 and labels[example.DENSE] == views * 5 * 2
    assert [labels[example.TOP[k]] for k in (1, 2, 4)] == [views * 3 * k for k in (1, 2, 4)]
    numbers = (16 + 16) * 2 * 4 + (12 + 5) * 5  # attention at rank 2, head at rank 5
    # the rest: adapter_config.json, the header of the tensors, and the arguments that Trainer saves beside them
    assert numbers * 4 < labels[example.LORA] < numbers * 4 + 12_000
    assert run["bytes"][example.LORA]["with CLIP"] == labels[example.LORA] + 1000

    record = harness.Experiment("hello", ["toys"])
    for name, row in run["rows"].items():
        record.add(name, "toys", "accuracy", [row["accuracy"]], [0])
    cells = example.byte_cells(record, run["bytes"])
    assert [line[0] for line in cells[1:]] == sorted(run["bytes"], key=lambda name: labels[name])
    example.plot(record, run["bytes"], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_captions_say_at_least_one_thing_of_each_emoji():
    from datasets import ClassLabel, Dataset

    data = Dataset.from_dict({"text": ["melon", "tent"] * 50, "subcategory": ["food-fruit", "place"] * 50})
    data = data.add_column("labels", [0, 1] * 50).cast_column("labels", ClassLabel(names=["Food & Drink", "Travel"]))
    said = emoji_clip.captions(data, np.random.default_rng(0))
    assert all(text.startswith("a drawing of ") for text in said)
    assert len({text for text in said if text.endswith("melon")}) == 1
    assert "a drawing of melon, food fruit, food and drink" in said and "a drawing of food and drink" in said
    assert "a drawing of " not in said
