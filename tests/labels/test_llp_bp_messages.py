"""Messages of count factors against enumeration, against each other, and where members are sure and wrong."""

import itertools

import numpy as np
import pytest

from hf_labels.labels.llp_bp_messages import (
    CLIP,
    CountFactors,
    exact_messages,
    fourier_messages,
    gaussian_messages,
    sigmoid,
)

WAYS = pytest.mark.parametrize("way", [exact_messages, fourier_messages], ids=["exact", "fourier"])


def brute(h, count, strength):
    """Enumerated: log-odds of y_i under the factor and all other members' log-odds."""
    y = np.array(list(itertools.product([0, 1], repeat=len(h))))
    apart = y.sum(1) - count
    factor = np.where(np.abs(apart) < 1e-9, 0, -np.inf) if np.isinf(strength) else -strength * apart**2
    found = []
    for i in range(len(h)):
        log_p = y @ h - y[:, i] * h[i] + factor
        found.append(np.logaddexp.reduce(log_p[y[:, i] == 1]) - np.logaddexp.reduce(log_p[y[:, i] == 0]))
    return np.array(found)


def one(way, h, count, strength):
    return way(h[None], np.array([float(count)]), np.array([len(h)]), strength)[0][0]


@WAYS
@pytest.mark.parametrize("strength", [0.05, 0.7, 2.0, 10.0, np.inf])
@pytest.mark.parametrize("scale", [0.3, 3.0, 20.0])
def test_equal_to_enumeration(way, strength, scale):
    rng = np.random.default_rng(3)
    for size in (2, 5, 9):
        for count in range(1, size):
            h = rng.normal(0, scale, size)
            out, want = one(way, h, count, strength), brute(h, count, strength)
            np.testing.assert_allclose(sigmoid(h + out), sigmoid(h + want), rtol=0, atol=1e-10)
            if way is exact_messages:
                np.testing.assert_allclose(out, want, rtol=0, atol=1e-10)


@WAYS
def test_a_target_that_is_not_whole(way):
    h = np.random.default_rng(0).normal(size=7)
    np.testing.assert_allclose(one(way, h, 2.4, 1.5), brute(h, 2.4, 1.5), rtol=0, atol=1e-10)


@WAYS
def test_hard_counts_of_none_and_all_settle_the_bag(way):
    h = np.random.default_rng(0).normal(size=6)
    assert (one(way, h, 0, np.inf) == -CLIP).all() and (one(way, h, 6, np.inf) == CLIP).all()


@WAYS
@pytest.mark.parametrize("size", [1, 4, 40])
def test_flipping_all_labels_flips_the_messages(way, size):
    h = np.random.default_rng(size).normal(0, 2, size)
    count = size // 4
    np.testing.assert_allclose(one(way, h, count, 3.0), -one(way, -h, size - count, 3.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("strength", [0.05, 2.0, 10.0, np.inf])
@pytest.mark.parametrize("scale", [0.3, 3.0, 20.0])
def test_frequencies_equal_sums_in_large_bags(strength, scale):
    rng = np.random.default_rng(1)
    for size in (33, 100, 400):
        h = rng.normal(-1, scale, (4, size))
        sizes = np.array([size, size - 3, size, size - 1])
        for share in (0.0, 0.02, 0.5, 0.97, 1.0):
            counts = np.round(share * sizes)
            want, tilt = exact_messages(h, counts, sizes, strength)
            out, _ = fourier_messages(h, counts, sizes, strength)
            near = np.abs(want - tilt[:, None]) < 15
            np.testing.assert_allclose(out[near], want[near], rtol=0, atol=1e-8)
            np.testing.assert_allclose(sigmoid(h + out), sigmoid(h + want), rtol=0, atol=1e-8)


@WAYS
def test_nothing_underflows_where_all_members_are_sure_and_wrong(way):
    """By symmetry each message is that of equal members: log (c / (n - c)) - h with a hard count."""
    for size, count in ((8, 3), (300, 40)):
        out = one(way, np.full(size, -200.0), count, np.inf)
        np.testing.assert_allclose(out, 200 + np.log(count / (size - count)), rtol=1e-9)


def test_the_normal_approximation_gets_better_with_the_size():
    """Fails for seven members, fits for hundreds: why it is no default."""
    rng = np.random.default_rng(0)
    errors = []
    for size in (7, 64, 512):
        h = rng.uniform(-0.4, 0.4, size)
        for count in (size // 2, size // 2 - size // 7):
            near = gaussian_messages(h, np.zeros(size, int), np.array([float(count)]), 10.0)
            errors.append(np.abs(near - one(exact_messages, h, count, 10.0)).max())
    middle, apart = errors[::2], errors[1::2]
    assert middle[0] > 0.01 > 10 * middle[1] > 20 * middle[2]
    assert apart[2] > 0.01  # a count that nobody expects: no size helps


def test_bags_of_all_sizes_together_and_rows_of_no_bag():
    rng = np.random.default_rng(5)
    bag = rng.permutation(np.repeat([-1, 0, 1, 2, 3, 4], [5, 1, 3, 31, 60, 200]))
    counts = np.array([1.0, 1.0, 9.0, 20.0, 40.0])
    h = rng.normal(size=len(bag))
    for method in ("auto", "exact", "fourier"):
        factors = CountFactors(bag, counts, 4.0, method)
        for _ in range(2):  # the second call starts from the tilts of the first
            out = factors.messages(h)
            assert (out[bag < 0] == 0).all()
            for b, count in enumerate(counts):
                want = one(exact_messages, h[bag == b], count, 4.0)
                np.testing.assert_allclose(out[bag == b], want, rtol=0, atol=1e-8)
    near = CountFactors(bag, counts, 4.0, "gaussian").messages(h)
    last = bag == 4
    np.testing.assert_allclose(near[last], gaussian_messages(h[last], np.zeros(200, int), counts[4:], 4.0))
    assert (near[bag < 0] == 0).all()


def test_a_million_cells_cost_linear_memory():
    """A bag of 20 000 members: O(n^2) sums would take gigabytes."""
    import tracemalloc

    bag = np.zeros(20_000, int)
    factors = CountFactors(bag, np.array([3000.0]), 10.0)
    h = np.random.default_rng(0).normal(-1, 1, len(bag))
    tracemalloc.start()
    out = factors.messages(h)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert (1 / (1 + np.exp(-h - out))).sum() == pytest.approx(3000, abs=1e-3)
