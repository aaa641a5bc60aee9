"""The code on the page of `ceed_vla` runs as it stands, with a tiny local model instead of a Hub id."""

import re

import torch
from tiny_decoders import decoder
from transformers import AutoModelForCausalLM

from hf_labels.hub_cards import method_text, validate_card


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    model = decoder()
    with torch.no_grad():
        model.resize_token_embeddings(32)
    model.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    method = method_text("ceed_vla")
    code, places = re.subn(r'(?m)^model_id = "[^"]+"', f"model_id = {str(tmp_path / 'model')!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    assert (tmp_path / "out" / "trace.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out" / "final" / "custom_generate" / "generate.py").exists()
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "final")
    want = student.generate(run["ids"], max_new_tokens=4, do_sample=False)
    assert torch.equal(run["exact"].sequences, want) and run["early"].shape[1] <= 7

    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert "tensor" in capsys.readouterr().out
    run["trainer"].create_model_card(model_name="student")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, tmp_path / "out", slug="ceed_vla") == []
    assert "mixed labels" in card
