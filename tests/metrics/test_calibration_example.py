"""The experiment on digits: a short run keeps its promises, and the README shows what the result file says."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from hf_labels.metrics import path_of

ROOT = Path(__file__).parents[2]


def test_short_run_pairs_the_arms_and_keeps_accuracy(tmp_path, monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("calibration_example", ROOT / "examples" / "calibration_metrics.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    output = tmp_path / "result.json"
    monkeypatch.setattr(example, "SETTINGS", {"noisy training labels": (0.2, 2)})
    monkeypatch.setattr(sys, "argv", ["x", "--seeds", "0", "1", "--epochs", "60", "--output", str(output)])
    example.main()
    result = json.loads(output.read_text())
    assert {"command", "seeds", "versions", "hardware", "wall_time", "rows", "paired"} <= set(result)
    paired = {row["metric"]: row for row in result["paired"]}
    assert paired["accuracy"]["mean_difference"] == 0 and len(result["rows"]) == 4
    assert paired["ece"]["lower"] == paired["nll"]["lower"] == 2  # one temperature repairs both on either seed
    for metric, row in paired.items():
        arms = {r["seed"]: {} for r in result["rows"]}
        for r in result["rows"]:
            arms[r["seed"]][r["arm"]] = r[metric]
        differences = [arm["temperature scaled"] - arm["overfitted"] for arm in arms.values()]
        assert row["mean_difference"] == pytest.approx(sum(differences) / 2)
    assert "| noisy training labels | `ece` |" in capsys.readouterr().out


def test_readme_shows_the_measured_numbers():
    text = (Path(path_of("calibration")) / "README.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "examples" / "results" / "calibration_metrics.json").read_text(encoding="utf-8"))
    shown = 0
    for row in measured["paired"]:
        start = f"| {row['setting']} | `{row['metric']}` |"
        if start in text:
            shown += 1
            assert (
                f"{start} {row['overfitted']:.4f} | {row['temperature scaled']:.4f} | "
                f"{row['mean_difference']:+.4f} ({row['stderr']:.4f}) | {row['lower']} of {row['seeds']} |"
            ) in text
    assert shown == 15
