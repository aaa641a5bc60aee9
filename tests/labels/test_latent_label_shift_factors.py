"""The formulas of DDFA against plain loops, their limits, and the check of the rank."""

import numpy as np
import pytest
from lls_toys import MIXTURES, draw

from hf_labels.labels.latent_label_shift_factors import (
    NotIdentifiedError,
    anchor_factors,
    class_posterior,
    cluster_domain_matrix,
    domain_given_class,
    domain_posterior,
    factorize,
    identification,
    nmf_factors,
    rescale_factors,
    reweighted,
    unseen_mixture,
)
from hf_labels.metrics.functional import mixture_l1

RNG = np.random.default_rng(0)


def anchored(clusters=9, classes=3, seed=0):
    """p(cluster | class) where each class has two clusters of its own."""
    table = np.random.default_rng(seed).dirichlet(np.ones(clusters), classes).T
    for label in range(classes):
        own = [2 * label, 2 * label + 1]
        table[own] = np.where(np.arange(classes) == label, 0.2, 0)
    return table / table.sum(0)


def test_table_of_clusters_is_counted():
    cluster, domain = RNG.integers(5, size=200), RNG.integers(3, size=200)
    got = cluster_domain_matrix(cluster, domain, 5, 3)
    for c in range(5):
        for d in range(3):
            assert got[c, d] == pytest.approx(((cluster == c) & (domain == d)).sum() / (domain == d).sum())
    np.testing.assert_allclose(got.sum(0), 1)
    order = np.array([2, 0, 1])
    np.testing.assert_array_equal(cluster_domain_matrix(cluster, order[domain], 5, 3)[:, order], got)


def test_rescaled_factors_are_distributions_of_the_same_product():
    left, right = RNG.random((6, 3)), RNG.random((3, 4))
    one, two = rescale_factors(left, right)
    np.testing.assert_allclose(one.sum(0), 1)
    np.testing.assert_allclose(two.sum(0), 1)
    product = left @ right
    np.testing.assert_allclose(one @ two, product / product.sum(0))
    with pytest.raises(NotIdentifiedError, match="Class 1 of the factors has no cluster"):
        rescale_factors(left * [1, 0, 1], right)
    with pytest.raises(NotIdentifiedError, match="Domain 2 has no class"):
        rescale_factors(left, right * [1, 1, 0, 1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_exact_factors_with_anchors_come_back_up_to_the_names(seed):
    truth = anchored(seed=seed)
    matrix = truth @ MIXTURES
    _, found, residual = factorize(matrix, 3, seed=seed)
    assert residual < 2e-3 and mixture_l1(found, MIXTURES)["mixture_l1_per_domain"] < 0.05
    left, right = anchor_factors(matrix, 3)  # exact up to scale, without any iteration
    _, mixtures = rescale_factors(left, right)
    assert mixture_l1(mixtures, MIXTURES)["mixture_l1"] < 1e-4


def test_domains_in_another_order_permute_the_mixtures():
    matrix, order = anchored() @ MIXTURES, [3, 1, 0, 2]
    one, two = factorize(matrix, 3)[1], factorize(matrix[:, order], 3)[1]
    assert mixture_l1(two, one[:, order])["mixture_l1"] < 0.02


def test_restarts_take_the_tightest_of_the_good_fits():
    matrix = RNG.dirichlet(np.ones(8), 5).T
    _, mixtures, residual = factorize(matrix, 3, restarts=6, seed=4)
    each = [nmf_factors(matrix, 3, "random", 4 + i, 2000, 1e-6) for i in range(2, 6)]
    good = 1.02 * min(one[2] for one in each) + 1e-3 * np.linalg.norm(matrix)
    volumes = [np.linalg.det(one[1] @ one[1].T) for one in each if one[2] <= residual]
    assert residual <= good and all(np.linalg.det(mixtures @ mixtures.T) <= v + 1e-12 for v in volumes)
    with pytest.raises(NotIdentifiedError, match="4 classes need as many clusters and domains, there are 8 and 3"):
        factorize(matrix[:, :3], 4)


def test_consistent_rows_give_back_the_posterior_with_every_solver():
    table = domain_given_class(MIXTURES)
    for d in range(4):
        for y in range(3):
            assert table[d, y] == pytest.approx(MIXTURES[y, d] / MIXTURES[y].sum())
    truth = RNG.dirichlet(np.ones(3), 20)
    for solver in ("clip", "nnls", "pinv"):
        np.testing.assert_allclose(class_posterior(truth @ table.T, table, solver), truth, atol=1e-10)


def test_clipped_and_nnls_are_distributions_where_the_reference_is_negative():
    table, probs = domain_given_class(MIXTURES), RNG.dirichlet(np.full(4, 0.3), 50)
    raw = class_posterior(probs, table, "pinv")
    assert (raw < 0).any()
    fine = (raw >= 0).all(1)
    for solver in ("clip", "nnls"):
        found = class_posterior(probs, table, solver)
        assert (found >= 0).all()
        np.testing.assert_allclose(found.sum(1), 1)
        np.testing.assert_allclose(found[fine], raw[fine] / raw[fine].sum(1, keepdims=True))
    from scipy.optimize import nnls

    for row, got in zip(probs, class_posterior(probs, table, "nnls"), strict=True):
        want = nnls(table, row)[0]
        np.testing.assert_allclose(got, want / want.sum(), atol=1e-12)
    with pytest.raises(ValueError, match="`solver` must be one of clip, nnls, pinv, got 'svd'"):
        class_posterior(probs, table, "svd")


def test_domains_reweigh_the_posterior_and_nothing_is_uniform():
    table, q, ids = domain_given_class(MIXTURES), RNG.dirichlet(np.ones(3), 10), RNG.integers(4, size=10)
    found = domain_posterior(q, table, ids)
    for i in range(10):
        want = [q[i, y] * table[ids[i], y] for y in range(3)]
        np.testing.assert_allclose(found[i], np.array(want) / sum(want))
    np.testing.assert_allclose(class_posterior([[0.0, 0.0]], np.eye(2)), [[0.5, 0.5]])
    sparse = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(domain_posterior([[1.0, 0.0]], sparse, [1]), [[0.0, 1.0]])


def test_known_domain_is_the_reweighted_mixture_and_a_new_one_is_found():
    probs, domains, _ = draw(4000)
    table = domain_given_class(MIXTURES)
    q = class_posterior(probs, table)
    by_domain = domain_posterior(q, table, domains)
    prior = MIXTURES.mean(1)
    for d in range(4):
        np.testing.assert_allclose(reweighted(q, prior, MIXTURES[:, d])[domains == d], by_domain[domains == d])
    new = np.array([0.2, 0.05, 0.75])
    rows, _, labels = draw(4000, np.stack([new] * 4, 1), seed=3)
    rows = np.eye(3)[labels] @ table.T * 0.9 + 0.1 * RNG.dirichlet(np.ones(3), 4000) @ table.T
    got = unseen_mixture(class_posterior(rows, table), MIXTURES)
    assert np.abs(got - new).max() < 0.06


def test_rank_is_tested_against_noise():
    truth, rng = anchored(), np.random.default_rng(5)
    same = MIXTURES.copy()
    same[:, 1:] = same[:, [1]]  # two different domains: two classes can be told apart, not three
    counts = np.full(4, 400)
    found = {}
    for name, mixtures in (("full", MIXTURES), ("poor", same)):
        drawn = np.stack([rng.multinomial(400, truth @ m) / 400 for m in mixtures.T], 1)
        _, weights, residual = factorize(drawn, 3)
        found[name] = identification(drawn, weights, residual, counts)
    assert found["full"].rank_p_value < 0.01 and found["full"].full_rank
    assert found["poor"].rank_p_value > 0.05 and not found["poor"].full_rank
    assert found["poor"].singular_values[2] < 2 * found["poor"].noise_level
    exact = identification(truth @ same, same)
    assert exact.condition == np.inf and not exact.full_rank


def test_p_values_of_the_rank_are_nearly_uniform_when_a_class_is_missing():
    truth, rng, values = anchored(classes=2, clusters=7), np.random.default_rng(0), []
    mixtures = np.array([[0.9, 0.6, 0.4, 0.2], [0.1, 0.4, 0.6, 0.8]])
    for seed in range(60):
        drawn = np.stack([rng.multinomial(200, truth @ m) / 200 for m in mixtures.T], 1)
        right = factorize(drawn, 3, restarts=3)[1]
        values.append(identification(drawn, right, counts=np.full(4, 200), simulations=100, seed=seed).rank_p_value)
    known = np.array(values)[~np.isnan(values)]
    assert len(known) > 50 and (known < 0.05).mean() < 0.17 and 0.3 < np.median(known) < 0.8


@pytest.mark.parametrize(
    ("clusters", "domains", "message"),
    [
        ([0, 1], [0], "2 `clusters` and 1 `domains`"),
        ([0, 5], [0, 1], r"`clusters` must be ids in \[0, 2\), got 5 at row 1"),
        ([0, 1], [0, -1], r"`domains` must be ids in \[0, 2\), got -1 at row 1"),
        ([0, 1], [0, 0], "Domain 1 has no row"),
    ],
)
def test_bad_ids_are_named(clusters, domains, message):
    with pytest.raises(ValueError, match=message):
        cluster_domain_matrix(clusters, domains, 2, 2)
