"""RAD's game: our closed form next to a linear program and to the loop over levels, in turns; then on a large pool.

python examples/benchmarks/robust_active_distillation.py [--turns 7] [--rows 300] [--pool 1000000]
"""

import argparse
import time

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, diags_array, eye_array, hstack
from timing import in_turns, show

from hf_labels.labels.robust_active_distillation import rad_distribution, systematic_sample, worst_case_value


def by_linear_program(gains: np.ndarray, errors: int, budget: int) -> float:
    """The value by HiGHS: the sum of the K largest earnings is a linear program by duality."""
    size, cost = len(gains), 2.0
    objective = np.concatenate([-gains, [cost * errors], np.full(size, cost)])
    worst = hstack([diags_array(gains), csr_array(-np.ones((size, 1))), -eye_array(size)]).tocsr()
    total = csr_array(np.concatenate([np.ones(size), np.zeros(size + 1)])[None])
    bounds = [(0, 1)] * size + [(None, None)] + [(0, None)] * size
    return -float(linprog(objective, worst, np.zeros(size), total, [float(budget)], bounds=bounds).fun)


def by_levels(gains: np.ndarray, errors: int, budget: int) -> float:
    """The value by filling every level tau in turn, O(n^2)."""
    ordered = np.sort(gains)[::-1]
    levels, sums = list(ordered), np.cumsum(1.0 / ordered)
    for count in range(budget, len(ordered) + 1):
        low, high = 0.0, float(ordered[0])
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if np.minimum(1, middle / ordered[:count]).sum() < budget else (low, middle)
        levels.append(high)
    best = -np.inf
    for tau in levels:
        caps = np.minimum(1.0, tau / ordered)
        inclusion = np.clip(budget - (np.cumsum(caps) - caps), 0.0, caps)
        if inclusion.sum() >= budget - 1e-9:
            best = max(best, worst_case_value(inclusion, ordered, errors))
    return max(best, budget / sums[-1] * (len(ordered) - 2 * errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--pool", type=int, default=1_000_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    gains, errors, budget = rng.random(args.rows) + 1e-3, args.rows // 5, args.rows // 10
    ours = rad_distribution(gains, errors, budget=budget).value
    apart = [abs(ours - solve(gains, errors, budget)) for solve in (by_linear_program, by_levels)]
    jobs = {
        "linear program (HiGHS)": lambda: by_linear_program(gains, errors, budget),
        "loop over levels": lambda: by_levels(gains, errors, budget),
        "closed form (ours)": lambda: rad_distribution(gains, errors, budget=budget),
    }
    title = f"{args.rows} rows, budget {budget} (values differ by {apart[0]:.1e} and {apart[1]:.1e})"
    show(title, in_turns(jobs, args.turns))
    large = rng.random(args.pool) + 1e-3
    start = time.process_time()
    found = rad_distribution(large, args.pool // 5, budget=args.pool // 100)
    middle = time.process_time()
    rows = systematic_sample(found.inclusion, rng)
    done = time.process_time()
    print(
        f"{args.pool} rows: game {middle - start:.2f} s, {len(rows)} drawn in {done - middle:.2f} s of the processor"
    )


if __name__ == "__main__":
    main()
