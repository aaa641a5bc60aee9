"""Flip sets under a budget against all 2^L subsets."""

import itertools

import numpy as np
import pytest

from hf_labels.labels import lp_icp_sets as sets


def brute(costs, slack):
    places = range(len(costs))
    subsets = itertools.chain.from_iterable(itertools.combinations(places, k) for k in range(len(costs) + 1))
    return {subset for subset in subsets if sum(costs[list(subset)]) <= slack}


class Checked(float):
    """A number that counts how often it is compared."""

    comparisons = 0

    def __ge__(self, other):
        Checked.comparisons += 1
        return float(self) >= other


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("slack", [-0.1, 0.0, 0.3, 0.9, 2.0, 100.0])
def test_all_ways_agree_with_all_subsets(seed, slack):
    rng = np.random.default_rng(seed)
    costs = np.sort(rng.random(seed + 4))
    if seed % 2:
        costs = np.round(costs * 4) / 4  # ties, zeros and sums that meet the budget exactly
    want = brute(costs, slack)
    listed = list(sets.iter_flip_sets(costs, slack))
    assert set(listed) == want and len(listed) == len(want)
    rows = sets.enumerate_flip_sets(costs, slack, 10_000)
    assert {tuple(np.flatnonzero(row)) for row in rows} == want and len(rows) == len(want)
    assert sets.count_flip_sets(costs, slack)[0] == len(want)
    ranked = list(sets.best_first_flip_sets(costs))
    assert len(ranked) == 2 ** len(costs) and {tuple(places) for _, places in ranked} == brute(costs, 1e9)
    sums = [total for total, _ in ranked]
    assert sums == sorted(sums)
    np.testing.assert_allclose(sums, [costs[places].sum() for _, places in ranked], atol=1e-12)
    assert {tuple(places) for _, places in ranked[: len(want)]} == want or seed % 2


@pytest.mark.parametrize("labels", [3, 8, 11])
def test_comparisons_are_at_most_twice_the_sets(labels):
    costs = np.sort(np.random.default_rng(labels).random(labels))
    for slack in (0.2, 1.0, 2.5):
        Checked.comparisons = 0
        found = len(list(sets.iter_flip_sets(costs, Checked(slack))))
        assert 0 < Checked.comparisons <= 2 * found - 1


def test_a_limit_gives_none_and_never_a_part():
    costs = np.sort(np.random.default_rng(0).random(12))
    number = sets.count_flip_sets(costs, 1.5)[0]
    assert len(sets.enumerate_flip_sets(costs, 1.5, number)) == number
    assert sets.enumerate_flip_sets(costs, 1.5, number - 1) is None
    wide = np.full(60, 1e-3)
    assert sets.enumerate_flip_sets(wide, 1.0, 1000) is None and sets.count_flip_sets(wide, 1.0) == (None, False)


def test_forty_labels_are_always_counted():
    assert sets.count_flip_sets(np.full(40, 1e-3), 1.0) == (2**40, True)


def test_a_sum_at_the_budget_is_not_sure():
    costs = np.array([0.25, 0.5])
    assert sets.count_flip_sets(costs, 0.75, 1e-12) == (4, False)
    assert sets.count_flip_sets(costs, 0.8, 1e-12) == (4, True)
    assert sets.count_flip_sets(costs, -1.0, 1e-12) == (0, True)


def test_no_labels_have_the_empty_set_only():
    none = np.zeros(0)
    assert list(sets.iter_flip_sets(none, 1.0)) == [()] and list(sets.best_first_flip_sets(none)) == [(0.0, [])]
    assert sets.enumerate_flip_sets(none, 1.0, 5).shape == (1, 0) and sets.count_flip_sets(none, 1.0)[0] == 1
