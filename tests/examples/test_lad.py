"""The experiment of LAD on tiny sizes: who sees which scenes, what is tuned, and every row of one seed."""

import json

import digit_scenes
import lad as example
import pytest
import torch

import harness

TINY = example.Preset(24, 12, 0.6, 4, 2, 3, 8, (1e-2, 3e-2), (0.0, 5.0), (0.1, 3.0), 2.1 / 5)


@pytest.fixture
def tiny(monkeypatch):
    """Sizes of a second, and drawn digits in place of the real ones."""
    generator = torch.Generator().manual_seed(0)
    parts = {part: (torch.rand(20, 14, 14, generator=generator), torch.arange(20) % 4) for part in ("train", "dev")}
    parts["test"] = (torch.rand(20, 14, 14, generator=generator), torch.arange(20) % 4)
    monkeypatch.setattr(digit_scenes, "digits", lambda: parts)
    digit_scenes.scenes.cache_clear()
    monkeypatch.setitem(example.PRESETS, "small", TINY)
    yield
    digit_scenes.scenes.cache_clear()


def test_scenes_have_labels_where_digits_are(tiny):
    data = digit_scenes.scenes("train", 24, 0.0, 0)[:]
    images, labels = torch.stack(data["pixel_values"]), torch.stack(data["labels"])
    assert images.shape == (24, 1, 14, 28) and set(labels.unique().tolist()) <= set(range(digit_scenes.DIGITS + 1))
    level = (0.3 - 0.1) / 0.25  # without noise a pixel counts where the digit is brighter than 0.3
    assert torch.equal(labels > 0, images[:, 0] > level)
    for half in labels.split(14, dim=2):  # one digit, or none, on each side
        assert all(len(set(one[one > 0].tolist())) <= 1 for one in half)
    one, two = (digit_scenes.scenes("train", 24, 0.6, seed)[:]["labels"] for seed in (0, 1))
    assert not torch.equal(torch.stack(one), torch.stack(two))


def test_all_rows_of_a_seed_share_scenes_and_students_their_start(tiny, monkeypatch):
    seen, starts, fit = [], [], example.fit

    def spy(trainer_class, model, preset, seed, steps, rate, weights, **options):
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        made = fit(trainer_class, model, preset, seed, steps, rate, weights, **options)
        seen.append((trainer_class.__name__, made.train_dataset, weights, options))
        return made

    monkeypatch.setattr(example, "fit", spy)
    best = {"rate": 1e-2, "consistency": 0.5, example.KD: 0.3, example.LAD: 0.1}
    example.one_run(("small", 3, best))
    assert len({id(data) for _, data, _, _ in seen}) == 1
    kinds = [kind for kind, _, _, _ in seen]
    assert kinds == ["CWDDistillTrainer"] * 2 + ["LADTeacherTrainer"] * 2 + ["CWDDistillTrainer"] * 5
    teachers = [(weights, options["label_noiser"].code_step) for _, _, weights, options in seen[2:4]]
    assert teachers == [({"consistency_weight": 0.5}, TINY.code_step), ({"consistency_weight": 5.0}, 0.1)]
    assert [weights["distill_weight"] for _, _, weights, _ in seen[4:]] == [0.0, 0.3, 0.1, 3.0, 3.0]
    for other in starts[5:]:
        assert all(torch.equal(value, other[name]) for name, value in starts[4].items())
    assert any(not torch.equal(starts[0][name], starts[4][name]) for name in starts[0]), "not from stage 0"
    names = [name for name in starts[1] if name != "layers.0.weight"]  # teachers differ by the channel alone
    assert all(torch.equal(starts[1][name], starts[2][name]) for name in names)
    assert torch.equal(starts[1]["layers.0.weight"], starts[2]["layers.0.weight"][:, :1])


def test_test_scenes_are_not_read_by_the_tuning(tiny, monkeypatch):
    part_of, asked = example.part_of, []
    monkeypatch.setattr(example, "part_of", lambda *args: asked.append(args[1]) or part_of(*args))
    best, found = example.tune(TINY)
    assert set(asked) == {"dev", "train"}
    assert best["rate"] in TINY.rates and best["consistency"] in TINY.consistency
    assert len(found) == 4 and {len(scores) for scores in found.values()} == {2}
    for name in (example.KD, example.LAD):
        own = found[f"{name}: mean IoU by weight of the distillation"]
        assert own[best[name]] == max(own.values())


def test_the_whole_experiment(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["lad.py", "--workers", "1", "--seeds", "4"])
    best = {"rate": 1e-2, "consistency": 0.5, example.KD: 0.3, example.LAD: 0.1}
    monkeypatch.setattr(example, "tune", lambda preset: (best, {"mean IoU of stage 0": {1e-2: 0.5}}))
    example.main()
    found = json.loads((tmp_path / "lad.json").read_text())
    names = {row["name"] for row in found["rows"]}
    assert {example.LAD, example.LAD_PAPER, example.KD, example.KD_PAPER, example.MORE, example.NO_CODE} <= names
    assert all(row["seed_list"] == [4] for row in found["rows"]) and len(found["paired"]) == 8
    assert (tmp_path / "lad.png").read_bytes()[:4] == b"\x89PNG"
    assert example.LAD in capsys.readouterr().out


@pytest.mark.parametrize(
    "difference, words", [(0.1, "is above"), (-0.1, "is below"), (0.001, "is not told apart from")]
)
def test_verdicts_follow_the_numbers(difference, words):
    record = harness.Experiment("lad", ["scenes"])
    values = [0.50, 0.52, 0.51, 0.49, 0.50]
    other = [value + difference + noise for value, noise in zip(values, (0.01, -0.01, 0.0, 0.01, -0.01), strict=True)]
    for name, row in (("b", values), ("a", other)):
        record.add(name, "students", "mean_iou", row, range(5))
    record.compare("a", "b", "students", "mean_iou")
    assert example.verdict(record, "a", "b").startswith(f'"a" {words}')
