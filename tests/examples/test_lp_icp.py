"""The baselines of the experiment are what they are called."""

import itertools

import lp_icp
import numpy as np
import pytest

RNG = np.random.default_rng(0)
PROBS = RNG.random((60, 4))
TRUTH = (RNG.random((60, 4)) < PROBS).astype(int)


def test_plug_in_takes_the_likeliest_sets_until_the_mass_is_there():
    sizes, covered = lp_icp.plug_in(PROBS[:10], TRUTH[:10], 0.2)
    for row, own, size, inside in zip(PROBS, TRUTH, sizes, covered, strict=False):
        mass = {m: np.prod(np.where(m, row, 1 - row)) for m in itertools.product([0, 1], repeat=4)}
        ranked = sorted(mass, key=lambda one: -mass[one])
        assert sum(mass[m] for m in ranked[:size]) >= 0.8 > sum(mass[m] for m in ranked[: size - 1])
        assert inside == (tuple(own) in ranked[:size])


def test_single_labels_are_conformal_each():
    sizes, covered = lp_icp.single_labels(PROBS[:50], TRUTH[:50], PROBS[50:], TRUTH[50:], 0.4)
    for row, own, size, inside in zip(PROBS[50:], TRUTH[50:], sizes, covered, strict=True):
        left = []
        for label in range(4):
            known = np.abs(TRUTH[:50, label] - PROBS[:50, label])
            left.append([v for v in (0, 1) if ((known >= abs(v - row[label])).sum() + 1) / 51 > 0.1])
        assert size == np.prod([len(values) for values in left])
        assert inside == all(value in values for value, values in zip(own, left, strict=True))


def test_splits_are_disjoint_and_differ_by_seed():
    parts, other = lp_icp.split(100, 0), lp_icp.split(100, 1)
    assert [len(part) for part in parts] == [48, 12, 20, 20] and len(set(np.concatenate(parts))) == 100
    assert any((one != two).any() for one, two in zip(parts, other, strict=True))


def test_full_preset_is_offered(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["lp_icp.py", "--help"])
    with pytest.raises(SystemExit):
        lp_icp.main()
    assert "--preset {small,full}" in capsys.readouterr().out


def test_redrawn_errors_are_the_levels():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(399, 4)) * 3
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    found = lp_icp.redrawn(logits, labels, np.arange(399), 0)
    assert all(abs(error - level) < 0.01 for level, error in found.items())
    labels[:200] = 1 - labels[:200]  # half the rows are of another kind, and the halves are mixed: still exchangeable
    assert all(abs(e - level) < 0.01 for level, e in lp_icp.redrawn(logits, labels, np.arange(399), 0).items())
