"""The code on the page of `llm_label_errors` runs as it stands, with the real MiniLM in place of the Hub id."""

import re

import pytest

from hf_labels.hub_cards import method_text


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    from hf_labels.data.offline import minilm_path

    try:
        place = minilm_path()
    except ImportError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    method = method_text("llm_label_errors")
    code, places = re.subn(r'(?m)^encoder = "[^"]+"', f"encoder = {str(place)!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    assert run["report"].worklist().tolist() == [2]
    assert run["clean"]["label"][:] == [0, 1, 0, 1] and run["clean"]["label_original"][:] == [0, 1, 1, 1]
    assert "1 of 4 judged rows are flagged" in (tmp_path / "out" / "suspects.html").read_text()
    exec(compile(method.loading_code("out/report"), "loading", "exec"), {})
    assert "'errors': 1" in capsys.readouterr().out
