"""The code on the page of `tnt_llm` runs as it stands, with the real MiniLM in place of the Hub id and no endpoint."""

import re

import pytest

from hf_labels.hub_cards import method_text


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    from hf_labels.data.offline import MINILM, minilm_path

    try:
        place = minilm_path()
    except ImportError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    method = method_text("tnt_llm")
    code, places = re.subn(r'(?m)^encoder = "[^"]+"', f"encoder = {str(place)!r}", method.usage_code)
    assert places == 1
    code = code.replace("train_on(labelled, encoder,", f"train_on(labelled, {MINILM!r},")
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    shown = capsys.readouterr().out
    assert "no endpoint here" in shown and "| Acne |" in shown
    right = ["Acne", "Diabetes"] * 20
    names = run["taxonomy"].names
    assert [names[label] for label in run["labelled"]["label"][:]] == right
    assert [one["label"] for one in run["again"].predict(run["texts"])] == right
    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert "'label'" in capsys.readouterr().out
