"""Does temperature scaling repair an overfitted network? The calibration metrics on scikit-learn's handwritten digits.

python examples/calibration_metrics.py [--seeds 0 1 2 3 4] [--epochs 200]

Per seed: split the 1 797 digits into 700 training, 400 validation and 697 test rows, overfit a network for 200
epochs, fit one temperature on the validation rows, and score the same network on the same test rows with and without
it. Settings: clean labels; a fifth of the training labels replaced by random ones; and a smaller network, which is
hardly over-confident. Writes `results/calibration_metrics.json`; takes a minute on one core. The digits come with
scikit-learn (UCI, CC BY 4.0).
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from harness import Experiment, columns, pair_cells
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


def record(rows: list[dict], seeds: list[int], experiment: Experiment) -> Experiment:
    """Both arms of every setting and metric, and their paired differences (scaled minus overfitted)."""
    for setting, metric in itertools.product(dict.fromkeys(row["setting"] for row in rows), METRICS):
        for arm, kind in (("temperature scaled", "method"), ("overfitted", "baseline")):
            values = [row[metric] for row in rows if (row["setting"], row["arm"]) == (setting, arm)]
            experiment.add(arm, setting, metric, values, seeds, kind=kind)
        experiment.compare("temperature scaled", "overfitted", setting, metric, higher_is_better=metric == "accuracy")
    return experiment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    experiment = Experiment(
        "calibration_metrics",
        datasets=["scikit-learn digits"],
        notes=[
            "The smaller network is hardly over-confident: there is little to repair.",
            "One temperature cannot repair single classes: `classwise_ece` can get worse while `ece` gets better.",
        ],
    )
    images, labels = load_digits(return_X_y=True)
    features = (images / 16).astype(np.float32)
    rows = [
        {"setting": setting} | row
        for setting in SETTINGS
        for seed in args.seeds
        for row in one_seed(features, labels, setting, args.epochs, seed)
    ]
    record(rows, args.seeds, experiment)
    experiment.write(args.output)
    print(columns(pair_cells(experiment.paired)))


if __name__ == "__main__":
    main()
