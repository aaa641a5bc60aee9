import math
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from hf_labels.metrics.functional import calibration_scores, temperature_scaling


def data(seed: int, rows: int = 200, classes: int = 4, sharp: float = 2.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * sharp
    labels = np.where(rng.random(rows) < 0.6, logits.argmax(1), rng.integers(0, classes, rows))
    return logits, labels


def oracle(probs, labels, n_bins):
    """Bin by bin, class by class, in plain loops."""
    rows, classes = probs.shape

    def bins(values, hits):
        for b in range(n_bins):
            low = b / n_bins
            inside = [i for i in range(rows) if math.ceil(values[i] * n_bins) - 1 == b and values[i] > low - 1]
            inside = [i for i in inside if values[i] > 0]
            if inside:
                yield len(inside) / rows, np.mean([hits[i] for i in inside]), np.mean([values[i] for i in inside])

    conf = [max(row) for row in probs]
    hit = [list(row).index(max(row)) == y for row, y in zip(probs, labels, strict=True)]
    top = list(bins(conf, hit))
    order = sorted(range(rows), key=lambda i: conf[i])
    chunks = [chunk for chunk in np.array_split(order, n_bins) if len(chunk)]
    return {
        "ece": sum(w * abs(a - c) for w, a, c in top),
        "mce": max(abs(a - c) for _, a, c in top),
        "oe": sum(w * c * max(c - a, 0) for w, a, c in top),
        "ue": sum(w * c * max(a - c, 0) for w, a, c in top),
        "aece": sum(
            len(ch) / rows * abs(np.mean([hit[i] for i in ch]) - np.mean([conf[i] for i in ch])) for ch in chunks
        ),
        "classwise_ece": np.mean(
            [sum(w * abs(a - c) for w, a, c in bins(probs[:, k], labels == k)) for k in range(classes)]
        ),
        "brier": np.mean(
            [sum((p - (k == y)) ** 2 for k, p in enumerate(r)) for r, y in zip(probs, labels, strict=True)]
        ),
        "nll": np.mean([-math.log(row[y]) for row, y in zip(probs, labels, strict=True)]),
        "accuracy": np.mean(hit),
    }


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("rows", "classes", "n_bins"), [(200, 4, 15), (7, 3, 15), (120, 2, 1)])
def test_equals_plain_loops(seed, rows, classes, n_bins):
    logits, labels = data(seed, rows, classes)
    probs = softmax(logits, axis=1)
    want = oracle(probs, labels, n_bins)
    for got in (
        calibration_scores(probs, labels, n_bins),
        calibration_scores(logits, labels, n_bins, from_logits=True),
    ):
        assert {key: got[key] for key in want} == pytest.approx(want, abs=1e-12)


def test_chunks_do_not_show(monkeypatch):
    logits, labels = data(3, 500, 7)
    labels[::5] = -100
    whole = calibration_scores(logits, labels, from_logits=True)
    monkeypatch.setattr("hf_labels.metrics.functional.calibration._CELLS_PER_CHUNK", 50)
    assert calibration_scores(logits, labels, from_logits=True) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_torchmetrics(seed):
    functional = pytest.importorskip("torchmetrics.functional.classification")
    logits, labels = data(seed, 1000, 5)
    probs = softmax(logits, axis=1)
    got = calibration_scores(probs, labels, 15)
    for norm, key in (("l1", "ece"), ("max", "mce")):
        theirs = functional.multiclass_calibration_error(
            torch.tensor(probs), torch.tensor(labels), num_classes=5, n_bins=15, norm=norm
        )
        assert got[key] == pytest.approx(float(theirs), abs=1e-6)


def test_reference_adaptive_edges_leave_out_the_smallest_confidence():
    logits, labels = data(5, 60, 3)
    probs = softmax(logits, axis=1)
    conf, hit = probs.max(1), probs.argmax(1) == labels
    edges = np.interp(np.linspace(0, 60, 8), np.arange(60), np.sort(conf))
    want = 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (conf > low) & (conf <= high)
        if inside.any():
            want += inside.mean() * abs(hit[inside].mean() - conf[inside].mean())
    assert calibration_scores(probs, labels, 7, aece_mode="reference")["aece"] == pytest.approx(want, abs=1e-12)


def test_perfect_one_hot_predictions_have_no_error():
    scores = calibration_scores(np.eye(3)[[0, 1, 2, 2]], [0, 1, 2, 2])
    for key in ("ece", "mce", "aece", "classwise_ece", "oe", "ue", "nll", "brier"):
        assert scores[key] == 0
    assert scores["accuracy"] == 1


@pytest.mark.parametrize(("confidence", "hits"), [(0.8, 5), (0.6, 9)])
def test_constant_predictor(confidence, hits):
    labels = np.array([0] * hits + [1] * (10 - hits))
    scores = calibration_scores(np.tile([confidence, 1 - confidence], (10, 1)), labels)
    accuracy = hits / 10
    assert scores["ece"] == pytest.approx(abs(accuracy - confidence))
    assert scores["oe"] == pytest.approx(confidence * max(confidence - accuracy, 0))
    assert scores["ue"] == pytest.approx(confidence * max(accuracy - confidence, 0))


@pytest.mark.parametrize("seed", range(5))
def test_inequalities_and_permutation(seed):
    logits, labels = data(seed, 150, 6)
    scores = calibration_scores(logits, labels, from_logits=True)
    assert scores["ece"] <= scores["mce"] + 1e-12
    assert scores["oe"] + scores["ue"] <= scores["ece"] + 1e-12
    order = np.random.default_rng(seed).permutation(len(labels))
    assert calibration_scores(logits[order], labels[order], from_logits=True) == pytest.approx(scores, abs=1e-12)
    one = calibration_scores(logits, labels, 1, from_logits=True)
    confidence = softmax(logits, axis=1).max(1).mean()
    assert one["ece"] == one["mce"] == pytest.approx(abs(one["accuracy"] - confidence))
    twice = calibration_scores(np.tile(logits, (2, 1)), np.tile(labels, 2), from_logits=True)
    for key in ("ece", "mce", "classwise_ece", "oe", "ue", "nll", "brier", "accuracy"):
        assert twice[key] == pytest.approx(scores[key], abs=1e-12)


def test_calibrated_data_has_a_small_error_that_shrinks_with_rows():
    rng = np.random.default_rng(0)
    errors = []
    for rows in (500, 50_000):
        probs = rng.dirichlet(np.ones(4), rows)
        labels = (rng.random((rows, 1)) > probs.cumsum(1)).sum(1)
        errors.append(calibration_scores(probs, labels)["ece"])
    # about sqrt(M / N) * sqrt(p (1 - p)): 0.08 and 0.008
    assert errors[0] < 0.12 and errors[1] < 0.012 and errors[1] < errors[0] / 3


def test_edges_are_right_closed_and_zero_is_in_no_bin():
    probs = np.array([[0.2, 0.8], [0.6, 0.4], [1.0, 0.0], [0.5, 0.5]])
    bins = calibration_scores(probs, [1, 1, 0, 0], 5, per_bin=True)
    assert bins["per_bin"]["count"].tolist() == [0, 0, 2, 1, 1]  # 0.6 in (0.4, 0.6], 0.8 in (0.6, 0.8], 1.0 last
    assert np.isnan(bins["per_bin"]["acc"][:2]).all() and np.isnan(bins["per_bin"]["conf"][:2]).all()
    assert bins["per_bin"]["edges"] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    weight = bins["per_bin"]["count"] / 4
    gap = np.abs(bins["per_bin"]["acc"] - bins["per_bin"]["conf"])
    assert np.nansum(weight * gap) == pytest.approx(bins["ece"])
    # Class 1 always predicted at 0, always wrong: no bin holds it, but all rows count.
    certain = calibration_scores(np.tile([1.0, 0.0], (4, 1)), [1, 1, 1, 1], 5, per_bin=True)
    assert certain["classwise_ece_per_class"].tolist() == [1.0, 0.0]


def test_classes_that_never_occur_count():
    probs = np.array([[0.6, 0.1, 0.3], [0.7, 0.1, 0.2]])
    got = calibration_scores(probs, [0, 0], 5, per_bin=True)
    assert got["classwise_ece_per_class"] == pytest.approx([0.35, 0.1, 0.25])
    assert got["classwise_ece"] == pytest.approx(0.7 / 3)


def test_nll_clips_probabilities_and_not_logits():
    assert calibration_scores([[1.0, 0.0]], [1])["nll"] == pytest.approx(-math.log(1e-12))
    assert calibration_scores([[0.0, -800.0]], [1], from_logits=True)["nll"] == pytest.approx(800)
    logits, labels = data(2)
    want = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    assert calibration_scores(logits + 500, labels, from_logits=True)["nll"] == pytest.approx(want)


def test_ignored_rows_do_not_count():
    logits, labels = data(1)
    mixed = labels.copy()
    mixed[::3] = -100
    poisoned = logits.copy()
    poisoned[0] = np.nan
    kept = mixed != -100
    got = calibration_scores(poisoned, mixed, from_logits=True)
    want = calibration_scores(logits[kept], labels[kept], from_logits=True)
    assert got.pop("n_ignored") == 67 and want.pop("n_ignored") == 0
    assert got == pytest.approx(want)


def test_binary_column_is_expanded():
    rng = np.random.default_rng(0)
    logit, labels = rng.normal(size=50), rng.integers(0, 2, 50)
    p = 1 / (1 + np.exp(-logit))
    want = calibration_scores(np.stack([1 - p, p], 1), labels)
    assert calibration_scores(p, labels) == pytest.approx(want)
    assert calibration_scores(logit, labels, from_logits=True) == pytest.approx(want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_takes_torch_tensors_of_any_precision(dtype):
    logits, labels = data(0)
    tensor = torch.tensor(logits).to(dtype).requires_grad_()
    want = calibration_scores(tensor.detach().double().numpy(), labels, from_logits=True)
    assert calibration_scores(tensor, torch.tensor(labels), from_logits=True) == pytest.approx(want, abs=1e-12)


def test_inputs_are_not_changed():
    probs = np.random.default_rng(0).dirichlet(np.ones(3), 20)
    before, labels = probs.copy(), np.zeros(20, dtype=int)
    calibration_scores(probs, labels)
    calibration_scores(probs, labels, from_logits=True)
    assert (probs == before).all()


GOOD = [[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]


@pytest.mark.parametrize(
    ("probs", "labels", "options", "message"),
    [
        ([[1.0, 2.0], [0.5, 0.5]], [0, 1], {}, "row 0.*looks like logits; pass from_logits=True"),
        ([[0.5, 0.5], [-0.5, 1.5]], [0, 1], {}, "row 1.*looks like logits"),
        ([3.0, 0.5], [0, 1], {}, "looks like logits"),
        ([[0.5, 0.5], [np.nan, 0.5], [np.inf, 0]], [0, 1, 1], {}, "row 1"),
        ([[0.5, 0.5], [0.5, np.inf]], [0, 1], {"from_logits": True}, "row 1"),
        (GOOD, [0, 1, 2], {}, r"\[0, 2\), got 2 at row 2"),
        (GOOD, [0, -1, 1], {}, r"got -1 at row 1. Use -100"),
        (GOOD, [0, 0.5, 1], {}, r"whole numbers.*got 0.5 at row 1"),
        (GOOD, [0, 1], {}, r"shape \(3,\).*got shape \(2,\)"),
        (GOOD, [[0], [1], [1]], {}, r"got shape \(3, 1\)"),
        (GOOD, [-100, -100, -100], {}, "No rows"),
        ([], [], {}, "No rows"),
        (np.zeros((0, 3)), [], {}, "No rows"),
        ([[1.0], [1.0]], [0, 0], {}, "one class"),
        ([[0.5, 0.5], [1.0]], [0, 1], {}, "Row 1 has 1 values, row 0 has 2"),
        (np.ones((2, 2, 2)), [0, 1], {}, r"\(N, C\)"),
        (GOOD, [0, 1, 1], {"n_bins": 0}, "n_bins"),
        (GOOD, [0, 1, 1], {"n_bins": 2.5}, "n_bins"),
        (GOOD, [0, 1, 1], {"aece_mode": "quantile"}, "aece_mode"),
        (GOOD, ["a", "b", "c"], {}, "must hold numbers"),
    ],
)
def test_bad_input_is_named(probs, labels, options, message):
    with pytest.raises(ValueError, match=message):
        calibration_scores(probs, labels, **options)


def test_row_numbers_in_errors_are_those_of_the_caller():
    probs = np.tile([0.5, 0.5], (6, 1))
    probs[4] = [3.0, 3.0]
    with pytest.raises(ValueError, match="row 4"):
        calibration_scores(probs, [-100, 0, -100, 0, 0, 0])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_temperature_scaling_finds_the_temperature_of_the_data(seed, true):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(20_000, 5)) * 3
    labels = (logits / true + rng.gumbel(size=logits.shape)).argmax(1)
    temperature = temperature_scaling(logits, labels)
    assert temperature == pytest.approx(true, rel=0.05)
    nll = [
        calibration_scores(logits / t, labels, from_logits=True)["nll"]
        for t in temperature * np.array([0.98, 1, 1.02])
    ]
    assert nll[1] == min(nll)


def test_temperature_above_one_lowers_over_confidence_and_keeps_accuracy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, 4)) * 6
    labels = (logits / 4 + rng.gumbel(size=logits.shape)).argmax(1)
    temperature = temperature_scaling(logits[:2000], labels[:2000])
    before = calibration_scores(logits[2000:], labels[2000:], from_logits=True)
    after = calibration_scores(logits[2000:] / temperature, labels[2000:], from_logits=True)
    assert temperature > 1
    assert after["oe"] < before["oe"] / 2 and after["ece"] < before["ece"] / 2
    assert after["accuracy"] == before["accuracy"]


def test_temperature_scaling_of_one_logit_equals_two(caplog):
    rng = np.random.default_rng(0)
    logit = rng.normal(size=400) * 4
    labels = (rng.random(400) < 1 / (1 + np.exp(-logit / 2))).astype(int)
    two = np.stack([np.zeros(400), logit], 1)
    assert temperature_scaling(logit, labels) == pytest.approx(temperature_scaling(two, labels))
    labels[:100] = -100
    assert temperature_scaling(logit, labels) == pytest.approx(temperature_scaling(logit[100:], labels[100:]))
    assert not caplog.records


def test_temperature_bounds_are_returned_with_a_warning(caplog):
    logits = np.eye(3)[[0, 1, 2]] * 4
    assert temperature_scaling(logits, [0, 1, 2]) == 0.01
    assert temperature_scaling(logits, [1, 2, 0], max_temperature=50) == 50
    assert sum("bound" in record.getMessage() for record in caplog.records) == 2


def test_bad_temperature_input_is_named():
    with pytest.raises(ValueError, match="min_temperature"):
        temperature_scaling([[1.0, 2.0]], [0], min_temperature=0)
    with pytest.raises(ValueError, match="row 1"):
        temperature_scaling([[1.0, 2.0], [np.nan, 0]], [0, 1])


def test_no_loop_over_rows_or_over_bins_of_classes():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50_000, 100)).astype(np.float32)
    labels, calls = rng.integers(0, 100, 50_000), Counter()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        calibration_scores(logits, labels, from_logits=True)
    finally:
        sys.setprofile(None)
    assert calls.total() < 3000  # about 2 100; a call or two for each bin of each class are more
