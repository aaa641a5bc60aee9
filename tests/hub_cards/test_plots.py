import sys
import threading

import numpy as np
import pytest
from card_reading import NASTY
from PIL import Image

from hf_labels.hub_cards import (
    confusion_matrix_plot,
    paired_results_plot,
    reliability_diagram,
    render_card,
    save_card,
    validate_card,
)

BINS = {
    "count": np.array([0, 4, 6]),
    "acc": np.array([np.nan, 0.5, 0.75]),
    "conf": np.array([np.nan, 0.6, 0.95]),
    "edges": np.array([0, 1 / 3, 2 / 3, 1]),
}
PAIR = {
    "setting": "K=2",
    "a": "CrossTune",
    "b": "probe",
    "mean_difference": 0.054,
    "stderr": 0.017,
    "wins": 9,
    "n": 10,
}


def share_of_colour(path, colour, tolerance=12) -> float:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return float((np.abs(pixels - np.array(colour)).max(-1) <= tolerance).mean())


def test_reliability_diagram_tells_the_numbers(tmp_path):
    plot = reliability_diagram(BINS, tmp_path / "plots" / "r.png")
    assert plot.path == tmp_path / "plots" / "r.png" and Image.open(plot).size[0] > 300
    error = 0.4 * 0.1 + 0.6 * 0.2
    assert (
        f"calibration error {error:.3f}, accuracy 0.650, mean confidence 0.810" in plot.alt and "10 rows" in plot.alt
    )
    assert share_of_colour(plot, (0x31, 0x68, 0x8E)) > 0.02


def test_reliability_diagram_takes_the_scores_of_the_package(tmp_path):
    from hf_labels.metrics.functional.calibration import calibration_scores

    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 200)
    scores = calibration_scores(probs, rng.integers(0, 3, 200), n_bins=10, per_bin=True)
    plot = reliability_diagram(scores, tmp_path / "r.png")
    assert f"calibration error {scores['ece']:.3f}, accuracy {scores['accuracy']:.3f}" in plot.alt
    assert plot.alt == reliability_diagram(scores["per_bin"], tmp_path / "s.png").alt


def test_same_input_gives_same_bytes_and_no_global_state(tmp_path):
    one = reliability_diagram(BINS, tmp_path / "a.png").path.read_bytes()
    assert one == reliability_diagram(BINS, tmp_path / "b.png").path.read_bytes()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    threads = [
        threading.Thread(target=reliability_diagram, args=(BINS, tmp_path / f"t{number}.png")) for number in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((tmp_path / f"t{number}.png").read_bytes() == one for number in range(3))


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"count": [0, 0, 0]}, ValueError, "empty bins"),
        ({"count": [1, 2]}, ValueError, "disagree"),
        ({"edges": [0, 0.5, 1]}, ValueError, "disagree"),
    ],
)
def test_bad_bins_are_refused(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        reliability_diagram(BINS | change, tmp_path / "r.png")
    assert list(tmp_path.iterdir()) == []


def test_missing_bins_and_wrong_file_names_are_named(tmp_path):
    with pytest.raises(KeyError, match="conf"):
        reliability_diagram({"count": [1], "acc": [1], "edges": [0, 1]}, tmp_path / "r.png")
    with pytest.raises(ValueError, match=".png or .svg"):
        reliability_diagram(BINS, tmp_path / "r.exe")


def test_confusion_matrix_names_the_worst_confusion(tmp_path):
    plot = confusion_matrix_plot([[8, 2, 0], [5, 5, 0], [0, 0, 0]], ["cat", "dog", "cow"], tmp_path / "c.svg")
    assert "3 classes, 65.0% on the diagonal" in plot.alt and "dog taken for cat (5 times)" in plot.alt
    assert plot.path.read_text().lstrip().startswith("<?xml")
    perfect = confusion_matrix_plot(np.eye(2, dtype=int), ["a", "b"], tmp_path / "p.png")
    assert perfect.alt == "Confusion matrix of 2 classes, 100.0% on the diagonal"
    empty = confusion_matrix_plot(np.zeros((2, 2)), ["a", "b"], tmp_path / "e.png")
    assert "no rows" in empty.alt


@pytest.mark.parametrize(
    "matrix, names, message",
    [
        ([[1, 2]], ["a"], "shape"),
        ([[1, -1], [0, 1]], ["a", "b"], "negative"),
        ([[np.nan]], ["a"], "finite"),
        (np.zeros((61, 61)), ["x"] * 61, "at most 60"),
        (np.zeros((0, 0)), [], "shape"),
    ],
)
def test_bad_matrices_are_refused(tmp_path, matrix, names, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix_plot(matrix, names, tmp_path / "c.png")


def test_paired_plot_tells_the_differences(tmp_path):
    plot = paired_results_plot(
        {"paired": [PAIR, PAIR | {"setting": "K=4", "mean_difference": -0.01}]}, tmp_path / "p.png"
    )
    assert "K=2: CrossTune - probe +0.054 (standard error 0.017)" in plot.alt and "-0.010" in plot.alt
    for pairs, error, message in (
        ([], ValueError, "no pair"),
        ([{"a": 1}], KeyError, "setting"),
        ([PAIR | {"stderr": float("nan")}], ValueError, "Pair 0"),
    ):
        with pytest.raises(error, match=message):
            paired_results_plot(pairs, tmp_path / "q.png")


def test_hostile_names_are_drawn_and_linked(tmp_path):
    names = [item for item in NASTY if "$" in item or "\\" in item or "\n" in item or not item.isprintable()]
    plot = confusion_matrix_plot(np.ones((len(names), len(names))), names, tmp_path / "c.png", title="$x_{$")
    pairs = paired_results_plot(
        [PAIR | {"setting": name, "a": name} for name in names], tmp_path / "p.png", title="$\\frac"
    )
    card = render_card("crosstune", model_id="me/m", plots=[plot, pairs])
    save_card(card, tmp_path / "model", plots=[plot, pairs])
    assert validate_card(card, tmp_path / "model") == []
