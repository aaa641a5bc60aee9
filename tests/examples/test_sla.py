"""The experiment of SLA: no image in two places, runs of one seed share what they must, and the picture."""

import json

import numpy as np
import pytest
import sla as example
import torch

import harness

TINY = example.Preset(("MNIST digits",), 12, 20, 1, 6, (0.1,))


@pytest.fixture
def tiny(monkeypatch):
    """Sixty drawn images of three classes."""
    pixels = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(example, "corpus", lambda name: (pixels, torch.arange(60) % 3, ["a", "b", "c"]))
    monkeypatch.setitem(example.PRESETS, "small", TINY)


def test_no_image_is_in_two_places_and_test_images_are_the_same_for_all_seeds(tiny):
    parts = [example.split("MNIST digits", TINY, seed) for seed in (0, 1, example.TUNING_SEED)]
    for part in parts:
        assert {name: len(rows) for name, rows in part.items()} == {"train": 12, "dev": 24, "test": 20}
        assert len(np.unique(np.concatenate(list(part.values())))) == 56
        assert np.array_equal(part["test"], parts[0]["test"])
    assert not np.array_equal(parts[0]["train"], parts[1]["train"])


def test_runs_of_one_seed_start_from_one_backbone_and_measure_both_inferences(tiny, monkeypatch):
    from hf_labels.trainers.sla import SLATrainer

    starts, steps = [], []

    def keep(self):
        starts.append({name: value.clone() for name, value in self.model.backbone.state_dict().items()})
        steps.append(self.args.max_steps)

    monkeypatch.setattr(SLATrainer, "train", keep)
    found = [example.one_run((what, "MNIST digits", "small", 0.1, 3, False)) for what in example.RUNS]
    for other in starts[1:]:
        assert all(torch.equal(value, other[name]) for name, value in starts[0].items())
    assert steps == [1, 4, 1, 1, 1, 1]
    for what, run in zip(example.RUNS, found, strict=True):
        names = {what, "seconds"} | ({example.MEANS[what]} if what in example.MEANS else set())
        assert set(run) == names and all(0 <= run[name] <= 1 for name in names - {"seconds"})


def test_picture_of_the_measured_rows(tmp_path):
    rows = json.loads((harness.RESULTS / "sla.json").read_text())["rows"]
    example.picture(rows, tmp_path / "sla.png")
    assert (tmp_path / "sla.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(StopIteration):  # the line of plain training needs its row
        example.picture([row for row in rows if row["name"] != example.PLAIN], tmp_path / "none.png")
