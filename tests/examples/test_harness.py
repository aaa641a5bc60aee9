"""The harness of the experiments, and the honesty of the result files it wrote."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import harness  # noqa: E402

RESULT = ROOT / "examples" / "results" / "crosstune.json"


def _square(x):
    return x * x


def test_pairs_equal_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 1, 12), rng.normal(0, 1, 12)
    found = harness.pair_test(a, b)
    assert found["mean_difference"] == pytest.approx(np.mean(a - b))
    assert found["stderr"] == pytest.approx(stats.sem(a - b))
    assert found["p_t"] == pytest.approx(stats.ttest_rel(a, b).pvalue)
    wins = int((a > b).sum())
    assert (found["wins"], found["n"]) == (wins, 12)
    assert found["p_sign"] == pytest.approx(stats.binomtest(wins, 12).pvalue)


def test_ties_count_for_neither_side():
    found = harness.pair_test([1.0, 2.0, 3.0], [1.0, 1.0, 4.0])
    assert (found["wins"], found["ties"], found["n"]) == (1, 1, 3)
    flat = harness.pair_test([0.5, 0.5], [0.5, 0.5])
    assert flat["p_t"] is None and flat["p_sign"] is None and flat["stderr"] == 0
    with pytest.raises(ValueError, match="3 and 2"):
        harness.pair_test([1, 2, 3], [1, 2])


def test_splits_are_disjoint_balanced_and_nested():
    labels = [0] * 30 + [1] * 30 + [2] * 10 + [-1] * 5
    before: set[int] = set()
    for shots in (2, 4, 8, 16):
        train, dev = harness.few_shot_split(labels, shots, shots, seed=3)
        assert not set(train) & set(dev)
        counts = np.bincount(np.array(labels)[train], minlength=3)
        assert counts[:2].tolist() == [min(shots, 15)] * 2 if shots > 15 else counts[:2].tolist() == [shots] * 2
        assert counts[2] == min(shots, 5) and all(labels[i] >= 0 for i in train + dev)
        assert before <= set(train)
        before = set(train)
    assert harness.few_shot_split(labels, 4, 4, 0)[0] != harness.few_shot_split(labels, 4, 4, 1)[0]


def test_record_refuses_what_would_mislead(tmp_path):
    record = harness.Experiment("toy", ["numbers"], notes=["a | b"])
    record.add("A", "set, K=1", "accuracy", [0.5, 0.7], [0, 1])
    record.add("B", "set, K=1", "accuracy", [0.4, 0.7], [0, 1], kind="baseline")
    record.add("C", "set, K=1", "accuracy", [0.4, 0.7], [0, 2])
    with pytest.raises(ValueError, match="added before"):
        record.add("A", "set, K=1", "accuracy", [1.0], [0])
    with pytest.raises(ValueError, match="1 values for 2 seeds"):
        record.add("D", "set, K=1", "accuracy", [1.0], [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        record.add("D", "set, K=1", "accuracy", [math.nan], [0])
    with pytest.raises(ValueError, match="same seeds"):
        record.compare("A", "C", "set, K=1", "accuracy")
    with pytest.raises(KeyError, match="'D'"):
        record.compare("A", "D", "set, K=1", "accuracy")
    pair = record.compare("A", "B", "set, K=1", "accuracy")
    assert pair["mean_difference"] == pytest.approx(0.05) and pair["wins"] == 1
    result = json.loads(record.write(tmp_path / "toy.json").read_text())
    for key in ("method", "datasets", "rows", "paired", "notes", "command", "versions", "hardware", "date"):
        assert result[key], key
    assert result["rows"][0]["std"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    text = harness.render(tmp_path, tmp_path / "RESULTS.md").read_text()
    assert "## toy" in text and "0.600 +- 0.100" in text and "+0.050 +- 0.050" in text and "1/2" in text
    assert harness.plot(record.rows, "accuracy", tmp_path / "plot.png").stat().st_size > 1000


def test_tuning_takes_the_first_best_option():
    best, scores = harness.tune_on_dev(harness.grid(c=[1, 2, 3]), lambda option: -abs(option["c"] - 2.5))
    assert best == {"c": 2} and len(scores) == 3
    with pytest.raises(ValueError, match="no option"):
        harness.tune_on_dev([], float)


def test_tasks_keep_their_order():
    assert harness.run_tasks(_square, [3, 1, 2], workers=1) == [9, 1, 4]


def test_markdown_cells_cannot_break_the_table():
    assert harness.markdown([["a"], ["x | y\nz"]]).splitlines()[2] == "| x \\| y z |"


def test_crosstune_result_is_consistent_and_reaches_its_target():
    result = json.loads(RESULT.read_text())
    rows = {(row["name"], row["setting"], row["metric"]): row for row in result["rows"]}
    for pair in result["paired"]:
        one, two = (rows[pair[side], pair["setting"], pair["metric"]] for side in ("a", "b"))
        again = harness.pair_test(one["values"], two["values"])
        assert {key: pair[key] for key in again} == pytest.approx(again), pair
    for data in result["datasets"]:
        for shots in (2, 4):
            setting = f"{data}, K={shots}"
            for probe in ("logistic regression (C=10)", "logistic regression (C tuned on dev)"):
                (pair,) = [
                    p for p in result["paired"] if (p["setting"], p["a"], p["b"]) == (setting, "CrossTune", probe)
                ]
                assert pair["n"] >= 10 and pair["mean_difference"] > 2 * pair["stderr"], pair
            assert ("zero-shot cosine, names", setting, "accuracy") in rows
            control = rows["CrossTune, descriptions shuffled", setting, "accuracy"]
            assert control["mean"] < rows["CrossTune", setting, "accuracy"]["mean"] - 0.2
