"""Prediction sets of label sets: time per row at 60 labels, and next to enumeration at 12 and 16 labels.

    python examples/benchmarks/lp_icp.py [--turns 7] [--labels 60] [--rows 100]

mulaconf is an extra of this benchmark (`pip install --no-deps mulaconf`); without it its line is left out.
"""

import argparse
import importlib.util
import statistics
import time

import numpy as np
from timing import Jobs, in_turns, show

from hf_labels.labels.lp_icp import LabelPowersetICP

LEVEL = 0.05


def rows(number: int, width: int, doubt: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a classifier that is calibrated, and labels drawn from them: two or three of `width` are on."""
    logits = np.where(rng.random((number, width)) < 2.5 / width, 2.5, -5.5) + doubt * rng.normal(size=(number, width))
    probs = 1 / (1 + np.exp(-logits))
    return probs, (rng.random((number, width)) < probs).astype(int)


def wide(width: int, count: int, rng: np.random.Generator) -> None:
    print(f"{width} labels, significance {LEVEL}, 1000 calibration rows, {count} rows:")
    for doubt in (0.5, 1.0, 1.5, 2.0):
        icp = LabelPowersetICP().calibrate(*rows(1000, width, doubt, rng))
        probs, labels = rows(count, width, doubt, rng)
        times, sizes, missed, exact = [], [], 0, 0
        for row, truth in zip(probs, labels, strict=True):
            tries = []
            for _ in range(3):  # the best of three: the machine may be busy
                start = time.perf_counter()
                answer = icp.predict(row[None], LEVEL)[0]
                size = answer.size
                answer.members(None if not answer.truncated else 100)  # all of them, in order
                tries.append(1e3 * (time.perf_counter() - start))
            times.append(min(tries))
            sizes.append(size)
            exact += answer.size_is_exact
            missed += not answer.contains(np.flatnonzero(truth))
        print(
            f"  {labels.sum(1).mean():.1f} labels a row: median {statistics.median(times):.2f} ms, largest "
            f"{max(times):.2f} ms; median size {statistics.median(sizes):g}, largest {max(sizes)}, "
            f"counted exactly {exact}/{count}; error {missed / count:.3f}"
        )


def against_the_powerset(width: int, turns: int, rng: np.random.Generator) -> None:
    probs, labels = rows(400, width, 1.0, rng)
    test, _ = rows(50, width, 1.0, rng)
    icp = LabelPowersetICP().calibrate(probs, labels)

    def ours() -> list[int]:
        return [len(answer.members()) for answer in icp.predict(test, LEVEL)]

    def whole() -> list[int]:
        return [int((icp.powerset_p_values(row[None]) > LEVEL).sum()) for row in test]

    jobs: Jobs = {"ours, lists what is inside": ours, "numpy, all 2^L p-values": whole}
    if importlib.util.find_spec("mulaconf") and width <= 12:
        import torch
        from mulaconf.icp_predictor import InductiveConformalPredictor

        known, own, new = (torch.tensor(table, dtype=torch.float32) for table in (probs, labels, test))
        peer = InductiveConformalPredictor(known, own, measure="norm")
        peer.calibrate(known, own)

        def theirs() -> list[int]:
            regions = peer.predict(new)
            regions.non_empty_prediction_regions = False
            return [len(region) for region in regions(LEVEL)]

        same = sum(a == b for a, b in zip(theirs(), ours(), strict=True))
        print(f"mulaconf (float32): {same} of {len(test)} sets have the same size")
        jobs["mulaconf"] = theirs
    assert ours() == whole()
    show(f"{width} labels, 50 rows, equal sets", in_turns(jobs, turns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--labels", type=int, default=60)
    parser.add_argument("--rows", type=int, default=100)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    wide(args.labels, args.rows, rng)
    for width in (12, 16):
        against_the_powerset(width, args.turns, rng)
    try:
        LabelPowersetICP().calibrate(*rows(100, args.labels, 1.0, rng)).powerset_p_values(np.zeros((1, args.labels)))
    except ValueError as error:
        print(f"all p-values at {args.labels} labels: {error}")


if __name__ == "__main__":
    main()
