"""Bag proportion error against a loop, its limits, and its messages."""

import numpy as np
import pytest

from hf_labels.metrics.functional import bag_proportion_error

RNG = np.random.default_rng(0)


def test_equal_to_a_loop():
    probs, labels, bag = RNG.random(60), RNG.integers(0, 2, 60), RNG.integers(-1, 7, 60)
    gaps = [abs(probs[bag == b].mean() - labels[bag == b].mean()) for b in range(7)]
    found = bag_proportion_error(probs, labels, bag)
    assert found == {"bag_proportion_error": pytest.approx(np.mean(gaps)), "n": 7}


def test_shares_and_labels_of_rows_say_the_same():
    bag, labels = np.repeat([4, 9, 30], [5, 3, 12]), RNG.integers(0, 2, 20)
    shares = np.array([labels[bag == b].mean() for b in bag])
    probs = RNG.random(20)
    assert bag_proportion_error(probs, labels, bag) == pytest.approx(bag_proportion_error(probs, shares, bag))


def test_two_columns_are_one():
    probs, labels, bag = RNG.random(40), RNG.integers(0, 2, 40), np.arange(40) // 8
    both = bag_proportion_error(np.stack([1 - probs, probs], 1), np.eye(2)[labels], bag)
    assert both == pytest.approx(bag_proportion_error(probs, labels, bag))


def test_the_truth_has_no_error_and_its_opposite_the_most():
    labels, bag = np.repeat([0, 1], 10), np.repeat([0, 1], 10)
    assert bag_proportion_error(labels, labels, bag)["bag_proportion_error"] == 0
    assert bag_proportion_error(1 - labels, labels, bag)["bag_proportion_error"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.1, 0.2], [0.1], [0, 0]), "one shape"),
        (([0.1, 0.2], [0.1, 0.3], [0]), r"`bag_ids` \(N,\); got"),
        (([0.1, 2.0], [0.1, 0.3], [0, 0]), r"`predictions` must be in \[0, 1\].*not logits"),
        (([0.1, 0.2], [1, 3], [0, 0]), r"`references` must be in \[0, 1\]"),
        (([0.1, np.nan], [1, 0], [0, 0]), r"`predictions` must be in \[0, 1\]"),
        (([0.1, 0.2], [1, 0], [-1, -1]), "No row is in a bag"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bag_proportion_error(*arguments)
