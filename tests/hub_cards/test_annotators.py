"""Pictures of annotators."""

import numpy as np
import pytest

from hf_labels.hub_cards import annotator_plot


def test_worst_and_best_are_drawn_and_told(tmp_path):
    skill = np.linspace(0.3, 0.99, 30)[::-1]
    table = np.stack([s * np.eye(3) + (1 - s) / 2 * (1 - np.eye(3)) for s in skill])
    found = annotator_plot(table, skill, tmp_path / "a.png", workers=[f"w{i}" for i in range(30)], names=list("abc"))
    assert found.path.stat().st_size > 5000
    assert found.alt == "Confusion matrices of 12 of 30 annotators, from w29 (0.30) to w0 (0.99)."
    one = annotator_plot(table[:1], skill[:1], tmp_path / "b.svg", title="One & only")
    assert "One &amp; only" in one.path.read_text() and "1 of 1" in one.alt


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"must be \(W, K, K\)"):
        annotator_plot(np.zeros((2, 3)), [1, 1], tmp_path / "a.png")
    with pytest.raises(ValueError, match="26 labels"):
        annotator_plot(np.zeros((1, 26, 26)), [1], tmp_path / "a.png")
