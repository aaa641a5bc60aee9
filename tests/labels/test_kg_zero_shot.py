"""Groups, normalisation and closed forms against slow and obvious ways; limits; bad input."""

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_labels.labels.kg_zero_shot import (
    blend_prototypes,
    choose_kappa,
    class_means,
    distance_groups,
    eszsl_map,
    normalise_in,
    normalise_symmetric,
    pooled_covariance,
    ridge_map,
    unit_rows,
)


def slow_groups(edges, count, lim):
    up = {node: {b for a, b in edges if a == node} for node in range(count)}
    found = [set() for _ in range(lim + 1)]
    for node in range(count):
        far, todo, step = {node: 0}, [node], 0
        while todo:
            step += 1
            todo = sorted({b for one in todo for b in up[one]} - far.keys())
            far |= dict.fromkeys(todo, step)
        for other, distance in far.items():
            found[min(distance, lim)].add((node, other))
    return [sorted(group) for group in found]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_groups_equal_a_search_from_every_node(edges, lim):
    groups = distance_groups(edges, 8, lim)
    assert [[tuple(pair) for pair in group.tolist()] for group in groups] == slow_groups(edges, 8, lim)
    every = [tuple(pair) for group in groups for pair in group.tolist()]
    assert len(every) == len(set(every))  # they are a partition of the reachable pairs
    assert groups[0].tolist() == [[node, node] for node in range(8)]
    for group in groups:
        for reverse in (False, True):
            sums = np.asarray(normalise_in(group, 8, reverse).sum(1)).ravel()
            assert np.allclose(sums[sums > 0], 1.0)


def test_cycles_end_and_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        groups = distance_groups([(0, 1), (1, 2), (2, 0)], 4, 2)
    assert "cycle through node" in caplog.text and [len(group) for group in groups] == [4, 3, 3]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        distance_groups([(0, 1), (1, 2), (0, 2)], 4, 2)
    assert not caplog.text


def test_symmetric_normalisation_is_symmetric_and_keeps_isolated_nodes():
    matrix = normalise_symmetric([(0, 1)], 3).toarray()
    np.testing.assert_allclose(matrix, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])


def test_ridge_is_the_normal_equation_from_either_side_and_vanishes():
    rng = np.random.default_rng(0)
    for rows, width in ((30, 5), (5, 30)):
        x, t = rng.normal(size=(rows, width)), rng.normal(size=(rows, 3))
        found = ridge_map(x, t, 0.7)
        np.testing.assert_allclose(x.T @ (x @ found - t) + 0.7 * found, 0, atol=1e-10)
        assert np.abs(ridge_map(x, t, 1e12)).max() < 1e-9


def test_eszsl_equals_the_formula_with_inverses():
    rng = np.random.default_rng(1)
    x, s, y = rng.normal(size=(20, 4)), rng.normal(size=(3, 6)), rng.integers(3, size=20)
    z = 2.0 * (y[:, None] == np.arange(3)) - 1
    left = np.linalg.inv(x.T @ x + 0.5 * np.eye(4)) @ x.T @ z @ s
    np.testing.assert_allclose(
        eszsl_map(x, y, s, 0.5, 0.3), left @ np.linalg.inv(s.T @ s + 0.3 * np.eye(6)), atol=1e-10
    )


def test_means_and_pooled_covariance():
    x, y = np.array([[0.0, 0], [2, 0], [5, 5], [5, 7]]), np.array([0, 0, 2, 2])
    np.testing.assert_allclose(class_means(x, y, 3), [[1, 0], [0, 0], [5, 6]])
    np.testing.assert_allclose(pooled_covariance(x, y, 3), [[1, 0], [0, 1]])


def test_prototypes_go_from_prior_to_mean():
    means, prior, counts = np.array([[1.0, 0]]), np.array([[0.0, 1]]), [4]
    np.testing.assert_allclose(blend_prototypes(means, counts, prior, 4), [[0.5, 0.5]])
    np.testing.assert_allclose(blend_prototypes(means, counts, prior, 0), means)
    np.testing.assert_allclose(blend_prototypes(means, counts, prior, np.inf), prior)
    np.testing.assert_allclose(blend_prototypes(means, [0], prior, 3), prior)
    np.testing.assert_allclose(blend_prototypes(means, [10**9], prior, 3), means, atol=1e-8)


def test_kappa_follows_how_good_the_graph_is():
    rng = np.random.default_rng(0)
    s = rng.normal(size=(12, 4))
    y = np.repeat(np.arange(12), 20)
    noise = 1.2 * rng.normal(size=(240, 8))
    good = unit_rows(s @ rng.normal(size=(4, 8)))
    x = unit_rows(good[y] + noise)
    trusted, scores = choose_kappa(x, y, s, 1, strength=0.1)
    doubted, _ = choose_kappa(x, y, rng.normal(size=(12, 4)), 1, strength=0.1)
    assert trusted > doubted and scores[trusted] == max(scores.values())


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda: distance_groups([(0, 9)], 3), "Edge 0.*numbered 0 to 2"),
        (lambda: distance_groups([(0, 1)], 3, 0), "`lim`"),
        (lambda: ridge_map(np.ones((2, 2)), np.ones((2, 2)), 0.0), "`strength` must be above 0"),
        (lambda: eszsl_map(np.ones((2, 2)), [0, 1], np.ones((2, 2)), gamma=-1), "`gamma` must be above 0"),
        (lambda: ridge_map(np.array([[np.nan, 1]]), np.ones((1, 2))), "Row 0 of `features` holds NaN"),
        (lambda: ridge_map(np.ones((3, 2)), np.ones((2, 2))), "3 rows of features and 2"),
        (lambda: ridge_map(np.ones(3), np.ones((3, 2))), "shape"),
        (lambda: blend_prototypes([[1.0]], [1], [[1.0]], -1), "`kappa` must be 0 or more"),
        (lambda: blend_prototypes([[1.0]], [0], [[1.0]], 0), "Class 0 has no example"),
        (lambda: choose_kappa(np.ones((2, 2)), np.array([0, 1]), np.ones((2, 2)), 1), "three classes"),
    ],
)
def test_bad_input_is_named(act, match):
    with pytest.raises(ValueError, match=match):
        act()
