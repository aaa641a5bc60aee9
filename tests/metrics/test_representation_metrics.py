import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from hf_labels.metrics.functional import knn_accuracy, linear_probe, pair_cosines


def blobs(seed: int, rows: int = 120, classes: int = 3, spread: float = 1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    return np.eye(classes)[labels] * 2 + rng.normal(size=(rows, classes)) * spread, labels


def test_linear_probe_chooses_on_validation_and_refits():
    train, val, test = blobs(0), blobs(1), blobs(2)
    got = linear_probe(*train, *test, *val, grid=(0.001, 1.0))
    scaler = StandardScaler().fit(train[0])
    tried = {
        c: LogisticRegression(C=c).fit(scaler.transform(train[0]), train[1]).score(scaler.transform(val[0]), val[1])
        for c in (0.001, 1.0)
    }
    assert got["val_accuracy"] == max(tried.values()) == tried[got["C"]]
    both = np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]])
    scaler = StandardScaler().fit(both[0])
    final = LogisticRegression(C=got["C"]).fit(scaler.transform(both[0]), both[1])
    assert got["accuracy"] == final.score(scaler.transform(test[0]), test[1])


def test_linear_probe_splits_for_itself_and_beats_chance_only_with_signal():
    train, test = blobs(0, 300), blobs(1, 300)
    assert linear_probe(*train, *test)["accuracy"] > 0.75
    assert linear_probe(*train, *test) == linear_probe(*train, *test)
    shuffled = np.random.default_rng(0).permutation(train[1])
    assert linear_probe(train[0], shuffled, *test)["accuracy"] < 0.55


def test_knn_uses_the_angle():
    train, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), [0, 1]
    test = np.array([[100.0, 1.0], [0.001, 0.1]])
    assert knn_accuracy(train, labels, test, [0, 1], k=1) == 1
    data = blobs(0, 200), blobs(1, 200)
    similar = cosine_similarity(data[1][0], data[0][0])
    votes = [np.bincount(data[0][1][np.argsort(-row)[:5]], minlength=3).argmax() for row in similar]
    assert knn_accuracy(*data[0], *data[1]) == pytest.approx(np.mean(votes == data[1][1]))


@pytest.mark.parametrize("kind", ["ids", "sets"])
def test_pair_cosines_equal_plain_loops(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 4))
    labels = rng.integers(0, 3, 9) if kind == "ids" else rng.integers(0, 2, (9, 3))
    table, same, other = cosine_similarity(x), [], []
    for i in range(9):
        for j in range(9):
            meets = labels[i] == labels[j] if kind == "ids" else (labels[i] & labels[j]).any()
            if i != j:
                (same if meets else other).append(table[i, j])
    want = {"mean_positive_cosine": np.mean(same), "mean_negative_cosine": np.mean(other)}
    assert pair_cosines(x, labels) == pytest.approx(want)
    assert pair_cosines(x, labels, max_cells=20) == pytest.approx(want)


def test_pair_cosines_against_centres():
    x, labels = blobs(0, 30)
    table = cosine_similarity(x, np.eye(3))
    own = np.eye(3, dtype=bool)[labels]
    got = pair_cosines(x, labels, np.eye(3), [0, 1, 2])
    assert got["mean_positive_cosine"] == pytest.approx(table[own].mean())
    assert got["mean_negative_cosine"] == pytest.approx(table[~own].mean())
    assert math.isnan(pair_cosines([[1.0], [2.0]], [0, 1])["mean_positive_cosine"])


def test_bad_input_is_named():
    x, y = blobs(0, 10)
    with pytest.raises(ValueError, match="one class"):
        linear_probe(x, y * 0, x, y)
    with pytest.raises(ValueError, match="both"):
        linear_probe(x, y, x, y, val_features=x)
    with pytest.raises(ValueError, match="grid"):
        linear_probe(x, y, x, y, grid=[0.0])
    with pytest.raises(ValueError, match="`test_labels`"):
        knn_accuracy(x, y, x, y[:5])
    with pytest.raises(ValueError, match="`k`"):
        knn_accuracy(x, y, x, y, k=11)
    with pytest.raises(ValueError, match="zero vector at row 1"):
        pair_cosines([[1.0], [0.0]], [0, 1])
    with pytest.raises(ValueError, match="keys"):
        pair_cosines(x, y, keys=x)
    with pytest.raises(ValueError, match="disagree"):
        pair_cosines(x, y[:5])
