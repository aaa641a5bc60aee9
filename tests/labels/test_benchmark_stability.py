"""Test sets whose labels people have checked: categories, corrected labels, rankings, crossings."""

import numpy as np
import pytest

from hf_labels.labels.benchmark_stability import CheckedTestSet, benchmark_stability
from hf_labels.metrics.functional import accuracy_at_prevalence, corrected_benchmark, crossing_prevalence

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
RECORDS = [
    {"id": 0, "our_guessed_label": "b", "mturk": {"given": 4, "guessed": 1, "neither": 0, "both": 0}},
    {"id": 1, "our_guessed_label": "c", "mturk": {"given": 1, "guessed": 3, "neither": 1, "both": 0}},
    {"id": 2, "our_guessed_label": "a", "mturk": {"given": 0, "guessed": 1, "neither": 1, "both": 3}},
    {"id": 3, "our_guessed_label": "b", "mturk": {"given": 0, "guessed": 0, "neither": 5, "both": 0}},
    {"id": 4, "our_guessed_label": "a", "mturk": {"given": 2, "guessed": 2, "neither": 1, "both": 0}},
]
IDS = {"a": 0, "b": 1, "c": 2}


def checked():
    return CheckedTestSet.from_records(LABELS, RECORDS, IDS)


def test_categories_and_corrected_labels():
    found = checked()
    assert found.categories.tolist() == ["no error", "correctable", "multi-label", "neither", "non-agreement"]
    assert found.count() == dict.fromkeys(found.count(), 1)
    assert found.errors.tolist() == [1, 2, 3, 4]
    assert found.corrected.tolist() == [0, 2, -1, -1, -1, 2, 0, 1]


def test_scores_and_ranks():
    first = np.array([0, 1, 2, 0, 1, 2, 0, 2])  # learned the wrong label of row 1
    second = np.array([0, 2, 2, 0, 1, 2, 1, 2])
    found = benchmark_stability({"memory": first, "sense": np.eye(3)[second]}, checked(), draws=200)
    memory, sense = found["models"]["memory"], found["models"]["sense"]
    assert memory["original_accuracy"] == 7 / 8 and memory["corrected_accuracy"] == 3 / 5
    assert sense["original_accuracy"] == 5 / 8 and sense["corrected_accuracy"] == 3 / 5
    assert (memory["rank_original"], sense["rank_original"]) == (1, 2)
    assert memory["benign_accuracy"] == 3 / 4 and memory["correctable_accuracy"] == 0
    assert found["noise_prevalence"] == 1 / 5
    low, high = memory["original_interval"]
    assert low <= 7 / 8 <= high and 0 <= low < high <= 1
    assert found["crossings"] == [], "they are level at the prevalence of today"


def test_expected_accuracy_is_linear_and_crosses():
    one = {"benign_accuracy": 0.9, "correctable_accuracy": 0.2, "noise_prevalence": 0.05}
    two = {"benign_accuracy": 0.86, "correctable_accuracy": 0.5, "noise_prevalence": 0.05}
    assert accuracy_at_prevalence(0.9, 0.2, 0) == 0.9 and accuracy_at_prevalence(0.9, 0.2, 1) == 0.2
    point = crossing_prevalence(one, two)
    assert point == pytest.approx(0.04 / 0.34) and crossing_prevalence(two, one) == pytest.approx(point)
    assert accuracy_at_prevalence(0.9, 0.2, point) == pytest.approx(accuracy_at_prevalence(0.86, 0.5, point))
    assert crossing_prevalence(one | {"noise_prevalence": 0.2}, two) is None, "they crossed already"
    assert crossing_prevalence(one, two | {"correctable_accuracy": 0.1}) is None


def test_crossings_of_three_models():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=400)
    wrong = np.arange(20)
    votes = np.tile([0, 5, 0, 0], (20, 1))
    test_set = CheckedTestSet(labels, wrong, (labels[:20] + 1) % 3, votes)
    copies, honest = labels.copy(), test_set.corrected.copy()
    copies[50:60] = (labels[50:60] + 1) % 3
    honest[50:75] = (labels[50:75] + 1) % 3
    found = benchmark_stability({"copies": copies, "honest": honest}, test_set, draws=100)
    assert found["kendall_tau"] == pytest.approx(-1)
    assert found["crossings"] == [], "at 5 % errors the honest model is ahead already"
    assert found["models"]["honest"]["correctable_accuracy"] == 1


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="empty"):
        benchmark_stability({}, checked())
    with pytest.raises(ValueError, match=r"'m' predicts \(3,\), the test set has 8 rows"):
        benchmark_stability({"m": [0, 1, 2]}, checked())
    with pytest.raises(ValueError, match="names a row twice"):
        CheckedTestSet.from_records(LABELS, [RECORDS[0], RECORDS[0]], IDS)
    with pytest.raises(ValueError, match="there are 8 labels"):
        CheckedTestSet.from_records(LABELS, [RECORDS[0] | {"id": 8}], IDS)
    with pytest.raises(ValueError, match=r"`votes` \(1, 4\)"):
        CheckedTestSet(LABELS, np.array([0]), np.array([1]), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"must be \(N,\)"):
        corrected_benchmark([0, 1], [0, 1], [0])
    with pytest.raises(ValueError, match="at least one label must be known"):
        corrected_benchmark([0, 1], [0, 1], [-1, -1])
