"""The code on the page of `zero_shot_tc` runs as it stands, with a tiny network instead of a Hub id."""

import re

from hf_labels.hub_cards import method_text, validate_card
from tiny_text import save_backbone


def test_usage_and_loading_of_zero_shot_tc_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    backbone = save_backbone(tmp_path)
    method = method_text("zero_shot_tc")
    code, places = re.subn(r'(?m)^backbone = "[^"]+"', f"backbone = {backbone!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    printed = capsys.readouterr().out
    assert "eval_harmonic_mean" in printed and re.search(r"'label': '(joy|anger|fear)'", printed)
    assert printed.splitlines()[-1] in ("noemo", "joy", "anger", "fear")
    assert run["trainer"].seen_labels == ("joy", "anger")
    assert {"fear"} == set(run["hypotheses"]) - set(run["trainer"].seen_labels)

    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert re.search(r"'label': '(joy|anger|fear)'", capsys.readouterr().out)

    run["trainer"].create_model_card(model_name="zero-shot")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, tmp_path / "out", slug="zero_shot_tc") == []
    assert "| `joy` |" in card and "labels with training texts" in card and "joy, anger" in card
