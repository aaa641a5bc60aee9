import time

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, hamming_loss, jaccard_score, precision_score, recall_score

from hf_labels.metrics.functional import best_threshold, multilabel_f1


def data(seed: int, rows: int = 50, classes: int = 6):
    rng = np.random.default_rng(seed)
    scores = rng.random((rows, classes))
    labels = ((scores + rng.normal(0, 0.4, scores.shape)) > 0.7).astype(int)
    labels[0] = 1
    return scores, labels


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_equals_scikit_learn(seed, threshold):
    scores, labels = data(seed)
    scores[:, 0] *= 0.8  # no prediction of class 0 at 0.9
    got = multilabel_f1(scores, labels, threshold)
    decided = (scores >= threshold).astype(int)
    args, zero = (labels, decided), {"zero_division": 0}
    cp = precision_score(*args, average="macro", **zero)
    cr = recall_score(*args, average="macro", **zero)
    want = {
        "OP": precision_score(*args, average="micro", **zero),
        "OR": recall_score(*args, average="micro", **zero),
        "OF1": f1_score(*args, average="micro", **zero),
        "micro_f1": f1_score(*args, average="micro", **zero),
        "CP": cp,
        "CR": cr,
        "CF1": 2 * cp * cr / (cp + cr),
        "macro_f1": f1_score(*args, average="macro", **zero),
        "samples_f1": f1_score(*args, average="samples", **zero),
        "jaccard_samples": jaccard_score(*args, average="samples", zero_division=1),
        "hamming_loss": hamming_loss(*args),
        "subset_accuracy": accuracy_score(*args),
    }
    assert {key: got[key] for key in want} == pytest.approx(want, abs=1e-12)
    assert abs(got["CF1"] - got["macro_f1"]) > 1e-4  # two different numbers


def test_empty_prediction_and_empty_truth():
    got = multilabel_f1([[0.1, 0.1], [0.9, 0.1]], [[0, 0], [1, 0]])
    assert got["jaccard_samples"] == 1 and got["samples_f1"] == 0.5 and got["subset_accuracy"] == 1
    nothing = multilabel_f1([[0.1, 0.1]], [[0, 0]])
    assert nothing["OF1"] == nothing["CF1"] == nothing["macro_f1"] == 0 and nothing["n_classes_without_positive"] == 2


def test_classes_without_a_positive_are_left_out_of_cp_and_cr():
    scores, labels = data(0)
    labels[:, 2] = 0
    rest = [0, 1, 3, 4, 5]
    got, part = multilabel_f1(scores, labels), multilabel_f1(scores[:, rest], labels[:, rest])
    assert got["n_classes_without_positive"] == 1
    for key in ("CP", "CR", "CF1"):
        assert got[key] == pytest.approx(part[key])


def test_reference_op_counts_a_prediction_for_classes_without_any():
    scores, labels = np.array([[0.9, 0.1, 0.1], [0.9, 0.1, 0.1]]), [[1, 0, 1], [0, 1, 0]]
    assert multilabel_f1(scores, labels)["OP"] == 1 / 2
    reference = multilabel_f1(scores, labels, reference_op=True)
    assert reference["OP"] == 1 / 4 and reference["OF1"] == pytest.approx(2 * (1 / 4) * (1 / 3) / (1 / 4 + 1 / 3))
    assert reference["micro_f1"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    full, truth = data(1)
    assert multilabel_f1(full, truth, 0.2, reference_op=True) == multilabel_f1(full, truth, 0.2)


def test_threshold_is_inclusive_can_be_a_vector_and_zero_recalls_all():
    assert multilabel_f1([[0.5, 0.49]], [[1, 0]])["subset_accuracy"] == 1
    scores, labels = data(2)
    assert multilabel_f1(scores, labels, 0.0)["OR"] == multilabel_f1(scores, labels, 0.0)["CR"] == 1
    limits = np.linspace(0.2, 0.8, 6)
    shifted = multilabel_f1(np.where(scores >= limits, 1.0, 0.0), labels)
    assert multilabel_f1(scores, labels, limits) == shifted


def test_logits_go_through_a_sigmoid():
    scores, labels = data(3)
    logits = np.log(scores / (1 - scores))
    assert multilabel_f1(logits, labels, 0.3, from_logits=True) == multilabel_f1(scores, labels, 0.3)
    assert multilabel_f1(logits.astype(np.float32), labels, from_logits=True) == multilabel_f1(scores, labels)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_top_k_takes_k_labels_and_breaks_ties_by_class(seed, k):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 3, (40, 6)) / 3, rng.integers(0, 2, (40, 6))
    chosen = np.zeros((40, 6))
    for row, score in enumerate(scores):
        chosen[row, sorted(range(6), key=lambda c: (-score[c], c))[:k]] = 1
    assert multilabel_f1(scores, labels, top_k=k) == multilabel_f1(chosen, labels)


@pytest.mark.parametrize("unknown", [-1, np.nan])
def test_unknown_cells_are_dropped(unknown):
    scores, labels = data(4)
    hidden = np.random.default_rng(0).random(labels.shape) < 0.3
    hidden[7] = True
    got = multilabel_f1(scores, np.where(hidden, unknown, labels))
    seen, decided = ~hidden, scores >= 0.5
    assert got["OP"] == pytest.approx((decided & (labels == 1) & seen).sum() / (decided & seen).sum())
    assert got["hamming_loss"] == pytest.approx((decided != labels)[seen].mean())
    right = [(decided[i] == labels[i])[seen[i]].all() for i in range(len(labels)) if seen[i].any()]
    assert got["subset_accuracy"] == pytest.approx(np.mean(right)) and len(right) == len(labels) - 1


@pytest.mark.parametrize("metric", ["OF1", "CF1", "macro_f1"])
@pytest.mark.parametrize("unknown", [False, True])
def test_best_threshold_equals_trying_each(metric, unknown):
    scores, labels = data(5)
    if unknown:
        labels[1::4, 2] = -1
    grid = np.append(np.arange(1, 20) / 20, scores[3, 3])
    tried = {t: multilabel_f1(scores, labels, t)[metric] for t in grid}
    best = best_threshold(scores, labels, grid, metric)
    assert tried[best] == max(tried.values())


def test_best_threshold_per_class_and_among_equals():
    scores, labels = data(6)
    limits = best_threshold(scores, labels, per_class=True)
    for c, limit in enumerate(limits):
        f1 = [f1_score(labels[:, c], scores[:, c] >= t) for t in np.arange(1, 20) / 20]
        assert f1_score(labels[:, c], scores[:, c] >= limit) == pytest.approx(max(f1))
    assert best_threshold([[0.0, 1.0]], [[0, 1]]) == 0.5
    assert best_threshold([[-9.0, 9.0]], [[0, 1]], from_logits=True, grid=[0.1, 0.9]) == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": [0.5, 0.5, 0.5]}, r"shape \(2,\), got shape \(3,\)"),
        ({"threshold": np.nan}, "NaN"),
        ({"top_k": 0}, "1 to 2"),
        ({"top_k": 3}, "1 to 2"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        multilabel_f1([[0.1, 0.2]], [[0, 1]], **options)


def test_bad_thresholding_input_is_named():
    with pytest.raises(ValueError, match="metric"):
        best_threshold([[0.1]], [[1]], metric="accuracy")
    for grid in ([], [np.nan], [np.inf, 0.5]):
        with pytest.raises(ValueError, match="grid"):
            best_threshold([[0.1]], [[1]], grid=grid)
    with pytest.raises(ValueError, match="row 0, class 0"):
        multilabel_f1([[np.nan]], [[1]])


def test_a_large_input_takes_little_time():
    rng = np.random.default_rng(0)
    scores = rng.random((50_000, 100))
    labels = (rng.random(scores.shape) < 0.1).astype(np.int8)
    start = time.process_time()
    multilabel_f1(scores, labels)
    multilabel_f1(scores, labels, top_k=3)
    best_threshold(scores, labels)
    assert time.process_time() - start < 1.5  # about 0.3 s on one core
