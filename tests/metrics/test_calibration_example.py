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
    assert {"command", "versions", "hardware", "wall_time_s", "rows", "paired"} <= set(result)
    paired = {pair["metric"]: pair for pair in result["paired"]}
    assert paired["accuracy"]["mean_difference"] == 0 and len(result["rows"]) == 2 * len(paired)
    assert paired["ece"]["wins"] == paired["nll"]["wins"] == 2  # one temperature repairs both on either seed
    assert paired["ece"]["mean_difference"] < 0 and not paired["ece"]["higher_is_better"]
    values = {(row["name"], row["metric"]): row["values"] for row in result["rows"]}
    for metric, pair in paired.items():
        arms = zip(values["temperature scaled", metric], values["overfitted", metric], strict=True)
        assert pair["mean_difference"] == pytest.approx(sum(a - b for a, b in arms) / 2)
    assert "noisy training labels  temperature scaled - overfitted  ece" in capsys.readouterr().out


def test_readme_shows_the_measured_numbers():
    text = (Path(path_of("calibration")) / "README.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "examples" / "results" / "calibration_metrics.json").read_text(encoding="utf-8"))
    means = {(row["name"], row["setting"], row["metric"]): row["mean"] for row in measured["rows"]}
    shown = 0
    for pair in measured["paired"]:
        setting, metric = pair["setting"], pair["metric"]
        start = f"| {setting} | `{metric}` |"
        if start in text:
            shown += 1
            before, after = means["overfitted", setting, metric], means["temperature scaled", setting, metric]
            assert (
                f"{start} {before:.4f} | {after:.4f} | "
                f"{pair['mean_difference']:+.4f} ({pair['stderr']:.4f}) | {pair['wins']} of {pair['n']} |"
            ) in text
    assert shown == 15
