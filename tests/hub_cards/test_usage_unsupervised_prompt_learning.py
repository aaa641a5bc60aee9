"""The code on the page of `unsupervised_prompt_learning` runs as it stands, with the real MiniLM of a package."""

import re

import pytest

from hf_labels.hub_cards import method_text, validate_card


def test_usage_and_loading_run_as_written(tmp_path, monkeypatch, capsys):
    from hf_labels.data.offline import minilm_path

    try:
        place = str(minilm_path())
    except ImportError as error:
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    method = method_text("unsupervised_prompt_learning")
    code, places = re.subn(r'(?m)^encoder = "[^"]+"', f"encoder = {place!r}", method.usage_code)
    assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    labels = run["classifier"].pseudo_labels["labels"][:]
    assert labels == [0, 1] * 12 and run["again"](["high sugar"])[0]["label"] == "diabetes"
    loading = method.loading_code("out/final").replace("sentence-transformers/all-MiniLM-L6-v2", place)
    exec(compile(loading, "loading", "exec"), {})
    assert "'label': " in capsys.readouterr().out
    card = str(run["classifier"].card("me/prompt"))
    assert validate_card(card, slug="unsupervised_prompt_learning") == [] and place not in card
