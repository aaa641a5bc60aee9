import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hf_labels.models.weights import SINGLE, WeightFolder, greedy_choice, mix_tensors, mix_weights


def _save(folder, seed=0, dtype=torch.float32, **more):
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        "a.weight": torch.randn(4, 3, generator=generator).to(dtype),
        "b.bias": torch.randn((), generator=generator).to(dtype),
        "steps": torch.tensor([3]),
        "flag": torch.tensor([True, False]),
        "none": torch.zeros(0, 2),
        **more,
    }
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    (folder / "README.md").write_text("another model")
    return tensors


def test_mean_equals_the_mean_and_other_files_travel(tmp_path):
    parts = [_save(tmp_path / str(i), i) for i in range(3)]
    out = mix_weights([tmp_path / str(i) for i in range(3)], tmp_path / "out")
    mixed = load_file(out / SINGLE)
    for key in ("a.weight", "b.bias"):
        want = torch.stack([p[key].double() for p in parts]).mean(0).float()
        assert torch.equal(mixed[key], want)
    assert torch.equal(mixed["flag"], parts[0]["flag"]) and mixed["none"].shape == (0, 2)
    assert sorted(p.name for p in out.iterdir()) == ["config.json", SINGLE]
    with safe_open(out / SINGLE, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_mix_of_one_is_itself_in_every_dtype(tmp_path, dtype):
    tensors = _save(tmp_path / "a", dtype=dtype)
    mixed = load_file(mix_weights([tmp_path / "a"], tmp_path / "out") / SINGLE)
    assert all(torch.equal(mixed[k], v) and mixed[k].dtype == v.dtype for k, v in tensors.items())


def test_weights_are_linear_and_checked(tmp_path):
    a, b = _save(tmp_path / "a", 0), _save(tmp_path / "b", 1)
    mixed = load_file(mix_weights([tmp_path / "a", tmp_path / "b"], tmp_path / "out", [0.25, 0.75]) / SINGLE)
    assert torch.allclose(mixed["a.weight"], 0.25 * a["a.weight"] + 0.75 * b["a.weight"])
    for wrong in ([0.5], [0.5, 0.6], [float("nan"), 0.5]):
        with pytest.raises(ValueError, match="sum to 1"):
            mix_weights([tmp_path / "a", tmp_path / "b"], tmp_path / "out", wrong)
    with pytest.raises(ValueError, match="empty"):
        mix_weights([], tmp_path / "out")
    with pytest.raises(ValueError, match="one of the models"):
        mix_weights([tmp_path / "a", tmp_path / "b"], tmp_path / "a")


def test_different_models_are_named(tmp_path):
    _save(tmp_path / "a")
    _save(tmp_path / "b", extra=torch.zeros(1))
    _save(tmp_path / "c", **{"a.weight": torch.zeros(3, 4)})
    _save(tmp_path / "d", steps=torch.tensor([4]))
    for name, message in (("b", "has `extra`"), ("c", r"`a.weight` has shape \(4, 3\)"), ("d", "`steps` holds")):
        with pytest.raises(ValueError, match=message):
            mix_weights([tmp_path / "a", tmp_path / name], tmp_path / "out")
    with pytest.raises(ValueError, match="lacks `extra`"):
        mix_weights([tmp_path / "b", tmp_path / "a"], tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="safetensors"):
        WeightFolder(tmp_path)


def test_shards_and_prefixes(tmp_path):
    folder = tmp_path / "sharded"
    folder.mkdir()
    save_file({"x.a": torch.ones(2)}, folder / "one.safetensors")
    save_file({"x.b": torch.full((3,), 2.0), "y.c": torch.zeros(1)}, folder / "two.safetensors")
    index = {"weight_map": {"x.a": "one.safetensors", "x.b": "two.safetensors", "y.c": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _plain = tmp_path / "plain"
    _plain.mkdir()
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, _plain / SINGLE)
    out = mix_weights([folder, _plain], tmp_path / "out", prefixes=["x.", ""])
    with WeightFolder(out) as mixed:
        assert mixed.files == {"a": "one.safetensors", "b": "two.safetensors"}
        assert mixed.tensor("a").tolist() == [0.5, 0.5] and mixed.tensor("b").tolist() == [1.0] * 3
    with pytest.raises(KeyError, match="'z.'"):
        WeightFolder(folder, "z.")
    index["weight_map"]["x.a"] = "../plain/model.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside"):
        WeightFolder(folder)


def test_only_one_tensor_of_each_model_is_in_memory(tmp_path, monkeypatch):
    for i in range(2):
        _save(tmp_path / str(i), i)
    alive: list[int] = []
    import weakref

    real, living = WeightFolder.tensor, weakref.WeakSet()

    def counted(self, key):
        tensor = real(self, key)
        living.add(tensor)
        alive.append(len(living))
        return tensor

    monkeypatch.setattr(WeightFolder, "tensor", counted)
    mix_weights([tmp_path / "0", tmp_path / "1"], tmp_path / "out")
    assert len(alive) == 10 and max(alive) <= 4, "two of this tensor, and the two before at most"


def test_half_precision_is_added_in_double():
    parts = [torch.tensor([value], dtype=torch.float16) for value in (2048.0, *[1.0] * 7)]
    assert mix_tensors(parts, [0.125] * 8).item() > 256.5, "each eighth alone is lost in half precision beside 256"


def test_greedy_keeps_what_does_not_hurt():
    scores = [0.7, 0.9, 0.8]
    after = {(1, 2): 0.85, (1, 0): 0.9}
    chosen, best, tried = greedy_choice(scores, lambda c: after[tuple(c)])
    assert chosen == [1, 0] and best == 0.9 and [row["kept"] for row in tried] == [True, False, True]
