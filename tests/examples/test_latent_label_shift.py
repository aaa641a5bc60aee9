"""The experiment deals rows as it says, and its domains hold what the shares promise."""

import latent_label_shift
import numpy as np
import pytest


def test_each_row_is_dealt_once_and_domains_have_one_size():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=900)
    shares = latent_label_shift.mixtures(3, 5, 3.0, rng)
    assert np.linalg.cond(shares) <= latent_label_shift.MAX_CONDITION
    np.testing.assert_allclose(shares.sum(0), 1)
    rows, domains = latent_label_shift.deal(labels, shares, rng)
    assert len(set(rows)) == len(rows) == len(domains)
    sizes = np.bincount(domains)
    assert sizes.max() - sizes.min() <= 3
    found = np.array([[(labels[rows][domains == d] == y).mean() for d in range(5)] for y in range(3)])
    assert np.abs(found - shares).max() < 0.03


@pytest.mark.parametrize("task", list(latent_label_shift.TASKS))
def test_tasks_have_three_parts_of_each_domain(task):
    data = latent_label_shift.world(task, 0)
    classes, domains, _ = latent_label_shift.TASKS[task]
    assert data["mixtures"].shape == (classes, domains) and set(data["y"]) == set(range(classes))
    for domain in range(domains):
        shares = [(data["part"][data["domain"] == domain] == part).mean() for part in range(3)]
        np.testing.assert_allclose(shares, [0.6, 0.15, 0.25], atol=0.02)
    again, other = latent_label_shift.world(task, 0), latent_label_shift.world(task, 1)
    np.testing.assert_array_equal(again["x"], data["x"])
    assert other["mixtures"].shape == data["mixtures"].shape
    assert len(other["x"]) != len(data["x"]) or (other["x"] != data["x"]).any()


def test_full_preset_is_offered(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["latent_label_shift.py", "--help"])
    with pytest.raises(SystemExit):
        latent_label_shift.main()
    assert "--preset {small,full}" in capsys.readouterr().out
