"""Whole entities: spans as seqeval reads them, F1, source entities taken for target ones, the `evaluate` module."""

from types import SimpleNamespace

import evaluate
import numpy as np
import pytest

import hf_labels.metrics as metrics
from hf_labels.metrics.functional import entity_f1, entity_spans, source_as_target_rate, tag_rows

TRUTH = [["B-A", "I-A", "O", "B-B"], ["O", "I-A", "B-A", "O"]]
GUESS = [["B-A", "I-A", "O", "O"], ["O", "I-A", "I-A", "O"]]


def test_spans_follow_the_lenient_reading():
    assert entity_spans([["I-A", "I-A", "I-B", "B-B", "O", "I-B"]]) == {
        (0, 0, 1, "A"),
        (0, 2, 2, "B"),
        (0, 3, 3, "B"),
        (0, 5, 5, "B"),
    }
    assert entity_spans([["O"], []]) == set()


def test_scores_by_hand():
    found = entity_f1(GUESS, TRUTH)
    assert (found["precision"], found["recall"]) == (0.5, 0.25)
    assert found["f1"] == pytest.approx(1 / 3)
    assert found["per_type"]["B"] == {"precision": 0, "recall": 0, "f1": 0, "predicted": 0, "correct": 0, "there": 1}
    assert found["macro_f1"] == pytest.approx((2 / 5) / 2)
    assert entity_f1(TRUTH, TRUTH)["f1"] == 1 and entity_f1([["O"]], [["O"]])["f1"] == 0


def test_source_entities_that_get_a_target_tag():
    sources = [["O", "O", "B-S", "B-S"], ["B-S", "I-S", "O", "O"]]
    found = source_as_target_rate([["O", "O", "B-A", "O"], ["O", "B-A", "O", "O"]], [["O"] * 4] * 2, sources)
    assert found == {"source_as_target_rate": 2 / 3, "n_source_entities": 3}
    known = source_as_target_rate([["B-A"]], [["B-A"]], [["B-S"]])
    assert known["n_source_entities"] == 0 and np.isnan(known["source_as_target_rate"])


def test_module_by_class_and_by_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))
    want = entity_f1(GUESS, TRUTH)
    assert metrics.EntityF1().compute(predictions=GUESS, references=TRUTH) == want
    by_folder = evaluate.load(metrics.path_of("entity_f1"), keep_in_memory=True)
    sources = [["O"] * 4, ["B-S", "O", "O", "O"]]
    got = by_folder.compute(predictions=GUESS, references=TRUTH, sources=sources)
    assert got == want | {"source_as_target_rate": 0.0, "n_source_entities": 1}


def test_trainer_metric_reads_ids_and_scores():
    names = ["O", "B-A", "I-A"]
    labels = np.array([[1, 2, -100], [0, -100, 1]])
    ids = np.array([[1, 2, 1], [1, 0, 1]])
    want = entity_f1(*tag_rows(ids, labels, names))
    compute = metrics.make_entity_metrics(names)
    got = compute(SimpleNamespace(predictions=np.eye(3)[ids], label_ids=labels))
    assert got == {name: want[name] for name in ("precision", "recall", "f1", "macro_f1")}
    assert want["per_type"]["A"]["predicted"] == 3 and want["per_type"]["A"]["there"] == 2


@pytest.mark.parametrize(
    ("guess", "truth", "message"),
    [
        ([["O"]], [["O"], ["O"]], "1 predicted sentences and 2"),
        ([["O"]], [["O", "O"]], "Row 0 has 1 predicted tags and 2"),
        ([["A"]], [["O"]], "got 'A' at row 0, word 0"),
        ([["B-"]], [["O"]], "got 'B-'"),
    ],
)
def test_bad_tags_are_named(guess, truth, message):
    with pytest.raises(ValueError, match=message):
        entity_f1(guess, truth)
