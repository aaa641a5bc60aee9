"""Agreement of annotators, exact intervals, found label errors, shifted ranks."""

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import average_precision_score, cohen_kappa_score, f1_score

from hf_labels.metrics import functional as fn

RNG = np.random.default_rng(0)
TABLE = np.where(RNG.random((60, 4)) < 0.7, RNG.integers(0, 3, (60, 1)), RNG.integers(0, 3, (60, 4)))


def test_kappas_against_scikit_learn_and_by_hand():
    for i in range(4):
        assert fn.cohen_kappa(TABLE[:, 0], TABLE[:, i], 3) == pytest.approx(
            cohen_kappa_score(TABLE[:, 0], TABLE[:, i])
        )
    counts = np.stack([(TABLE == k).sum(1) for k in range(3)], 1)
    agree = ((counts**2).sum(1) - 4) / 12
    chance = ((counts.sum(0) / TABLE.size) ** 2).sum()
    assert fn.fleiss_kappa(TABLE) == pytest.approx((agree.mean() - chance) / (1 - chance))
    assert fn.pairwise_agreement(TABLE) == pytest.approx(agree.mean())


def test_limits_of_kappa(caplog):
    same = np.repeat(TABLE[:, :1], 3, axis=1)
    assert fn.fleiss_kappa(same) == pytest.approx(1)
    independent = np.random.default_rng(1).integers(0, 2, (20_000, 2))
    assert abs(fn.fleiss_kappa(independent)) < 0.03
    biased = np.array([[0, 0], [0, 0], [0, 1], [0, 1], [1, 1]])
    assert fn.fleiss_kappa(biased) != pytest.approx(fn.cohen_kappa(*biased.T))  # pooled shares against own ones
    assert np.isnan(fn.fleiss_kappa(np.zeros((4, 2), int))) and "one class" in caplog.text
    for count in range(1, 60):  # sums of 1 / count are not always 1
        assert np.isnan(fn.cohen_kappa([1] * count, [1] * count, 3)), count


def test_weighted_f1_matrix_against_scikit_learn():
    found = fn.weighted_f1_matrix(TABLE)
    want = [[f1_score(TABLE[:, i], TABLE[:, j], average="weighted") for j in range(4)] for i in range(4)]
    assert np.allclose(found, want) and np.allclose(np.diag(found), 1)


def test_sources_within_and_between():
    found = fn.agreement({"crowd": TABLE, "expert": TABLE[:, 0]}, 3)
    assert found["names"] == ["crowd", "expert"] and found["within"]["crowd"]["raters"] == 4
    assert found["within"]["crowd"]["fleiss_kappa"] == fn.fleiss_kappa(TABLE, 3) and "expert" not in found["within"]
    votes = fn.majority_vote(TABLE, 3)
    assert found["cohen_kappa"][0][1] == pytest.approx(fn.cohen_kappa(votes, TABLE[:, 0], 3))
    part = fn.agreement({"crowd": TABLE}, 3, rows=np.arange(10))
    assert part["within"]["crowd"]["fleiss_kappa"] == fn.fleiss_kappa(TABLE[:10], 3)


def test_interval_of_clopper_and_pearson_has_the_asked_tails():
    low, high = fn.clopper_pearson(7, 40)
    assert binom.sf(6, 40, low) == pytest.approx(0.025) and binom.cdf(7, 40, high) == pytest.approx(0.025)
    assert fn.clopper_pearson(0, 20)[0] == 0 and fn.clopper_pearson(20, 20)[1] == 1


def test_interval_of_a_finite_population_is_narrower_and_exact_when_all_were_seen():
    wide, narrow = fn.clopper_pearson(34, 160), fn.hypergeometric_interval(34, 160, 836)
    assert wide[0] < narrow[0] < 34 / 160 < narrow[1] < wide[1]
    assert narrow[0] == pytest.approx(0.1579, abs=1e-4)  # the paper prints 15.8 % for BEGIN
    assert fn.hypergeometric_interval(5, 50, 50) == (0.1, 0.1)


def test_found_errors():
    wrong, scores = RNG.integers(0, 2, 50), RNG.random(50)
    found = fn.label_issue_detection(scores, wrong, threshold=0.5)
    flags = scores >= 0.5
    assert found["precision"] == pytest.approx((flags & (wrong == 1)).sum() / flags.sum())
    assert found["f1"] == pytest.approx(f1_score(wrong, flags))
    assert found["auprc"] == pytest.approx(average_precision_score(wrong, scores))
    none = fn.label_issue_detection(np.zeros(3, bool), [1, 0, 0])
    assert np.isnan(none["precision"]) and none["recall"] == 0 and none["n_flagged"] == 0


def test_shifted_ranks():
    found = fn.rank_shift({"a": 0.9, "b": 0.8, "c": 0.7}, {"a": 0.7, "b": 0.9, "c": 0.6})
    assert found["models"]["a"] == {"original": 0.9, "corrected": 0.7, "rank_original": 1, "rank_corrected": 2}
    assert found["kendall_tau"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.fleiss_kappa([[0], [1]]), "at least 2 raters, got 1"),
        (lambda: fn.fleiss_kappa([[0, 1], [1]]), "rows of different lengths"),
        (lambda: fn.fleiss_kappa([]), r"shape \(0,\)"),
        (lambda: fn.fleiss_kappa([[0, 1], [0, -1]]), "got -1 at row 1, rater 1"),
        (lambda: fn.pairwise_agreement([[0, 5]], 3), r"\[0, 3\), got 5 at row 0"),
        (lambda: fn.cohen_kappa([0, 1], [0]), r"got \(2,\) and \(1,\)"),
        (lambda: fn.agreement({}), "at least one source"),
        (lambda: fn.agreement({"a": [0, 1], "b": [0]}), "same items"),
        (lambda: fn.clopper_pearson(3, 2), "got 3 of 2"),
        (lambda: fn.clopper_pearson(0, 0), "at least one item"),
        (lambda: fn.clopper_pearson(1, 2, alpha=0), "between 0 and 1"),
        (lambda: fn.hypergeometric_interval(1, 20, 10), "fewer than the 20"),
        (lambda: fn.label_issue_detection([0.5, np.nan], [0, 1]), "got nan at row 1"),
        (lambda: fn.label_issue_detection([1], [0, 1]), r"got \(1,\) and \(2,\)"),
        (lambda: fn.rank_shift({"a": 1}, {"b": 1}), "same models"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
