"""Wrong labels of multi-label rows: planted ones are counted and named, each kind by itself."""

import numpy as np
import pytest
from datasets import Dataset
from doctor_toys import WORDS, only

from hf_labels.doctor import examine
from hf_labels.doctor.linear import _calibrated, discriminants, surest

NAMES = sorted(WORDS)


def sets_of_labels(count, seed=0, none=0.0):
    """Texts with words of one to three subjects, and which these are `(count, 3)`."""
    rng = np.random.default_rng(seed)
    table = rng.random((count, 3)) < 0.45
    rows = [
        " ".join(word for k in np.flatnonzero(has) for word in rng.choice(WORDS[NAMES[k]], 4)) + f" {rng.integers(99)}"
        for has in table
    ]
    return rows, table.astype(np.int64)


def flipped(table, lost, added, seed=1):
    draws = np.random.default_rng(seed).random(table.shape)
    return np.where(draws < np.where(table == 1, lost, added), 1 - table, table)


def told(rows, given, **columns):
    report = examine(Dataset.from_dict({"text": rows, "labels": given.tolist(), **columns}), encoder="tfidf")
    return report, only(report, "of the cells (95 %")


@pytest.mark.parametrize(("lost", "added"), [(0.0, 0.0), (0.15, 0.0), (0.0, 0.1), (0.1, 0.1)])
def test_planted_errors_are_in_the_interval_and_named(lost, added):
    rows, right = sets_of_labels(1500)
    given = flipped(right, lost, added)
    report, found = told(rows, given)
    wrong = given != right
    assert found.low - 0.005 <= wrong.mean() <= found.high + 0.005
    assert found.level == ("good" if not lost + added else "problem" if found.low > 0.05 else "warning")
    named = np.zeros(right.shape, bool)
    named[found.values["rows"], [int(name) for name in found.values["labels"]]] = True
    assert named.sum() == found.values["flagged"] <= 1000
    if lost + added:
        assert wrong[named].mean() > 0.85 and wrong[named].sum() > 0.75 * wrong.sum()
        assert report.treatments(found)[0].slug == "confident_learning"
    missing, extra = (float(line.split("(")[1].split(" %")[0]) / 100 for line in found.details[:2])
    assert abs(missing - lost) < 0.05 and abs(extra - added) < 0.05


def test_unknown_cells_are_not_judged_and_small_labels_are_left_out():
    rows, right = sets_of_labels(600)
    given = flipped(right, 0.1, 0.1)
    rare = np.zeros((600, 1), np.int64)
    rare[:5] = 1
    mask = np.ones((600, 4), np.int64)
    mask[::2, 0] = 0
    report, found = told(rows, np.hstack([given, rare]), label_mask=mask.tolist())
    assert "features do not tell them: 3" in " ".join(found.details)
    zeros = [row for row, name in zip(found.values["rows"], found.values["labels"], strict=True) if name == "0"]
    assert zeros and all(row % 2 for row in zeros)


def test_features_that_say_nothing_estimate_nothing():
    rng = np.random.default_rng(0)
    rows, _ = sets_of_labels(300)
    given = rng.integers(0, 2, (300, 3))
    report = examine(Dataset.from_dict({"text": rows, "labels": given.tolist()}), encoder="tfidf")
    assert only(report, "noise rate cannot be estimated").level == "warning"


def test_too_few_rows_and_too_many_labels_are_told(monkeypatch):
    rows, right = sets_of_labels(300)
    small = examine(Dataset.from_dict({"text": rows[:30], "labels": right[:30].tolist()}), encoder="tfidf")
    assert only(small, "Wrong labels were not looked for").level == "note"
    monkeypatch.setattr("hf_labels.doctor.plural.CELLS", 100)
    large = examine(Dataset.from_dict({"text": rows, "labels": right.tolist()}), encoder="tfidf")
    assert only(large, "Too many labels (3) for 300 rows")


def test_one_label_of_many_is_judged_as_two_classes_are():
    """The direction on the total covariance is that of the pooled one: same ranking as linear discriminants."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    table = rng.integers(0, 2, (400, 2))
    x = rng.normal(size=(400, 6)) + table @ rng.normal(size=(2, 6))
    probs, useful = discriminants(x, table)
    assert useful.all()
    for k in range(2):
        lda = LinearDiscriminantAnalysis().fit(x, table[:, k]).predict_proba(x)[:, 1]
        assert np.corrcoef(np.log(lda / (1 - lda)), np.log(probs[:, k] / (1 - probs[:, k])))[0, 1] > 0.98
        assert abs(probs[:, k].mean() - table[:, k].mean()) < 0.01
        assert roc_auc_score(table[:, k], probs[:, k]) > 0.7


def test_the_surest_rows_are_a_tenth_of_each_guessed_class_or_half_of_small_data():
    rng = np.random.default_rng(0)
    guess, sure = rng.integers(0, 4, 10_000), rng.random(10_000)
    found = surest(guess, sure)
    for k in range(4):
        own = guess == k
        assert (own & found).sum() == np.ceil(0.1 * own.sum())
        assert sure[own & found].min() >= sure[own & ~found].max()
    assert surest(np.zeros(10, np.int64), sure[:10]).sum() == 5


def test_all_logistic_regressions_at_once_equal_one_by_one():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    scores = rng.normal(size=(500, 6)) * [1, 10, 0.01, 1, 1, 300] + [0, 50, 0, -3, 0, 0]
    standard = (scores - scores.mean(0)) / scores.std(0)
    truth = rng.random((500, 6)) < 1 / (1 + np.exp(-standard * [2, 1, 0, -1, 4, 8] - [0, -2, 1, 0, 0, -3]))
    truth[:, 4] = standard[:, 4] > 0.5  # told surely
    known = rng.random((500, 6)) < 0.9
    found = _calibrated(scores, truth & known, known)
    for k in (0, 1, 2, 3, 5):
        own = known[:, k]
        one = LogisticRegression(C=1e4, tol=1e-8).fit(standard[own, k : k + 1], truth[own, k])
        assert np.allclose(found[:, k], one.predict_proba(standard[:, k : k + 1])[:, 1], atol=2e-4)
    assert ((found[:, 4] > 0.5) == truth[:, 4])[known[:, 4]].mean() > 0.99 and np.isfinite(found).all()
