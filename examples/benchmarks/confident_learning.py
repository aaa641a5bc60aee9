"""Confident learning next to cleanlab, in turns: time, peak memory, equal flags.

    python examples/benchmarks/confident_learning.py [--rows 200000] [--classes 100] [--turns 5] [--jobs 1]

cleanlab is an extra of this benchmark (`pip install cleanlab`). Memory is the peak of a process of its own for each
tool, minus that of a process that only makes the data.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from timing import Jobs, in_turns, show

from hf_labels.labels.confident_learning import FILTERS, ConfidentLearning


def make(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a tenth is wrong, and probabilities of a fair model."""
    rng = np.random.default_rng(0)
    true = rng.integers(classes, size=rows)
    given = np.where(rng.random(rows) < 0.1, rng.integers(classes, size=rows), true)
    probs = rng.normal(size=(rows, classes))
    probs *= 1.2
    probs[np.arange(rows), true] += 3.6
    np.exp(probs, out=probs)
    probs /= probs.sum(1, keepdims=True)
    return given, probs


def find(tool: str, given: np.ndarray, probs: np.ndarray, way: str, jobs: int | None = None) -> np.ndarray:
    """Flags of one tool."""
    if tool == "ours":
        return ConfidentLearning(given, probs).find(way)
    from cleanlab.filter import find_label_issues

    mask: np.ndarray = find_label_issues(given, probs, filter_by=way, n_jobs=jobs)
    return mask


def peak(args: argparse.Namespace, tool: str) -> float:
    """Peak memory of a process that runs one tool, MiB."""
    options = ["--rows", str(args.rows), "--classes", str(args.classes), "--only", tool]
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes of cleanlab; it chooses itself with 0")
    parser.add_argument("--only", choices=["ours", "cleanlab", "data"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    given, probs = make(args.rows, args.classes)
    if args.only:
        if args.only != "data":
            find(args.only, given, probs, "prune_by_noise_rate", 1)
        status = Path("/proc/self/status").read_text()  # Linux; getrusage would count the parent
        print(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024)
        return
    print(f"{args.rows} rows x {args.classes} classes, {probs.nbytes / 2**20:.0f} MiB of probabilities")
    for way in FILTERS:
        differ = int((find("ours", given, probs, way) != find("cleanlab", given, probs, way, 1)).sum())
        jobs: Jobs = {
            "cleanlab": lambda way=way: find("cleanlab", given, probs, way, args.jobs or None),
            "ours": lambda way=way: find("ours", given, probs, way),
        }
        show(f"{way} ({differ} rows differ)", in_turns(jobs, args.turns))
    base = peak(args, "data")
    for tool in ("cleanlab", "ours"):
        print(f"peak memory beyond the data, {tool}: {peak(args, tool) - base:.0f} MiB")


if __name__ == "__main__":
    main()
