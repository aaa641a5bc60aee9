"""Confident learning: properties, every bad input, columns of data sets, multi-label data."""

import logging

import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from hf_labels.labels.confident_joint import prune_counts, round_keeping_sum
from hf_labels.labels.confident_learning import (
    FILTERS,
    ConfidentLearning,
    find_label_issues,
    largest,
    multilabel_issues,
)
from hf_labels.labels.label_quality import SCORES, ensemble_label_quality, label_quality

PRUNING = ("prune_by_noise_rate", "prune_by_class", "both")


def noisy(rows=400, classes=4, share=0.15, seed=0):
    """Given labels, true labels, probabilities of a fair model."""
    rng = np.random.default_rng(seed)
    true = rng.integers(classes, size=rows)
    given = np.where(rng.random(rows) < share, (true + 1 + rng.integers(classes - 1, size=rows)) % classes, true)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), true] += 2.5
    probs = np.exp(logits)
    return given, true, probs / probs.sum(1, keepdims=True)


GIVEN, TRUE, PROBS = noisy()


def test_perfect_probabilities_have_no_issue(caplog):
    given = np.arange(120) % 3
    found = ConfidentLearning(given, np.eye(3)[given])
    for name in FILTERS:
        assert not found.find(name).any()
    assert found.num_issues() == found.num_issues("off_diagonal_calibrated") == 0
    assert "trained on" in caplog.text, "probabilities that agree with all labels are suspicious themselves"


def test_finds_planted_errors_better_than_chance():
    wrong = GIVEN != TRUE
    for name in FILTERS:
        mask = ConfidentLearning(GIVEN, PROBS).find(name)
        assert wrong[mask].mean() > 3 * wrong.mean(), name
    assert wrong[np.argsort(label_quality(GIVEN, PROBS))[:20]].mean() > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_permutations_of_classes_and_rows(seed):
    rng = np.random.default_rng(seed)
    found = ConfidentLearning(GIVEN, PROBS)
    order, rows = rng.permutation(4), rng.permutation(len(GIVEN))
    renamed = ConfidentLearning(np.argsort(order)[GIVEN], PROBS[:, order])
    assert (renamed.confident_joint == found.confident_joint[np.ix_(order, order)]).all()
    moved = ConfidentLearning(GIVEN[rows], PROBS[rows])
    for name in FILTERS:
        assert (moved.find(name) == found.find(name)[rows]).all(), name


def test_joint_and_noise_matrices():
    found = ConfidentLearning(GIVEN, PROBS)
    assert (found.calibrated_joint.sum(1) == found.label_counts).all()
    assert found.joint.sum() == pytest.approx(1)
    assert found.noise.prior.sum() == pytest.approx(1)
    np.testing.assert_allclose(found.noise.noise.sum(0), 1)
    np.testing.assert_allclose(found.noise.inverse.sum(0), 1)
    assert abs(found.noise.noise.trace() / 4 - 0.85) < 0.05, "planted: 15 % wrong"


def test_filters_and_counts():
    found = ConfidentLearning(GIVEN, PROBS)
    masks = {name: found.find(name) for name in FILTERS}
    assert (masks["both"] == (masks["prune_by_class"] & masks["prune_by_noise_rate"])).all() and masks["both"].any()
    for name in ("confident_learning", "low_self_confidence", "low_normalized_margin"):
        assert masks[name].sum() == found.num_issues()
    for name in PRUNING:
        assert not found.find(name, frac_noise=0.0).any()
        assert found.find(name, frac_noise=0.5).sum() < masks[name].sum()
        removed = found.find(name, num_to_remove_per_class=[3, 0, 5, 2])
        assert removed.any() and not (removed & ~(PROBS.argmax(1) != GIVEN)).any()


def test_small_classes_are_left_alone(caplog):
    given, probs = GIVEN.copy(), PROBS
    given[given == 3] = 0
    given[0] = 3
    found = ConfidentLearning(given, probs, names=("a", "b", "c", "rare"))
    assert not found.find("prune_by_class")[0] and "Class rare has at most 1 rows" in caplog.text


def test_scores_and_ensembles():
    for name in SCORES:
        scores = label_quality(GIVEN, PROBS, name)
        assert ((scores >= 0) & (scores <= 1)).all()
    other = noisy(seed=1)[2]
    both = [label_quality(GIVEN, p) for p in (PROBS, other)]
    np.testing.assert_allclose(ensemble_label_quality(GIVEN, [PROBS, other], weights="uniform"), np.mean(both, 0))
    np.testing.assert_allclose(
        ensemble_label_quality(GIVEN, [PROBS, other], weights=[3, 1]), (3 * both[0] + both[1]) / 4
    )
    found = ensemble_label_quality(GIVEN, [PROBS, other], weights="log_loss_search")
    assert np.abs(found - both[0]).mean() < np.abs(found - both[1]).mean(), "the better model counts for more"
    adjusted = label_quality(GIVEN, PROBS, "normalized_margin", adjust_pred_probs=True)
    assert ((adjusted >= 0) & (adjusted <= 1)).all() and not np.allclose(adjusted, both[0])


def test_ensembles_of_adjusted_scores():
    other = noisy(seed=1)[2]
    both = [label_quality(GIVEN, p, "normalized_margin", adjust_pred_probs=True) for p in (PROBS, other)]
    found = ensemble_label_quality(GIVEN, [PROBS, other], "normalized_margin", "uniform", adjust_pred_probs=True)
    np.testing.assert_allclose(found, np.mean(both, 0))


def test_one_sure_error_is_not_all_of_a_models_log_loss():
    labels = np.array([0, 1, 0, 1])
    sure = np.array([[0.999, 0.001], [0.001, 0.999], [0.999, 0.001], [1 - 1e-12, 1e-12]])
    unsure = np.array([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.2, 0.8]])

    def loss(probs):  # as the reference: a model's probabilities are at least 1e-6 and sum to 1 again
        return -np.mean([np.log(row[label] / row.sum()) for row, label in zip(probs, labels, strict=True)])

    best = None
    for temperature in (1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 2e2):
        weights = np.exp([-temperature * loss(np.maximum(probs, 1e-6)) for probs in (sure, unsure)])
        weights /= weights.sum()
        mixed = loss(weights[0] * sure + weights[1] * unsure)
        best = (mixed, weights) if best is None or mixed < best[0] else best
    found = ensemble_label_quality(labels, [sure, unsure], weights="log_loss_search")
    expected = best[1][0] * label_quality(labels, sure) + best[1][1] * label_quality(labels, unsure)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_block_boundaries_and_float32(monkeypatch):
    import hf_labels.labels.confident_joint as module

    whole = ConfidentLearning(GIVEN, PROBS)
    monkeypatch.setattr(module, "_BLOCK", 4 * 7)
    for probs in (PROBS, PROBS.astype(np.float32)):
        part = ConfidentLearning(GIVEN, probs)
        np.testing.assert_allclose(part.quality("normalized_margin"), whole.quality("normalized_margin"), atol=1e-6)
        for name in FILTERS:
            assert (part.find(name) == whole.find(name)).all(), name


def test_pairs_prune_as_a_sort_does():
    """The short cut over doubtful rows gives what sorting all rows of the class gives, ties and all."""
    rng = np.random.default_rng(3)
    for trial in range(20):
        given, _, probs = noisy(150, 5, 0.3, seed=trial)
        probs = np.round(probs, 1 if trial % 2 else 6)
        probs[:, 0] += 1 - probs.sum(1)
        probs = np.clip(probs, 0, 1)
        found = ConfidentLearning(given, probs / probs.sum(1, keepdims=True))
        counts = rng.integers(0, 25, size=5)
        rows = np.flatnonzero(given == 2)
        want = np.zeros(len(rows), dtype=bool)
        for j in (0, 1, 3, 4):
            margin = found.pred_probs[rows, j] - found.pred_probs[rows, 2]
            want[np.argsort(-margin, kind="stable")[: counts[j]]] = True
        got = found._prune_pairs(2, rows, counts)
        kept = ~found._scan.agrees[rows]
        assert (got[kept] == want[kept]).all()


def test_largest_and_rounding():
    values = np.array([1.0, 3.0, 3.0, 2.0, 3.0])
    assert largest(values, 2).tolist() == [False, True, True, False, False]
    assert largest(values, 9).all() and not largest(values, 0).any()
    assert round_keeping_sum([0.4, 0.4, 0.4, 0.8]).sum() == 2
    assert round_keeping_sum([1.5, 2.5, 1.0]).sum() == 5


def test_dataset_in_and_out():
    names = ["a", "b", "c", "d"]
    data = Dataset.from_dict({"text": [f"t{i}" for i in range(400)], "topic": GIVEN.tolist()})
    data = data.cast_column("topic", ClassLabel(names=names))
    issues = find_label_issues(data, PROBS, "topic", filter_by="both", rank_by="normalized_margin")
    out = issues.annotate(data)
    assert out["is_issue"][:] == ConfidentLearning(GIVEN, PROBS).find("both").tolist()
    assert out.features["suggested_label"].names == names
    worst = issues.ranked()
    assert (np.diff(np.array(out["label_quality"][:])[worst]) >= 0).all()
    flipped = issues.apply(data, "flip", "topic")
    assert (np.array(flipped["topic"][:]) == TRUE).mean() > (GIVEN == TRUE).mean()
    assert len(issues.apply(data, "filter", "topic")) == 400 - int(issues.is_issue.sum())
    assert issues.source == "confident learning"


def test_multilabel(caplog):
    rng = np.random.default_rng(0)
    true = (rng.random((300, 3)) < 0.4).astype(int)
    given = np.where(rng.random(true.shape) < 0.08, 1 - true, true)
    probs = np.clip(true * 0.8 + 0.1 + rng.normal(0, 0.08, true.shape), 0, 1)
    data = Dataset.from_dict({"labels": given.tolist()})
    issues = find_label_issues(data, probs)
    wrong = (given != true).any(1)
    assert wrong[issues.is_issue].mean() > 0.9 and issues.is_issue[wrong].mean() > 0.9
    assert (issues.suggested == true).mean() > (given == true).mean()
    per_label = [ConfidentLearning(given[:, k], np.stack([1 - probs[:, k], probs[:, k]], 1)).find() for k in range(3)]
    assert (issues.is_issue == np.any(per_label, 0)).all()
    floats = find_label_issues(Dataset.from_dict({"labels": given.astype(float).tolist()}), probs)  # `encode_labels`
    assert (floats.suggested == issues.suggested).all() and floats.given.dtype == np.int64
    with pytest.raises(ValueError, match=r"holds 0.5 at row 7, label 1; expected 0 or 1"):
        multilabel_issues(np.where(np.arange(900).reshape(300, 3) == 22, 0.5, given), probs)
    given[:, 1] = 0
    with caplog.at_level(logging.WARNING):
        issues = multilabel_issues(given, probs, names=("a", "b", "c"))
    assert "Label b is the same in all rows" in caplog.text and (issues.suggested[:, 1] == 0).all()
    with pytest.raises(ValueError, match=r"must be \(N, K\) both, got \(300, 3\) and \(300, 2\)"):
        multilabel_issues(given, probs[:, :2])


@pytest.mark.parametrize(
    ("labels", "probs", "message"),
    [
        (GIVEN[:-1], PROBS, r"`labels` has shape \(399,\), `pred_probs` has 400 rows"),
        (GIVEN, PROBS[:, 0], r"expected \(N, K\)"),
        (GIVEN, PROBS[:, :1], r"expected \(N, K\) with K >= 2"),
        (GIVEN, PROBS[:, :3], "3"),
        (np.where(np.arange(400) == 7, -1, GIVEN), PROBS, "row 7"),
        (np.where(np.arange(400) == 7, -100, GIVEN), PROBS, "row 7"),
        (np.zeros(400, int), PROBS, "class 0 only"),
        (GIVEN, np.where(np.arange(400)[:, None] == 5, np.nan, PROBS), "row 5.*softmax"),
        (GIVEN, np.where(np.arange(400)[:, None] == 9, 1.5, PROBS), "row 9"),
        (GIVEN[:0], PROBS[:0], "empty"),
    ],
)
def test_bad_input_is_named(labels, probs, message):
    with pytest.raises(ValueError, match=message):
        ConfidentLearning(labels, probs)


def test_bad_options_are_named():
    found = ConfidentLearning(GIVEN, PROBS)
    for options, message in [
        ({"filter_by": "magic"}, "prune_by_noise_rate"),
        ({"frac_noise": 1.5}, r"\[0, 1\], got 1.5"),
        ({"min_examples_per_class": -1}, "at least 0"),
        ({"num_to_remove_per_class": [1, 2]}, "4 numbers"),
    ]:
        with pytest.raises(ValueError, match=message):
            found.find(**options)
    with pytest.raises(ValueError, match="self_confidence"):
        found.issues(rank_by="magic")
    with pytest.raises(ValueError, match="self_confidence"):
        found.quality("magic")
    with pytest.raises(ValueError, match="no meaning"):
        found.quality("confidence_weighted_entropy", adjust_pred_probs=True)
    with pytest.raises(ValueError, match="off_diagonal_calibrated"):
        found.num_issues("magic")
    with pytest.raises(ValueError, match="5 classes|names"):
        ConfidentLearning(GIVEN, PROBS, names=("a",) * 5)
    with pytest.raises(ValueError, match="empty"):
        ensemble_label_quality(GIVEN, [])
    with pytest.raises(ValueError, match="log_loss_search"):
        ensemble_label_quality(GIVEN, [PROBS], weights="magic")
    with pytest.raises(ValueError, match="1 numbers"):
        ensemble_label_quality(GIVEN, [PROBS], weights=[1, 2])
    with pytest.raises(ValueError, match="class 1, in which no error"):
        prune_counts(np.diag([5, 5]), np.array([5, 5]), num_to_remove_per_class=[0, 2])
    with pytest.warns(UserWarning, match="do not sum to 1"):
        ConfidentLearning(GIVEN, PROBS * 0.9)
    data = Dataset.from_dict({"labels": [0, 1, None]})
    with pytest.raises(ValueError, match="no label at row 2"):
        find_label_issues(data, np.full((3, 2), 0.5))
    with pytest.raises(KeyError, match="topic"):
        find_label_issues(data, np.full((3, 2), 0.5), "topic")
