"""Dawid-Skene: a confusion matrix per worker, by expectation maximisation; and its one-coin form.

Source: Dawid and Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", 1979; start,
clipping and stop rule of the public library crowd-kit. Pairs (worker, label) that occur are the columns of a sparse
table, so an iteration costs O(N K) and memory O(N + P K), P pairs.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import entr

from hf_labels.labels.crowd import CrowdAnnotations
from hf_labels.labels.crowd_votes import normalized_votes

_TINY = 1e-10


@dataclass(frozen=True)
class DawidSkene:
    """What the model says.

    Parameters:
        soft (`np.ndarray` of shape `(T, K)`): Posterior of the true label.
        priors (`np.ndarray` of shape `(K,)`): Share of each label.
        errors (`np.ndarray` of shape `(W, K, K)`): p(worker says l | truth k), axes worker, said, true; 0 for labels
            that a worker never gave.
        skill (`np.ndarray` of shape `(W,)`): Chance that a worker is right.
        history (`list[float]`): Bound on the log-likelihood per annotation, after each round.
    """

    soft: np.ndarray
    priors: np.ndarray
    errors: np.ndarray
    skill: np.ndarray
    history: list[float] = field(default_factory=list)


def dawid_skene(
    data: CrowdAnnotations,
    n_iter: int = 100,
    tol: float | None = 1e-5,
    one_coin: bool = False,
    true_labels: dict[int, int] | None = None,
) -> DawidSkene:
    """Fit by EM from the vote shares.

    Args:
        data ([`CrowdAnnotations`]): Annotations.
        n_iter (`int`, *optional*, defaults to 100): Rounds at most; 0 gives the vote shares.
        tol (`float`, *optional*, defaults to 1e-5): Stop when the bound rises by less; `None`: all rounds.
        one_coin (`bool`, *optional*, defaults to `False`): One skill per worker, wrong labels alike.
        true_labels (`dict[int, int]`, *optional*): Item -> known label; these rows stay one-hot.
    """
    model = _OneCoin(data) if one_coin else _Confusion(data)
    per_item = np.bincount(data.item, minlength=data.num_items)
    soft = _fix(np.ascontiguousarray(normalized_votes(data).T), true_labels)
    priors = soft.mean(1)
    model.fit(soft)
    evidence, last, history = model.evidence(), -np.inf, []
    for _ in range(n_iter):
        evidence += np.log(np.maximum(priors, _TINY))[:, None]
        evidence -= evidence.max(0)
        soft = np.exp(evidence)
        total = soft.sum(0)
        soft /= total
        entropy = float(np.log(total).sum() - np.vdot(soft, evidence))
        if true_labels:
            entropy = float(entr(_fix(soft, true_labels)).sum())
        priors = soft.mean(1)
        model.fit(soft)
        evidence = model.evidence()
        prior_part = np.log(np.maximum(priors, _TINY)) @ (soft @ per_item)  # per annotation, as the reference
        bound = float((np.vdot(soft, evidence) + prior_part + entropy) / len(data))
        history.append(bound)
        if tol is not None and bound - last < tol:
            break
        last = bound
    return DawidSkene(np.ascontiguousarray(soft.T), priors, model.errors(), model.skill(priors), history)


def _fix(soft: np.ndarray, true_labels: dict[int, int] | None) -> np.ndarray:
    if true_labels:
        items = np.fromiter(true_labels, dtype=np.int64)
        soft[:, items] = 0.0
        soft[np.fromiter(true_labels.values(), dtype=np.int64), items] = 1.0
    return soft


class _Confusion:
    """p(said | true) of each worker. `table` counts how often each pair (worker, said) occurs for each item.

    Posteriors are kept as `(K, T)`: sums over the labels then run over long rows.
    """

    def __init__(self, data: CrowdAnnotations):
        self.data = data
        codes = data.worker * data.num_labels + data.label
        seen = np.bincount(codes, minlength=data.num_workers * data.num_labels) > 0
        pairs = np.flatnonzero(seen)
        columns = (np.cumsum(seen) - 1)[codes]
        self.worker, self.said = np.divmod(pairs, data.num_labels)
        entries = (data.item.astype(np.int32), columns.astype(np.int32))
        self.table = csr_array((np.ones(len(data)), entries), shape=(data.num_items, len(pairs)))
        self.back = self.table.T
        self.starts = np.flatnonzero(np.diff(self.worker, prepend=-1))
        self.group = np.repeat(np.arange(len(self.starts)), np.diff(self.starts, append=len(pairs)))
        self.chances = np.zeros((len(pairs), data.num_labels))

    def fit(self, soft: np.ndarray) -> None:
        found = np.maximum(np.stack([self.back @ row for row in soft], 1), _TINY)
        self.chances = found / np.add.reduceat(found, self.starts, axis=0)[self.group]

    def evidence(self) -> np.ndarray:
        """Log-likelihood of the annotations of each item under each label, `(K, T)`."""
        return np.stack([self.table @ column for column in np.ascontiguousarray(np.log(self.chances).T)])

    def errors(self) -> np.ndarray:
        out = np.zeros((self.data.num_workers, self.data.num_labels, self.data.num_labels))
        out[self.worker, self.said] = self.chances
        return out

    def skill(self, priors: np.ndarray) -> np.ndarray:
        right = self.chances[np.arange(len(self.said)), self.said] * priors[self.said]
        return np.bincount(self.worker, weights=right, minlength=self.data.num_workers)


class _OneCoin(_Confusion):
    """One chance to be right per worker."""

    def fit(self, soft: np.ndarray) -> None:
        data = self.data
        right = np.bincount(data.worker, weights=soft[data.label, data.item], minlength=data.num_workers)
        counts = np.bincount(data.worker, minlength=data.num_workers)
        self.skills: Any = right / np.maximum(counts, 1)
        skill = self.skills[self.worker]
        wrong = (1 - skill) / (data.num_labels - 1)
        chances = np.repeat(wrong[:, None], data.num_labels, axis=1)
        chances[np.arange(len(skill)), self.said] = skill
        self.chances = np.clip(chances, _TINY, 1 - _TINY)

    def skill(self, priors: np.ndarray) -> np.ndarray:
        out: np.ndarray = self.skills
        return out
