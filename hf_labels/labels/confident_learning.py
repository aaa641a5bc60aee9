"""Confident learning: which labels are wrong, how many, and how they go wrong, from out-of-sample probabilities.

    cl = ConfidentLearning(dataset["label"], probs)
    cl.issues().annotate(dataset)            # adds `label_quality`, `is_issue`, `suggested_label`
    cl.joint, cl.noise.noise, cl.num_issues()

Sources: Northcutt, Jiang and Chuang, JAIR 2021; Northcutt, Athalye and Mueller, NeurIPS 2021, arXiv:2103.14749.
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from hf_labels.labels.columns import class_names, read_column, require_columns
from hf_labels.labels.confident_joint import (
    TOLERANCE,
    NoiseEstimate,
    Scan,
    calibrate_joint,
    count_pairs,
    estimate_noise,
    prune_counts,
    scan,
)
from hf_labels.labels.issues import LabelIssues
from hf_labels.labels.kinds import check_values
from hf_labels.labels.label_quality import SCORES, check_probs, score_rows

logger = logging.getLogger(__name__)

FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_self_confidence",
    "low_normalized_margin",
)


class ConfidentLearning:
    """Label errors of single-label data.

    Args:
        labels (array of shape `(N,)`): Given class ids, 0 to K - 1. All rows are labelled.
        pred_probs (array of shape `(N, K)`): Probabilities for rows that the model was not trained on, such as those
            of [`cross_fit`]. In-sample probabilities agree with the wrong labels and hide them.
        names (sequence of `str`, *optional*): Names of the classes.
        held_out (`bool`, *optional*, defaults to `False`): The probabilities are known to be out-of-sample: no warning
            when nearly all labels agree with them.

    Attributes:
        label_counts (`(K,)`): Rows per given label.
        thresholds (`(K,)`): Mean self-confidence of each class; 2 for a class without rows.

    Raises:
        ValueError: For data as in [`check_probs`], or names that are not K.

    Example:
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9], [0.95, 0.05]]
        >>> ConfidentLearning([0, 0, 1, 1, 1], probs).find().tolist()
        [False, False, False, False, True]
    """

    def __init__(self, labels: Any, pred_probs: Any, names: Sequence[str] | None = None, held_out: bool = False):
        self.labels, self.pred_probs = check_probs(labels, pred_probs)
        self.num_classes = self.pred_probs.shape[1]
        if names is not None and len(names) != self.num_classes:
            raise ValueError(f"`names` has {len(names)} classes, `pred_probs` has {self.num_classes} columns.")
        self.names = tuple(names) if names is not None else None
        self.label_counts = np.bincount(self.labels, minlength=self.num_classes)
        self._scan: Scan = scan(self.labels, self.pred_probs)
        self.thresholds = self._scan.thresholds
        if not held_out and len(self) >= 100 and self._scan.agrees.mean() > 0.999:
            logger.warning(
                "%.2f %% of the labels agree with `pred_probs`: are these rows those that the model was trained on? "
                "Use probabilities of held-out folds, `cross_fit`.",
                100 * self._scan.agrees.mean(),
            )

    def __len__(self) -> int:
        return len(self.labels)

    # How many, and of which kind

    @cached_property
    def confident_joint(self) -> np.ndarray:
        """Counts `(K, K)`: rows given, columns confident guess of the true label; the diagonal is at least 1."""
        return count_pairs(self.labels, self._scan.guess, self.num_classes)

    @cached_property
    def calibrated_joint(self) -> np.ndarray:
        """[`confident_joint`] in integers whose row k sums to `label_counts[k]`."""
        return calibrate_joint(self.confident_joint, self.label_counts)

    @cached_property
    def joint(self) -> np.ndarray:
        """p(given, true) `(K, K)`, sums to 1."""
        shares: np.ndarray = self.calibrated_joint / self.calibrated_joint.sum()
        return shares

    @cached_property
    def noise(self) -> NoiseEstimate:
        """p(true), p(given | true) and p(true | given)."""
        return estimate_noise(self.calibrated_joint, self.label_counts)

    def off_diagonal(self) -> np.ndarray:
        """Row numbers whose confident guess is another label, before ties go to the given one."""
        return np.flatnonzero((self._scan.guess >= 0) & (self._scan.guess != self.labels))

    def num_issues(self, estimator: str = "off_diagonal") -> int:
        """How many labels are wrong.

        Args:
            estimator (`str`, *optional*): `off_diagonal` counts confident disagreements; `off_diagonal_calibrated`
                scales them to all rows, `(1 - trace of the joint) N`.
        """
        if estimator == "off_diagonal":
            return int(self._confident_mask().sum())
        if estimator == "off_diagonal_calibrated":
            return int(np.rint((1 - self.joint.trace()) * len(self)))
        raise ValueError(f"`estimator` is {estimator!r}, expected 'off_diagonal' or 'off_diagonal_calibrated'.")

    # Which

    def quality(self, method: str = "self_confidence", adjust_pred_probs: bool = False) -> np.ndarray:
        """See [`label_quality`]; `(N,)`."""
        return score_rows(self.labels, self.pred_probs, self._scan, method, adjust_pred_probs)

    def find(
        self,
        filter_by: str = "prune_by_noise_rate",
        *,
        frac_noise: float = 1.0,
        min_examples_per_class: int = 1,
        num_to_remove_per_class: Any = None,
    ) -> np.ndarray:
        """Flags of wrong labels, `(N,)` bool.

        Args:
            filter_by (`str`, *optional*):
                - `prune_by_noise_rate`: per pair of classes, as many rows as the joint estimates, by margin.
                - `prune_by_class`: per given class, as many as the joint estimates, by self-confidence.
                - `both`: flagged by the two above.
                - `confident_learning`: confident guess of another label.
                - `predicted_neq_given`: the most probable label is another one. The baseline.
                - `low_self_confidence`, `low_normalized_margin`: the lowest scores, as many as `num_issues()`.
            frac_noise (`float`, *optional*, defaults to 1.0): Share of the estimated errors to flag; first three.
            min_examples_per_class (`int`, *optional*, defaults to 1): Classes with so few rows are left alone, others
                keep so many; first three.
            num_to_remove_per_class (array of shape `(K,)`, *optional*): Rows to flag per class; first three.

        Raises:
            ValueError: For another filter, or options out of range.
        """
        if filter_by not in FILTERS:
            raise ValueError(f"`filter_by` is {filter_by!r}, expected one of {', '.join(FILTERS)}.")
        if not 0 <= frac_noise <= 1:
            raise ValueError(f"`frac_noise` must be in [0, 1], got {frac_noise}.")
        if min_examples_per_class < 0:
            raise ValueError(f"`min_examples_per_class` must be at least 0, got {min_examples_per_class}.")
        if filter_by == "confident_learning":
            return self._confident_mask()
        if filter_by == "predicted_neq_given":
            return (self._scan.top != self.labels) & ~self._scan.agrees
        if filter_by.startswith("low_"):
            mask = np.zeros(len(self), dtype=bool)
            scores = self.quality(filter_by.removeprefix("low_"))
            mask[np.argsort(scores, kind="stable")[: self.num_issues()]] = True
            return mask
        removed = self._check_removed(num_to_remove_per_class)
        counts = prune_counts(self.calibrated_joint, self.label_counts, frac_noise, min_examples_per_class, removed)
        self._warn_small(min_examples_per_class)
        mask = self._prune(filter_by, counts, min_examples_per_class)
        return mask & ~self._scan.agrees

    def _confident_mask(self) -> np.ndarray:
        mask: np.ndarray = (self._scan.guess >= 0) & (self._scan.guess != self.labels) & ~self._scan.agrees
        return mask

    def _check_removed(self, wanted: Any) -> np.ndarray | None:
        if wanted is None:
            return None
        found = np.asarray(wanted)
        if found.shape != (self.num_classes,) or (found < 0).any() or (found > self.label_counts).any():
            raise ValueError(
                f"`num_to_remove_per_class` must be {self.num_classes} numbers from 0 to the rows of the class "
                f"({self.label_counts.tolist()}), got {found.tolist()}."
            )
        return found

    def _warn_small(self, least: int) -> None:
        small = np.flatnonzero((self.label_counts > 0) & (self.label_counts <= least))
        if len(small):
            logger.warning(
                "Class %s has at most %d rows: none of them is flagged. Lower `min_examples_per_class`, or look at "
                "`quality()`.",
                ", ".join(self.names[k] if self.names else str(k) for k in small[:10]),
                least,
            )

    def _prune(self, filter_by: str, counts: np.ndarray, least: int) -> np.ndarray:
        """The three filters that take a number of rows per class or pair of classes."""
        mask = np.zeros(len(self), dtype=bool)
        order = np.argsort(self.labels, kind="stable")
        for k, rows in enumerate(np.split(order, np.cumsum(self.label_counts)[:-1])):
            if len(rows) <= least or not len(rows):
                continue
            found = []
            if filter_by != "prune_by_class":
                found.append(self._prune_pairs(k, rows, counts[:, k]))
            if filter_by != "prune_by_noise_rate":
                found.append(largest(-self._scan.own[rows], int(len(rows) - counts[k, k])))
            mask[rows] = np.logical_and.reduce(found)
        return mask

    def _prune_pairs(self, k: int, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """For each class j, the `counts[j]` rows of class k with the largest `p_j - p_k`.

        Rows that agree with their label have no margin above the tolerance. Where enough others have one, only these
        are looked at.
        """
        mask = np.zeros(len(rows), dtype=bool)
        others = np.flatnonzero((counts > 0) & (np.arange(len(counts)) != k))
        doubtful = np.flatnonzero(~self._scan.agrees[rows])
        own = self._scan.own[rows]
        margins = np.ascontiguousarray(self.pred_probs[rows[doubtful]].T[others], dtype=np.float64) - own[doubtful]
        wanted = counts[others]
        enough = np.count_nonzero(margins > 2 * TOLERANCE, axis=1) >= wanted
        for j in np.flatnonzero(~enough).tolist():
            mask |= largest(self.pred_probs[rows, others[j]].astype(np.float64) - own, int(wanted[j]))
        margins, wanted = margins[enough], wanted[enough]
        cuts, sorted_margins = np.empty(len(margins)), margins.copy()
        for j, (row, place) in enumerate(zip(sorted_margins, margins.shape[1] - wanted, strict=True)):
            row.partition(place)
            cuts[j] = row[place]
        hits = margins >= cuts[:, None]
        for j in np.flatnonzero(np.count_nonzero(hits, axis=1) != wanted).tolist():
            hits[j] = largest(margins[j], int(wanted[j]))  # ties at the cut
        mask[doubtful] |= hits.any(0)
        return mask

    # What is done with them

    def suggested(self) -> np.ndarray:
        """The most probable label of each row, `(N,)`; the given one wins ties."""
        return np.where(self._scan.agrees, self.labels, self._scan.top)

    def issues(
        self, filter_by: str = "prune_by_noise_rate", rank_by: str = "self_confidence", **options: Any
    ) -> LabelIssues:
        """Flags, scores and suggestions in the format that all tools for label errors share.

        Args:
            filter_by (`str`, *optional*), options: See [`ConfidentLearning.find`].
            rank_by (`str`, *optional*): Score of the ranking, see [`label_quality`]. The paper ranks by
                `normalized_margin`.
        """
        if rank_by not in SCORES:
            raise ValueError(f"`rank_by` is {rank_by!r}, expected one of {', '.join(SCORES)}.")
        return LabelIssues(
            self.labels,
            self.suggested(),
            self.quality(rank_by),
            self.find(filter_by, **options),
            self.names,
            "confident learning",
        )


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Mask of the `count` largest values; the first rows win ties."""
    mask = np.zeros(len(values), dtype=bool)
    if count >= len(values):
        mask[:] = True
    elif count > 0:
        cut = np.partition(values, len(values) - count)[len(values) - count]
        mask = values > cut
        mask[np.flatnonzero(values == cut)[: count - int(mask.sum())]] = True
    return mask


def find_label_issues(
    dataset: Any,
    pred_probs: Any,
    label_column: str = "labels",
    *,
    filter_by: str = "prune_by_noise_rate",
    rank_by: str = "self_confidence",
    **options: Any,
) -> LabelIssues:
    """Label errors of a column of a data set, single-label or multi-label.

    Args:
        dataset (`datasets.Dataset`): With class ids, or 0/1 rows of K labels, in `label_column`.
        pred_probs (array of shape `(N, K)`): Out-of-sample probabilities; of each label for itself when multi-label.
        label_column (`str`, *optional*, defaults to `"labels"`).
        filter_by, rank_by, options: See [`ConfidentLearning.find`] and [`ConfidentLearning.issues`]. Multi-label data
            are judged label by label; a row is flagged if one of its labels is, its quality is that of its worst.

    Returns:
        [`LabelIssues`]: `.annotate(dataset)`, `.apply(dataset, "filter" or "flip", label_column)`, `.ranked()`.

    Raises:
        KeyError: If the column is missing.
        ValueError: As in [`ConfidentLearning`].
    """
    require_columns(dataset, [label_column], "label_column")
    column = read_column(dataset, label_column)
    names = class_names(dataset, label_column)
    if column.lengths is None:
        if column.null.any():
            row = int(column.null.argmax())
            raise ValueError(f"Column `{label_column}` has no label at row {row}. Judge labelled rows only.")
        return ConfidentLearning(column.values, pred_probs, names).issues(filter_by, rank_by, **options)
    check_values(column.matrix(), "multi", column=label_column)
    return multilabel_issues(column.matrix(), pred_probs, names, filter_by=filter_by, rank_by=rank_by, **options)


def multilabel_issues(
    labels: Any,
    pred_probs: Any,
    names: Sequence[str] | None = None,
    *,
    filter_by: str = "prune_by_noise_rate",
    rank_by: str = "self_confidence",
    **options: Any,
) -> LabelIssues:
    """Label by label, as two classes with probabilities `[1 - p, p]`. A label that all rows have, or none, is passed.

    Args:
        labels (array of shape `(N, K)`): 0 and 1.
        pred_probs (array of shape `(N, K)`): Probability of each label.
    """
    given, probs = np.asarray(labels), np.asarray(pred_probs, dtype=np.float64)
    if given.ndim != 2 or given.shape != probs.shape:
        raise ValueError(f"`labels` and `pred_probs` must be (N, K) both, got {given.shape} and {probs.shape}.")
    if not np.isin(given, (0, 1)).all():
        row, k = np.argwhere(~np.isin(given, (0, 1)))[0]
        raise ValueError(
            f"`labels` holds {given[row, k]} at row {row}, label {k}; expected 0 or 1. Leave such rows out."
        )
    given = given.astype(np.int64)  # `encode_labels` writes floats, as losses want them
    flags, quality = np.zeros(given.shape, dtype=bool), np.ones(given.shape)
    for k in range(given.shape[1]):
        if (given[:, k] == given[0, k]).all():
            logger.warning("Label %s is the same in all rows and was not judged.", names[k] if names else k)
            continue
        found = ConfidentLearning(given[:, k], np.stack([1 - probs[:, k], probs[:, k]], 1))
        flags[:, k] = found.find(filter_by, **options)
        quality[:, k] = found.quality(rank_by)
    suggested = np.where(flags, 1 - given, given)
    return LabelIssues(
        given,
        suggested,
        quality.min(1),
        np.asarray(flags.any(1)),
        tuple(names) if names is not None else None,
        "confident learning",
    )
