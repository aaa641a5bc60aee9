"""Labelling the rows of a data set."""

import datasets
import pytest

from hf_labels.lm import Budget, Request, ScriptedLM, label_dataset

LABELS = ["sports", "politics"]


@pytest.fixture
def ds():
    texts = ["a ball game", "a tax law", "nothing", "two balls", "ball and law"]
    return datasets.Dataset.from_dict({"text": texts, "index": list(range(5))})


def prompt(row):
    return f"Topic of: {row['text']}"


RULES = [("ball", " sports\n"), ("law", "politics"), ("nothing", "no idea")]


def test_a_parser_reads_what_the_model_writes(ds):
    out = label_dataset(ScriptedLM(RULES), ds, prompt, str.strip, labels=LABELS)
    assert out.column_names == ["text", "index", "llm_label", "llm_confidence", "llm_raw", "llm_error"]
    assert out["text"][:] == ds["text"][:] and out["index"][:] == ds["index"][:]
    assert out["llm_label"][:] == [0, 1, -1, 0, 0] and out.features["llm_label"].names == LABELS
    assert out["llm_raw"][:] == [" sports\n", "politics", "no idea", " sports\n", " sports\n"]
    assert [bool(e) for e in out["llm_error"]] == [False, False, True, False, False]
    assert "'no idea' is not among sports, politics" in out["llm_error"][2]
    assert out["llm_confidence"][:] == [None] * 5
    assert ds.column_names == ["text", "index"], "the input is left as it is"


def test_scores_of_labels_give_a_confidence(ds):
    lm = ScriptedLM(
        scores=lambda request, labels: [
            0.0 if ("ball" in request.text) == (label == "sports") else -2.0 for label in labels
        ]
    )
    out = label_dataset(lm, ds, prompt, labels=LABELS)
    assert out["llm_label"][:] == [0, 1, 1, 0, 0] and out["llm_raw"][:2] == LABELS
    assert out["llm_confidence"][0] == pytest.approx(1 / (1 + 2.718281828**-2)) and out["llm_error"][:] == [None] * 5


def test_confidence_from_the_parser_and_from_votes(ds):
    lm = ScriptedLM([(".*", "sports 0.75")])
    out = label_dataset(lm, ds, prompt, lambda text: (text.split()[0], text.split()[1]), labels=LABELS)
    assert out["llm_confidence"][:] == [0.75] * 5
    lm = ScriptedLM([(".*", "sports 75")])
    out = label_dataset(lm, ds, prompt, lambda text: (text.split()[0], text.split()[1]), labels=LABELS)
    assert out["llm_label"][:] == [-1] * 5 and "not in [0, 1]" in out["llm_error"][0]
    noisy = ScriptedLM([(".*", "sports")], labels=LABELS, noise_rate=0.3)
    out = label_dataset(noisy, ds, prompt, str.strip, labels=LABELS, n=9, temperature=1.0, seed=0)
    for row, answer in zip(
        out, noisy.generate([Request(prompt(r), n=9, temperature=1.0, seed=0) for r in ds]), strict=True
    ):
        assert row["llm_confidence"] == max(answer.texts.count(label) for label in LABELS) / 9
        assert answer.texts.count(LABELS[row["llm_label"]]) / 9 == row["llm_confidence"]


def test_columns_without_label_names(ds):
    words = label_dataset(ScriptedLM(RULES), ds, prompt, lambda text: text.split()[0] if "no" not in text else None)
    assert words["llm_label"][:] == ["sports", "politics", None, "sports", "sports"]
    assert words.features["llm_label"].dtype == "string" and "no label" in words["llm_error"][2]
    numbers = label_dataset(ScriptedLM(RULES), ds, prompt, lambda text: {" sports\n": 3, "politics": 5}[text])
    assert numbers["llm_label"][:] == [3, 5, -1, 3, 3] and "KeyError" in numbers["llm_error"][2]
    with pytest.raises(TypeError, match="one kind"):
        label_dataset(ScriptedLM(RULES), ds, prompt, lambda text: 3 if "p" in text else "x")
    with pytest.raises(TypeError, match="got list"):
        label_dataset(ScriptedLM(RULES), ds, prompt, lambda text: ["x"])


def test_ids_are_checked(ds):
    out = label_dataset(ScriptedLM([(".*", "2")]), ds, prompt, int, labels=LABELS)
    assert out["llm_label"][:] == [-1] * 5 and "id 2 is not in [0, 2)" in out["llm_error"][0]


@pytest.mark.parametrize("parser", [str.strip, None])
def test_the_budget_ends_and_the_rest_says_so(ds, parser, monkeypatch):
    from hf_labels.lm import labelling

    monkeypatch.setattr(labelling, "_CHUNK", 2)
    lm = ScriptedLM(RULES, {"sports": 0.0, "politics": -1.0}, budget=Budget(max_calls=3))
    out = label_dataset(lm, ds, prompt, parser, labels=LABELS)
    assert [bool(error) and "BudgetExceeded" in error for error in out["llm_error"]][3:] == [True, True]
    assert out["llm_label"][:2] == ([0, 1] if parser else [0, 0]) and out["llm_label"][3:] == [-1, -1]
    assert lm.usage.calls == 3


def test_a_second_run_asks_nothing(ds, tmp_path):
    out = label_dataset(ScriptedLM(RULES, cache_dir=tmp_path), ds, prompt, str.strip, labels=LABELS)
    lm = ScriptedLM(RULES, cache_dir=tmp_path)
    assert label_dataset(lm, ds, prompt, str.strip, labels=LABELS).to_dict() == out.to_dict() and lm.attempts == 0


def test_failed_rows_and_empty_data(ds):
    lm = ScriptedLM([("ball", "sports")], on_error="return")
    out = label_dataset(lm, ds, prompt, str.strip, labels=LABELS)
    assert out["llm_label"][:] == [0, -1, -1, 0, 0] and "NoRule" in out["llm_error"][1] and out["llm_raw"][1] == ""
    empty = label_dataset(lm, ds.select([]), prompt, str.strip, labels=LABELS)
    assert len(empty) == 0 and empty.features["llm_label"].names == LABELS and lm.attempts > 0


def test_bad_input(ds):
    with pytest.raises(ValueError, match="Give a `parser`"):
        label_dataset(ScriptedLM(RULES), ds, prompt)
    with pytest.raises(ValueError, match="'llm_raw' already.*remove_columns"):
        label_dataset(ScriptedLM(RULES), ds.rename_column("index", "llm_raw"), prompt, str.strip)
    with pytest.raises(ValueError, match="more than once"):
        label_dataset(ScriptedLM(RULES), ds, prompt, str.strip, labels=["a", "a"])
