"""Commands that treat what was found run as they stand, with small models in the places of the named ones."""

import importlib
import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, load_from_disk
from doctor_toys import WORDS, only, texts

from hf_labels.data.encoders import make_encoder
from hf_labels.doctor import examine
from hf_labels.doctor.commands import WRITER

COUNT = 300
ROWS, LABELS = texts(COUNT)
NAMES = list(WORDS)


def counts(rows):
    """Which words are in a text: what an encoder is here."""
    every = [word for words in WORDS.values() for word in words]
    return np.array([[float(word in row.split()) for word in every] for row in rows], dtype=np.float32)


def command_of(report, slug):
    return next(t.command for one in report.findings for t in report.treatments(one) if t.slug == slug)


def run(command, **given):
    space = dict(given)
    exec(compile(command, "command", "exec"), space)
    return space


@pytest.fixture(autouse=True)
def small_models(monkeypatch, tmp_path):
    """Counts of words for encoders, words of the subject for language models."""
    from hf_labels.lm import ScriptedLM

    monkeypatch.chdir(tmp_path)
    for name in ("hf_labels.trainers.cross_fit", "hf_labels.models.kg_zero_shot_fit", "hf_labels.models.tnt_llm"):
        monkeypatch.setattr(importlib.import_module(name), "make_encoder", lambda *a, **k: make_encoder(counts, None))

    def scores(request, labels):
        return [sum(word in request.text for word in WORDS[label.strip()]) - 3.0 for label in labels]

    def small(*args, **options):
        return ScriptedLM(scores=scores, model_id="words", progress=False)

    monkeypatch.setattr("hf_labels.lm.EmbeddingLM", small, raising=False)


def saved(path, **columns):
    data = Dataset.from_dict({"text": ROWS, **columns})
    if "labels" in columns and not isinstance(columns["labels"][0], list):
        data = data.cast_column("labels", ClassLabel(names=NAMES))
    data.save_to_disk(path)
    return examine(str(path), encoder="tfidf")


def test_judges_are_asked_about_named_labels(tmp_path):
    wrong = np.arange(COUNT) % 7 == 0
    report = saved(tmp_path / "x", labels=np.where(wrong, (LABELS + 1) % 3, LABELS).tolist())
    done = run(command_of(report, "llm_label_errors"))
    assert set(np.flatnonzero(done["report"].disputed)) == set(np.flatnonzero(wrong))
    done = run(command_of(report, "confident_learning"))
    found = only(report, "Estimated noise rate")
    assert len(done["suspects"]) == found.values["flagged"] == COUNT - len(done["cleaned"])
    assert wrong[done["suspects"]].mean() > 0.8
    nameless = examine(Dataset.from_dict({"text": ROWS, "labels": done["data"]["labels"][:]}), encoder="tfidf")
    assert command_of(nameless, "llm_label_errors") == "hf-labels card llm_label_errors"


def test_rows_without_label_are_labelled_by_a_learned_prompt(tmp_path):
    report = saved(tmp_path / "x", labels=[-1 if row % 2 else int(k) for row, k in enumerate(LABELS)])
    command = command_of(report, "unsupervised_prompt_learning")
    command = command.replace("(output_dir=", "(max_steps=1, prompt_length=1, k_demo=0, min_count=1, output_dir=")
    labelled = run(command)["labelled"]
    assert labelled["text"][:] == ROWS[1::2]
    assert (np.array(labelled["labels"][:]) == LABELS[1::2]).mean() > 0.9


def test_a_class_without_rows_comes_from_the_graph(tmp_path, monkeypatch):
    from hf_labels import KnowledgeGraph

    kg = KnowledgeGraph.from_triples([(name, "isa", "thing") for name in NAMES])
    monkeypatch.setattr(KnowledgeGraph, "from_wordnet", lambda: kg)
    keep = np.flatnonzero(LABELS < 2)
    data = Dataset.from_dict({"text": [ROWS[i] for i in keep], "labels": LABELS[keep]})
    data.cast_column("labels", ClassLabel(names=NAMES)).save_to_disk(tmp_path / "x")
    report = examine(str(tmp_path / "x"), embeddings=False)
    command = command_of(report, "kg_zero_shot").replace("semantics='text'", "semantics=vectors")
    done = run(command, vectors={name: np.eye(4)[i] for i, name in enumerate([*NAMES, "thing"])})
    assert done["model"].names == NAMES and not done["model"].seen[2]


def test_classes_are_made_where_there_are_none(tmp_path, monkeypatch):
    table = [{"name": name, "description": f"About {name}."} for name in NAMES]

    def written(request):
        if "Summarize" in request.text:
            return "short"
        if "Which label fits" in request.text:
            text = request.text.split("<text>")[1]
            name = next(name for name in NAMES if any(word in text for word in WORDS[name]))
            return json.dumps({"rationale": "r", "primary": name, "all": [name]})
        update = {"rating": 80, "explanation": "fine", "edits": "N/A"} if "Current labels" in request.text else {}
        return json.dumps({**update, "labels": table})

    from hf_labels.lm import ScriptedLM

    asked = []

    def writer(model_id, cache_dir):
        asked.append(model_id)
        return ScriptedLM(written, model_id=model_id, progress=False, cache_dir=cache_dir)

    monkeypatch.setattr("hf_labels.lm.InferenceClientLM", writer, raising=False)
    report = saved(tmp_path / "x")
    done = run(command_of(report, "tnt_llm"))
    assert asked == [WRITER] and done["taxonomy"].names == tuple(NAMES)
    assert (np.array(done["labelled"]["label"][:]) == LABELS).all()


def test_sets_of_labels_get_prediction_sets_and_suspects(tmp_path):
    wrong = np.arange(COUNT) % 9 == 0
    sets = [[NAMES[k]] if not bad else [NAMES[(k + 1) % 3]] for k, bad in zip(LABELS, wrong, strict=True)]
    sets[3] = None
    report = saved(tmp_path / "x", labels=sets)
    done = run(command_of(report, "lp_icp"))
    assert len(done["data"]) == COUNT - 1 and len(done["sets"]) == COUNT // 2
    shown = report.treatments(only(report, "of the cells (95 %"))
    suspects = run(shown[0].command)["data"]
    assert {"label_quality", "suggested_label"} <= set(suspects.column_names)
    assert np.mean([wrong[ROWS.index(text)] for text in suspects["text"][:20]]) > 0.9
    assert load_from_disk(tmp_path / "x")["labels"][3] is None


def test_sets_of_ids_and_rows_with_unknown_cells_are_read_as_the_doctor_does(tmp_path):
    wrong = np.arange(COUNT) % 9 == 0
    ids = np.where(wrong, (LABELS + 1) % 3, LABELS)
    report = saved(tmp_path / "ids", labels=[[int(k)] if row % 5 else [int(k), 3] for row, k in enumerate(ids)])
    assert run(command_of(report, "confident_learning"))["issues"].given.shape == (COUNT, 4)
    rows = np.eye(3, dtype=np.int64)[ids]
    rows[::10, 1] = -1
    report = saved(tmp_path / "rows", labels=[[None if k < 0 else k for k in row] for row in rows.tolist()])
    assert run(command_of(report, "confident_learning"))["issues"].given.shape == (COUNT - COUNT // 10, 3)


def test_the_same_code_is_printed_once():
    wrong = (np.arange(COUNT) % 9 == 0)[:, None]
    table = np.where(wrong, 1 - np.eye(3, dtype=np.int64)[LABELS], np.eye(3, dtype=np.int64)[LABELS])
    twice = Dataset.from_dict({"text": [*ROWS, *ROWS[:60]], "labels": [*table.tolist(), *(1 - table[:60]).tolist()]})
    report = examine(twice, encoder="tfidf")
    commands = [t.command for one in report.findings for t in report.treatments(one) if t.ready]
    said = report.text()
    assert len(commands) - len(set(commands)) == 1 == said.count("\n        as above\n")  # conflicts, wrong labels
    for command in set(commands):
        assert said.count("".join(f"\n        {line}" for line in command.splitlines())) == 1
