"""Neighbours and weights against scikit-learn, random trees against all pairs."""

import numpy as np
import pytest

from hf_labels.labels.llp_bp_graph import knn_graph

RNG = np.random.default_rng(0)


def reference(x, k):
    """Pairs of the cosine neighbours of scikit-learn, each once, with `exp(-distance)`."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=k + 1, metric="cosine").fit(x).kneighbors(x, return_distance=False)[:, 1:]
    edges = sorted({(min(i, j), max(i, j)) for i, row in enumerate(near.tolist()) for j in row})
    return np.array(edges), np.array([np.exp(-np.linalg.norm(x[i] - x[j])) for i, j in edges])


@pytest.mark.parametrize("width", [3, 40])
def test_equal_to_scikit_learn(width):
    x = RNG.normal(size=(150, width))
    edges, weights = knn_graph(x, 4, standardize=False)
    want = reference(x, 4)
    np.testing.assert_array_equal(edges, want[0])
    np.testing.assert_allclose(weights, want[1], rtol=1e-9)


def test_scaled_columns_do_not_matter_and_the_weights_stay_alive():
    x = RNG.normal(size=(80, 128))
    one, two = knn_graph(x, 3), knn_graph(x * RNG.uniform(0.01, 100, 128) + 7, 3)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_allclose(one[1], two[1], rtol=1e-6)
    assert one[1].min() > 0.1 > 1e-3 > knn_graph(x, 3, standardize=False)[1].max()


def test_the_median_scale_gives_weights_around_one_over_e():
    weights = knn_graph(RNG.normal(size=(60, 5)) * 1000, 3, length_scale="median", standardize=False)[1]
    assert np.median(weights) == pytest.approx(np.exp(-1))


def test_far_neighbours_are_left_out():
    x = np.array([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]])
    assert knn_graph(x, 3, max_distance=0.5, standardize=False)[0].tolist() == [[0, 1], [2, 3]]


def test_equal_rows_have_weight_one_and_no_row_is_its_own_neighbour():
    x = np.repeat(RNG.normal(size=(5, 3)), 8, axis=0)
    edges, weights = knn_graph(x, 5)
    assert (edges[:, 0] < edges[:, 1]).all() and weights == pytest.approx(1)


@pytest.mark.parametrize("width", [6, 40])
def test_random_trees_find_nearly_all_pairs(width):
    x = RNG.normal(size=(3000, 4)) @ RNG.normal(size=(4, width)) + 0.2 * RNG.normal(size=(3000, width))
    exact, near = knn_graph(x, 5), knn_graph(x, 5, neighbors="approximate")
    found = {tuple(pair) for pair in near[0].tolist()}
    shared = sum(tuple(pair) in found for pair in exact[0].tolist())
    assert shared > 0.93 * len(exact[0]) and len(found) == len(near[0])
    again = knn_graph(x, 5, neighbors="approximate")
    np.testing.assert_array_equal(near[0], again[0])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda x: x.__setitem__((3, 1), np.nan), {}, "Row 3 of `features` holds NaN"),
        (lambda x: x.__setitem__((4, 0), np.inf), {}, "Row 4 of `features` holds NaN or infinity"),
        (lambda x: None, {"k": 20}, r"`k` must be in \[1, 20\).*got 20"),
        (lambda x: None, {"length_scale": 0.0}, "`length_scale` must be above 0"),
        (lambda x: None, {"neighbors": "some"}, "`neighbors` must be 'exact' or 'approximate'"),
    ],
)
def test_bad_input_is_named(change, options, message):
    x = RNG.normal(size=(20, 2))
    change(x)
    with pytest.raises(ValueError, match=message):
        knn_graph(x, **{"k": 3, **options})
