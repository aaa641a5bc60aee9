"""RAD's game against linear programs and enumeration; sampling with exact marginals; gains; baselines."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from hf_labels.labels.query_gains import entropy_gain, k_center_greedy, margin_gain, top_gains
from hf_labels.labels.robust_active_distillation import (
    RADSampler,
    errors_of_rate,
    rad_distribution,
    systematic_sample,
    teacher_errors,
    worst_case_value,
)
from hf_labels.metrics.functional import wrong_query_rate

RNG = np.random.default_rng(0)


def by_linear_program(gains, errors, cost, budget):
    """max sum u - c (K s + sum t) with t >= u - s, t >= 0: the sum of the K largest u by duality."""
    n = len(gains)
    upper = 1.0 if budget is not None else None
    objective = np.concatenate([-gains, [cost * errors], np.full(n, cost)])
    worst = np.hstack([np.diag(gains), -np.ones((n, 1)), -np.eye(n)])
    total = np.concatenate([np.ones(n), [0.0], np.zeros(n)])[None]
    bounds = [(0, upper)] * n + [(None, None)] + [(0, None)] * n
    done = linprog(objective, worst, np.zeros(n), total, [1.0 if budget is None else budget], bounds=bounds)
    assert done.status == 0
    return -done.fun


@pytest.mark.parametrize("reward", [0.0, -1.0, -0.3])
def test_one_draw_is_the_optimum_of_the_game(reward):
    for _ in range(40):
        gains, errors = RNG.random(7) + 0.01, int(RNG.integers(0, 4))
        found = rad_distribution(gains, errors, reward, fallback=False)
        assert found.probs.sum() == pytest.approx(1) and (found.probs >= 0).all()
        assert found.value == pytest.approx(by_linear_program(gains, errors, 1 - reward, None), abs=1e-7)
        assert worst_case_value(found.probs, gains, errors, reward) == pytest.approx(found.value, abs=1e-9)


@pytest.mark.parametrize("reward", [0.0, -1.0])
def test_budgeted_form_is_the_optimum_of_the_game(reward):
    for _ in range(60):
        size = int(RNG.integers(3, 9))
        gains, errors, budget = RNG.random(size) ** 2 + 0.01, int(RNG.integers(0, 4)), int(RNG.integers(1, size + 1))
        found = rad_distribution(gains, errors, reward, budget, fallback=False)
        assert found.inclusion.sum() == pytest.approx(budget)
        assert (found.inclusion >= 0).all() and (found.inclusion <= 1).all()
        assert found.value == pytest.approx(by_linear_program(gains, min(errors, size), 1 - reward, budget), abs=1e-7)


def test_no_set_of_errors_does_better_against_it_than_the_value_and_no_simple_choice_beats_it():
    gains, errors, budget = np.array([0.9, 0.8, 0.5, 0.3, 0.2, 0.1, 0.05]), 2, 3
    found = rad_distribution(gains, errors, -1.0, budget)

    def worst(inclusion):
        earned = inclusion * gains
        sets = itertools.combinations(range(7), errors)
        return min(earned.sum() - 2 * earned[list(wrong)].sum() for wrong in sets)

    top = np.zeros(7)
    top[:3] = 1.0
    assert worst(found.inclusion) == pytest.approx(found.value)
    assert found.value >= max(worst(np.full(7, 3 / 7)), worst(top))


def test_special_cases():
    assert rad_distribution([0.2, 0.9, 0.4], 0).probs.tolist() == [0, 1, 0]
    assert rad_distribution([0.2, 0.9, 0.4], 0, budget=2).inclusion.tolist() == [0, 1, 1]
    equal = rad_distribution(np.full(6, 0.3), 1)
    assert equal.k_star == 6 and np.allclose(equal.probs, 1 / 6)
    gains = RNG.random(30) + 0.05
    found = rad_distribution(gains, 4)
    support = found.probs > 0
    assert np.ptp((found.probs * gains)[support]) < 1e-12 and support.sum() == found.k_star
    scaled = rad_distribution(7 * gains, 4)
    assert np.allclose(scaled.probs, found.probs) and scaled.value == pytest.approx(7 * found.value)
    order = RNG.permutation(30)
    assert np.allclose(rad_distribution(gains[order], 4, budget=5).inclusion, _inclusion(gains)[order])
    values = [rad_distribution(gains, k, budget=5, fallback=False).value for k in range(12)]
    assert (np.diff(values) <= 1e-12).all()


def _inclusion(gains):
    return rad_distribution(gains, 4, budget=5).inclusion


def test_no_query_pays_off_falls_back_to_uniform_with_a_warning(caplog):
    found = rad_distribution([0.5, 0.4, 0.3, 0.2], 3, budget=2)
    assert found.fallback and found.inclusion.tolist() == [0.5] * 4
    assert "With 3 of 4 answers wrong no query pays off" in caplog.text
    caplog.clear()
    flat = rad_distribution([0.0, 0.0, 0.0], 0, budget=1)
    assert flat.fallback and "All gains are below" in caplog.text


def test_more_than_there_is_and_nothing(caplog):
    assert rad_distribution([0.5, 0.1], 0, budget=5).inclusion.tolist() == [1, 1]
    assert "all of them are asked about" in caplog.text
    assert len(RADSampler(0).select([0.5, 0.1], 0, 0)) == 0
    assert rad_distribution([0.5, 0.1], 9, fallback=False).value < 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rad_distribution([0.1, -0.2], 0), "got -0.2 at row 1"),
        (lambda: rad_distribution([0.1, np.nan], 0), "got nan at row 1"),
        (lambda: rad_distribution([], 0), "at least one row"),
        (lambda: rad_distribution([0.1], -1), "must be 0 or more, got -1"),
        (lambda: rad_distribution([0.1], 0, budget=-2), "must be 0 or more, got 0 and -2"),
        (lambda: rad_distribution([0.1], 0, wrong_reward=0.5), "must be 0 or less, got 0.5"),
        (lambda: teacher_errors(3, 2, 10), "0 <= wrong <= checked"),
        (lambda: errors_of_rate(1.5, 10), r"in \[0, 1\], got 1.5"),
        (lambda: systematic_sample([0.5, 0.2], RNG), "whole number of rows, got 0.7"),
        (lambda: systematic_sample([1.5, 0.5], RNG), r"in \[0, 1\] per row"),
        (lambda: margin_gain([[0.5, 0.5], [0.9, 0.3]]), "row 1 sums to 1.2"),
        (lambda: margin_gain([0.5, 0.5]), r"shape \(n, C\), got \(2,\)"),
        (lambda: k_center_greedy([[0.0, np.inf]], 1), "NaN or infinity at row 0"),
        (lambda: k_center_greedy([[0.0, 1.0]], 1, [[1.0]]), "width 2, `covered` has 1"),
        (lambda: wrong_query_rate([0, 1], [0]), r"got \(2,\) and \(1,\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_number_of_errors():
    assert teacher_errors(3, 18, 100) == 20 and errors_of_rate(0.2, 10) == 2 and errors_of_rate(1.0, 7) == 7
    assert teacher_errors(0, 0, 10) == 5


def test_sampling_keeps_the_marginals_and_gives_distinct_rows():
    pi = np.array([1.0, 0.7, 0.7, 0.3, 0.2, 0.1, 0.0])
    rng, draws = np.random.default_rng(3), 8000
    counts = np.zeros(7)
    for _ in range(draws):
        rows = systematic_sample(pi, rng)
        assert len(rows) == len(set(rows.tolist())) == 3
        counts[rows] += 1
    deviation = np.abs(counts / draws - pi)
    assert (deviation <= 4 * np.sqrt(pi * (1 - pi) / draws) + 1e-12).all()


def test_same_seed_same_sets():
    gains = RNG.random(40)
    one, two, other = (RADSampler(seed) for seed in (0, 0, 1))
    first = [one.select(gains, 6, 4).tolist() for _ in range(3)]
    assert first == [two.select(gains, 6, 4).tolist() for _ in range(3)]
    assert first != [other.select(gains, 6, 4).tolist() for _ in range(3)]
    assert one.last.inclusion.sum() == pytest.approx(6)


def test_gains_of_probabilities():
    probs = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    margin, gain = margin_gain(probs)
    assert np.allclose(margin, [0.5, 1.0, 0.0]) and np.allclose(gain, [0.5, 0.0, 1.0])
    assert np.allclose(entropy_gain(probs)[1:], [0.0, 1.0])
    assert margin_gain([[1.0], [1.0]])[1].tolist() == [0, 0] and entropy_gain([[1.0]]).tolist() == [0]
    assert top_gains([0.1, 0.9, 0.9, 0.5], 2).tolist() == [1, 2] and top_gains([0.1], 5).tolist() == [0]


def test_core_set_takes_the_farthest_rows():
    points = np.array([[0.0], [1.0], [5.0], [9.0]])
    assert k_center_greedy(points, 2, covered=[[0.0]]).tolist() == [3, 2]
    assert k_center_greedy(points, 3).tolist() == [2, 0, 3]
    assert k_center_greedy(points, 9, covered=[[0.0]]).tolist() == [3, 2, 1, 0]


def test_share_of_wrong_answers():
    assert wrong_query_rate([0, 1, 1], [0, 0, -1]) == {"wrong_query_rate": 0.5, "n_judged": 2}
    assert np.isnan(wrong_query_rate([0], [-1])["wrong_query_rate"])
