"""Pseudo-label sets and the rules that choose among them, against slow loops and limit cases."""

import numpy as np
import pytest

from hf_labels.labels.pseudo import (
    PseudoLabelSet,
    entropy_weights,
    random_control,
    select_agreement,
    select_balanced,
    select_class_threshold,
    select_threshold,
    select_top_k,
)
from hf_labels.metrics.functional import pseudo_label_quality

RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.ones(4), size=60)
LABELS, SURE = PROBS.argmax(1), PROBS.max(1)


def one(index, labels, confidence, **more):
    size = len(index)
    return PseudoLabelSet(index, labels, confidence, np.zeros(size), ["a"] * size, **more)


def test_from_probs_takes_the_first_of_the_best_and_leaves_out_what_was_not_answered():
    found = PseudoLabelSet.from_probs(
        [[0.5, 0.5], [0.2, 0.8], [np.nan, np.nan]], round=3, source="t", names=("a", "b")
    )
    assert found.labels.tolist() == [0, 1, -1] and found.confidence.tolist() == [0.5, 0.8, 0.0]
    assert found.round.tolist() == [3, 3, 3] and set(found.source) == {"t"} and found.counts().tolist() == [1, 1]
    soft = PseudoLabelSet.from_probs(PROBS, soft=True)
    assert np.array_equal(soft.labels, PROBS)
    assert len(PseudoLabelSet.from_probs(np.zeros((0, 3)))) == 0


def test_dataset_and_back():
    found = PseudoLabelSet.from_probs(PROBS, round=1, source="teacher", names=("a", "b", "c", "d"))
    table = found.to_dataset(text=[f"t{i}" for i in range(60)])
    assert table.column_names == ["text", "index", "labels", "confidence", "round", "source"]
    assert table.features["labels"].names == ["a", "b", "c", "d"]
    again = PseudoLabelSet.from_dataset(table)
    for name in ("index", "labels", "confidence", "round", "source"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
    assert again.names == found.names
    soft = PseudoLabelSet.from_dataset(PseudoLabelSet.from_probs(PROBS, soft=True).to_dataset())
    assert np.array_equal(soft.labels, PROBS)
    with pytest.raises(KeyError, match="confidence"):
        PseudoLabelSet.from_dataset(table.remove_columns("confidence"))


def test_merge_keeps_what_was_asked_for():
    old, new = one([3, 1], [0, 1], [0.9, 0.4]), one([1, 2], [2, 2], [0.6, 0.7])
    assert old.merge(new).index.tolist() == [1, 2, 3]
    assert old.merge(new).labels.tolist() == [1, 2, 0]
    assert old.merge(new, "last").labels.tolist() == [2, 2, 0]
    assert old.merge(new, "confident").labels.tolist() == [2, 2, 0]
    assert new.merge(old, "confident").labels.tolist() == [2, 2, 0]
    assert one([1], [0], [0.5]).merge(one([1], [1], [0.5]), "confident").labels.tolist() == [0]
    with pytest.raises(ValueError, match="'confident'"):
        old.merge(new, "best")
    with pytest.raises(ValueError, match="different shape or names"):
        old.merge(PseudoLabelSet.from_probs(PROBS, soft=True))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"index": [1, 1]}, "1 more than once"),
        ({"confidence": [0.1, 1.2]}, "1.2 at row 1"),
        ({"confidence": [np.nan, 0.2]}, "nan at row 0"),
        ({"confidence": [0.1]}, "`confidence` has 1 rows"),
        ({"labels": [0, -2]}, "-2 at row 1"),
        ({"labels": [0, 5], "names": ("a", "b")}, "5 at row 1"),
    ],
)
def test_bad_sets_are_named(change, message):
    good = {"index": [0, 1], "labels": [0, 1], "confidence": [0.1, 0.2]}
    with pytest.raises(ValueError, match=message):
        one(**(good | change))


def test_bad_probs_name_the_row():
    with pytest.raises(ValueError, match="row 1"):
        PseudoLabelSet.from_probs([[0.5, 0.5], [0.5, 0.9]])
    with pytest.raises(ValueError, match="NaN.* at row 1"):
        PseudoLabelSet.from_probs([[0.5, 0.5], [np.nan, np.nan]], soft=True)
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        PseudoLabelSet.from_probs([0.5, 0.5])


@pytest.mark.parametrize("k", [0, 1, 3, 100])
def test_top_k_is_a_slow_loop(k):
    rounded = np.round(SURE, 1)  # with ties
    want = []
    for c in range(4):
        rows = sorted((i for i in range(60) if LABELS[i] == c), key=lambda i: (-rounded[i], i))
        want += rows[:k]
    assert select_top_k(rounded, LABELS, k).tolist() == sorted(want)


def test_top_k_for_each_class_and_missing_labels():
    labels, sure = np.array([0, 0, 1, -1, 1]), np.array([0.9, 0.8, 0.7, 1.0, np.nan])
    assert select_top_k(sure, labels, {0: 1, 1: 5}).tolist() == [0, 2]
    assert select_top_k(sure, labels, 9).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="negative"):
        select_top_k(sure, labels, -1)
    with pytest.raises(ValueError, match=r"\(N,\) both"):
        select_top_k(sure, labels[:2], 1)


def test_balanced_gives_each_class_the_same_number():
    labels, sure = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert select_balanced(sure, labels).tolist() == [1, 2, 3, 4]
    assert select_balanced(sure, labels, 1).tolist() == [2, 4]
    assert select_balanced(sure, np.full(5, -1)).tolist() == []


def test_thresholds():
    assert np.array_equal(select_threshold(SURE, 0.5), [i for i in range(60) if SURE[i] >= 0.5])
    limits = [0.4, 0.5, 0.6, 0.7]
    want = [i for i in range(60) if SURE[i] >= limits[LABELS[i]]]
    assert np.array_equal(select_class_threshold(SURE, LABELS, limits), want)
    assert np.array_equal(select_class_threshold(SURE, LABELS, np.full(4, 0.5)), select_threshold(SURE, 0.5))
    with pytest.raises(ValueError, match="no class 3"):
        select_class_threshold(SURE, LABELS, {0: 0.1, 1: 0.1, 2: 0.1})


def test_agreement_counts_those_who_answered():
    votes = np.array([[0, 1, 2, -1], [0, 1, 1, -1], [0, -1, 2, -1]])
    assert select_agreement(votes).tolist() == [0, 1]
    assert select_agreement(votes, 2 / 3).tolist() == [0, 1, 2]
    for wrong in (votes[0], np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match=r"\(S, N\)"):
            select_agreement(wrong)
    with pytest.raises(ValueError, match="min_share"):
        select_agreement(votes, 0)


def test_entropy_weights_from_certain_to_uniform():
    found = entropy_weights([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    assert np.allclose(found, [1, 0, 1 - np.log(2) / np.log(3)])
    with pytest.raises(ValueError, match="K of at least 2"):
        entropy_weights(np.ones((3, 1)))


def test_random_control_has_the_size_of_the_selection():
    chosen = select_top_k(SURE, LABELS, 3)
    drawn = random_control(60, len(chosen), np.random.default_rng(1))
    assert len(set(drawn.tolist())) == len(chosen) and drawn.tolist() == sorted(drawn.tolist())
    by_class = random_control(60, chosen, np.random.default_rng(1), labels=LABELS)
    assert np.array_equal(np.bincount(LABELS[by_class]), np.bincount(LABELS[chosen]))
    assert set(random_control(np.array([4, 9]), 2, np.random.default_rng(0)).tolist()) == {4, 9}
    other = random_control(60, len(chosen), np.random.default_rng(2))
    assert drawn.tolist() != other.tolist()
    with pytest.raises(ValueError, match="pool has 60"):
        random_control(60, 61, np.random.default_rng(0))


def test_quality_counts_only_what_is_known():
    labels, truth = np.array([0, 1, 1, -1, 0]), np.array([0, 0, 1, 1, -1])
    found = pseudo_label_quality(labels, truth)
    assert found == {"precision": 2 / 3, "coverage": 3 / 4, "n_selected": 3, "class_coverage_min": 0.5}
    assert pseudo_label_quality(labels, truth, selected=[0, 2])["precision"] == 1.0
    none = pseudo_label_quality(labels, truth, selected=np.zeros(5, dtype=bool))
    assert np.isnan(none["precision"]) and none["coverage"] == 0
    with pytest.raises(ValueError, match="both"):
        pseudo_label_quality(labels, truth[:2])
    with pytest.raises(ValueError, match="nothing to compare"):
        pseudo_label_quality(labels, np.full(5, -1))
