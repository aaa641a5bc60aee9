"""The code on the page of `crowd_soft_labels` runs as it stands, with the real MiniLM in place of the Hub id."""

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
    method = method_text("crowd_soft_labels")
    code, places = re.subn(r'(?m)^model_id = "[^"]+"', f"model_id = {str(place)!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    assert run["found"].labels.tolist() == [0, 1, 0, 1] and set(run["found"].skills()) == {"x", "y", "z"}
    assert (tmp_path / "out" / "annotators.png").stat().st_size > 1000
    assert '"method": "average"' in (tmp_path / "out" / "annotators.json").read_text()
    exec(compile(method.loading_code("out/model"), "loading", "exec"), {})
    assert "'label': '" in capsys.readouterr().out
