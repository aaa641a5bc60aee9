import itertools
import math

import numpy as np
import pytest
from scipy.stats import kstest

from hf_labels.metrics.functional import conformal_pvalues, conformal_sets


def data(seed: int, rows: int = 40, labels: int = 3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 21, (rows, 2**labels)) / 20, rng.integers(0, 2, (rows, labels))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("non_empty", [False, True])
@pytest.mark.parametrize("epsilon", [0.1, 0.9])
def test_pvalues_equal_plain_loops(seed, non_empty, epsilon):
    p, labels = data(seed)
    powerset = list(itertools.product([0, 1], repeat=3))  # lexicographic, first label most significant
    sizes, covered, true_p, forced = [], [], [], []
    for row, label in zip(p, labels, strict=True):
        chosen = {powerset[j] for j in range(8) if row[j] > epsilon}
        if non_empty and not chosen:
            chosen = {powerset[int(row.argmax())]}
        sizes.append(len(chosen))
        covered.append(tuple(label) in chosen)
        true_p.append(row[powerset.index(tuple(label))])
        forced.append(powerset[int(row.argmax())] == tuple(label))
    got = conformal_pvalues(p, labels, epsilon, non_empty)
    want = {
        "error_rate": 1 - np.mean(covered),
        "coverage": np.mean(covered),
        "validity_gap": 1 - np.mean(covered) - epsilon,
        "validity_stderr": math.sqrt(epsilon * (1 - epsilon) / 40),
        "mean_size": np.mean(sizes),
        "median_size": np.median(sizes),
        "size_q90": np.quantile(sizes, 0.9, method="inverted_cdf"),
        "size_q95": np.quantile(sizes, 0.95, method="inverted_cdf"),
        "excess": np.mean(np.array(sizes) - covered),
        "share_empty": np.mean(np.array(sizes) == 0),
        "share_singleton": np.mean(np.array(sizes) == 1),
        "share_everything": np.mean(np.array(sizes) == 8),
    }
    assert {key: got[f"eps_{epsilon}_{key}"] for key in want} == pytest.approx(want)
    assert got["s_criterion"] == pytest.approx(p.sum(1).mean())
    assert got["observed_fuzziness"] == pytest.approx(p.sum(1).mean() - np.mean(true_p))
    assert got["forced_accuracy"] == pytest.approx(np.mean(forced))
    assert got["credibility"] == pytest.approx(p.max(1).mean())
    assert got["confidence"] == pytest.approx(1 - np.sort(p, axis=1)[:, -2].mean())
    assert got["ks_distance"] == pytest.approx(kstest(true_p, "uniform").statistic)
    assert got["ks_excess"] == pytest.approx(kstest(true_p, "uniform", alternative="greater").statistic)


@pytest.mark.parametrize("seed", [0, 1])
def test_nested_levels_give_monotone_coverage_and_size(seed):
    p, labels = data(seed)
    levels = [0.05, 0.1, 0.25, 0.5, 0.75]
    got = conformal_pvalues(p, labels, levels)
    for key in ("coverage", "mean_size", "excess", "median_size"):
        values = [got[f"eps_{level}_{key}"] for level in levels]
        assert values == sorted(values, reverse=True)


def test_set_rule_is_strict():
    got = conformal_pvalues([[0.1, 0.1, 0.1, 0.2]], [[1, 0]], 0.1)
    assert got["eps_0.1_mean_size"] == 1 and got["eps_0.1_coverage"] == 0


def test_a_valid_predictor_is_within_its_standard_error():
    rng = np.random.default_rng(0)
    p, labels = rng.random((4000, 4)), rng.integers(0, 2, (4000, 2))
    got = conformal_pvalues(p, labels, 0.2)
    assert abs(got["eps_0.2_validity_gap"]) < 3 * got["eps_0.2_validity_stderr"]
    assert got["ks_excess"] < 1.63 / math.sqrt(4000)  # 1 % point
    assert conformal_pvalues(p**3, labels, 0.2)["ks_excess"] > 0.3  # p-values too small: invalid
    assert conformal_pvalues(p ** (1 / 3), labels, 0.2)["ks_excess"] < 0.02  # too large: valid, only wasteful


def test_sizes_equal_pvalues():
    p, labels = data(2)
    by_p = conformal_pvalues(p, labels, 0.3)
    columns = labels @ [4, 2, 1]
    by_size = conformal_sets((p > 0.3).sum(1).tolist(), p[np.arange(40), columns] > 0.3, 0.3, num_labels=3)
    assert by_size.pop("n_truncated") == 0
    assert by_size == {key: by_p[f"eps_0.3_{key}"] for key in by_size}


def test_sizes_beyond_machine_integers_stay_exact():
    huge = 2**1500
    got = conformal_sets([huge, huge - 1, 3], [1, 1, 0], 0.1, num_labels=1500)
    assert got["median_size"] == huge - 1 and got["size_q90"] == huge and got["mean_size"] == math.inf
    assert got["share_everything"] == pytest.approx(1 / 3)
    big = conformal_sets([2**70, 2**70 + 2], [True, True], 0.1, num_labels=80)
    assert big["median_size"] == 2**70 + 1 and big["mean_size"] == pytest.approx(2**70) and big["excess"] > 2**69
    assert conformal_sets([1, 2], [1, 1], 0.1)["median_size"] == 1.5
    assert math.isnan(conformal_sets([1, 2], [1, 1], 0.1)["share_everything"])


def test_truncated_sets_have_no_mean_unless_allowed():
    got = conformal_sets([5, 100], [1, 1], 0.1, truncated=[False, True])
    assert math.isnan(got["mean_size"]) and math.isnan(got["excess"]) and got["n_truncated"] == 1
    assert got["coverage"] == 1
    allowed = conformal_sets([5, 100], [1, 1], 0.1, truncated=[False, True], allow_truncated=True)
    assert allowed["mean_size"] == 52.5 and allowed["excess"] == 51.5 and allowed["n_truncated"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], 0.1), "empty"),
        (([1, 2], [1], 0.1), r"`covered` must have shape \(2,\)"),
        (([1, -2], [1, 1], 0.1), "negative, got -2 at row 1"),
        (([1, 2.5], [1, 1], 0.1), "whole numbers, got 2.5 at row 1"),
        (([1, "many"], [1, 1], 0.1), "got 'many' at row 1"),
        (([1, 9], [1, 1], 0.1, 3), "9 at row 1, above 2\\^3"),
        (([1, 0], [1, 1], 0.1), "`covered` is true at row 1"),
        (([1, 2], [1, 3], 0.1), "got 3 at row 1"),
        (([1], [1], 0.0), "epsilon"),
        (([1], [1], 1.0), "epsilon"),
        (([1, 2], [1, 1], 0.1, None, [0]), "truncated"),
    ],
)
def test_bad_sets_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        conformal_sets(*arguments)


@pytest.mark.parametrize(
    ("p", "labels", "epsilons", "message"),
    [
        (np.ones((2, 4)), [[0, 1]], 0.1, r"shape \(1, 2\^2\)"),
        (np.ones((1, 3)), [[0, 1]], 0.1, r"got \(1, 3\)"),
        (np.ones((1, 4)) * 1.5, [[0, 1]], 0.1, r"\[0, 1\], got 1.5 at row 0"),
        ([[0.1, np.nan, 0, 0]], [[0, 1]], 0.1, "finite"),
        (np.ones((1, 4)), [[0, -1]], 0.1, "0 or 1"),
        (np.ones((1, 4)), [[0, 1]], 1.5, "epsilon"),
        (np.ones((1, 4)), [[0, 1]], [], "empty"),
        (np.ones((1, 2)), np.zeros((1, 17)), 0.1, "1 to 16 labels, got 17"),
        (np.zeros((0, 4)), np.zeros((0, 2)), 0.1, "at least one row"),
    ],
)
def test_bad_pvalues_are_named(p, labels, epsilons, message):
    with pytest.raises(ValueError, match=message):
        conformal_pvalues(p, labels, epsilons)
