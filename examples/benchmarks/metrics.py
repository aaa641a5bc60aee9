"""Time of the metric functions at 100 000 x 100 on one core, next to scikit-learn and torchmetrics in the same run.

python examples/benchmarks/metrics.py [--rows 100000] [--classes 100] [--repeat 3]

Prints processor seconds (best of `--repeat`; a peer runs once) and how many times longer a peer takes. A peer that is
not installed is named.
"""

import argparse
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn import metrics as sk
from threadpoolctl import threadpool_limits

from hf_labels.metrics import functional as fn

Call = Callable[[], Any]


def seconds(call: Call, repeat: int) -> float:
    """Processor time of the fastest of `repeat` calls."""
    best = math.inf
    for _ in range(repeat):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def calibration_rows(rows: int, classes: int, rng: np.random.Generator) -> list[tuple[str, Call, str, Call | None]]:
    logits = rng.normal(size=(rows, classes)).astype(np.float32) * 3
    labels = rng.integers(0, classes, rows)
    probs = torch.softmax(torch.tensor(logits).double(), dim=1)
    dense, ids = probs.numpy(), torch.tensor(labels)
    ece = peer("multiclass_calibration_error")

    def classwise_loop() -> float:
        """The plain way: one equal-width ECE for each class, bin by bin."""
        errors = []
        for c in range(classes):
            index, hit = np.clip(np.ceil(dense[:, c] * 15) - 1, 0, 14), labels == c
            bins = [index == b for b in range(15)]
            errors.append(sum(abs((hit[b] - dense[b, c]).sum()) for b in bins) / rows)
        return float(np.mean(errors))

    everything, classwise = fn.calibration_scores(dense, labels), classwise_loop()
    assert math.isclose(everything["classwise_ece"], classwise, rel_tol=1e-9), "The two classwise errors differ."
    return [
        ("calibration_scores, probabilities: all numbers", lambda: fn.calibration_scores(dense, labels), "", None),
        (
            "calibration_scores, logits: all numbers",
            lambda: fn.calibration_scores(logits, labels, from_logits=True),
            "loop over classes and bins, classwise ECE only",
            classwise_loop,
        ),
        (
            "calibration_scores, probabilities: all numbers",
            lambda: fn.calibration_scores(dense, labels),
            "torchmetrics, ECE only",
            ece and (lambda: ece(probs, ids, num_classes=classes, n_bins=15)),
        ),
        ("temperature_scaling", lambda: fn.temperature_scaling(logits, labels), "", None),
    ]


def multilabel_rows(rows: int, classes: int, rng: np.random.Generator) -> list[tuple[str, Call, str, Call | None]]:
    scores = rng.random((rows, classes))
    labels = (rng.random((rows, classes)) < 0.05 + 0.3 * scores).astype(np.int8)
    tensor, truth = torch.tensor(scores), torch.tensor(labels, dtype=torch.long)
    ap = peer("multilabel_average_precision")
    ours = fn.average_precision(scores, labels)
    assert np.allclose(ours, sk.average_precision_score(labels, scores, average=None)), "Not scikit-learn's precision."

    def sk_f1() -> None:
        decided = scores >= 0.5
        for average in ("micro", "macro", "samples"):
            sk.precision_recall_fscore_support(labels, decided, average=average, zero_division=0)

    return [
        (
            "average_precision of each class",
            lambda: fn.average_precision(scores, labels),
            "scikit-learn",
            lambda: sk.average_precision_score(labels, scores, average=None),
        ),
        (
            "average_precision of each class",
            lambda: fn.average_precision(scores, labels),
            "torchmetrics",
            ap and (lambda: ap(tensor, truth, num_labels=classes, average="none")),
        ),
        (
            "multilabel_map: macro, weighted, micro",
            lambda: fn.multilabel_map(scores, labels),
            "scikit-learn, macro and micro",
            lambda: [sk.average_precision_score(labels, scores, average=a) for a in ("macro", "micro")],
        ),
        (
            "multilabel_f1: all numbers",
            lambda: fn.multilabel_f1(scores, labels),
            "scikit-learn, micro, macro and samples",
            sk_f1,
        ),
        ("multilabel_f1, top 3: all numbers", lambda: fn.multilabel_f1(scores, labels, top_k=3), "", None),
        ("best_threshold: 19 thresholds", lambda: fn.best_threshold(scores, labels), "", None),
        (
            "ndcg_at_k: k = 1, 3, 5",
            lambda: fn.ndcg_at_k(scores, labels),
            "scikit-learn",
            lambda: [sk.ndcg_score(labels, scores, k=k, ignore_ties=True) for k in (1, 3, 5)],
        ),
    ]


def peer(name: str) -> Any:
    """A function of torchmetrics, or None with a line that says so."""
    try:
        import torchmetrics.functional.classification as classification
    except ImportError:
        print(f"torchmetrics is not installed: no {name}. Install it with `pip install torchmetrics`.")
        return None
    return getattr(classification, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # random logits have no best temperature
    rng = np.random.default_rng(0)
    print(f"{args.rows} x {args.classes}, one core, processor seconds, best of {args.repeat}\n")
    print(f"{'ours':<48} {'s':>7}   {'peer':<48} {'s':>7} {'ratio':>7}")
    threadpool_limits(1)
    for make in (calibration_rows, multilabel_rows):
        for name, call, other, peer_call in make(args.rows, args.classes, rng):
            ours = seconds(call, args.repeat)
            line = f"{name:<48} {ours:7.3f}"
            if peer_call is not None:
                theirs = seconds(peer_call, 1)
                line += f"   {other:<48} {theirs:7.3f} {theirs / ours:6.1f}x"
            print(line, flush=True)


if __name__ == "__main__":
    main()
