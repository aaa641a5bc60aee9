"""The linear head is scikit-learn's logistic regression on standardised features."""

import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hf_labels.labels.linear_head import STRENGTHS, choose_l2, cross_validated_accuracy, fit_linear_head


def rows(n=40, d=6, seed=0, strength=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 3)
    return 5 * (rng.normal(size=(n, d)) + strength * rng.normal(size=(3, d))[labels]) + 7, labels


@pytest.mark.parametrize("l2", [0.1, 1.0, 20.0])
def test_is_the_logistic_regression_of_scikit_learn(l2):
    features, labels = rows(strength=0.5)
    other, _ = rows(seed=1)
    scaler = StandardScaler().fit(features)
    peer = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit(scaler.transform(features), labels)
    got = fit_linear_head(features, labels, l2=l2).probs(other)
    np.testing.assert_allclose(got, peer.predict_proba(scaler.transform(other)), atol=2e-4)


def test_a_class_without_a_row_has_probability_0_and_is_named(caplog):
    features, labels = rows()
    with caplog.at_level(logging.WARNING, "hf_labels"):
        head = fit_linear_head(features, np.where(labels == 2, 4, labels), 6)
    assert "No labelled row of class 2, 3, 5" in caplog.text
    probs = head.probs(features)
    assert probs.shape == (40, 6) and (probs[:, [2, 3, 5]] == 0).all()
    np.testing.assert_allclose(probs[:, [0, 1, 4]], fit_linear_head(features, labels).probs(features), atol=1e-9)


def test_columns_that_never_change_do_no_harm():
    features, labels = rows()
    wide = np.c_[features, np.full(40, 3.0)]
    np.testing.assert_allclose(
        fit_linear_head(wide, labels).probs(wide), fit_linear_head(features, labels).probs(features), atol=1e-5
    )


def test_cross_validation_is_fair(caplog):
    features, labels = rows(60, 40, strength=0.0)
    assert (fit_linear_head(features, labels).probs(features).argmax(1) == labels).mean() > 0.9
    assert cross_validated_accuracy(features, labels) < 60  # chance is 33
    easy, truth = rows(60)
    assert cross_validated_accuracy(easy, truth) > 90
    assert cross_validated_accuracy(easy, truth, seed=3) == cross_validated_accuracy(easy, truth, seed=3)
    assert cross_validated_accuracy(easy[:3], truth[:3]) >= 0  # a class may miss in a part: no warning
    assert not caplog.records


def test_the_strength_follows_noise_and_columns():
    clean, truth = rows(300, 10, strength=1.5)
    assert choose_l2(clean, truth) <= 10
    wide, labels = rows(300, 200, strength=0.15)
    noisy = np.where(np.random.default_rng(0).random(300) < 0.3, (labels + 1) % 3, labels)
    strong = choose_l2(wide, noisy)
    assert strong >= 100 and strong in STRENGTHS
    other, _ = rows(50, 200, seed=1)
    auto = fit_linear_head(wide, noisy, l2="auto")
    fixed = fit_linear_head(wide, noisy, l2=strong)
    np.testing.assert_allclose(auto.probs(other), fixed.probs(other))
    weak = fit_linear_head(wide, noisy).probs(wide)
    assert weak.max(1).mean() > auto.probs(wide).max(1).mean() + 0.1  # the weak one is sure of the noise
    assert choose_l2(np.tile(wide, (20, 1)), np.tile(noisy, 20), max_rows=600) in STRENGTHS
    assert choose_l2(clean[:2], np.array([0, 1])) == min(STRENGTHS)


FEATURES, LABELS = rows()
BAD = FEATURES.copy()
BAD[4, 0] = np.inf


@pytest.mark.parametrize(
    "features, labels, options, message",
    [
        (BAD, LABELS, {}, "NaN or infinity at row 4"),
        (FEATURES, np.r_[LABELS[:-1], 9], {"num_classes": 3}, r"must be in \[0, 3\), got 9 at row 39"),
        (FEATURES, LABELS[:5], {}, r"\(40, 6\) and \(5,\)"),
        (FEATURES[:0], LABELS[:0], {}, r"Need features \(n, d\)"),
        (FEATURES, LABELS, {"l2": 0.0}, "`l2` must be above 0"),
        (FEATURES, LABELS, {"l2": "strong"}, "`l2` must be above 0, or 'auto'; got 'strong'"),
    ],
)
def test_bad_input_is_named(features, labels, options, message):
    with pytest.raises(ValueError, match=message):
        fit_linear_head(features, labels, **options)
