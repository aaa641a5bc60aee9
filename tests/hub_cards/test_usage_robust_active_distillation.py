"""The code on the page of `robust_active_distillation` runs as it stands, with a tiny backbone instead of a Hub id."""

import re

import torch
from transformers import AutoModelForImageClassification, ResNetConfig, ResNetForImageClassification, pipeline

from hf_labels.hub_cards import method_text, validate_card


def test_usage_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    ResNetForImageClassification(config).save_pretrained(tmp_path / "backbone")
    method = method_text("robust_active_distillation")
    place = repr(str(tmp_path / "backbone"))
    code, places = re.subn(r'(?m)^backbone = "[^"]+"', f"backbone = {place}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    loop = run["loop"]
    assert [entry["spent"] for entry in loop.history] == [0, 10, 20] and len(loop.soft_labels()) == 20
    assert "inclusion" in capsys.readouterr().out
    assert AutoModelForImageClassification.from_pretrained("out/final").num_labels == 2
    assert "pipeline" in method.loading_code("out/final") and pipeline
    loop.trainer.create_model_card(model_name="rad")
    folder = tmp_path / loop.trainer.args.output_dir
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, folder, slug="robust_active_distillation") == []
