"""Coverage: of repeated samples of known truth, the intervals hold it nearly as often as they say, or oftener."""

import numpy as np
import pytest

from hf_labels.doctor.intervals import gap_interval, kappa_interval, ratio_interval, share, shift_interval
from hf_labels.metrics.functional import calibration_scores, fleiss_kappa, pairwise_agreement

SAMPLES = 200  # a true coverage of 0.95 gives less than 0.90 in one of 400 runs


@pytest.mark.parametrize(("classes", "factor"), [(2, 1.0), (3, 1.4), (10, 1.0), (20, 3.0)])
def test_label_shift_holds_no_shift_as_well_as_a_shift(classes, factor):
    rng = np.random.default_rng(classes)
    one = np.full(classes, 1 / classes)
    other = one * np.where(np.arange(classes) < classes // 2, factor, 1)
    other /= other.sum()
    truth, held = np.abs(one - other).sum() / 2, 0
    for _ in range(SAMPLES):
        counts = rng.multinomial(800, one), rng.multinomial(400, other)
        value, low, high = shift_interval(*counts, 200, rng)
        assert low <= value <= high
        held += low <= truth <= high
    assert held / SAMPLES >= 0.9


@pytest.mark.parametrize("classes", [2, 5, 60])
def test_skew_of_equal_classes_can_be_none(classes):
    rng = np.random.default_rng(classes)
    held = 0
    for _ in range(SAMPLES):
        counts = rng.multinomial(classes * 20, np.full(classes, 1 / classes))
        low, high = ratio_interval(counts[counts > 0], np.full((counts > 0).sum(), counts.sum()))
        held += low <= 1.0 <= high
    assert held / SAMPLES >= 0.9


def test_skew_holds_a_ratio():
    rng = np.random.default_rng(1)
    shares, held = np.array([0.6, 0.3, 0.1]), 0
    for _ in range(SAMPLES):
        low, high = ratio_interval(rng.multinomial(300, shares), np.full(3, 300))
        held += low <= 6.0 <= high
    assert held / SAMPLES >= 0.9


@pytest.mark.parametrize("excess", [0.0, 0.15])
def test_calibration_error_of_calibrated_and_of_overconfident_models(excess):
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(SAMPLES):
        sure = rng.choice([0.65, 0.75, 0.85, 0.95], size=300)
        right = rng.random(300) < sure - excess
        part = np.ceil(sure * 15).astype(int) - 1
        value, low, high = gap_interval(sure - right, part, 100, rng)
        held += low <= excess <= high
        assert low <= value <= high
    assert held / SAMPLES >= 0.9
    probs = np.stack([sure, 1 - sure], 1)
    assert abs(value - calibration_scores(probs, (~right).astype(int))["ece"]) < 1e-12


def test_a_model_that_made_no_mistake_yet_may_make_some():
    _, low, high = gap_interval(np.zeros(100), np.zeros(100, int), 50, np.random.default_rng(0))
    assert low == 0 and abs(high - (1 - share(100, 100)[1])) < 1e-12


def test_kappa_is_fleiss_and_holds_the_truth():
    rng = np.random.default_rng(4)
    skill, held = 0.7, 0

    def crowd(items):
        truth = rng.integers(3, size=items)
        answers = np.where(rng.random((items, 4)) < skill, truth[:, None], rng.integers(3, size=(items, 4)))
        answers[rng.random(answers.shape) < 0.2] = -1
        return answers[(answers >= 0).sum(1) >= 2]

    for _ in range(SAMPLES):
        table = crowd(150)
        value, low, high, pairs = kappa_interval(table, 3, 100, rng)
        held += low <= skill**2 <= high  # two agree beyond chance when both of them knew
    assert held / SAMPLES >= 0.9
    assert abs(value - fleiss_kappa(table, 3, -1)) < 1e-12
    assert abs(pairs - pairwise_agreement(table, 3, -1)) < 1e-12
    same = np.repeat(rng.integers(2, size=(40, 1)), 3, axis=1)
    value, low, high, pairs = kappa_interval(same, 2, 50, rng)
    assert value == high == pairs == 1 and 0.7 < low < 0.95
