"""Entailment probabilities, ensembles and decision rules, against plain loops and their own laws."""

import numpy as np
import pytest

from hf_labels.labels.zero_shot_tc import (
    NONE,
    DecisionRule,
    alternate_labels,
    decide,
    ensemble_probs,
    entailment_probs,
    label_scores,
    pipeline_scores,
)

OWNER = [0, 0, 1, 2, 2, 2, 3]


def drawn(rows=60, seed=0):
    return np.random.default_rng(seed).random((rows, len(OWNER)))


def by_hand(row, seen, rule):
    """The published single-label rules, one comparison at a time."""
    best = {True: (-1.0, None), False: (-1.0, None)}
    for value, label in zip(row, OWNER, strict=True):
        if value > best[label in seen][0]:
            best[label in seen] = (value, label)
    (p, a), (q, b) = best[True], best[False]
    if rule.reject and max(p, q) <= rule.threshold:
        return NONE
    if rule.decision == "single_phase":
        return OWNER[int(np.argmax(row))]
    if (p > rule.threshold) != (q > rule.threshold):
        return a if p > rule.threshold else b
    return a if p - q > rule.seen_margin else b


@pytest.mark.parametrize("seen", [(0, 2), (1,), (), (0, 1, 2, 3)])
@pytest.mark.parametrize("decision", ["single_phase", "two_phase"])
@pytest.mark.parametrize("reject", [False, True])
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_single_label_rules_equal_the_plain_loop(seen, decision, reject, threshold):
    probs, rule = drawn(), DecisionRule(decision, reject=reject, threshold=threshold, seen_margin=0.05)
    assert decide(probs, OWNER, seen, rule).tolist() == [by_hand(row, seen, rule) for row in probs]


@pytest.mark.parametrize("decision", ["single_phase", "two_phase"])
def test_multi_label_rules_equal_the_plain_loop(decision):
    probs, seen = drawn(), (0, 2)
    found = decide(probs, OWNER, seen, DecisionRule(decision, multi_label=True))
    for row, got in zip(probs, found, strict=True):
        for label in range(4):
            bar = 0.6 if decision == "two_phase" and label in seen else 0.5
            assert got[label] == any(p > bar for p, owner in zip(row, OWNER, strict=True) if owner == label)


def test_comparisons_are_strict_and_the_first_maximum_wins():
    rule = DecisionRule("two_phase", seen_margin=0.25)
    assert decide([[0.75, 0.5]], [0, 1], [0], DecisionRule("two_phase", seen_margin=0.25, threshold=0.9)).item() == 1
    assert decide([[0.5, 0.5]], [0, 1], [], DecisionRule(reject=True)).item() == NONE
    assert decide([[0.7, 0.7]], [1, 0], [], DecisionRule()).item() == 1
    assert not decide([[0.6]], [0], [0], DecisionRule("two_phase", multi_label=True)).item()
    assert decide([[0.9, 0.625]], [0, 1], [0], rule).item() == 0


def test_adding_a_constant_to_the_logits_changes_nothing():
    logits = np.random.default_rng(1).normal(size=(9, 5, 2)) * 4
    for score in ("softmax", "max"):
        one, two = entailment_probs(logits, 0, score), entailment_probs(logits + 123.0, 0, score)
        np.testing.assert_allclose(one, two, atol=1e-12)
        np.testing.assert_array_equal(one > 0.5, logits[..., 0] > logits[..., 1])


def test_softmax_over_all_classes_and_against_the_strongest():
    logits = np.random.default_rng(2).normal(size=(20, 3))
    want = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(entailment_probs(logits, 1), want[:, 1], atol=1e-12)
    margin = logits[:, 1] - logits[:, [0, 2]].max(1)
    np.testing.assert_allclose(entailment_probs(logits, 1, "max"), 1 / (1 + np.exp(-margin)), atol=1e-12)


def test_large_logits_do_not_overflow():
    assert pipeline_scores([[[0.0, 500.0], [0.0, 499.0]]], 1).tolist()[0] == pytest.approx([0.7310586, 0.2689414])
    assert entailment_probs([[800.0, -800.0], [-800.0, 800.0]]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_duplicating_a_hypothesis_changes_nothing_under_max_only(aggregate):
    probs = drawn()
    more, owner = np.concatenate([probs, probs[:, :1]], 1), [*OWNER, OWNER[0]]
    rule = DecisionRule("two_phase", aggregate=aggregate)
    same = np.array_equal(decide(probs, OWNER, (0, 2), rule), decide(more, owner, (0, 2), rule))
    same_scores = np.allclose(label_scores(probs, OWNER, aggregate), label_scores(more, owner, aggregate))
    assert same_scores == (aggregate == "max") and (same or aggregate == "mean")


def test_without_seen_labels_two_phases_are_one():
    probs = drawn()
    for reject in (False, True):
        rules = [DecisionRule(decision, reject=reject) for decision in ("single_phase", "two_phase")]
        assert np.array_equal(decide(probs, OWNER, (), rules[0]), decide(probs, OWNER, (), rules[1]))


def test_a_greater_margin_never_gives_more_seen_predictions():
    probs, counts = drawn(400), []
    for margin in (0.0, 0.05, 0.1, 0.3, 1.0):
        found = decide(probs, OWNER, (0, 2), DecisionRule("two_phase", seen_margin=margin))
        counts.append(int(np.isin(found, (0, 2)).sum()))
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_ensembles_keep_the_side_of_one_half_and_squeeze():
    probs = np.random.default_rng(3).random((3, 200))
    mean, reference = ensemble_probs(probs), ensemble_probs(probs, "reference")
    assert np.array_equal(mean > 0.5, reference > 0.5)
    assert 0.047 < reference.min() and reference.max() < 0.953
    sums = np.stack([probs.sum(0), (1 - probs).sum(0)])
    np.testing.assert_allclose(reference, np.exp(sums[0]) / np.exp(sums).sum(0), atol=1e-12)
    assert np.array_equal(np.argsort(mean), np.argsort(reference))


def test_halves_of_the_labels():
    assert alternate_labels("abcde") == ("a", "c", "e") and alternate_labels("abcde", "v1") == ("b", "d")
    for wrong in (("abc", "v2"), ("a", "v0")):
        with pytest.raises(ValueError, match="v0|at least two"):
            alternate_labels(*wrong)


def test_no_texts_give_no_labels():
    assert decide(np.zeros((0, 2)), [0, 1]).shape == (0,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entailment_probs([[1.0]]), "at least two classes"),
        (lambda: entailment_probs([[1.0, 2.0]], 2), r"in \[0, 2\), got 2"),
        (lambda: entailment_probs([[1.0, 2.0]], 0, "pipeline"), "'softmax' or 'max'"),
        (lambda: entailment_probs([[[0.0, 1.0]], [[np.nan, 1.0]]]), "text 1 hold NaN"),
        (lambda: pipeline_scores([[0.0, 1.0]], 0), r"\(N, K, C\)"),
        (lambda: ensemble_probs([]), "at least one model"),
        (lambda: ensemble_probs([[0.5]], "median"), "mean, reference"),
        (lambda: decide([[0.1, 0.2]], [0]), r"\(N, H\) for 1 hypotheses"),
        (lambda: decide([[0.1], [np.inf]], [0]), "text 1"),
        (lambda: decide([[0.1, 0.2]], [0, 2]), r"\[1\] has none"),
        (lambda: decide([[0.1]], [0], [1]), "names label 1"),
        (lambda: DecisionRule("three_phase"), "single_phase, two_phase"),
        (lambda: DecisionRule(aggregate="sum"), "max, mean"),
        (lambda: DecisionRule(threshold=1.5), r"`threshold` must be in \[0, 1\]"),
        (lambda: DecisionRule(seen_margin=-0.1), "seen_margin"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
