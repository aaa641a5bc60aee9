"""Ranks and generalised zero-shot scores against slow ways; properties; bad input; the `evaluate` modules."""

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_labels.metrics import path_of
from hf_labels.metrics.functional import gzsl_scores, kg_ranking_scores, realistic_ranks, seen_unseen_curve


def slow_rank(scores, target, others):
    rivals = [s for i, s in enumerate(scores) if i == target or i not in others]
    better = sum(s > scores[target] for s in rivals)
    return better + (sum(s == scores[target] for s in rivals) + 1) / 2


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_ranks_equal_counting_and_filtering_never_raises_them(seed):
    rng = np.random.default_rng(seed)
    scores, target = rng.integers(4, size=(5, 6)).astype(float), rng.integers(6, size=5)
    others = [rng.choice(6, rng.integers(4), replace=False).tolist() for _ in range(5)]
    found = realistic_ranks(scores, target, others)
    np.testing.assert_allclose(
        found, [slow_rank(s, t, set(o)) for s, t, o in zip(scores, target, others, strict=True)]
    )
    assert (found <= realistic_ranks(scores, target)).all()


def test_constant_and_perfect_scores():
    np.testing.assert_allclose(realistic_ranks(np.zeros((2, 9)), [0, 8]), 5.0)
    perfect = realistic_ranks(np.eye(4), [0, 1, 2, 3])
    assert kg_ranking_scores(perfect) == {"mrr": 1, "mean_rank": 1, "hits@1": 1, "hits@3": 1, "hits@10": 1, "n": 4}
    low = np.full((1, 3), -np.inf)
    np.testing.assert_allclose(realistic_ranks(low, [1], [[0, 2]]), 1.0)  # filtered ones are no ties


def test_gzsl_is_a_mean_over_classes():
    gold = ["a"] * 8 + ["b"] * 2 + ["u"] * 4
    guess = ["a"] * 8 + ["a", "b"] + ["u", "a", "a", "a"]
    found = gzsl_scores(guess, gold, ["a", "b"])
    assert found["seen"] == 0.75 and found["unseen"] == 0.25 and found["harmonic_mean"] == 0.375
    assert (found["n_seen"], found["n_unseen"]) == (10, 4)
    assert found["harmonic_mean"] <= 2 * min(found["seen"], found["unseen"])
    assert gzsl_scores(["a"], ["b"], ["a"])["harmonic_mean"] == 0.0


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_curve_equals_trying_every_constant(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(6, size=(30, 5)).astype(float) if seed % 2 else rng.normal(size=(30, 5))  # ties, or none
    seen = np.array([True, True, True, False, False])
    labels = np.concatenate([np.arange(5), rng.integers(5, size=25)])
    curve = seen_unseen_curve(scores, labels, seen)
    for constant, s, u in zip(curve["constants"], curve["seen"], curve["unseen"], strict=True):
        table = scores - constant * seen
        found = gzsl_scores(table.argmax(1), labels, [0, 1, 2])
        np.testing.assert_allclose([found["seen"], found["unseen"]], [s, u], atol=1e-9)
    assert 0 <= curve["ausuc"] <= 1 and curve["harmonic_mean"] == max(
        2 * s * u / (s + u) if s + u else 0 for s, u in zip(curve["seen"], curve["unseen"], strict=True)
    )


def test_modules_load_and_compute():
    gzsl = evaluate.load(path_of("gzsl"))
    assert gzsl.compute(predictions=["a", "u"], references=["a", "u"], seen_labels=["a"])["harmonic_mean"] == 1.0
    ranks = evaluate.load(path_of("kg_ranking"))
    scores = [[0.1, 0.9, 0.5], [0.7, 0.2, 0.6]]
    assert ranks.compute(predictions=scores, references=[2, 0], filters=[[1], []])["mrr"] == 1.0
    assert ranks.compute(predictions=scores, references=[2, 0])["mrr"] == 0.75


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda: realistic_ranks(np.ones((2, 3)), [0]), "one target"),
        (lambda: realistic_ranks(np.ones((1, 3)), [3]), "Target 3 of row 0"),
        (lambda: realistic_ranks([[np.nan, 1.0]], [0]), "Row 0 of the scores holds NaN"),
        (lambda: kg_ranking_scores([]), "at least one rank"),
        (lambda: kg_ranking_scores([0.5]), "ranks start at 1"),
        (lambda: gzsl_scores(["a"], [], ["a"]), "1 predictions and 0 references"),
        (lambda: gzsl_scores([], [], ["a"]), "nothing to score"),
        (lambda: seen_unseen_curve(np.ones((1, 2)), [0], [True, True]), "seen and unseen"),
    ],
)
def test_bad_input_is_named(act, match):
    with pytest.raises(ValueError, match=match):
        act()
