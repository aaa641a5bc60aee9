"""The code on the page of `lp_icp` runs as it stands, with a tiny classifier in place of the Hub id."""

import re

import torch
from transformers import BertConfig, BertForSequenceClassification

from hf_labels.hub_cards import method_text
from tiny_text import WORDS, tiny_tokenizer


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
        id2label={0: "skin", 1: "sleep", 2: "head"},
        label2id={"skin": 0, "sleep": 1, "head": 2},
        problem_type="multi_label_classification",
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    method = method_text("lp_icp")
    code, places = re.subn(r'(?m)^checkpoint = "[^"]+"', f"checkpoint = {str(tmp_path / 'base')!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    assert (run["again"].scores == run["classifier"].icp.scores).all() and run["again"].num_calibration == 18
    assert run["scores"][1]["epsilon"] == 0.2 and (tmp_path / "out" / "validity.png").stat().st_size > 5000
    assert len(run["table"]) == 12 and len(run["table"]["label_sets"][0]) <= 3
    capsys.readouterr()
    exec(compile(method.loading_code("out/classifier"), "loading", "exec"), {})
    assert capsys.readouterr().out.startswith("18 Threshold(score=")
