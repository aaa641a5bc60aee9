"""The code on the pages of `sla` and `lad` runs as it stands, with a tiny local backbone instead of a Hub id."""

import re

import pytest
import torch
from transformers import ResNetConfig, ResNetForImageClassification, SegformerConfig, SegformerForSemanticSegmentation

from hf_labels.hub_cards import method_text, validate_card


def resnet():
    return ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]))


def segformer():
    sizes = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    return SegformerForSemanticSegmentation(SegformerConfig(**sizes))


@pytest.mark.parametrize("slug, make", [("sla", resnet), ("lad", segformer)])
def test_usage_and_loading_run_as_written(slug, make, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    make().save_pretrained(tmp_path / "backbone")
    monkeypatch.chdir(tmp_path)
    method = method_text(slug)
    code, places = re.subn(r'(?m)^backbone = "[^"]+"', f"backbone = {str(tmp_path / 'backbone')!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    shown = capsys.readouterr().out
    if slug == "sla":
        assert "eval_aggregated_accuracy" in shown and list(run["again"].config.id2label.values()) == ["left", "right"]
        assert "hfl" not in (tmp_path / "out" / "plain" / "config.json").read_text()
    else:
        assert "copy_gap" in shown and run["again"].config.num_channels == 3
    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert {"sla": "rotation 4", "lad": "torch.Size"}[slug] in capsys.readouterr().out
    run["trainer"].create_model_card(model_name=slug)
    folder = run["trainer"].args.output_dir
    card = (tmp_path / folder / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, tmp_path / folder, slug=slug) == []
