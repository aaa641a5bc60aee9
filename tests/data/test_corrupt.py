"""Label corruption: exact shares, known truth, missing labels left alone."""

import numpy as np
import pytest

from hf_labels.data.corrupt import (
    label_noise,
    long_tail,
    make_bags,
    partial_labels,
    positive_only,
    simulated_annotators,
)

LABELS = np.random.default_rng(0).integers(0, 5, 2000)


def test_symmetric_noise_changes_the_asked_share_to_every_other_class():
    noisy = label_noise(LABELS, 0.4, num_labels=5, seed=1)
    assert noisy.changed.sum() == 800
    assert (noisy.changed == (noisy.labels != LABELS)).all()
    off = noisy.transition[~np.eye(5, dtype=bool)]
    assert abs(off - 0.1).max() < 0.04
    assert np.allclose(noisy.transition.sum(1), 1)


def test_noise_is_the_same_for_a_seed_and_leaves_missing_rows():
    labels = LABELS.copy()
    labels[::7] = -1
    one, two = (label_noise(labels, 0.3, num_labels=5, seed=3) for _ in range(2))
    assert (one.labels == two.labels).all()
    assert (one.labels[::7] == -1).all() and not one.changed[::7].any()
    assert (label_noise(labels, 0.3, num_labels=5, seed=4).labels != one.labels).any()


def test_asymmetric_noise_flips_to_the_next_class_or_as_told():
    pair = label_noise(LABELS, 0.2, num_labels=5, seed=0, kind="asymmetric")
    assert (pair.labels[pair.changed] == (LABELS[pair.changed] + 1) % 5).all()
    only = np.zeros((5, 5))
    only[0, 3] = 1
    told = label_noise(LABELS, 0.1, num_labels=5, seed=0, kind="asymmetric", transition=only)
    assert set(LABELS[told.changed]) == {0} and set(told.labels[told.changed]) == {3}
    assert told.changed.sum() == 200


def test_asymmetric_noise_cannot_change_more_than_the_classes_that_flip():
    only = np.zeros((5, 5))
    only[0, 3] = 1
    told = label_noise(LABELS, 1.0, num_labels=5, seed=0, kind="asymmetric", transition=only)
    assert told.changed.sum() == (LABELS == 0).sum()


def test_instance_noise_has_the_asked_mean_and_follows_the_features():
    features = np.random.default_rng(1).standard_normal((2000, 8))
    noisy = label_noise(LABELS, 0.3, num_labels=5, seed=0, kind="instance", features=features)
    assert abs(noisy.changed.mean() - 0.3) < 0.04
    first = noisy.changed & (LABELS == 0)
    targets = [
        features[first & (noisy.labels == k)].mean(0) for k in range(1, 5) if (first & (noisy.labels == k)).any()
    ]
    spread = np.std(targets, axis=0).mean()
    shuffled = np.random.default_rng(2).permutation(2000)
    plain = label_noise(LABELS, 0.3, num_labels=5, seed=0, kind="instance", features=features[shuffled])
    first = plain.changed & (LABELS == 0)
    apart = [features[first & (plain.labels == k)].mean(0) for k in range(1, 5) if (first & (plain.labels == k)).any()]
    assert spread > 1.5 * np.std(apart, axis=0).mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 1.2}, "share of rows between 0 and 1"),
        ({"rate": 0.2, "kind": "odd"}, "expected 'symmetric'"),
        ({"rate": 0.2, "kind": "instance"}, "needs `features`"),
        ({"rate": 0.2, "transition": np.eye(5)}, "belongs to `kind='asymmetric'`"),
        ({"rate": 0.2, "kind": "asymmetric", "transition": np.eye(4)}, r"must be a \(5, 5\) array"),
        ({"rate": 0.2, "kind": "instance", "features": np.ones(3)}, "one row per label"),
    ],
)
def test_noise_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        label_noise(LABELS, num_labels=5, seed=0, **arguments)


def test_noise_refuses_labels_that_are_not_class_ids():
    with pytest.raises(ValueError, match="row 0"):
        label_noise([7, 1], 0.1, num_labels=5, seed=0)
    with pytest.raises(ValueError, match=r"one class id per row"):
        label_noise([[0, 1]], 0.1, num_labels=5, seed=0)


def test_partial_labels_hold_the_true_class():
    labels = np.append(LABELS, -1)
    sets = partial_labels(labels, 0.25, num_labels=5, seed=0)
    assert (sets[np.arange(2000), LABELS] == 1).all()
    assert (sets[-1] == 1).all()
    assert abs(sets[:-1].sum(1).mean() - 2.0) < 0.05
    with pytest.raises(ValueError, match="from 0 to below 1"):
        partial_labels(LABELS, 1.0, num_labels=5, seed=0)


def test_positive_only_names_one_label_or_a_share():
    table = (np.random.default_rng(0).random((500, 6)) < 0.4).astype(int)
    one = positive_only(table, seed=0)
    assert (one.sum(1) == (table.sum(1) > 0)).all() and (one <= table).all()
    share = positive_only(table, seed=0, keep=0.3)
    assert abs(share.sum() / table.sum() - 0.3) < 0.05 and (share <= table).all()
    with pytest.raises(ValueError, match="share of labels"):
        positive_only(table, seed=0, keep=2)


def test_long_tail_has_the_asked_imbalance():
    labels = np.repeat(np.arange(5), 400)
    rows = long_tail(labels, 100, num_labels=5, seed=0)
    counts = np.bincount(labels[rows], minlength=5)
    assert counts.tolist() == [400, 126, 40, 13, 4]
    assert (np.diff(rows) > 0).all()
    with pytest.raises(ValueError, match="at least 1"):
        long_tail(labels, 0.5, num_labels=5, seed=0)


def test_bags_have_their_proportions():
    labels = np.append(LABELS, [-1, -1])
    ids, shares = make_bags(labels, 32, num_labels=5, seed=0)
    assert ids[-1] == -1 and shares.shape == (62, 5)
    for bag in (0, 61):
        own = labels[ids == bag]
        assert len(own) == 32
        assert np.allclose(np.bincount(own, minlength=5) / 32, shares[bag])
    with pytest.raises(ValueError, match="the number of labelled rows"):
        make_bags(labels, 3000, num_labels=5, seed=0)


def test_annotators_are_as_good_as_asked():
    labels = np.append(LABELS, -1)
    crowd = simulated_annotators(labels, num_labels=5, seed=0, accuracies=[0.95, 0.5])
    right = (crowd[:-1] == LABELS[:, None]).mean(0)
    assert abs(right - [0.95, 0.5]).max() < 0.03 and (crowd[-1] == -1).all()
    few = simulated_annotators(labels, num_labels=5, seed=0, accuracies=[0.9] * 8, answers=3)
    assert ((few[:-1] >= 0).sum(1) == 3).all()
    table = np.roll(np.eye(5), 2, axis=1)[None]
    assert (simulated_annotators(LABELS, num_labels=5, seed=0, confusions=table)[:, 0] == (LABELS + 2) % 5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Pass one of"),
        ({"accuracies": [1.5]}, "between 0 and 1"),
        ({"confusions": np.ones((1, 5, 5))}, "rows that sum to 1"),
        ({"accuracies": [0.5], "answers": 2}, "the number of annotators"),
    ],
)
def test_annotators_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        simulated_annotators(LABELS, num_labels=5, seed=0, **arguments)
