"""The code on the page of `distill_weighted` runs as it stands."""

import json
import re

import torch

from hf_labels.hub_cards import method_text, validate_card

SLUG = "distill_weighted"


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    method = method_text(SLUG)
    run: dict = {}
    exec(compile(method.usage_code, "usage", "exec"), run)
    shown = capsys.readouterr().out
    assert "eval_loss" in shown and abs(sum(run["weights"].values()) - 1) < 1e-9 and len(run["soft"]) == 36
    losses = [entry["loss"] for entry in run["trainer"].state.log_history if "loss" in entry]
    assert losses and losses[0] > 0
    sources = json.loads((tmp_path / "out" / "final" / "distill_sources.json").read_text())["sources"]
    assert {source["id"] for source in sources} == {"one", "another"}
    assert abs(float(shown.splitlines()[-1]) - run["similarities"]["one"]) < 1e-6  # the similarity alone
    exec(compile(method.loading_code("out/final", "image-classification"), "loading", "exec"), {})
    assert re.search(r"'label': '(red|green|blue)'", capsys.readouterr().out)
    run["trainer"].create_model_card(model_name=SLUG)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, tmp_path / "out", slug=SLUG) == []
    assert method.paper.removeprefix("arXiv:") in card and "`blue`" in card and "another (" in card
