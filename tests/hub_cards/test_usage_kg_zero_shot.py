"""The code on the page of `kg_zero_shot` runs as it stands, with the real MiniLM in place of the Hub id."""

import re

import pytest

from hf_labels.hub_cards import method_text


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    from hf_labels.data.offline import MINILM, minilm_path

    try:
        minilm_path()
    except ImportError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    method = method_text("kg_zero_shot")
    code, places = re.subn(r'(?m)^encoder = "[^"]+"', f"encoder = {MINILM!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    shown = capsys.readouterr().out
    assert "['horse', 'train']" in shown
    assert run["again"].names[-1] == "bus" and run["again"].predict(["it purrs on the sofa"]) == ["cat"]
    exec(compile(method.loading_code("out/classes"), "loading", "exec"), {})
    run["trainer"].save_model("out/graph")
    exec(compile(method.loading_code("out/graph"), "loading", "exec"), {})
    assert "'bus'" in capsys.readouterr().out
