"""The picture of error and size by significance."""

import numpy as np
import pytest
from PIL import Image

from hf_labels.hub_cards import validity_plot
from hf_labels.labels.lp_icp import LabelPowersetICP


def test_it_says_its_numbers(tmp_path):
    rng = np.random.default_rng(0)
    probs = rng.random((200, 4))
    truth = (rng.random(probs.shape) < probs).astype(int)
    scores = LabelPowersetICP().calibrate(probs[:100], truth[:100]).score(probs[100:], truth[100:], [0.3, 0.1])
    plot = validity_plot(scores, tmp_path / "a" / "v.png", title="Genres & $x$")
    size = Image.open(plot).size
    assert size[0] > 400 and size[1] > 400
    assert f"0.1: error {scores[1]['error_rate']:.3f}" in plot.alt and "Genres & $x$" in plot.alt
    assert plot.alt.index("0.1: error") < plot.alt.index("0.3: error")
    pixels = np.asarray(Image.open(plot).convert("RGB")).astype(int)
    for colour in ((0x31, 0x68, 0x8E), (0xD9, 0x5F, 0x02)):
        assert (np.abs(pixels - np.array(colour)).max(-1) < 12).any()


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(ValueError, match="empty"):
        validity_plot([], tmp_path / "v.png")
    with pytest.raises(KeyError, match="`error_rate`"):
        validity_plot([{"epsilon": 0.1}], tmp_path / "v.png")
    row = {"epsilon": 0.1, "error_rate": 0.1, "validity_stderr": 0.01, "median_size": 3}
    with pytest.raises(ValueError, match=".png or .svg"):
        validity_plot([row], tmp_path / "v.gif")
