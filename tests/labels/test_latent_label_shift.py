"""The tool: recovery, invariances, unequal domains, new domains, and every refusal."""

from types import SimpleNamespace

import numpy as np
import pytest
from lls_toys import MIXTURES, draw

from hf_labels.labels.latent_label_shift import LatentLabelShift
from hf_labels.labels.latent_label_shift_factors import NotIdentifiedError
from hf_labels.metrics.functional import matched_accuracy, mixture_l1

PROBS, DOMAINS, LABELS = draw(noise=0.2)


def fitted(**options):
    return LatentLabelShift(3, **options).fit(PROBS, DOMAINS)


@pytest.mark.parametrize("solver", ["clip", "nnls", "pinv"])
def test_classes_and_mixtures_are_recovered(solver):
    lls = fitted(solver=solver)
    assert matched_accuracy(lls.predict(PROBS, DOMAINS), LABELS)["matched_accuracy"] > 0.97
    assert mixture_l1(lls.class_prior, MIXTURES)["mixture_l1_per_domain"] < 0.1
    probs = lls.predict_proba(PROBS, DOMAINS)
    np.testing.assert_allclose(probs.sum(1), 1)
    assert probs.shape == (600, 3) and lls.predict_proba(PROBS[:0], DOMAINS[:0]).shape == (0, 3)
    for table in (lls.class_prior, lls.cluster_given_class, lls.domain_given_class):
        np.testing.assert_allclose(table.sum(0), 1)
    assert lls.report.full_rank and lls.num_domains == 4


def test_anchor_clusters_find_mixtures_that_hold_all_classes_everywhere():
    full = np.array([[0.8, 0.1, 0.3, 0.1], [0.1, 0.8, 0.3, 0.2], [0.1, 0.1, 0.4, 0.7]])
    probs, domains, labels = draw(2000, full)  # each class has a cluster of its own
    true = [[((labels == k) & (domains == d)).sum() / (domains == d).sum() for d in range(4)] for k in range(3)]
    anchored = LatentLabelShift(3, factorization="anchor").fit(probs, domains)
    assert mixture_l1(anchored.class_prior, true)["mixture_l1"] < 1e-4
    assert mixture_l1(LatentLabelShift(3).fit(probs, domains).class_prior, true)["mixture_l1_per_domain"] < 0.1
    assert matched_accuracy(anchored.predict(probs, domains), labels)["matched_accuracy"] == 1


def test_seed_repeats_and_the_order_of_rows_does_not_matter():
    one, two = fitted(seed=1), fitted(seed=1)
    np.testing.assert_array_equal(one.class_prior, two.class_prior)
    order = np.random.default_rng(0).permutation(600)
    other = LatentLabelShift(3, seed=1).fit(PROBS[order], DOMAINS[order])
    assert mixture_l1(other.class_prior, one.class_prior)["mixture_l1_per_domain"] < 0.05


def test_logits_and_prediction_output_are_taken():
    logits = np.log(PROBS) * 1 + 3.0
    output = SimpleNamespace(predictions=(logits, None), label_ids=DOMAINS)
    lls = LatentLabelShift(3).fit(output, from_logits=True)
    np.testing.assert_allclose(lls.class_prior, fitted().class_prior, atol=1e-8)
    np.testing.assert_allclose(lls.predict_proba(logits, DOMAINS), fitted().predict_proba(PROBS, DOMAINS), atol=1e-8)


def test_unknown_and_new_domains():
    lls = fitted()
    q = lls.posterior(PROBS)
    np.testing.assert_array_equal(lls.predict_proba(PROBS), q)
    some = np.where(np.arange(600) < 100, -1, DOMAINS)
    mixed = lls.predict_proba(PROBS, some)
    np.testing.assert_array_equal(mixed[:100], q[:100])
    np.testing.assert_array_equal(mixed[100:], lls.predict_proba(PROBS, DOMAINS)[100:])
    only = DOMAINS == 1  # a domain that is known, treated as a new one
    mixture = lls.estimate_mixture(PROBS[only])
    assert np.abs(mixture - lls.class_prior[:, 1]).max() < 0.06 and mixture.sum() == pytest.approx(1)
    as_new = lls.predict_proba(PROBS[only], class_prior=lls.class_prior[:, 1])
    np.testing.assert_allclose(as_new, lls.predict_proba(PROBS[only], DOMAINS[only]), atol=1e-10)


def test_counts_of_the_training_undo_unequal_domains():
    counts = np.array([400, 100, 200, 50])
    skewed = PROBS * counts
    skewed /= skewed.sum(1, keepdims=True)
    lls = LatentLabelShift(3).fit(skewed, DOMAINS, train_counts=counts)
    np.testing.assert_allclose(lls.class_prior, fitted().class_prior, atol=1e-8)
    np.testing.assert_allclose(lls.posterior(skewed), fitted().posterior(PROBS), atol=1e-8)
    assert np.abs(LatentLabelShift(3).fit(skewed, DOMAINS).posterior(skewed) - lls.posterior(skewed)).max() > 0.1


def test_fewer_distinct_rows_than_clusters_and_one_class():
    probs, domains, labels = draw(300)  # three distinct rows
    lls = LatentLabelShift(3, 8).fit(probs, domains)
    assert lls.cluster_given_class.shape == (3, 3)
    assert matched_accuracy(lls.predict(probs, domains), labels)["matched_accuracy"] == 1
    one = LatentLabelShift(1).fit(PROBS, DOMAINS)
    np.testing.assert_allclose(one.predict_proba(PROBS, DOMAINS), 1)
    np.testing.assert_allclose(one.class_prior, 1)


def test_two_equal_domains_are_allowed_while_the_rank_is_there():
    twice = np.concatenate([MIXTURES, MIXTURES[:, :1]], 1)
    probs, domains, labels = draw(1000, twice, noise=0.1)
    lls = LatentLabelShift(3).fit(probs, domains)
    assert matched_accuracy(lls.predict(probs, domains), labels)["matched_accuracy"] > 0.97


def test_mixtures_of_too_low_rank_are_refused(caplog):
    poor = MIXTURES.copy()
    poor[:, 1:] = poor[:, [1]]
    _, domains, labels = draw(1200, poor)
    noise = np.random.default_rng(2).dirichlet(np.ones(3), 1200)
    probs = (0.7 * np.eye(3)[labels] + 0.3 * noise) @ (MIXTURES / MIXTURES.sum(1, keepdims=True))
    with pytest.raises(NotIdentifiedError, match="do not show 3 classes: singular values .*what noise gives.*Ask for"):
        LatentLabelShift(3).fit(probs, domains)
    lls = LatentLabelShift(3, check="warn").fit(probs, domains)
    assert "do not show 3 classes" in caplog.text and not lls.report.full_rank
    caplog.clear()
    LatentLabelShift(3, check="ignore").fit(probs, domains)
    assert not caplog.text
    LatentLabelShift(2).fit(probs, domains)  # two classes can be told apart
    with pytest.raises(NotIdentifiedError, match="the matrix has a lower rank"):
        LatentLabelShift(3).fit_matrix(np.eye(4)[:, :3] @ poor)


def test_the_rank_is_tested_on_held_out_rows():
    probs, domains, _ = draw(800, seed=4)
    held = np.arange(800) >= 400
    lls = LatentLabelShift(3, 9).fit(probs, domains, held_out=held)
    whole = LatentLabelShift(3, 9).fit(probs, domains)
    np.testing.assert_array_equal(lls.class_prior, whole.class_prior)  # the fit is on all rows
    assert lls.report.noise_level > whole.report.noise_level  # of half as many
    by_heart = np.where(held[:, None], 0.25, 0.9 * np.eye(4)[domains] + 0.025)
    assert LatentLabelShift(2, 4).fit(by_heart, domains).report.full_rank
    with pytest.raises(NotIdentifiedError, match="do not show 2 classes"):
        LatentLabelShift(2, 5).fit(by_heart, domains, held_out=held)
    with pytest.raises(ValueError, match="No held-out row is of domain 1"):
        LatentLabelShift(3, 9).fit(probs, domains, held_out=domains != 1)
    with pytest.raises(ValueError, match="`held_out` must be 800 booleans, got int64"):
        LatentLabelShift(3, 9).fit(probs, domains, held_out=np.flatnonzero(held))


def test_nearly_dependent_mixtures_are_warned_about(caplog):
    near = np.array([[0.5, 0.5002, 0.5], [0.5, 0.4998, 0.5]])
    LatentLabelShift(2).fit_matrix(np.array([[1.0, 0], [0, 1]]) @ near)
    assert "condition number" in caplog.text and "above 1000" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be at least 1"),
        ({"num_classes": 3, "num_clusters": 2}, "`num_clusters` must be at least `num_classes` = 3, got 2"),
        ({"num_classes": 3, "solver": "svd"}, "`solver` must be one of clip, nnls, pinv"),
        ({"num_classes": 3, "factorization": "svd"}, "`factorization` must be one of nmf, anchor, got 'svd'"),
        ({"num_classes": 3, "check": "maybe"}, "`check` must be one of raise, warn, ignore"),
        ({"num_classes": 3, "restarts": 0}, "`restarts` must be at least 1"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LatentLabelShift(**options)


def _nan():
    probs = PROBS.copy()
    probs[7, 2] = np.nan
    return probs


@pytest.mark.parametrize(
    ("probs", "domains", "options", "message"),
    [
        (PROBS[:, :2] / PROBS[:, :2].sum(1, keepdims=True), DOMAINS % 2, {}, "3 classes cannot be told apart by 2"),
        (PROBS, None, {}, "`domains` is missing"),
        (PROBS * 2, DOMAINS, {}, "Row 0 of `domain_probs` sums to 2, expected 1.*from_logits=True"),
        (PROBS - 1, DOMAINS, {}, "must not be negative, got .* at row 0.*from_logits"),
        (_nan(), DOMAINS, {}, "finite, got nan at row 7, class 2"),
        (PROBS, DOMAINS[:9], {}, r"one id per row, shape \(600,\), got shape \(9,\)"),
        (PROBS, np.where(DOMAINS == 3, 4, DOMAINS), {}, r"ids in \[0, 4\), got 4 at row 3"),
        (PROBS, np.where(DOMAINS == 3, -1, DOMAINS), {}, r"ids in \[0, 4\), got -1 at row 3"),
        (PROBS, DOMAINS % 3, {}, "Domain 3 has no row"),
        (PROBS[:8], DOMAINS[:8], {}, "8 rows are too few for 9 clusters"),
        (np.full((40, 4), 0.25), DOMAINS[:40], {}, "fall into 1 distinct clusters, fewer than 3 classes"),
        (PROBS, DOMAINS, {"train_counts": [1, 2, 0, 4]}, "`train_counts` must be 4 numbers above 0"),
        (PROBS, DOMAINS, {"domain_names": ["a"]}, "1 `domain_names` for 4 domains"),
    ],
)
def test_bad_data_are_named(probs, domains, options, message):
    with pytest.raises(ValueError, match=message):
        LatentLabelShift(3).fit(probs, domains, **options)


def test_bad_predictions_are_named():
    with pytest.raises(RuntimeError, match="not fitted"):
        LatentLabelShift(3).predict(PROBS)
    lls = fitted()
    with pytest.raises(ValueError, match=r"ids in \[0, 4\), got 4 at row 0. Use -1, or `estimate_mixture`"):
        lls.predict(PROBS[:1], [4])
    with pytest.raises(ValueError, match="3 columns, the fit had 4"):
        lls.predict(np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match="not both"):
        lls.predict(PROBS, DOMAINS, class_prior=[1, 0, 0])
    with pytest.raises(ValueError, match="3 probabilities that sum to 1"):
        lls.predict(PROBS, class_prior=[1, 1, 0])
    with pytest.raises(ValueError, match="no rows"):
        lls.estimate_mixture(PROBS[:0])
    with pytest.raises(ValueError, match="columns must sum to 1"):
        LatentLabelShift(2).fit_matrix(np.ones((3, 3)))
