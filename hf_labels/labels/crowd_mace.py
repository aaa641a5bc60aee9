"""MACE: a worker knows the label, or spams from a distribution of its own.

Source: Hovy et al., "Learning Whom to Trust with MACE", NAACL 2013. The updates are those of the public library
crowd-kit, with two repairs: the order of rows and names does not matter, and restarts differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import digamma

from hf_labels.labels.crowd import CrowdAnnotations

_TINY = 1e-300


@dataclass(frozen=True)
class Mace:
    """What the model says.

    Parameters:
        soft (`np.ndarray` of shape `(T, K)`): Posterior of the true label.
        spamming (`np.ndarray` of shape `(W, 2)`): Weight of spamming and of knowing; with `vb` rows do not sum to 1.
        theta (`np.ndarray` of shape `(W, K)`): Weight of each label when spamming.
        skill (`np.ndarray` of shape `(W,)`): Share of knowing.
        log_likelihood (`float`): Of the best restart.
    """

    soft: np.ndarray
    spamming: np.ndarray
    theta: np.ndarray
    skill: np.ndarray
    log_likelihood: float


def mace(
    data: CrowdAnnotations,
    method: str = "vb",
    n_restarts: int = 10,
    n_iter: int = 50,
    alpha: float = 0.5,
    beta: float = 0.5,
    default_noise: float = 0.5,
    theta_prior: float = 10.0,
    smoothing: float | None = None,
    seed: int = 0,
    init: tuple[Any, Any] | None = None,
) -> Mace:
    """Fit from several random starts and keep the likeliest.

    Args:
        data ([`CrowdAnnotations`]): Annotations.
        method (`str`, *optional*, defaults to `"vb"`): Variational Bayes, or `em` with smoothed counts.
        n_restarts, n_iter (`int`, *optional*, default to 10 and 50): Starts, and rounds of each.
        alpha, beta (`float`, *optional*): Prior counts of spamming and of knowing (`vb`).
        default_noise (`float`, *optional*): Starts are drawn from [1, 2 + noise).
        theta_prior (`float`, *optional*): Prior count of each spam label (`vb`).
        smoothing (`float`, *optional*): Added to counts with `em`; 0.01 / K by default.
        seed (`int`, *optional*, defaults to 0): Of all starts.
        init (`(spamming (W, 2), theta (W, K))`, *optional*): The only start.

    Raises:
        ValueError: For another method, or no restart.
    """
    if method not in ("vb", "em"):
        raise ValueError(f"`method` is {method!r}, expected 'vb' or 'em'.")
    if n_restarts < 1:
        raise ValueError(f"`n_restarts` must be at least 1, got {n_restarts}.")
    rng = np.random.default_rng(seed)
    extra = 0.01 / data.num_labels if smoothing is None else smoothing
    best: Mace | None = None
    for _ in range(n_restarts if init is None else 1):
        if init is None:
            shapes = ((data.num_workers, 2), (data.num_workers, data.num_labels))
            drawn = [1 + (1 + default_noise) * rng.random(shape) for shape in shapes]
            spamming, theta = (values / values.sum(1, keepdims=True) for values in drawn)
        else:
            spamming, theta = (np.asarray(values, dtype=np.float64) for values in init)
        run = _Run(data)
        run.expect(spamming, theta)
        for _ in range(n_iter):
            spam, know, spam_labels = run.counts()
            if method == "vb":
                spamming = _vb(np.stack([spam + alpha, know + beta], 1))
                theta = _vb(spam_labels + theta_prior)
            else:
                spamming = np.stack([spam + extra, know + extra], 1)
                spamming /= spamming.sum(1, keepdims=True)
                theta = (spam_labels + extra) / (spam_labels + extra).sum(1, keepdims=True)
            run.expect(spamming, theta)
        if best is None or run.log_likelihood > best.log_likelihood:
            best = Mace(
                np.ascontiguousarray(run.posterior.T),
                spamming,
                theta,
                spamming[:, 1] / spamming.sum(1),
                run.log_likelihood,
            )
    assert best is not None
    return best


def _vb(counts: np.ndarray) -> np.ndarray:
    """exp of the expected log under a Dirichlet; rows sum to less than 1."""
    out: np.ndarray = np.exp(digamma(counts) - digamma(counts.sum(1, keepdims=True)))
    return out


class _Run:
    """E-step, O(N + T K): an annotation's likelihood has one value for the label that it names, one for all others."""

    def __init__(self, data: CrowdAnnotations):
        self.data = data
        self.pair = data.worker * data.num_labels + data.label
        self.cell = data.label * data.num_items + data.item  # posteriors are (K, T): sums run over long rows

    def expect(self, spamming: np.ndarray, theta: np.ndarray) -> None:
        data = self.data
        spam = np.maximum(spamming[:, :1] * theta, _TINY)  # (W, K)
        share = spam / (spam + spamming[:, 1:])  # of spamming, given that the label is the true one
        self.share = share.reshape(-1)[self.pair]
        gain = np.bincount(
            self.cell, weights=-np.log(share).reshape(-1)[self.pair], minlength=data.num_items * data.num_labels
        ).reshape(data.num_labels, data.num_items)
        base = np.bincount(data.item, weights=np.log(spam).reshape(-1)[self.pair], minlength=data.num_items)
        best = gain.max(0)
        gain -= best
        self.posterior = np.exp(gain, out=gain)
        total = gain.sum(0)
        self.posterior /= total
        evidence = base + best + np.log(total / data.num_labels)
        self.log_likelihood = float(np.logaddexp(evidence, np.log(1e-8)).sum())

    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Expected spam and known annotations of each worker, `(W,)`, and spam by label, `(W, K)`."""
        data = self.data
        believed = self.posterior.reshape(-1)[self.cell]
        know = believed * (1 - self.share)
        spam_labels = np.bincount(self.pair, weights=1 - know, minlength=data.num_workers * data.num_labels)
        spam_labels = spam_labels.reshape(data.num_workers, data.num_labels)
        known = np.bincount(data.worker, weights=know, minlength=data.num_workers)
        return spam_labels.sum(1), known, spam_labels
