"""Crowd aggregation next to crowd-kit: processor time at a million annotations, equal results.

    python examples/benchmarks/crowd_soft_labels.py [--annotations 1000000] [--glad 200000] [--turns 3]

crowd-kit is an extra of this benchmark (`pip install crowd-kit`). Both do the same number of rounds: 10 of
Dawid-Skene, 10 of MACE from one start, one M-step of GLAD with two steps of conjugate gradients. GLAD of crowd-kit
needs minutes for a million annotations, so it gets `--glad` of them. crowd-kit's MACE is right only when names
appear in sorted order; the data do.
"""

import argparse
import time

import numpy as np
import pandas as pd
from timing import Jobs, in_turns, show

from hf_labels.labels.crowd import CrowdAnnotations
from hf_labels.labels.crowd_dawid_skene import dawid_skene
from hf_labels.labels.crowd_glad import glad
from hf_labels.labels.crowd_mace import mace

CLASSES, PER_ITEM = 5, 5


def make(size: int, workers: int) -> tuple[CrowdAnnotations, pd.DataFrame]:
    """Annotations of workers of all skills, in the order of the items; workers appear in the order of their ids."""
    rng = np.random.default_rng(0)
    items = size // PER_ITEM
    truth = rng.integers(CLASSES, size=items)
    item = np.repeat(np.arange(items), PER_ITEM)
    worker = np.concatenate([np.arange(workers), rng.integers(workers, size=len(item) - workers)])
    right = rng.random(len(item)) < rng.uniform(0.4, 0.95, workers)[worker]
    label = np.where(right, truth[item], rng.integers(CLASSES, size=len(item)))
    label[:CLASSES] = np.arange(CLASSES)
    frame = pd.DataFrame({"task": item, "worker": worker, "label": label})
    return CrowdAnnotations.from_arrays(item, worker, label), frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--glad", type=int, default=200_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    from crowdkit.aggregation import GLAD, MACE, DawidSkene

    data, frame = make(args.annotations, args.workers)

    def their(model: object) -> np.ndarray:
        table = model.fit_predict_proba(frame)  # type: ignore[attr-defined]
        found: np.ndarray = table.sort_index().reindex(columns=range(CLASSES)).to_numpy()
        return found

    def compare(title: str, jobs: Jobs) -> None:
        ours, theirs = jobs["ours"](), jobs["crowd-kit"]()
        title = f"{title}, {len(data)} annotations (largest difference {np.abs(ours - theirs).max():.1e})"
        show(title, in_turns(jobs, args.turns, time.process_time), "crowd-kit")

    compare(
        "Dawid-Skene, 10 rounds",
        {
            "ours": lambda: dawid_skene(data, 10, None).soft,
            "crowd-kit": lambda: their(DawidSkene(n_iter=10, tol=-1e9)),
        },
    )
    # One start for both: theirs is drawn by scipy from one integer seed.
    from scipy.stats import uniform

    start = [uniform(1, 1.5).rvs(size=(args.workers, width), random_state=0) for width in (2, CLASSES)]
    init = tuple(values / values.sum(1, keepdims=True) for values in start)
    compare(
        "MACE, 10 rounds, 1 start",
        {
            "ours": lambda: mace(data, n_iter=10, init=init).soft,
            "crowd-kit": lambda: their(MACE(n_restarts=1, n_iter=10, random_state=0)),
        },
    )
    data, frame = make(args.glad, args.workers)
    compare(
        "GLAD, 1 round",
        {
            "ours": lambda: glad(data, n_iter=1, m_step_max_iter=2).soft,
            "crowd-kit": lambda: their(GLAD(n_iter=1, m_step_max_iter=2, silent=True)),
        },
    )
    big = make(args.annotations, args.workers)[0]
    for name, job in (("Dawid-Skene", lambda: dawid_skene(big)), ("GLAD", lambda: glad(big))):
        clock = time.process_time()
        job()
        print(f"{name}, default settings, {len(big)} annotations: {time.process_time() - clock:.1f} s")
    clock = time.process_time()
    mace(big)
    print(f"MACE, 10 restarts of 50 rounds, {len(big)} annotations: {time.process_time() - clock:.1f} s")


if __name__ == "__main__":
    main()
