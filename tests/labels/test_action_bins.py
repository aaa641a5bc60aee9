"""Actions and states as tokens."""

import doctest

import numpy as np
import pytest
import torch

from hf_labels.labels import action_bins
from hf_labels.labels.action_bins import ActionBinner, StateBinner, decode_actions, encode_actions

rng = np.random.default_rng(0)


def slow_encode(value: float, vocab_size: int, bins: int) -> int:
    """Count the edges that are not above the clipped value."""
    value = max(-1.0, min(1.0, value))
    return vocab_size - sum(edge <= value for edge in np.linspace(-1, 1, bins))


@pytest.mark.parametrize("bins", [2, 7, 256])
def test_encode_counts_edges(bins):
    values = np.concatenate([rng.uniform(-1.3, 1.3, 200), np.linspace(-1, 1, bins)])
    expected = [slow_encode(value, 500, bins) for value in values]
    assert encode_actions(values, 500, bins).tolist() == expected
    assert min(expected) == 500 - bins and max(expected) == 499


@pytest.mark.parametrize("bins", [2, 16, 256])
def test_round_trip_is_within_half_a_bin_and_stable(bins):
    values = rng.uniform(-1, 1, (50, 4))
    ids = encode_actions(values, 1000, bins)
    back = decode_actions(ids, 1000, bins)
    assert np.abs(back - values).max() <= 1 / (bins - 1) + 1e-12
    assert (encode_actions(back, 1000, bins) == ids).all()


def test_the_last_edge_and_foreign_ids_decode_to_the_nearest_action():
    # Action +1 has an interval of its own (256 edges, 255 centres): it shares the last centre.
    assert decode_actions([744, 745], 1000).tolist() == [decode_actions([745], 1000)[0]] * 2
    assert decode_actions([0, 5000], 1000).tolist() == decode_actions([745, 999], 1000).tolist()


@pytest.mark.parametrize("order", ["time", "dim"])
def test_chunks_return_in_robot_units(order):
    chunks = rng.normal(size=(30, 5, 3)) * [1, 20, 0.1] + [0, 100, 3]
    binner = ActionBinner.fit(chunks, vocab_size=400, order=order, eos_token_id=2, quantiles=(0, 1))
    ids = binner.encode(chunks)
    assert ids.shape == (30, 16) and (ids[:, -1] == 2).all()
    half_a_bin = np.ptp(chunks, axis=(0, 1)) / 255 / 2
    assert (np.abs(binner.decode(ids) - chunks) <= half_a_bin * 1.001).all()


def test_order_of_tokens():
    chunk = np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.65]])
    time = ActionBinner([-1, -1], [1, 1], [True, True], 300).encode(chunk)
    dim = ActionBinner([-1, -1], [1, 1], [True, True], 300, order="dim").encode(chunk)
    assert time.tolist() == encode_actions([0.1, 0.2, 0.3, 0.4, 0.5, 0.65], 300).tolist()
    assert dim.tolist() == encode_actions([0.1, 0.3, 0.5, 0.2, 0.4, 0.65], 300).tolist()


def test_mask_leaves_a_dimension_alone_and_quantiles_clip():
    actions = np.stack([np.arange(101.0), np.linspace(0, 1, 101)], axis=1)
    binner = ActionBinner.fit(actions, 300, mask=[True, False])
    assert binner.low[0] == pytest.approx(1) and binner.high[0] == pytest.approx(99)
    assert binner.normalize([[0.0, 0.25], [50.0, 1.0], [100.0, 0.5]]).tolist() == [[-1, 0.25], [0, 1], [1, 0.5]]
    assert binner.unnormalize([[1.0, 0.25]]).tolist() == [[99.0, 0.25]]


def test_a_constant_dimension_survives():
    binner = ActionBinner.fit([[3.0, 0.0], [3.0, 1.0]], 300)
    assert binner.decode(binner.encode([[3.0, 0.5]]))[0, 0] == 3.0


def test_labels_decode_without_eos_also_from_tensors():
    binner = ActionBinner([-1], [1], [True], 300, eos_token_id=0)
    ids = binner.encode([[0.5], [-0.5]])
    assert binner.decode_labels(torch.tensor(ids)).tolist() == pytest.approx([0.5, -0.5], abs=1 / 255)
    assert binner.decode_labels(binner.guess(3)).tolist() == [0.0] * 3


def test_save_and_load(tmp_path):
    binner = ActionBinner.fit(rng.normal(size=(9, 2, 3)), 300, order="dim", eos_token_id=1, mask=[True, False, True])
    states = StateBinner.fit(rng.normal(size=(50, 2)), bins=8, first_id=5)
    for made, kind in ((binner, ActionBinner), (states, StateBinner)):
        assert kind.load(made.save(tmp_path / "new")) == made
        assert kind.load(tmp_path / "new") == made
        assert kind.load(made.save(tmp_path / "one.json")) == made


def test_state_bins_are_equally_filled_and_do_not_share_ids():
    features = np.stack([rng.normal(size=4000), rng.exponential(size=4000)], axis=1)
    binner = StateBinner.fit(features, bins=16, first_id=100)
    ids = binner.encode(features)
    for f in range(2):
        numbers, counts = np.unique(ids[:, f], return_counts=True)
        assert numbers.tolist() == list(range(100 + 16 * f, 116 + 16 * f))
        assert counts.min() > 240 and counts.max() < 260
    assert binner.num_ids == 32 and binner.encode([[-99.0, 99.0]]).tolist() == [[100, 131]]


def test_bad_input_is_named():
    good = ActionBinner([-1, -1], [1, 1], [True, True], 300, eos_token_id=2)
    with pytest.raises(ValueError, match=r"`actions` must be finite, got nan at \(1, 0\)"):
        encode_actions([[0.0], [float("nan")]], 300)
    with pytest.raises(ValueError, match="between 2 and the vocabulary size 100, got 256"):
        encode_actions([0.0], 100)
    with pytest.raises(TypeError, match="must be integers, got float64"):
        decode_actions([0.5], 300)
    with pytest.raises(ValueError, match="one entry per action dimension, got 1, 2 and 1"):
        ActionBinner([0], [1, 1], [True], 300)
    with pytest.raises(ValueError, match="Dimension 1: `low` 2.0 is above `high` 1.0"):
        ActionBinner([0, 2], [1, 1], [True, True], 300)
    with pytest.raises(ValueError, match="`eos_token_id` 44 is an action id: they start at 44"):
        ActionBinner([0], [1], [True], 300, eos_token_id=44)
    with pytest.raises(ValueError, match="`order` must be 'time' or 'dim'"):
        ActionBinner([0], [1], [True], 300, order="both")
    with pytest.raises(ValueError, match=r"multiple of 2 ids \+ 1 for EOS, got shape \(4,\)"):
        good.decode([1, 2, 3, 4])
    with pytest.raises(ValueError, match="Actions need 2 numbers"):
        good.encode([[0.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="at least one row"):
        ActionBinner.fit(np.zeros((0, 2)), 300)
    with pytest.raises(ValueError, match="`features` need 1 numbers"):
        StateBinner.fit([[0.0], [1.0]]).encode([0.0, 1.0])
    with pytest.raises(ValueError, match="ascend"):
        StateBinner([[1.0, 0.0]])


def test_docstring_examples():
    assert doctest.testmod(action_bins).failed == 0 and doctest.testmod(action_bins).attempted > 4
