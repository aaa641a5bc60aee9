"""The picture of the classes that each domain holds."""

import numpy as np
import pytest
from PIL import Image

from hf_labels.hub_cards import mixture_plot

SHARES = np.array([[0.9, 0.25], [0.1, 0.75]])


def test_it_says_and_shows_its_numbers(tmp_path):
    plot = mixture_plot(
        SHARES, tmp_path / "a" / "m.png", domain_names=["north $x$", "s|th"], class_names=["cat", "dog"], title="T"
    )
    assert "north $x$: cat 90%; s|th: dog 75%" in plot.alt and "2 classes in 2 domains" in plot.alt
    pixels = np.asarray(Image.open(plot).convert("RGB")).astype(int)
    from matplotlib import colormaps

    sizes = []
    for at in (0.05, 0.95):
        colour = np.array(colormaps["viridis"](at)[:3]) * 255
        sizes.append((np.abs(pixels - colour).max(-1) < 6).sum())
    assert sizes[0] / sum(sizes) == pytest.approx(SHARES[0].mean(), abs=0.05)  # areas are the shares
    assert "domain 1: class 1 75%" in mixture_plot(SHARES, tmp_path / "n.svg").alt


@pytest.mark.parametrize(
    ("mixtures", "options", "message"),
    [
        (SHARES * 2, {}, "columns must sum to 1"),
        (SHARES[0], {}, "must be .K, r."),
        (SHARES, {"class_names": ["a"]}, "1 `class_names`, expected 2"),
        (SHARES, {"domain_names": ["a"]}, "1 `domain_names`, expected 2"),
        (np.ones((1, 61)), {}, "61 domains cannot be read"),
    ],
)
def test_what_cannot_be_drawn_is_named(tmp_path, mixtures, options, message):
    with pytest.raises(ValueError, match=message):
        mixture_plot(mixtures, tmp_path / "m.png", **options)
