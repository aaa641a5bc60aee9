"""Agreement statistics next to statsmodels and scikit-learn, in turns; and what the report itself costs.

    python examples/benchmarks/llm_label_errors.py [--turns 7] [--items 20000] [--raters 8]

statsmodels is an extra of this benchmark (`pip install statsmodels`); without it its line is left out.
"""

import argparse
import importlib.util
import time

import numpy as np
from sklearn.metrics import f1_score
from timing import Jobs, in_turns, show

from hf_labels.labels.llm_label_errors import LabelErrorReport
from hf_labels.metrics import functional as fn

CLASSES = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--raters", type=int, default=8)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, (args.items, 1))
    table = np.where(rng.random((args.items, args.raters)) < 0.7, truth, rng.integers(0, CLASSES, truth.shape))
    jobs: Jobs = {}
    if importlib.util.find_spec("statsmodels"):
        from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa

        jobs["statsmodels"] = lambda: fleiss_kappa(aggregate_raters(table)[0])
    jobs["ours"] = lambda: fn.fleiss_kappa(table, CLASSES)
    apart = max(abs(job() - fn.fleiss_kappa(table)) for job in jobs.values())
    show(f"Fleiss' kappa, {args.items} items x {args.raters} (difference {apart:.1e})", in_turns(jobs, args.turns))

    def by_pairs() -> np.ndarray:
        sides = range(args.raters)
        return np.array([[f1_score(table[:, i], table[:, j], average="weighted") for j in sides] for i in sides])

    apart = abs(by_pairs() - fn.weighted_f1_matrix(table, CLASSES)).max()
    jobs = {"scikit-learn, pair by pair": by_pairs, "ours": lambda: fn.weighted_f1_matrix(table, CLASSES)}
    show(f"weighted F1 of all pairs (difference {apart:.1e})", in_turns(jobs, max(2, args.turns // 2)))

    probs = rng.dirichlet(np.ones(CLASSES), size=(4, 4, args.items))
    start = time.perf_counter()
    report = LabelErrorReport(probs, truth[:, 0])
    report.issues(0.3)
    middle = time.perf_counter()
    report.precision_by_confidence(table[:, 0], bins=10, draws=1000)
    done = time.perf_counter()
    print(f"report of 16 judgements of {args.items} items {middle - start:.2f} s, bootstrap {done - middle:.2f} s")


if __name__ == "__main__":
    main()
