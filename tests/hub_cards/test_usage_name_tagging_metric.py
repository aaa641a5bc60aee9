"""The code on the page of `name_tagging_metric` runs as it stands, with a tiny BERT instead of a Hub id."""

import re

import torch
from transformers import AutoModelForTokenClassification, BertForTokenClassification

import toys
from hf_labels.hub_cards import method_text, validate_card


def test_usage_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    BertForTokenClassification(toys.bert_config(3)).save_pretrained(tmp_path / "backbone")
    toys.tiny_tokenizer().save_pretrained(tmp_path / "backbone")
    method = method_text("name_tagging_metric")
    place = repr(str(tmp_path / "backbone"))
    code, places = re.subn(r'(?m)^backbone = "[^"]+"', f"backbone = {place}", method.usage_code)
    assert places == 1
    code = code.replace(
        "from_pretrained(backbone, id2label", "from_pretrained(backbone, ignore_mismatched_sizes=True, id2label"
    )
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    assert "eval_f1" in capsys.readouterr().out
    assert all(set(row) <= {0, 1, 2} for row in run["target"]["pseudo_tags"])
    model = AutoModelForTokenClassification.from_pretrained("out/final")
    assert model.config.id2label == {0: "O", 1: "B-ore", 2: "I-ore"}
    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    run["trainer"].create_model_card(model_name="names")
    folder = tmp_path / "out" / "target"
    assert validate_card((folder / "README.md").read_text(encoding="utf-8"), folder, slug="name_tagging_metric") == []
