"""Timing in turns: every job once per turn, so that a busy machine slows all of them alike, and ratios stay fair."""

import statistics
import time
from collections.abc import Callable
from typing import Any

Jobs = dict[str, Callable[[], Any]]


def in_turns(
    jobs: Jobs, turns: int, clock: Callable[[], float] = time.perf_counter, wait: Callable[[], Any] | None = None
) -> dict[str, list[float]]:
    """Seconds per call, one call of each job in each turn, after two turns that do not count.

    `wait` (`torch.cuda.synchronize`) is called after each job, within its time.
    """
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(turns + 2):
        for name, job in jobs.items():
            start = clock()
            job()
            if wait is not None:
                wait()
            if turn >= 2:
                found[name].append(clock() - start)
    return found


def medians(jobs: Jobs, turns: int) -> dict[str, float]:
    """Median seconds per call."""
    return {name: statistics.median(values) for name, values in in_turns(jobs, turns).items()}


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """Median over the turns of how many times as long `one` takes as `other`."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def show(title: str, times: dict[str, list[float]], base: str | None = None) -> None:
    """Medians, and ratios to `base` (the first job by default) of the same turn, with their middle half."""
    base = next(iter(times)) if base is None else base
    print(title)
    for name, values in times.items():
        ratios = [value / other for value, other in zip(values, times[base], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"  {name:42s} {1e3 * statistics.median(values):9.3f} ms   ratio {middle:.2f} "
            f"(middle half of the turns {low:.2f} to {high:.2f})"
        )
