"""Pseudo-labels: what was given to which row, how surely, when and by whom; and the rules that choose among them.

    found = PseudoLabelSet.from_probs(probs, round=1, source="teacher")
    sure = found.select(select_top_k(found.confidence, found.labels, k=16))
    chance = found.select(random_control(len(found), len(sure), rng))  # the control of the same size

Selectors take arrays and return row positions in ascending order, so they serve class ids, fields and boxes alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf_labels.labels.checks import MISSING, check_distributions

COLUMNS = ("index", "labels", "confidence", "round", "source")


@dataclass(frozen=True, eq=False)
class PseudoLabelSet:
    """Pseudo-labels of N rows. Immutable.

    Parameters:
        index (`(N,)` integers): Row ids, each once.
        labels (`(N,)` integers or `(N, K)` floats): Class ids (-1: none) or one row of scores or targets for each.
        confidence (`(N,)` floats): In [0, 1]; 0 where there is no label.
        round (`(N,)` integers): When the label was given or admitted, from 0; -1: not admitted.
        source (`(N,)` texts): Who gave it.
        names (`tuple[str, ...]`, *optional*): Class names.

    Raises:
        ValueError: Lengths differ, an index occurs twice, a confidence is outside [0, 1], a class id is below -1 or
            has no name; names the row.
    """

    index: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    round: np.ndarray
    source: np.ndarray
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        kinds = {"index": np.int64, "confidence": np.float64, "round": np.int64, "source": np.str_}
        for name, kind in kinds.items():
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
        labels = np.asarray(self.labels)
        object.__setattr__(self, "labels", labels.astype(np.int64 if labels.ndim == 1 else np.float64))
        size = len(self.index)
        for name in COLUMNS:
            if len(getattr(self, name)) != size:
                raise ValueError(
                    f"`{name}` has {len(getattr(self, name))} rows, `index` has {size}: give one for each."
                )
        if len(np.unique(self.index)) != size:
            values, counts = np.unique(self.index, return_counts=True)
            raise ValueError(f"`index` has {values[counts > 1][0]} more than once. Keep one label for each row.")
        bad = np.flatnonzero(~((self.confidence >= 0) & (self.confidence <= 1)))
        if len(bad):
            raise ValueError(f"`confidence` must be in [0, 1], got {self.confidence[bad[0]]} at row {bad[0]}.")
        if labels.ndim == 1:
            limit = len(self.names) if self.names is not None else np.inf
            bad = np.flatnonzero((self.labels < MISSING) | (self.labels >= limit))
            if len(bad):
                raise ValueError(
                    f"`labels` must be -1 (none) or a class id below {limit}, got {self.labels[bad[0]]} at row "
                    f"{bad[0]}."
                )
        if self.names is not None:
            object.__setattr__(self, "names", tuple(self.names))

    @classmethod
    def from_probs(
        cls,
        probs: Any,
        index: Any = None,
        *,
        round: int = 0,
        source: str = "model",
        soft: bool = False,
        names: Sequence[str] | None = None,
    ) -> PseudoLabelSet:
        """The most probable class of each row (the lowest among equals) and its probability.

        Args:
            probs (`(N, K)`): Rows sum to 1. A row of NaN was not answered: label -1, confidence 0.
            index (`(N,)`, *optional*): Row ids; 0 to N-1 by default.
            round (`int`), source (`str`), names (*optional*): As in the class; the same for all rows.
            soft (`bool`, *optional*, defaults to `False`): Keep the whole rows as labels.

        Raises:
            ValueError: If a row is no distribution, or is NaN with `soft`; names the row.
        """
        probs = np.asarray(probs, dtype=np.float64)
        if probs.ndim != 2:
            raise ValueError(f"`probs` must have shape (N, K), got {probs.shape}.")
        known = ~np.isnan(probs).all(axis=1)
        if not known.all() and soft:
            raise ValueError(
                f"`probs` has no answer (NaN) at row {int(np.argmin(known))}: leave it out, or use hard ids."
            )
        check_distributions(np.where(known[:, None], probs, 1 / max(probs.shape[1], 1)), "`probs`", name="probs")
        best = np.where(known, np.where(known[:, None], probs, 0.0).argmax(axis=1), MISSING)
        confidence = np.where(known, np.where(known[:, None], probs, 0.0).max(axis=1, initial=0.0), 0.0)
        size = len(probs)
        return cls(
            np.arange(size) if index is None else index,
            probs if soft else best,
            np.minimum(confidence, 1.0),
            np.full(size, round),
            np.full(size, source),
            None if names is None else tuple(names),
        )

    def __len__(self) -> int:
        return len(self.index)

    def select(self, rows: Any) -> PseudoLabelSet:
        """Only these rows (positions or a mask), in the order given."""
        taken = {name: getattr(self, name)[np.asarray(rows)] for name in COLUMNS}
        return replace(self, **taken)

    def merge(self, other: PseudoLabelSet, keep: str = "first") -> PseudoLabelSet:
        """Both together, sorted by index.

        Args:
            other ([`PseudoLabelSet`]): With the same kind of labels.
            keep (`str`, *optional*, defaults to `"first"`): Which one counts for a row that both have: `"first"` (this
                set), `"last"` (the other) or `"confident"` (the higher confidence; this set among equals).

        Raises:
            ValueError: For another `keep`, or labels of another shape or with other names.
        """
        if keep not in ("first", "last", "confident"):
            raise ValueError(f"`keep` must be 'first', 'last' or 'confident', got {keep!r}.")
        if self.labels.shape[1:] != other.labels.shape[1:] or self.names != other.names:
            raise ValueError("The two sets have labels of different shape or names: they cannot be merged.")
        both = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in COLUMNS}
        rank = np.repeat([0, 1] if keep != "last" else [1, 0], [len(self), len(other)])
        sureness = -both["confidence"] if keep == "confident" else np.zeros(len(rank))
        order = np.lexsort((rank, sureness, both["index"]))
        first = np.ones(len(order), dtype=bool)
        first[1:] = both["index"][order][1:] != both["index"][order][:-1]
        return PseudoLabelSet(**{name: values[order[first]] for name, values in both.items()}, names=self.names)

    def counts(self, num_labels: int | None = None) -> np.ndarray:
        """How many rows each class has, `(K,)`; class ids only."""
        if self.labels.ndim != 1:
            raise ValueError("`counts` needs class ids; these labels are rows of scores.")
        least = num_labels or (len(self.names) if self.names else 0)
        return np.bincount(self.labels[self.labels >= 0], minlength=least)

    def to_dataset(self, **columns: Any) -> Any:
        """A `datasets.Dataset` with the columns given here (the text, say), then index, labels, confidence, round and
        source. Class ids with names are a `ClassLabel` called `labels`, rows of scores are called `soft_labels`."""
        import datasets

        hard = self.labels.ndim == 1
        data: dict[str, Any] = {name: list(values) for name, values in columns.items()}
        data |= {"index": self.index, "labels" if hard else "soft_labels": self.labels}
        data |= {name: getattr(self, name) for name in ("confidence", "round")} | {"source": self.source.tolist()}
        lists = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in data.items()}
        table = datasets.Dataset.from_dict(lists)
        if not hard or self.names is None:
            return table
        features = datasets.Features({**table.features, "labels": datasets.ClassLabel(names=list(self.names))})
        return datasets.Dataset.from_dict(lists, features=features)

    @classmethod
    def from_dataset(cls, dataset: Any) -> PseudoLabelSet:
        """The reverse of `to_dataset`; further columns are left alone.

        Raises:
            MissingColumnError: (a `KeyError`) A column is missing; names it.
        """
        from hf_labels.labels.columns import class_names, require_columns

        column = "soft_labels" if "soft_labels" in dataset.column_names else "labels"
        require_columns(dataset, ("index", column, "confidence", "round", "source"))
        table = dataset.with_format(None)
        values = {name: table[name][:] for name in ("index", "confidence", "round", "source")}
        names = class_names(dataset, column) if column == "labels" else None
        return cls(labels=np.asarray(table[column][:]), names=None if names is None else tuple(names), **values)


def select_threshold(confidence: Any, threshold: float) -> np.ndarray:
    """Rows with `confidence >= threshold`. NaN is never selected."""
    return np.flatnonzero(np.asarray(confidence) >= threshold)


def select_class_threshold(
    confidence: Any, labels: Any, thresholds: Mapping[int, float] | Sequence[float]
) -> np.ndarray:
    """Rows at least as sure as the threshold of their class.

    Args:
        confidence (`(N,)`), labels (`(N,)` class ids): Rows with -1 are never selected.
        thresholds (`dict` or sequence): Class id -> threshold.

    Raises:
        ValueError: If a class has no threshold; names it and the row.
    """
    confidence, labels = _same_length(confidence, labels)
    table = dict(thresholds) if isinstance(thresholds, Mapping) else dict(enumerate(thresholds))
    for row, label in enumerate(labels):
        if label >= 0 and int(label) not in table:
            raise ValueError(f"`thresholds` has no class {label} (row {row}); it has {sorted(table)}.")
    needed = np.array([table[int(label)] if label >= 0 else np.inf for label in labels])
    return np.flatnonzero(confidence >= needed)


def select_top_k(confidence: Any, labels: Any, k: int | Mapping[int, int]) -> np.ndarray:
    """The `k` surest rows of each class (ties: the lower row), or all of a class that has fewer.

    Args:
        confidence (`(N,)`), labels (`(N,)` class ids): Rows with -1 or NaN are never selected.
        k (`int` or `dict`): At least 0; a dict gives it for each class (0 where a class is not named).

    Raises:
        ValueError: If `k` is negative or the lengths differ.
    """
    confidence, labels = _same_length(confidence, labels)
    wanted = k if isinstance(k, Mapping) else {int(c): k for c in np.unique(labels)}
    if any(number < 0 for number in wanted.values()):
        raise ValueError(f"`k` must not be negative, got {k}.")
    parts = [np.zeros(0, dtype=np.int64)]
    for label, number in wanted.items():
        rows = np.flatnonzero((labels == label) & (labels >= 0) & ~np.isnan(confidence))
        parts.append(rows[np.argsort(-confidence[rows], kind="stable")][:number])
    return np.sort(np.concatenate(parts))


def select_balanced(confidence: Any, labels: Any, k: int | None = None) -> np.ndarray:
    """Equally many rows of each class that occurs: the surest ones, `k` or what the smallest class has."""
    confidence, labels = _same_length(confidence, labels)
    present = labels[(labels >= 0) & ~np.isnan(confidence)]
    least = int(np.unique(present, return_counts=True)[1].min()) if len(present) else 0
    return select_top_k(confidence, labels, least if k is None else min(k, least))


def select_agreement(votes: Any, min_share: float = 1.0) -> np.ndarray:
    """Rows on which at least `min_share` of the sources that answered give one label.

    Args:
        votes (`(S, N)` integers): One row per source, -1 = did not answer. A row that nobody answered is not selected.
        min_share (`float`, *optional*, defaults to 1.0): In (0, 1].

    Raises:
        ValueError: For another shape or share.
    """
    votes = np.asarray(votes)
    if votes.ndim != 2 or not 0 < min_share <= 1:
        raise ValueError(f"`votes` must be (S, N) and `min_share` in (0, 1], got {votes.shape} and {min_share}.")
    answered = (votes >= 0).sum(axis=0)
    most = np.zeros(votes.shape[1], dtype=np.int64)
    for label in np.unique(votes[votes >= 0]):
        most = np.maximum(most, (votes == label).sum(axis=0))
    return np.flatnonzero((answered > 0) & (most >= min_share * answered - 1e-9))


def entropy_weights(probs: Any) -> np.ndarray:
    """`1 - H(q) / log K` for each row of `(N, K)` probabilities: 1 = certain, 0 = uniform; `0 log 0 = 0`.

    Raises:
        ValueError: If a row is no distribution, or K is below 2.
    """
    probs = np.asarray(probs, dtype=np.float64)
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise ValueError(f"`probs` must have shape (N, K) with K of at least 2, got {probs.shape}.")
    check_distributions(probs, "`probs`", name="probs")
    logs = np.log(probs, out=np.zeros_like(probs), where=probs > 0)
    return np.clip(1 + (probs * logs).sum(axis=1) / np.log(probs.shape[1]), 0.0, 1.0)


def random_control(pool: int | Any, selected: int | Any, rng: np.random.Generator, labels: Any = None) -> np.ndarray:
    """As many rows as were selected, at random: what a selection must beat.

    Args:
        pool (`int` or `(P,)` rows): How many rows there are, or which.
        selected (`int` or `(S,)` rows): How many to draw, or the selection to imitate.
        rng (`np.random.Generator`): Of the draw.
        labels (`(N,)`, *optional*): Class of every row: then each class gets as many rows as it has in `selected`.

    Raises:
        ValueError: If more rows are asked for than there are.
    """
    rows = np.arange(int(pool)) if np.isscalar(pool) else np.asarray(pool)  # type: ignore[arg-type]
    groups: list[tuple[np.ndarray, int]]
    if labels is None or np.isscalar(selected):
        groups = [(rows, int(selected) if np.isscalar(selected) else len(selected))]  # type: ignore[arg-type]
    else:
        labels = np.asarray(labels)
        classes, numbers = np.unique(labels[np.asarray(selected)], return_counts=True)
        groups = [(rows[labels[rows] == c], int(n)) for c, n in zip(classes, numbers, strict=True)]
    for there, number in groups:
        if number > len(there):
            raise ValueError(f"{number} random rows are asked for and the pool has {len(there)}.")
    drawn = [rng.choice(there, number, replace=False) for there, number in groups]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *drawn]))


def _same_length(confidence: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    confidence, labels = np.asarray(confidence, dtype=np.float64), np.asarray(labels)
    if confidence.shape != labels.shape or confidence.ndim != 1:
        raise ValueError(f"`confidence` and `labels` must be (N,) both, got {confidence.shape} and {labels.shape}.")
    return confidence, labels
