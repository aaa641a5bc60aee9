"""Similarity of a source's features and target labels: properties, slow oracles, what is refused."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from hf_labels.labels import task_similarity as ts


def rows(n=30, d=8, classes=4, seed=0, strength=1.0):
    """Features that know something of the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    return rng.normal(size=(n, d)) + strength * rng.normal(size=(classes, d))[labels], labels


def probabilities(n=30, classes=6, seed=0):
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), n)


@pytest.mark.parametrize("seed", [0, 1])
def test_parc_is_the_rank_correlation_of_all_pairs(seed):
    features, labels = rows(seed=seed)
    z = (features - features.mean(0)) / features.std(0)
    mine, theirs = [], []
    for i in range(30):
        for j in range(i + 1, 30):
            mine.append(1 - np.corrcoef(z[i], z[j])[0, 1])
            theirs.append(float(labels[i] != labels[j]))
    assert ts.parc(features, labels) == pytest.approx(100 * spearmanr(mine, theirs).statistic, abs=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_parc_ignores_units_order_of_rows_and_names_of_classes(seed):
    features, labels = rows(seed=seed)
    want = ts.parc(features, labels)
    rng = np.random.default_rng(seed)
    scaled = features * rng.uniform(0.1, 10, 8) + rng.normal(size=8)
    order = rng.permutation(30)
    assert ts.parc(scaled, labels) == pytest.approx(want, abs=1e-8)
    assert ts.parc(features[order], labels[order]) == pytest.approx(want, abs=1e-8)
    assert ts.parc(features, rng.permutation(4)[labels]) == pytest.approx(want, abs=1e-8)
    assert ts.parc(features, labels, num_classes=9) == pytest.approx(want, abs=1e-8)  # unseen classes tell nothing


def test_parc_knows_good_from_bad():
    labels = np.arange(40) % 5
    assert ts.parc(np.eye(5)[labels], labels) == pytest.approx(100)
    scores = [ts.parc(*rows(200, strength=strength)) for strength in (0.0, 0.5, 2.0)]
    assert abs(scores[0]) < 5 < scores[1] < scores[2]


def test_parc_of_several_labels_per_row():
    features, labels = rows()
    hot = np.eye(4, dtype=int)[labels]
    assert ts.parc(features, hot) == pytest.approx(ts.parc(features, labels))
    hot[0, (labels[0] + 1) % 4] = 1
    assert ts.task_similarity(features, hot) != pytest.approx(ts.parc(features, labels))


def test_reduction_is_principal_components_and_is_clipped():
    from sklearn.decomposition import PCA

    features, labels = rows(30, 12)
    want = PCA(3, svd_solver="full").fit_transform(features)
    got = ts.reduce_dims(features, 3)
    np.testing.assert_allclose(abs(got), abs(want), atol=1e-9)
    assert ts.task_similarity(features, labels, n_dims=3) == pytest.approx(ts.parc(want, labels))
    assert ts.reduce_dims(features, 12) is features and ts.reduce_dims(features, None) is features
    assert ts.reduce_dims(features[:5], 10).shape == (5, 5)
    with pytest.raises(ValueError, match="`n_dims` must be at least 1, got 0"):
        ts.reduce_dims(features, 0)


def test_leep_is_what_a_loop_gives_and_never_above_0():
    theta, (_, labels) = probabilities(), rows()
    joint = np.zeros((4, 6))
    for row, label in zip(theta, labels, strict=True):
        joint[label] += row
    given = joint / joint.sum(0)
    want = np.mean(
        [math.log(sum(given[y, z] * row[z] for z in range(6))) for row, y in zip(theta, labels, strict=True)]
    )
    assert ts.leep(theta, labels) == pytest.approx(want) and want < 0
    with_dead_class = np.c_[theta, np.zeros(30)]
    assert ts.leep(with_dead_class, labels) == pytest.approx(want)
    assert ts.leep(np.eye(4)[labels], labels) == pytest.approx(0)


def test_nce_is_minus_the_conditional_entropy():
    theta, (_, labels) = probabilities(300), rows(300)
    top, want = theta.argmax(1), 0.0
    for z in np.unique(top):
        share = np.bincount(labels[top == z], minlength=4) / (top == z).sum()
        want += (top == z).mean() * float((share[share > 0] * np.log(share[share > 0])).sum())
    assert ts.nce(theta, labels, eps=0.0 + 1e-12) == pytest.approx(want, abs=1e-6)
    assert ts.nce(np.eye(4)[labels], labels) < 1e-3
    assert ts.nce(np.eye(4)[labels], labels) == pytest.approx(0, abs=1e-2)


def test_h_score_is_at_most_classes_less_1():
    features, labels = rows(60)
    assert 0 < ts.h_score(features, labels) < 3
    assert ts.h_score(np.eye(4)[labels], labels) == pytest.approx(3)
    assert ts.h_score(2 * features + 1, labels) == pytest.approx(ts.h_score(features, labels))


def test_neighbours_leave_the_row_itself_out():
    features = np.array([[0.0], [0.1], [1.0], [1.1], [5.0]])
    labels = [0, 0, 1, 1, 0]
    assert ts.knn_leave_one_out(features, labels) == pytest.approx(80)
    # row 4: votes 1 and 1 of rows 3 and 2; rows 0, 1: the nearer of two different votes
    assert ts.knn_leave_one_out(features, labels, k=2) == pytest.approx(80)
    assert ts.knn_leave_one_out(features, labels, k=2, reference_ties=True) == pytest.approx(40)
    with pytest.raises(ValueError, match=r"`k` must be in \[1, 4\], got 5"):
        ts.knn_leave_one_out(features, labels, k=5)


def test_two_models_are_compared_without_labels():
    features, _ = rows()
    turned = features @ np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))[0]
    other, _ = rows(seed=9)
    assert ts.rsa(features, features) == pytest.approx(100) and ts.dds(features, features) == pytest.approx(100)
    assert ts.dds(features, other) < 60 < ts.dds(features, turned)
    assert ts.rsa(features, other) == pytest.approx(ts.rsa(other, features))
    with pytest.raises(ValueError, match="DDS needs at least 4 rows, got 3"):
        ts.dds(features[:3], features[:3])


@pytest.mark.parametrize("metric", ts.METRICS)
def test_each_metric_prefers_the_features_that_know_the_labels(metric):
    good, labels = rows(120, strength=3.0)
    bad, _ = rows(120, strength=0.0, seed=5)
    probs = np.eye(4)[labels] * 0.8 + 0.05
    noise = probabilities(120, 4)
    values = [
        ts.task_similarity(features, labels, metric, source_probs=theta)
        for features, theta in ((good, probs), (bad, noise))
    ]
    assert values[0] > values[1]


def test_selection_correlation():
    near = {"a": 3.0, "b": 2.0, "c": 1.0}
    assert ts.selection_correlation(near, {"c": 0.1, "a": 0.9, "b": 0.5}) == pytest.approx(1)
    assert ts.selection_correlation(near, {"c": 0.9, "a": 0.1, "b": 0.5}) == pytest.approx(-1)
    with pytest.raises(KeyError, match="c"):
        ts.selection_correlation(near, {"a": 1.0, "b": 2.0})
    with pytest.raises(ValueError, match="at least 3 sources, got 2"):
        ts.selection_correlation({"a": 1.0, "b": 2.0}, near)
    with pytest.raises(ValueError, match="must not be the same"):
        ts.selection_correlation(near, dict.fromkeys(near, 0.5))


FEATURES, LABELS = rows()
NAN = FEATURES.copy()
NAN[7, 2] = np.nan


@pytest.mark.parametrize(
    "features, labels, options, message",
    [
        (FEATURES[:2], LABELS[:2], {}, r"Source `resnet` must have features \(n, d\) of at least 3 probe rows"),
        (FEATURES, np.zeros(30, int), {}, r"Source `resnet`: the probe rows show one class only \(0\)"),
        (np.ones((30, 8)), LABELS, {}, r"Source `resnet` has the same features for all rows \(constant\)"),
        (NAN, LABELS, {}, "Source `resnet` has NaN or infinite features at row 7"),
        (FEATURES, LABELS - 1, {}, r"`labels` must be in \[0, 3\), got -1 at row"),
        (FEATURES, LABELS, {"num_classes": 3}, r"`labels` must be in \[0, 3\), got 3 at row"),
        (FEATURES, LABELS[:9], {}, r"Source `resnet`: `labels` must be 30 class ids, got int64 of shape \(9,\)"),
        (FEATURES, LABELS, {"metric": "logme"}, "`metric` must be one of parc, leep.*got 'logme'"),
        (FEATURES, LABELS, {"metric": "leep"}, "Source `resnet`: `leep` needs `source_probs`"),
        (FEATURES[:, :1], LABELS, {}, "Source `resnet` has one feature only"),
    ],
)
def test_bad_input_is_named(features, labels, options, message):
    with pytest.raises(ValueError, match=message):
        ts.task_similarity(features, labels, **{"name": "resnet", **options})


def test_probabilities_are_checked():
    theta = probabilities()
    with pytest.raises(ValueError, match=r"must sum to 1, got 2 at row 0"):
        ts.leep(2 * theta, LABELS)
    with pytest.raises(ValueError, match="finite probabilities"):
        ts.nce(theta - 1, LABELS)
    with pytest.raises(ValueError, match=r"got -1 at row 0"):
        ts.leep(theta, np.r_[-1, LABELS[1:]])
