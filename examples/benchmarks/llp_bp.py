"""Labels from counts of bags: a million rows, and count messages next to the published pairs and to O(n^2) sums.

python examples/benchmarks/llp_bp.py [--rows 1000000] [--turns 5] [--parts million messages pairs]
"""

import argparse
import time
from functools import partial

import numpy as np
from timing import Jobs, in_turns, show

from hf_labels.labels.llp_bp_graph import knn_graph
from hf_labels.labels.llp_bp_inference import belief_propagation, pairwise_potentials, pairwise_propagation
from hf_labels.labels.llp_bp_messages import CountFactors, gaussian_messages


def world(rows: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, and labels that depend on one direction of them: about 20 % positive."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, width))
    return x, (rng.random(rows) < 1 / (1 + np.exp(2.2 - 2 * x[:, 0]))).astype(int)


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def million(rows: int, width: int = 8) -> None:
    x, y = world(rows, width)
    start, busy = time.perf_counter(), time.process_time()
    edges, weights = knn_graph(x, 5, neighbors="approximate")
    wall, busy = time.perf_counter() - start, time.process_time() - busy
    print(f"{rows} rows, {width} columns, graph of random trees, k = 5: {wall:.1f} s ({busy:.1f} s of processor time)")
    for size in (64, 512):
        bag = np.arange(rows) // size
        counts = np.bincount(bag, weights=y)
        for strength in (1.0, 0.2):
            start, busy = time.perf_counter(), time.process_time()
            factors = CountFactors(bag, counts, 10.0)
            found = belief_propagation(factors, edges, weights, strength, np.zeros(rows))
            wall, busy = time.perf_counter() - start, time.process_time() - busy
            gap = np.abs(np.bincount(bag, weights=found.probs) - counts).sum() / rows
            print(
                f"  bags of {size:3d}, lambda_s {strength:g}: {wall:6.1f} s ({busy:.1f} s of processor time), "
                f"{len(found.residuals)} iterations, last change {found.residuals[-1]:.1e}, "
                f"counts off by {gap:.1e} per row, AUC {auc(y, found.probs):.3f}"
            )


def messages(turns: int, rows: int = 16_384) -> None:
    rng = np.random.default_rng(0)
    for size in (32, 64, 256, 1024):
        bag = np.arange(rows) // size
        counts = np.bincount(bag, weights=rng.random(rows) < 0.2)
        log_odds = rng.normal(-1, 2, rows)
        ways = {way: CountFactors(bag, counts, 10.0, way) for way in ("fourier", "exact")}
        apart = np.abs(ways["fourier"].messages(log_odds) - ways["exact"].messages(log_odds)).max()
        normal = np.abs(gaussian_messages(log_odds, bag, counts, 10.0) - ways["exact"].messages(log_odds)).max()
        jobs: Jobs = {way: partial(factors.messages, log_odds) for way, factors in ways.items()}
        title = f"{rows} rows in bags of {size}: fourier off by {apart:.0e}, the normal approximation by {normal:.0e}"
        show(title, in_turns(jobs, turns))


def pairs(turns: int, rows: int = 4096) -> None:
    x, y = world(rows, 8)
    edges, weights = knn_graph(x, 5)
    for size in (8, 32, 128):
        bag = np.arange(rows) // size
        counts = np.bincount(bag, weights=y).astype(float)
        form = pairwise_potentials(bag, counts, edges, weights, 10.0, 1.0)
        own, published = [], []

        def ours(bag=bag, counts=counts, own=own) -> None:
            found = belief_propagation(CountFactors(bag, counts, 10.0), edges, weights, 1.0, np.zeros(rows), tol=0.0)
            own[:] = [found.probs]

        def theirs(form=form, published=published) -> None:
            published[:] = [pairwise_propagation(*form).probs]

        times = in_turns({"one count factor per bag": ours, "pairs, as published (numpy)": theirs}, turns)
        gaps = [np.abs(np.bincount(bag, weights=found[0]) - counts).sum() / rows for found in (own, published)]
        scores = [auc(y, found[0]) for found in (own, published)]
        title = f"{rows} rows in bags of {size}, 100 iterations: counts off by {gaps[0]:.1e} and {gaps[1]:.1e} per row"
        show(f"{title}, AUC {scores[0]:.3f} and {scores[1]:.3f}", times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["messages", "pairs", "million"])
    args = parser.parse_args()
    jobs = {"million": lambda: million(args.rows), "messages": lambda: messages(args.turns)}
    jobs["pairs"] = lambda: pairs(args.turns)
    for part in args.parts:
        jobs[part]()


if __name__ == "__main__":
    main()
