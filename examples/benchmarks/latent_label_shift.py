"""Discretise, factorise and adjust: time of each step, and the posterior next to a loop over rows.

python examples/benchmarks/latent_label_shift.py [--rows 100000] [--domains 20] [--classes 10] [--turns 7]
"""

import argparse
import time

import numpy as np
from timing import Jobs, in_turns, show

from hf_labels.labels.latent_label_shift import LatentLabelShift
from hf_labels.labels.latent_label_shift_factors import (
    class_posterior,
    domain_given_class,
    domain_posterior,
    factorize,
    identification,
)


def rows(number: int, domains: int, classes: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """p(domain | x) of a classifier that is nearly right, domains, classes and mixtures."""
    mixtures = rng.dirichlet(np.full(classes, 0.5), domains).T
    domain = np.arange(number) % domains
    label = (mixtures.cumsum(0).T[domain] < rng.random((number, 1))).sum(1).clip(max=classes - 1)
    sure = 0.8 * np.eye(classes)[label] + 0.2 * rng.dirichlet(np.full(classes, 0.5), number)
    probs = sure @ domain_given_class(mixtures).T * rng.gamma(50, 1 / 50, (number, domains))
    return probs / probs.sum(1, keepdims=True), domain, label, mixtures


def steps(probs: np.ndarray, domain: np.ndarray, label: np.ndarray, mixtures: np.ndarray) -> None:
    """Seconds of the whole fit and of its parts."""
    from hf_labels.metrics.functional import matched_accuracy, mixture_l1

    classes = len(mixtures)
    start = time.perf_counter()
    lls = LatentLabelShift(classes, check="warn").fit(probs, domain)
    whole = time.perf_counter() - start
    matrix = lls.cluster_given_class @ lls.class_prior
    start = time.perf_counter()
    factorize(matrix, classes)
    factors = time.perf_counter() - start
    start = time.perf_counter()
    identification(matrix, lls.class_prior, counts=np.bincount(domain))
    test = time.perf_counter() - start
    found = matched_accuracy(lls.predict(probs, domain), label)["matched_accuracy"]
    error = mixture_l1(lls.class_prior, mixtures)["mixture_l1_per_domain"]
    print(
        f"{len(probs)} rows, {mixtures.shape[1]} domains, {classes} classes: fit {whole:.2f} s, of which factors "
        f"{factors:.2f} s (10 starts) and the test of the rank {test:.2f} s; accuracy {found:.3f}, mixture L1 per "
        f"domain {error:.3f}"
    )


def posteriors(probs: np.ndarray, domain: np.ndarray, mixtures: np.ndarray, turns: int) -> None:
    """The posterior of 2 000 rows: ours, and a loop with the same numbers."""
    from scipy.optimize import nnls

    table, probs, domain = domain_given_class(mixtures), probs[:2000], domain[:2000]
    inverse = np.linalg.pinv(table)

    def one_by_one(least_squares: bool) -> np.ndarray:
        out = []
        for row, d in zip(probs, domain, strict=True):
            q = nnls(table, row)[0] if least_squares else (inverse @ row).clip(0)
            product = q * table[d]
            out.append(product / product.sum())
        return np.array(out)

    for solver, least in (("clip", False), ("nnls", True)):
        jobs: Jobs = {
            f"{solver}, ours": lambda solver=solver: domain_posterior(
                class_posterior(probs, table, solver), table, domain
            ),
            f"{solver}, row by row": lambda least=least: one_by_one(least),
        }
        mine, theirs = (job() for job in jobs.values())
        assert np.abs(mine - theirs).max() < 1e-9
        show("2000 posteriors, equal numbers", in_turns(jobs, turns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--domains", type=int, default=20)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--turns", type=int, default=7)
    args = parser.parse_args()
    data = rows(args.rows, args.domains, args.classes, np.random.default_rng(0))
    steps(*data)
    posteriors(data[0], data[1], data[3], args.turns)


if __name__ == "__main__":
    main()
