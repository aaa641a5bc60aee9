"""Latent label shift: classes from domains that mix them in different shares, without any label (DDFA).

    probs = trainer.predict(dataset)  # a classifier of the domain: any Auto model with num_labels = r
    lls = LatentLabelShift(num_classes=10).fit(probs, from_logits=True)
    lls.class_prior, lls.predict_proba(probs, domains), lls.report

Source: Roberts, Mani, Garg and Lipton, NeurIPS 2022, arXiv:2207.13179. The mathematics only; the code of the authors
(CC BY-NC) is not used.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.labels.latent_label_shift_checks import (
    balanced,
    domain_distributions,
    domain_weights,
    held_out_rows,
    why_weak,
)
from hf_labels.labels.latent_label_shift_factors import (
    FACTORIZATIONS,
    SOLVERS,
    Identification,
    NotIdentifiedError,
    class_posterior,
    cluster_domain_matrix,
    domain_given_class,
    domain_posterior,
    factorize,
    identification,
    reweighted,
    scaled,
    unseen_mixture,
)
from hf_labels.metrics.functional._inputs import check_scores, to_numpy

logger = logging.getLogger(__name__)

UNSEEN = -1
"""Domain id of a row whose domain is not known: it gets the posterior under the uniform mixture."""
CHECKS = ("raise", "warn", "ignore")
MAX_CONDITION = 1e3
"""Condition number of the mixtures above which a fit is warned about."""


class LatentLabelShift:
    """Discretise, factorise and adjust what a classifier of domains says: the label-free half of DDFA.

    Rows with similar `p(domain | x)` fall into one cluster; the table of clusters by domains is factorised into
    `p(cluster | class)` and the mixtures `p(class | domain)`; these turn `p(domain | x)` into `p(class | x, domain)`.
    Classes have no names or order: match them to known ones with
    [`~hf_labels.metrics.functional.matched_accuracy`].

    Args:
        num_classes (`int`): K. There must be as many domains, whose mixtures differ.
        num_clusters (`int`, *optional*): m, at least K; 3 K by default.
        solver (`str`, *optional*, defaults to `"clip"`): `"clip"`, `"nnls"` or `"pinv"`; see
            [`~hf_labels.labels.latent_label_shift_factors.class_posterior`].
        factorization (`str`, *optional*, defaults to `"nmf"`): Or `"anchor"`, where the purest clusters stand for the
            classes: for domains that all hold all classes.
        restarts (`int`, *optional*, defaults to 10): Starts of the NMF.
        check (`str`, *optional*, defaults to `"raise"`): What happens when the data do not show K classes:
            `"raise"`, `"warn"` or `"ignore"`.
        seed (`int`, *optional*, defaults to 0): For k-means, factorisation and the check.

    Raises:
        ValueError: For `num_classes` below 1, `num_clusters` below it, or an unknown name.
    """

    def __init__(
        self,
        num_classes: int,
        num_clusters: int | None = None,
        *,
        solver: str = "clip",
        factorization: str = "nmf",
        restarts: int = 10,
        check: str = "raise",
        seed: int = 0,
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"`num_classes` must be at least 1, got {num_classes}.")
        self.num_classes = int(num_classes)
        self.num_clusters = 3 * self.num_classes if num_clusters is None else int(num_clusters)
        if self.num_clusters < self.num_classes:
            raise ValueError(f"`num_clusters` must be at least `num_classes` = {num_classes}, got {num_clusters}.")
        choices = (
            ("solver", solver, SOLVERS),
            ("factorization", factorization, FACTORIZATIONS),
            ("check", check, CHECKS),
        )
        for name, value, known in choices:
            if value not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {value!r}.")
        if restarts < 1:
            raise ValueError(f"`restarts` must be at least 1, got {restarts}.")
        self.solver, self.factorization, self.check = solver, factorization, check
        self.restarts, self.seed = int(restarts), int(seed)
        self.from_logits = False
        self.domain_names: tuple[str, ...] | None = None
        self.domain_weights: np.ndarray | None = None
        self.cluster_centres: np.ndarray | None = None
        self.report: Identification | None = None
        self._mixtures: np.ndarray | None = None
        self._clusters: np.ndarray | None = None

    # fit

    def fit(
        self,
        domain_probs: Any,
        domains: Any = None,
        *,
        from_logits: bool = False,
        train_counts: Any = None,
        domain_names: Sequence[str] | None = None,
        held_out: Any = None,
    ) -> LatentLabelShift:
        """Find the clusters, their classes and the mixtures. Replaces an earlier fit.

        Args:
            domain_probs (array of shape `(N, r)` or `PredictionOutput`): p(domain | x) of a classifier of domains, or
                its logits. Of rows that it was not trained on they are less overfitted; the authors take both.
            domains (integer array of shape `(N,)`, *optional*): Domain ids; those of the `PredictionOutput` when left
                out.
            from_logits (`bool`, *optional*, defaults to `False`): `domain_probs` are logits, here and from now on.
            train_counts (array of shape `(r,)`, *optional*): Rows of each domain that the classifier was trained on,
                when they differ and did not get weights: its probabilities are divided by them, here and from now on.
            domain_names (sequence of `str`, *optional*): Names of the r domains.
            held_out (bool array of shape `(N,)`, *optional*): Rows that the classifier was not trained on: the rank is
                tested on them alone. What a classifier has learned by heart looks like classes on the others.

        Returns:
            `self`

        Raises:
            NotIdentifiedError: (a `ValueError`) Fewer domains than classes, or mixtures of rank below K; see `check`.
            ValueError: For rows that are not distributions, domain ids out of range, a domain without rows, or fewer
                rows than clusters.
        """
        if domains is None:
            domains = getattr(domain_probs, "label_ids", None)
            if domains is None:
                raise ValueError("`domains` is missing: pass the domain id of each row.")
        probs = domain_distributions(domain_probs, from_logits)
        width = probs.shape[1]
        if self.num_classes > width:
            raise NotIdentifiedError(
                f"{self.num_classes} classes cannot be told apart by {width} domains: there must be at least as many "
                "domains as classes. Ask for fewer classes, or split the data into more domains."
            )
        if self.num_clusters > len(probs):
            raise ValueError(f"{len(probs)} rows are too few for {self.num_clusters} clusters (`num_clusters`).")
        if domain_names is not None and len(domain_names) != width:
            raise ValueError(f"There are {len(domain_names)} `domain_names` for {width} domains.")
        weights = domain_weights(train_counts, width)
        ids = self._domain_ids(domains, len(probs), width, unseen=False)
        cluster, centres = self._discretize(balanced(probs, weights))
        matrix, tested = cluster_domain_matrix(cluster, ids, len(centres), width), None
        if held_out is not None:
            kept = held_out_rows(held_out, ids, width)
            tested = cluster_domain_matrix(cluster[kept], ids[kept], len(centres), width)
            ids = ids[kept]
        left, right, report = self._factorize(matrix, np.bincount(ids, minlength=width), tested)
        self.from_logits, self.domain_weights, self.cluster_centres = from_logits, weights, centres
        self.domain_names = None if domain_names is None else tuple(map(str, domain_names))
        self._clusters, self._mixtures, self.report = left, right, report
        return self

    def fit_matrix(self, matrix: Any, counts: Any = None) -> LatentLabelShift:
        """Factorise a table of clusters by domains that is there already, and check it.

        Args:
            matrix (array of shape `(m, r)`): X, columns sum to 1.
            counts (array of shape `(r,)`, *optional*): Rows of each domain; without them X counts as exact.

        Returns:
            `self`

        Raises:
            NotIdentifiedError: As `fit`.
            ValueError: If the columns of X are not distributions.
        """
        table = check_scores(matrix, "matrix").astype(np.float64)
        if (table < 0).any() or np.abs(table.sum(0) - 1).max() > 1e-6:
            raise ValueError("`matrix` must not be negative and its columns must sum to 1.")
        left, right, report = self._factorize(table, counts)
        self._clusters, self._mixtures, self.report = left, right, report
        self.domain_weights = self.cluster_centres = self.domain_names = None
        self.from_logits = False
        return self

    def _discretize(self, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cluster of each row, and the centres; clusters without rows are dropped."""
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        model = KMeans(self.num_clusters, n_init=5, max_iter=100, random_state=self.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters
            labels = model.fit_predict(probs)
        used, cluster = np.unique(labels, return_inverse=True)
        if len(used) < self.num_classes:
            raise NotIdentifiedError(
                f"The rows fall into {len(used)} distinct clusters, fewer than {self.num_classes} classes: the "
                "classifier of domains tells them too little. Train it longer, or ask for fewer classes."
            )
        return cluster, model.cluster_centers_[used].astype(np.float64)

    def _factorize(
        self, matrix: np.ndarray, counts: Any, tested: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, Identification]:
        left, right, residual = factorize(
            matrix, self.num_classes, self.restarts, self.seed, method=self.factorization
        )
        report = identification(matrix if tested is None else tested, right, residual, counts, seed=self.seed)
        if self.check == "ignore":
            return left, right, report
        if not report.full_rank:
            text = why_weak(report)
            if self.check == "raise":
                raise NotIdentifiedError(text + " `check='warn'` fits all the same.")
            logger.warning(text)
        elif report.condition > MAX_CONDITION:
            logger.warning(
                "The mixtures of the domains are nearly dependent (condition number %.3g, above %g): expect large "
                "errors in some classes.",
                report.condition,
                MAX_CONDITION,
            )
        return left, right, report

    # what was found

    def _need_mixtures(self) -> np.ndarray:
        if self._mixtures is None:
            raise RuntimeError("This tool is not fitted: call `fit(domain_probs, domains)` first.")
        return self._mixtures

    @property
    def class_prior(self) -> np.ndarray:
        """W `(K, r)`: p(class | domain), columns sum to 1.

        Raises:
            RuntimeError: Before `fit`.
        """
        return self._need_mixtures().copy()

    @property
    def cluster_given_class(self) -> np.ndarray:
        """C `(m, K)`: p(cluster | class), columns sum to 1."""
        self._need_mixtures()
        assert self._clusters is not None
        return self._clusters.copy()

    @property
    def domain_given_class(self) -> np.ndarray:
        """A `(r, K)`: p(domain | class) of equally large domains, columns sum to 1."""
        return domain_given_class(self._need_mixtures())

    @property
    def num_domains(self) -> int:
        """r"""
        return int(self._need_mixtures().shape[1])

    # prediction

    def posterior(self, domain_probs: Any) -> np.ndarray:
        """q `(N, K)`: p(class | x) when all domains are equally likely; see
        [`~hf_labels.labels.latent_label_shift_factors.class_posterior`]."""
        mixtures = self._need_mixtures()
        probs = domain_distributions(domain_probs, self.from_logits, mixtures.shape[1])
        return class_posterior(balanced(probs, self.domain_weights), domain_given_class(mixtures), self.solver)

    def predict_proba(self, domain_probs: Any, domains: Any = None, *, class_prior: Any = None) -> np.ndarray:
        """Class probabilities of rows.

        Args:
            domain_probs (array of shape `(N, r)` or `PredictionOutput`): As in `fit`; N may be 0.
            domains (integer array of shape `(N,)`, *optional*): Domain ids, -1 = unknown; left out: all are.
            class_prior (array of shape `(K,)`, *optional*): In place of `domains`, the mixture of a domain that `fit`
                did not see; [`estimate_mixture`] finds it.

        Returns:
            `np.ndarray` of shape `(N, K)`, float64: Rows sum to 1; with `solver="pinv"` they are the reference code's,
                which may be negative.

        Raises:
            RuntimeError: Before `fit`.
            ValueError: For rows that are not distributions over the r domains, domain ids out of range, or both
                `domains` and `class_prior`.
        """
        posterior = self.posterior(domain_probs)
        if class_prior is not None:
            if domains is not None:
                raise ValueError("Pass `domains` or `class_prior`, not both.")
            mixture = check_scores(np.atleast_2d(to_numpy(class_prior, "class_prior")), "class_prior")[0]
            if mixture.shape != (self.num_classes,) or (mixture < 0).any() or abs(mixture.sum() - 1) > 1e-6:
                raise ValueError(f"`class_prior` must be {self.num_classes} probabilities that sum to 1.")
            return reweighted(np.clip(posterior, 0, None), self._need_mixtures().mean(1), mixture)
        if domains is None:
            return posterior
        ids = self._domain_ids(domains, len(posterior), self.num_domains, unseen=True)
        known = ids != UNSEEN
        posterior[known] = domain_posterior(
            posterior[known], self.domain_given_class, ids[known], clip=self.solver != "pinv"
        )
        return posterior

    def predict(self, domain_probs: Any, domains: Any = None, **options: Any) -> np.ndarray:
        """Class ids `(N,)`: the largest of [`predict_proba`]."""
        return self.predict_proba(domain_probs, domains, **options).argmax(1)

    def estimate_mixture(self, domain_probs: Any) -> np.ndarray:
        """Mixture `(K,)` of a new domain, from its rows `(N, r)`; see
        [`~hf_labels.labels.latent_label_shift_factors.unseen_mixture`].

        Raises:
            ValueError: If there are no rows.
        """
        posterior = np.clip(self.posterior(domain_probs), 0, None)
        if not len(posterior):
            raise ValueError("`domain_probs` has no rows: there is no mixture to estimate.")
        return unseen_mixture(scaled(posterior), self._need_mixtures())

    def _domain_ids(self, domains: Any, rows: int, width: int, unseen: bool) -> np.ndarray:
        ids = to_numpy(domains, "domains")
        if ids.shape != (rows,):
            raise ValueError(f"`domains` must be one id per row, shape ({rows},), got shape {ids.shape}.")
        least = UNSEEN if unseen else 0
        bad = ~((ids >= least) & (ids < width)) | (ids != np.floor(ids))
        if bad.any():
            row = int(bad.argmax())
            hint = " Use -1, or `estimate_mixture`, for a new domain." if unseen else ""
            raise ValueError(f"`domains` must be ids in [0, {width}), got {ids[row]} at row {row}.{hint}")
        return ids.astype(np.int64)

    # files

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `latent_label_shift.json` and `latent_label_shift.safetensors`, also beside a model."""
        from hf_labels.labels.latent_label_shift_files import save_lls

        return save_lls(self, folder)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, token: Any = None) -> LatentLabelShift:
        """Load from a folder or the Hub; see [`~hf_labels.labels.latent_label_shift_files.load_lls`]."""
        from hf_labels.labels.latent_label_shift_files import load_lls

        return load_lls(name, revision=revision, token=token)

    def label(self, dataset: Any, domain_probs: Any, domain_column: str | None = "domain", **options: Any) -> Any:
        """A copy of the data set with `labels` and `soft_labels`; see
        [`~hf_labels.labels.latent_label_shift_files.annotate`]."""
        from hf_labels.labels.latent_label_shift_files import annotate

        return annotate(self, dataset, domain_probs, domain_column, **options)
