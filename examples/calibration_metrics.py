"""Does temperature scaling repair an overfitted network? The calibration metrics on scikit-learn's handwritten digits.

python examples/calibration_metrics.py [--seeds 0 1 2 3 4] [--epochs 200]

Per seed: split the 1 797 digits into 700 training, 400 validation and 697 test rows, overfit a network for 200
epochs, fit one temperature on the validation rows, and score the same network on the same test rows with and without
it. Settings: clean labels; a fifth of the training labels replaced by random ones; and a smaller network, which is
hardly over-confident. Writes `results/calibration_metrics.json`; takes a minute on one core. The digits come with
scikit-learn (UCI, CC BY 4.0).
"""

import argparse
import json
import math
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from hf_labels.metrics import calibration_scores, temperature_scaling

SETTINGS = {"clean": (0.0, 2), "noisy training labels": (0.2, 2), "clean, one hidden layer": (0.0, 1)}
"""Share of random training labels, and hidden layers."""
METRICS = ("accuracy", "ece", "aece", "mce", "classwise_ece", "oe", "ue", "nll", "brier")
TRAIN, VALIDATION = 700, 400
RESULT = Path(__file__).parent / "results" / "calibration_metrics.json"


def train(features: np.ndarray, labels: np.ndarray, layers: int, epochs: int, seed: int) -> nn.Module:
    """Overfits a network with hidden layers of 128 units: Adam at 0.001, batches of 32, no regularisation."""
    torch.manual_seed(seed)
    widths = [features.shape[1]] + [128] * layers
    hidden = [part for pair in zip(widths, widths[1:], strict=False) for part in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    inputs, targets = torch.tensor(features), torch.tensor(labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
    return model


def one_seed(features: np.ndarray, labels: np.ndarray, setting: str, epochs: int, seed: int) -> list[dict]:
    """Rows of both arms. Validation and test labels are clean; the test rows take no part in any choice."""
    (noise, layers), rng = SETTINGS[setting], np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    fit, validation, test = np.split(order, [TRAIN, TRAIN + VALIDATION])
    noisy = np.where(rng.random(TRAIN) < noise, rng.integers(0, 10, TRAIN), labels[fit])
    model = train(features[fit], noisy, layers, epochs, seed)
    with torch.no_grad():
        on_validation, on_test = (model(torch.tensor(features[rows])).numpy() for rows in (validation, test))
    temperature = temperature_scaling(on_validation, labels[validation])
    rows = []
    for arm, value in (("overfitted", 1.0), ("temperature scaled", temperature)):
        scores = calibration_scores(on_test / value, labels[test], from_logits=True)
        rows.append({"arm": arm, "seed": seed, "temperature": value} | {name: scores[name] for name in METRICS})
    return rows


def compare(rows: list[dict]) -> list[dict]:
    """Paired differences, scaled minus overfitted, of every setting and metric, over the seeds."""
    result = []
    for setting in SETTINGS:
        for metric in METRICS:
            arms: dict[str, list[float]] = {"overfitted": [], "temperature scaled": []}
            for row in rows:
                if row["setting"] == setting:
                    arms[row["arm"]].append(row[metric])
            before, after = np.array(arms["overfitted"]), np.array(arms["temperature scaled"])
            difference, seeds = after - before, len(before)
            result.append(
                {
                    "setting": setting,
                    "metric": metric,
                    "overfitted": float(before.mean()),
                    "temperature scaled": float(after.mean()),
                    "mean_difference": float(difference.mean()),
                    "stderr": float(difference.std(ddof=1) / math.sqrt(seeds)) if seeds > 1 else None,
                    "lower": int((difference < 0).sum()),
                    "equal": int((difference == 0).sum()),
                    "seeds": seeds,
                }
            )
    return result


def table(paired: list[dict]) -> str:
    lines = [
        "| setting | metric | overfitted | temperature scaled | difference (standard error) | lower in |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in paired:
        error = "-" if row["stderr"] is None else f"{row['stderr']:.4f}"
        lines.append(
            f"| {row['setting']} | `{row['metric']}` | {row['overfitted']:.4f} | {row['temperature scaled']:.4f} | "
            f"{row['mean_difference']:+.4f} ({error}) | {row['lower']} of {row['seeds']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    start = time.time()
    images, labels = load_digits(return_X_y=True)
    features = (images / 16).astype(np.float32)
    rows = [
        {"setting": setting} | row
        for setting in SETTINGS
        for seed in args.seeds
        for row in one_seed(features, labels, setting, args.epochs, seed)
    ]
    paired = compare(rows)
    result = {
        "command": " ".join(["python", "examples/calibration_metrics.py", *sys.argv[1:]]),
        "seeds": args.seeds,
        "versions": {name: version(name) for name in ("hf_labels", "numpy", "scikit-learn", "scipy", "torch")}
        | {"python": platform.python_version()},
        "hardware": {"machine": platform.machine(), "processors": os.cpu_count(), "threads": 1, "accelerator": None},
        "wall_time": round(time.time() - start, 1),
        "rows": rows,
        "paired": paired,
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(paired))
    print(f"\n{args.output.name}: {len(rows)} rows in {result['wall_time']} s")


if __name__ == "__main__":
    main()
