"""The code on the page of `confident_learning` runs as it stands, with the real MiniLM in place of the Hub id."""

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
    method = method_text("confident_learning")
    code, places = re.subn(r'(?m)^encoder = "[^"]+"', f"encoder = {str(place)!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    assert run["issues"].ranked().tolist()[0] == 7, "the planted error comes first"
    assert 7 not in [data_row for data_row in range(8) if run["data"][data_row]["text"] in run["clean"]["text"][:]]
    assert "judged rows are flagged by confident learning" in (tmp_path / "out" / "suspects.html").read_text()
    exec(compile(method.loading_code("out/annotated"), "loading", "exec"), {})
    assert str(run["issues"].ranked()) in capsys.readouterr().out
