"""Matched accuracy and mixture error against all permutations, and what is refused."""

import itertools

import numpy as np
import pytest

from hf_labels.metrics.functional import match_classes, matched_accuracy, mixture_l1

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("classes", [1, 2, 4, 5])
def test_it_is_the_best_of_all_permutations(classes):
    found, true = RNG.integers(classes, size=40), RNG.integers(classes, size=40)
    got = matched_accuracy(found, true, classes, with_matching=True)
    best = max((np.array(order)[found] == true).mean() for order in itertools.permutations(range(classes)))
    assert got["matched_accuracy"] == best and got["n"] == 40
    assert (np.array(got["matching"])[found] == true).mean() == best
    assert match_classes(found, true, classes).tolist() == got["matching"]


def test_names_of_the_found_classes_do_not_matter():
    true = RNG.integers(4, size=60)
    found = np.where(RNG.random(60) < 0.7, true, RNG.integers(4, size=60))
    want = matched_accuracy(found, true)["matched_accuracy"]
    order = RNG.permutation(4)
    assert matched_accuracy(order[found], true)["matched_accuracy"] == want
    assert matched_accuracy(np.eye(4)[found], true)["matched_accuracy"] == want
    missing = np.concatenate([true, [-1, -100]])
    assert matched_accuracy(np.concatenate([found, [0, 1]]), missing)["matched_accuracy"] == want


def test_more_found_classes_than_true_ones_have_no_match():
    assert matched_accuracy([0, 1, 2, 2], [0, 0, 1, 1])["matched_accuracy"] == 0.75


def test_mixture_error_is_the_smallest_over_permutations():
    found, true = (RNG.dirichlet(np.ones(4), 6).T for _ in range(2))
    got = mixture_l1(found, true)
    every = {o: np.abs(found - true[list(o)]).sum() for o in itertools.permutations(range(4))}
    assert got["mixture_l1"] == pytest.approx(min(every.values()))
    assert got["mixture_l1_per_domain"] == pytest.approx(got["mixture_l1"] / 6)
    for order, value in every.items():
        assert mixture_l1(found, true, order)["mixture_l1"] == pytest.approx(value)
    assert mixture_l1(true[[2, 0, 1, 3]], true)["mixture_l1"] == 0


@pytest.mark.parametrize(
    ("function", "one", "two", "options", "message"),
    [
        (matched_accuracy, [0, 1], [0], {}, r"shapes \(2,\), \(1,\)"),
        (matched_accuracy, [0, 3], [0, 1], {"num_classes": 2}, r"`predictions` must be class ids in \[0, 2\), got 3"),
        (matched_accuracy, [0, -1], [0, 1], {}, "`predictions`.*got -1 at row 1"),
        (matched_accuracy, [0, 1], [0, 0.5], {}, "`references`.*got 0.5 at row 1"),
        (matched_accuracy, [0, 1], [-1, -1], {}, "nothing to match"),
        (mixture_l1, [[0.5], [0.5]], [[1.0]], {}, "one shape"),
        (mixture_l1, [[0.5], [0.6]], [[1.0], [0.0]], {}, "Domain 0 of `predictions` sums to 1.1"),
        (mixture_l1, [[-0.5], [1.5]], [[1.0], [0.0]], {}, "must hold shares, got -0.5"),
        (mixture_l1, [[0.5], [0.5]], [[1.0], [0.0]], {"matching": [0, 0]}, "each of the 2 classes once"),
    ],
)
def test_bad_input_is_named(function, one, two, options, message):
    with pytest.raises(ValueError, match=message):
        function(one, two, **options)
