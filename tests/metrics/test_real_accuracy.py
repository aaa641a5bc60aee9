"""ReaL accuracy: sets of valid labels, both forms, and what is refused."""

import numpy as np
import pytest

from hf_labels.metrics.functional import real_accuracy


def test_any_valid_label_is_right_and_examples_without_one_do_not_count():
    scores = [[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.2, 0.2, 0.6], [0.5, 0.3, 0.2]]
    sets = [[0, 1], [2], [2], []]
    hot = [[1, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]
    want = {"real_accuracy": pytest.approx(2 / 3), "n_judged": 3}
    assert real_accuracy(scores, sets, 3) == want == real_accuracy(scores, hot)
    assert real_accuracy([1, 0, 2, 0], sets, 3) == want == real_accuracy(np.array([1, 0, 2, 0]), np.array(hot))


def test_one_valid_label_each_is_accuracy():
    rng = np.random.default_rng(0)
    found, labels = rng.integers(4, size=50), rng.integers(4, size=50)
    assert real_accuracy(found, [[label] for label in labels], 4)["real_accuracy"] == (found == labels).mean()


@pytest.mark.parametrize(
    ("predictions", "references", "classes", "message"),
    [
        ([0, 1], [[1, 0]], None, "2 predictions and 1 references"),
        ([0, 5], [[1, 0], [0, 1]], None, r"ids in \[0, 2\), got 5 at row 1"),
        ([0.5, 1], [[1, 0], [0, 1]], None, "got 0.5 at row 0"),
        ([[0.1, 0.9], [np.nan, 1]], [[1, 0], [0, 1]], None, "finite; row 1"),
        ([[0.1, 0.9, 0]], [[1, 0]], None, "3 classes, `references` 2"),
        ([0], [[0, 2]], None, "pass `num_classes`"),
        ([0], [[3]], 3, r"ids in \[0, 3\), got 3 at row 0"),
        ([0], [[]], 3, "nothing to judge"),
        ([[[0]]], [[0]], 1, r"got shape \(1, 1, 1\)"),
    ],
)
def test_bad_input_is_named(predictions, references, classes, message):
    with pytest.raises(ValueError, match=message):
        real_accuracy(predictions, references, classes)
