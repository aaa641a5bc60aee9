"""The scenes and canvases of the examples `relabel` and `ferkd` are what their texts say."""

import ferkd as views
import numpy as np
import relabel as maps


def test_scenes_hold_the_digits_that_are_noted():
    rng = np.random.default_rng(0)
    digits = rng.integers(1, 255, size=(20, 14, 14)).astype(np.uint8)
    found = maps.scenes(digits, np.arange(20) % 10, 50, np.random.default_rng(1))
    assert (found["cells"][:, 0] >= 0).all() and 0 < (found["cells"] < 0).mean() < 0.4
    for image, cells, label in zip(found["images"], found["cells"], found["labels"], strict=True):
        parts = [image[y : y + 14, x : x + 14] for y in (0, 14) for x in (0, 14)]
        assert [bool(part.any()) for part in parts] == (cells >= 0).tolist()
        ink = [int(part.astype(int).sum()) for part in parts]
        assert label == cells[int(np.argmax(ink))]


def test_digits_lie_anywhere_on_the_canvas():
    digits = np.full((40, 28, 28), 255, np.uint8)
    found, ink = views.canvases(digits, np.random.default_rng(0))
    bright = found == 255
    assert ((ink == 255) == bright).all() and not ink[~bright].any()
    assert bright.sum((1, 2)).tolist() == [28 * 28] * 40 and found[~bright].max() < 96
    places = {tuple(np.argwhere(image)[0]) for image in bright}
    assert len(places) > 30
    top, left = np.array(sorted(places)[0])[:, None] / 56
    one = next(image for image in ink if tuple(np.argwhere(image)[0]) == sorted(places)[0])
    half = np.array([[top[0], left[0], 0.5, 0.25], [0, 0, 1, 1]])
    assert views.shown_ink(np.stack([one, one]), half).tolist() == [0.5, 1.0]
