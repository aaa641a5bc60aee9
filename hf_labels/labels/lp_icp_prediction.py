"""What label-powerset conformal prediction says of one example: a set of label sets, described without listing it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_labels.labels import lp_icp_sets as sets

if TYPE_CHECKING:
    from hf_labels.labels.lp_icp import LabelPowersetICP

_FEW = 1000  # so many label sets are found best first; more are listed whole and sorted


@dataclass(frozen=True)
class Threshold:
    """Which scores belong to the prediction set: up to `score`, or below it (`strict`); infinity is every score."""

    score: float
    strict: bool = False

    def accepts(self, scores: np.ndarray) -> np.ndarray:
        return scores < self.score if self.strict else scores <= self.score

    @property
    def everything(self) -> bool:
        return self.score == np.inf


def smoothed_threshold(scores: np.ndarray, epsilon: float, tie: float) -> Threshold:
    """Which scores have a smoothed p-value above `epsilon`, for calibration scores `(q,)` in ascending order.

    The p-value falls along: below the first score, at it, between the first two, at the second, ..., above the last.
    """
    values, first = np.unique(scores, return_index=True)
    counts = np.diff(np.append(first, len(scores)))
    above = len(scores) - first - counts
    steps = np.empty(2 * len(values) + 1)
    steps[0::2] = np.append(len(scores), above) + tie
    steps[1::2] = above + tie * (counts + 1)
    inside = int((steps > epsilon * (len(scores) + 1)).sum())
    if inside in (0, len(steps)):
        return Threshold(np.inf if inside else -np.inf)
    place, at_value = divmod(inside - 1, 2)
    return Threshold(float(values[place]), strict=not at_value)


@dataclass(frozen=True, eq=False)
class LabelSetPrediction:
    """The prediction set `{Y : p(Y) > epsilon}` of one example. Made by [`LabelPowersetICP.predict`].

    Parameters:
        icp ([`LabelPowersetICP`]): The calibrated predictor.
        epsilon (`float`): Significance.
        threshold ([`Threshold`]): Scores inside.
        absent, present (`np.ndarray` of shape `(L,)`): Score of leaving a label out, and of naming it.
        non_empty (`bool`): An empty set is filled with the best label set.
        tie (`float`, *optional*): The random number of smoothed p-values.
    """

    icp: LabelPowersetICP
    epsilon: float
    threshold: Threshold
    absent: np.ndarray
    present: np.ndarray
    non_empty: bool = False
    tie: float | None = None

    # the best label set, and what it costs to leave it

    @cached_property
    def base(self) -> np.ndarray:
        """(L,) bool: the label set of largest p-value (a label at exactly 0.5 is left out)."""
        return self.present < self.absent

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(np.abs(self.absent - self.present), kind="stable")

    @cached_property
    def _costs(self) -> np.ndarray:
        return np.abs(self.absent - self.present)[self._order]

    @cached_property
    def _slack(self) -> float:
        return float(self.threshold.score - self.scores(self.base[None])[0])

    @property
    def _tolerance(self) -> float:
        return 1e-12 * max(1.0, abs(self.threshold.score))

    def scores(self, members: np.ndarray) -> np.ndarray:
        """Scores `(n,)` of label sets `(n, L)`, summed in the order of the labels."""
        total = np.zeros(len(members))
        for place in range(members.shape[1]):
            total += np.where(members[:, place], self.present[place], self.absent[place])
        return total

    # the set

    @property
    def is_everything(self) -> bool:
        """Every label set is inside: there are too few calibration rows for this `epsilon`."""
        return self.threshold.everything

    @cached_property
    def is_empty(self) -> bool:
        """No label set is inside."""
        return not self.non_empty and not self._best_is_inside

    @cached_property
    def _best_is_inside(self) -> bool:
        return bool(self.threshold.accepts(self.scores(self.base[None]))[0])

    @cached_property
    def _counted(self) -> tuple[int, bool]:
        if self.is_everything:
            return 2 ** len(self.absent), True
        if not self._best_is_inside:
            return int(self.non_empty), True
        number, sure = sets.count_flip_sets(self._costs, self._slack, self._tolerance, self.icp.max_sets)
        if number is None:
            return self.icp.max_sets, False
        if not sure and self._listed is not None:
            return len(self._listed), True
        return number, True

    @property
    def size(self) -> int:
        """Number of label sets inside; a lower bound when `size_is_exact` is false."""
        return self._counted[0]

    @property
    def size_is_exact(self) -> bool:
        """False when there are more than `max_sets` label sets, and too many even to be counted by halves."""
        return self._counted[1]

    @property
    def truncated(self) -> bool:
        """There are more label sets than the `max_sets` of the predictor, so that they are not all listed."""
        return self.size > self.icp.max_sets or not self.size_is_exact

    @cached_property
    def _listed(self) -> np.ndarray | None:
        """(n, L) bool: all label sets, lowest score first; `None` when there are more than `max_sets`."""
        if self.is_everything:
            return None
        if not self._best_is_inside:
            return self.base[None] if self.non_empty else self.base[None][:0]
        flips = sets.enumerate_flip_sets(self._costs, self._slack + self._tolerance, self.icp.max_sets)
        return None if flips is None else self._checked(flips)

    def _checked(self, flips: np.ndarray) -> np.ndarray:
        """Flip sets `(n, L)` on sorted labels -> label sets that are inside, lowest score first."""
        members = np.empty_like(flips)
        members[:, self._order] = flips
        members ^= self.base
        scores = self.scores(members)
        inside = np.flatnonzero(self.threshold.accepts(scores))
        return members[inside[np.argsort(scores[inside], kind="stable")]]

    def members(self, max_sets: int | None = None) -> np.ndarray:
        """The label sets, largest p-value first.

        Args:
            max_sets (`int`, *optional*): So many at most; by default the `max_sets` of the predictor.

        Returns:
            `np.ndarray` of shape `(n, L)`, bool.

        Raises:
            ValueError: If all 2^L label sets are inside and `max_sets` is not given, or it is negative.
        """
        if max_sets is None and self.is_everything:
            raise ValueError(
                f"All 2^{len(self.absent)} label sets are inside: {self.icp.num_calibration} calibration rows are too "
                f"few for epsilon={self.epsilon}. Pass `max_sets` to see the best ones, or calibrate on more rows."
            )
        limit = self.icp.max_sets if max_sets is None else max_sets
        if limit < 0:
            raise ValueError(f"`max_sets` must not be negative, got {max_sets}.")
        if limit > _FEW or "_listed" in self.__dict__:
            listed = self._listed
            if listed is not None:
                return listed[:limit]
        return self._best(limit)

    def _best(self, limit: int) -> np.ndarray:
        """Best first, without listing the rest."""
        if not self.is_everything and not self._best_is_inside:
            return self.base[None][: limit if self.non_empty else 0]
        end = self._slack + self._tolerance
        found: list[np.ndarray] = []
        for cost, places in sets.best_first_flip_sets(self._costs):
            if cost > end or len(found) >= limit:
                break
            row = np.zeros(len(self.base), dtype=bool)
            row[self._order[places]] = True
            found.append(row ^ self.base)
        rows = np.array(found, dtype=bool).reshape(-1, len(self.base))
        return rows[self.threshold.accepts(self.scores(rows))]

    def iter_members(self) -> Iterator[np.ndarray]:
        """All label sets `(L,)`, bool, one at a time in no order of rank, in the memory of one."""
        if self.is_everything or self._best_is_inside:
            for places in sets.iter_flip_sets(self._costs, self._slack + self._tolerance):
                row = self.base.copy()
                row[self._order[list(places)]] ^= True
                if self.threshold.accepts(self.scores(row[None]))[0]:
                    yield row
        elif self.non_empty:
            yield self.base

    def label_sets(self, max_sets: int | None = None) -> list[list[Any]]:
        """As [`LabelSetPrediction.members`], as lists of names (of label ids when the predictor has no names)."""
        return [self.named(row) for row in self.members(max_sets)]

    def ranked(self, max_sets: int | None = None) -> list[tuple[list[Any], float]]:
        """As [`LabelSetPrediction.label_sets`], each with its p-value."""
        rows = self.members(max_sets)
        values = self.icp.p_of_scores(self.scores(rows), self.tie)
        return [(self.named(row), float(value)) for row, value in zip(rows, values, strict=True)]

    def named(self, row: np.ndarray) -> list[Any]:
        """Names (or ids) of the true places of a `(L,)` row."""
        names = self.icp.names
        return [names[place] if names else int(place) for place in np.flatnonzero(row)]

    def contains(self, label_set: Sequence[Any] | np.ndarray) -> bool:
        """Whether a label set (names or ids) is inside.

        Raises:
            KeyError: For an unknown name.
            IndexError: For an id out of range.
        """
        row = self.icp.row_of(label_set)
        if self.threshold.accepts(self.scores(row[None]))[0]:
            return True
        return self.non_empty and not self._best_is_inside and bool((row == self.base).all())

    # summaries that need no list

    @cached_property
    def _fixed(self) -> np.ndarray:
        """(L,) bool: flipping this label alone leaves the set; then flipping more does too."""
        if self.is_everything:
            return np.zeros(len(self.base), dtype=bool)
        return ~self.threshold.accepts(self.scores(self.base ^ np.eye(len(self.base), dtype=bool)))

    @property
    def required(self) -> list[Any]:
        """Labels of every label set inside (of the best one, when the set is empty)."""
        return self.named(self.base & self._fixed)

    @property
    def excluded(self) -> list[Any]:
        """Labels of no label set inside."""
        return self.named(~self.base & self._fixed)

    @property
    def uncertain(self) -> list[Any]:
        """Labels of some label sets inside, but not of all."""
        return self.named(~self._fixed)

    @property
    def forced(self) -> list[Any]:
        """The best label set."""
        return self.named(self.base)

    @property
    def credibility(self) -> float:
        """Largest p-value; low for an example unlike the calibration data."""
        return float(self.icp.p_of_scores(self.scores(self.base[None]), self.tie)[0])

    @property
    def confidence(self) -> float:
        """1 - second largest p-value."""
        second = self.base.copy()
        second[self._order[0]] ^= True
        return 1 - float(self.icp.p_of_scores(self.scores(second[None]), self.tie)[0])
