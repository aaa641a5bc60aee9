"""The code on the pages of `ferkd` and `relabel` runs as it stands."""

import re

import pytest
import torch

from hf_labels.hub_cards import method_text, validate_card


@pytest.mark.parametrize("slug", ["ferkd", "relabel"])
def test_usage_and_loading_run_as_written(slug, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    method = method_text(slug)
    code = method.usage_code
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    losses = [entry["train_loss"] for entry in run["trainer"].state.log_history if "train_loss" in entry]
    assert losses and losses[0] > 0
    assert "eval_loss" in capsys.readouterr().out
    exec(compile(method.loading_code("out/final", "image-classification"), "loading", "exec"), {})
    assert re.search(r"'label': '(cat|dog|fox)'", capsys.readouterr().out)
    run["trainer"].create_model_card(model_name=slug)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, tmp_path / "out", slug=slug) == []
    assert method.paper.removeprefix("arXiv:") in card and "`cat`" in card
