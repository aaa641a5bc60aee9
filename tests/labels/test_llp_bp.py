"""Pseudo-labels from counts: exact where theory says so, symmetric, and clear about bad input."""

import logging

import numpy as np
import pytest

from hf_labels.labels.llp_bp import bag_proportions, llp_pseudo_labels, top_counts
from hf_labels.labels.llp_bp_inference import (
    belief_propagation,
    exact_marginals,
    pairwise_potentials,
    pairwise_propagation,
)
from hf_labels.labels.llp_bp_messages import CountFactors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4))
BAG = np.repeat(np.arange(6), 8)
COUNTS = {b: c for b, c in enumerate((2, 0, 8, 3, 5, 1))}


def two_blobs(rows=1200, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random(rows) < share).astype(int)
    return rng.normal(size=(rows, 3)) + 2.5 * y[:, None], y


def test_near_rows_and_counts_find_the_labels():
    x, y = two_blobs()
    bag = np.arange(len(y)) // 60
    found = llp_pseudo_labels(x, bag, np.bincount(bag, weights=y), lambda_s=1.0)
    assert (found.labels == y).mean() > 0.88 and found.report["count_error"] < 1e-4
    alone = llp_pseudo_labels(x, bag, np.bincount(bag, weights=y), k=0)
    assert (alone.labels == y).mean() < 0.75  # without neighbours all rows of a bag are alike


@pytest.mark.parametrize("method", ["auto", "exact", "fourier"])
@pytest.mark.parametrize("strength", [0.9, 10.0, np.inf])
def test_exact_on_a_tree(method, strength):
    bag, counts = np.array([0, 0, 0, 1, 1, 2, 2, -1]), np.array([1.0, 1.0, 1.0])
    edges, weights = np.array([[2, 3], [4, 5], [6, 7]]), np.array([0.8, 0.4, 0.9])
    unary = RNG.normal(size=8)
    want, _ = exact_marginals(bag, counts, edges, weights, strength, 1.1, unary)
    factors = CountFactors(bag, counts, strength, method)
    found = belief_propagation(factors, edges, weights, 1.1, unary, tol=1e-12, max_iter=500)
    np.testing.assert_allclose(found.probs, want, atol=1e-9)
    assert found.converged


def test_hard_counts_are_kept():
    found = llp_pseudo_labels(X, BAG, COUNTS, lambda_b=np.inf, lambda_s=0.3, k=2)
    np.testing.assert_allclose(np.bincount(BAG, weights=found.probs), list(COUNTS.values()), atol=1e-3)
    assert (found.labels[BAG == 1] == 0).all() and (found.labels[BAG == 2] == 1).all()


def test_bags_of_one_row_are_labels():
    y = RNG.integers(0, 2, 20)
    found = llp_pseudo_labels(X[:20], np.arange(20), y, lambda_b=np.inf, k=3)
    np.testing.assert_allclose(found.probs, y, atol=1e-12)


def test_without_neighbours_and_prior_all_rows_of_a_bag_are_alike():
    probs = llp_pseudo_labels(X, BAG, COUNTS, lambda_s=0.0).probs.reshape(6, 8)
    np.testing.assert_allclose(probs, probs[:, :1] * np.ones(8), atol=1e-12)
    np.testing.assert_allclose(probs[0], 0.25, atol=1e-3)


def test_flipping_the_labels_flips_the_marginals():
    one = llp_pseudo_labels(X, BAG, COUNTS, lambda_s=0.5, tol=1e-10, max_iter=400)
    two = llp_pseudo_labels(X, BAG, {b: 8 - c for b, c in COUNTS.items()}, lambda_s=0.5, tol=1e-10, max_iter=400)
    np.testing.assert_allclose(one.probs, 1 - two.probs, atol=1e-8)


def test_the_order_of_rows_does_not_matter():
    order = RNG.permutation(len(X))
    one = llp_pseudo_labels(X, BAG, COUNTS, lambda_s=0.5, tol=1e-10, max_iter=400)
    two = llp_pseudo_labels(X[order], BAG[order], COUNTS, lambda_s=0.5, tol=1e-10, max_iter=400)
    np.testing.assert_allclose(one.probs[order], two.probs, atol=1e-8)


def test_a_prior_counts_and_moves_its_neighbours():
    prior = np.zeros(48)
    prior[0] = 8.0
    plain = llp_pseudo_labels(X, BAG, COUNTS, lambda_s=0.5)
    found = llp_pseudo_labels(X, BAG, COUNTS, lambda_s=0.5, prior=prior)
    assert found.probs[0] > 0.95 > plain.probs[0] and found.probs[1:8].sum() < plain.probs[1:8].sum()


def test_rows_in_no_bag_follow_their_neighbours():
    x, y = two_blobs(400)
    bag = np.where(np.arange(400) < 320, np.arange(400) // 20, -1)
    counts = np.bincount(bag[:320], weights=y[:320])
    found = llp_pseudo_labels(x, bag, counts, lambda_s=1.0)
    assert (found.labels[320:] == y[320:]).mean() > 0.85
    names = [None if b < 0 else f"bag {b}" for b in bag]
    same = llp_pseudo_labels(x, names, {f"bag {b}": c for b, c in enumerate(counts)}, lambda_s=1.0)
    np.testing.assert_allclose(same.probs, found.probs, atol=1e-9)


def test_pairwise_mode_is_the_published_inference_and_exact_mode_enumerates():
    bag, counts = np.repeat([0, 1, 2], 4), np.array([1.0, 2.0, 3.0])
    options = {"k": 2, "lambda_b": 0.5, "lambda_s": 0.7}
    exact = llp_pseudo_labels(X[:12], bag, counts, mode="exact", **options)
    pairs = llp_pseudo_labels(X[:12], bag, counts, mode="pairwise", **options)
    form = pairwise_potentials(bag, counts, exact.edges, exact.weights, 0.5, 0.7)
    np.testing.assert_allclose(pairs.probs, pairwise_propagation(*form).probs, atol=1e-12)
    ours = llp_pseudo_labels(X[:12], bag, counts, **options)
    assert np.abs(ours.probs - exact.probs).max() < 0.05
    assert np.abs(ours.probs - exact.probs).mean() <= np.abs(pairs.probs - exact.probs).mean()


def test_three_classes_one_against_the_rest():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 600)
    x = rng.normal(size=(600, 3)) + 3.0 * np.eye(3)[y]
    bag = np.arange(600) // 30
    table = np.stack([np.bincount(bag, weights=y == k) for k in range(3)], 1)
    found = llp_pseudo_labels(x, bag, table, lambda_s=1.0)
    np.testing.assert_allclose(found.probs.sum(1), 1)
    assert (found.labels == y).mean() > 0.85 and len(found.report["iterations"]) == 3


def test_rounding_by_counts_matches_them():
    found = llp_pseudo_labels(X, BAG, COUNTS, lambda_s=0.5, rounding="top_count")
    np.testing.assert_array_equal(np.bincount(BAG, weights=found.labels), list(COUNTS.values()))
    probs, bag = np.array([0.1, 0.9, 0.5, 0.7, 0.6]), np.array([0, 0, 1, 1, -1])
    assert top_counts(probs, bag, np.array([1.0, 1.0])).tolist() == [0, 1, 0, 1, 1]


def test_a_graph_of_your_own_counts_each_pair_once():
    edges = np.array([[0, 9], [9, 0], [3, 3], [1, 20]])
    found = llp_pseudo_labels(None, BAG, COUNTS, edges=edges, weights=np.array([0.5, 0.5, 1.0, 0.2]))
    assert found.edges.tolist() == [[0, 9], [1, 20]] and found.weights.tolist() == [0.5, 0.2]


def test_proportions_become_counts():
    found = bag_proportions(BAG, {0: 0.25, 1: 0.5 + 1e-9, 2: 0.3})
    assert found == {0: 2.0, 1: 4.0, 2: pytest.approx(2.4)} and found[1] == 4.0


def test_the_columns_of_a_data_set():
    import datasets

    data = datasets.Dataset.from_dict({"bag_id": BAG})
    found = llp_pseudo_labels(X, data["bag_id"], COUNTS, lambda_s=0.3)
    made = found.to_dataset(data)
    assert made["pseudo_label"][:] == found.labels.tolist()
    np.testing.assert_allclose(np.array(made["soft_labels"][:])[:, 1], found.probs, atol=1e-6)


def test_what_does_not_settle_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        found = llp_pseudo_labels(X, BAG, COUNTS, lambda_s=30.0, max_iter=3)
    assert not found.report["converged"] and len(found.report["residuals"]) == 3
    assert "still change by" in caplog.text and "lower `lambda_s`" in caplog.text


def test_a_bag_without_rows_is_left_out_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        found = llp_pseudo_labels(X, BAG, COUNTS | {99: 0}, lambda_s=0.3)
    assert "1 bags of `bag_counts` have no row" in caplog.text and len(found.probs) == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bag_counts": COUNTS | {3: 9}}, "Bag 3 has 8 rows, but a count of 9"),
        ({"bag_counts": COUNTS | {0: -1}}, "Bag 0 has 8 rows, but a count of -1"),
        ({"bag_counts": COUNTS | {4: np.nan}}, "Bag 4 has 8 rows, but a count of nan"),
        ({"bag_counts": {b: c for b, c in COUNTS.items() if b != 5}}, "Bag 5 has rows, but no count"),
        ({"bag_counts": COUNTS | {3: 2.5}, "lambda_b": np.inf}, "Bag 3 has the count 2.5.*whole"),
        ({"embeddings": X[:10]}, r"one row per bag id \(48\), got 10"),
        ({"embeddings": np.where(np.arange(48)[:, None] == 7, np.nan, X)}, "Row 7 of `features` holds NaN"),
        ({"bag_ids": []}, "one bag per row"),
        ({"k": 48}, r"`k` must be in \[1, 48\)"),
        ({"lambda_s": -1.0}, "`lambda_s` 0 or more, got 10.0 and -1.0"),
        ({"lambda_b": 0.0}, "`lambda_b` must be above 0"),
        ({"mode": "map"}, "`mode` must be one of counts, pairwise, exact, got 'map'"),
        ({"rounding": "up"}, "`rounding` must be one of"),
        ({"count_messages": "fft"}, "`count_messages` must be one of auto"),
        ({"prior": np.full(48, np.inf)}, "`prior` must be finite log-odds"),
        ({"edges": np.array([[0, 48]])}, "`edges` must be pairs of rows below 48"),
        ({"mode": "exact"}, "up to 20 rows, got 48"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        llp_pseudo_labels(**{"embeddings": X, "bag_ids": BAG, "bag_counts": COUNTS, **change})
