"""One format for suspected label errors, whoever found them: confident learning, language-model judges, or both.

issues = LabelIssues.from_columns(dataset, "label")    # or made by a tool
issues.annotate(dataset)                               # adds `label_quality`, `is_issue`, `suggested_label`
issues.apply(dataset, "flip", "label")                 # or "filter"
combine([by_model, by_judges], how="all")              # rows that every tool flags
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_labels.labels.columns import class_names, read_column, require_columns, write_column
from hf_labels.labels.kinds import MISSING

QUALITY, FLAG, SUGGESTION, ORIGINAL = "label_quality", "is_issue", "suggested_label", "label_original"


class ClassVanishesError(ValueError):
    """A filter would remove every row of a class."""


@dataclass(frozen=True)
class LabelIssues:
    """Which labels of a data set look wrong.

    Parameters:
        given (`np.ndarray` of shape `(n,)` or `(n, K)`): Labels of the data set: class ids (-1 = missing), or 0/1 per
            label for multi-label data.
        suggested (`np.ndarray` like `given`): The label that the tool would give.
        quality (`np.ndarray` of shape `(n,)`): Low = suspicious, usually in [0, 1]; NaN = not judged.
        is_issue (`np.ndarray` of shape `(n,)`, bool): Flagged rows. A row that was not judged is never flagged.
        names (`tuple[str, ...]`, *optional*): Names of the classes.
        source (`str`, *optional*): The tool.
    """

    given: np.ndarray
    suggested: np.ndarray
    quality: np.ndarray
    is_issue: np.ndarray
    names: tuple[str, ...] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        shape = np.shape(self.given)
        if np.shape(self.suggested) != shape:
            raise ValueError(f"`suggested` has shape {np.shape(self.suggested)}, `given` has {shape}.")
        for name in ("quality", "is_issue"):
            if np.shape(getattr(self, name)) != shape[:1]:
                raise ValueError(f"`{name}` has shape {np.shape(getattr(self, name))}, expected ({shape[0]},).")
        unjudged = np.flatnonzero(self.is_issue & np.isnan(self.quality))
        if len(unjudged):
            raise ValueError(f"Row {unjudged[0]} is flagged in `is_issue`, but its `quality` is NaN (not judged).")

    def __len__(self) -> int:
        return len(self.given)

    def ranked(self) -> np.ndarray:
        """Row numbers of the flagged rows, most suspicious first; equal scores keep the order of the rows."""
        rows = np.flatnonzero(self.is_issue)
        return rows[np.argsort(self.quality[rows], kind="stable")]

    def name_of(self, label: Any) -> str:
        """A class id, or a row of 0/1, in words."""
        names = self.names
        if np.ndim(label) == 0:
            if label < 0:
                return "(missing)"
            return names[int(label)] if names else str(int(label))
        found = np.flatnonzero(np.asarray(label) > 0)
        return ", ".join(names[i] if names else str(i) for i in found) or "(none)"

    def annotate(self, dataset: Any) -> Any:
        """A copy of the data set with the columns `label_quality`, `is_issue` and `suggested_label`.

        Raises:
            ValueError: If the data set has another number of rows.
        """
        import datasets

        self._same_rows(dataset)
        out = write_column(dataset, QUALITY, self.quality.astype(np.float64), datasets.Value("float64"))
        out = write_column(out, FLAG, self.is_issue.astype(bool), datasets.Value("bool"))
        return write_column(out, SUGGESTION, self.suggested, self._feature())

    def _feature(self) -> Any:
        import datasets

        if self.suggested.ndim == 2:
            return datasets.List(datasets.Value("int64"), length=self.suggested.shape[1])
        return datasets.ClassLabel(names=list(self.names)) if self.names else datasets.Value("int64")

    def _same_rows(self, dataset: Any) -> None:
        if len(dataset) != len(self):
            raise ValueError(
                f"The data set has {len(dataset)} rows, the issues were found in {len(self)}. "
                "Use the data set that was judged, in its order."
            )

    def apply(
        self, dataset: Any, treatment: str, label_column: str = "labels", *, allow_empty_class: bool = False
    ) -> Any:
        """The data set with its flagged rows treated.

        Args:
            dataset (`datasets.Dataset`): The data set that was judged.
            treatment: `filter` drops the flagged rows (order kept), `flip` replaces their label by the suggestion.
                Both keep the label as it was in the column `label_original`.
            label_column: Column that holds the labels.
            allow_empty_class (`bool`, *optional*, defaults to `False`): Let a filter remove the last row of a class.

        Raises:
            ClassVanishesError: If a filter would remove all rows of a class.
            ValueError: For another treatment, another number of rows, or labels that are not those that were judged.
        """
        if treatment not in ("filter", "flip"):
            raise ValueError(f"`treatment` is {treatment!r}, expected 'filter' or 'flip'.")
        self._same_rows(dataset)
        require_columns(dataset, [label_column], "label_column")
        column = read_column(dataset, label_column)
        now = column.matrix() if self.given.ndim == 2 else np.where(column.null, MISSING, column.values)
        differs = (now != self.given).reshape(len(self), -1).any(1)
        if differs.any():
            row = int(differs.argmax())
            raise ValueError(
                f"Column `{label_column}` was {self.name_of(self.given[row])} at row {row} when it was judged and is "
                "something else now. Judge the data set again."
            )
        out = write_column(dataset, ORIGINAL, self.given, dataset.features[label_column])
        if treatment == "flip":
            pick = self.is_issue if self.given.ndim == 1 else self.is_issue[:, None]
            fixed = np.where(pick, self.suggested, self.given)
            return write_column(out, label_column, fixed.astype(self.given.dtype), dataset.features[label_column])
        if not allow_empty_class:
            self._keep_classes()
        return out.select(np.flatnonzero(~self.is_issue))

    def _keep_classes(self) -> None:
        kept = self.given[~self.is_issue]
        if self.given.ndim == 2:
            lost = np.flatnonzero((self.given > 0).any(0) & ~(kept > 0).any(0))
        else:
            lost = np.setdiff1d(self.given[self.given != MISSING], kept)
        if len(lost):
            label = self.names[lost[0]] if self.names else str(lost[0])
            raise ClassVanishesError(
                f"All rows of class {label} are flagged; a filter would remove the class. Flip instead, flag fewer "
                "rows, or pass `allow_empty_class=True`."
            )

    @classmethod
    def from_columns(cls, dataset: Any, label_column: str = "labels", *, source: str = "") -> "LabelIssues":
        """Read back what `annotate` wrote.

        Raises:
            KeyError: If a column is missing.
        """
        require_columns(dataset, [label_column, QUALITY, FLAG, SUGGESTION])
        given, suggested = (read_column(dataset, name) for name in (label_column, SUGGESTION))
        plural = given.lengths is not None
        quality = read_column(dataset, QUALITY)
        return cls(
            (given.matrix() if plural else np.where(given.null, MISSING, given.values)).astype(np.int64),
            (suggested.matrix() if plural else suggested.values).astype(np.int64),
            np.where(quality.null, np.nan, quality.values).astype(np.float64),
            read_column(dataset, FLAG).values.astype(bool),
            class_names(dataset, label_column) or class_names(dataset, SUGGESTION),
            source,
        )


def combine(issues: Sequence[LabelIssues], how: str = "any") -> LabelIssues:
    """One verdict of several tools on the same rows.

    The scores of tools have different scales, so each is replaced by its rank among the rows that the tool judged
    (0 = most suspicious, 1 = least) before the ranks are averaged. The suggestion of a row comes from the tool that
    finds it most suspicious, among those that flag it.

    Args:
        issues (`Sequence[LabelIssues]`): At least one, all for the same labels.
        how (`str`, *optional*, defaults to `"any"`): `any`: flagged by one tool. `all`: by every tool that judged the
            row. `majority`: by more than half of them.

    Raises:
        ValueError: For no issues, different labels, or another `how`.
    """
    if not issues:
        raise ValueError("`issues` is empty; pass what at least one tool found.")
    if how not in ("any", "all", "majority"):
        raise ValueError(f"`how` is {how!r}, expected 'any', 'all' or 'majority'.")
    first = issues[0]
    for number, other in enumerate(issues):
        if other.given.shape != first.given.shape or (other.given != first.given).any():
            raise ValueError(
                f"`issues[{number}]` is about other labels than `issues[0]`. Judge one data set with both."
            )
    ranks = np.stack([_ranks(each.quality) for each in issues])
    flags = np.stack([each.is_issue for each in issues])
    judged = ~np.isnan(ranks)
    votes, total = flags.sum(0), judged.sum(0)
    flagged = {"any": votes > 0, "all": (votes == total) & (votes > 0), "majority": votes * 2 > total}[how]
    order = np.where(judged, ranks, 2.0) + np.where(flags, 0.0, 4.0)
    best = order.argmin(0)
    rows = np.arange(len(first))
    with np.errstate(invalid="ignore"):
        quality = np.where(judged, ranks, 0).sum(0) / np.where(total > 0, total, np.nan)
    suggested = np.stack([each.suggested for each in issues])[best, rows]
    source = " + ".join(each.source for each in issues if each.source)
    return LabelIssues(first.given, suggested, quality, flagged, first.names, source)


def _ranks(quality: np.ndarray) -> np.ndarray:
    """Mean ranks in [0, 1]; NaN stays NaN."""
    from scipy.stats import rankdata

    out = np.full(len(quality), np.nan)
    judged = ~np.isnan(quality)
    if judged.any():
        out[judged] = (rankdata(quality[judged]) - 1) / max(int(judged.sum()) - 1, 1)
    return out
