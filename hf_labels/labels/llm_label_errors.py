"""What an ensemble of judges says about the labels of a data set: flags, treatments, worklists, error rates.

    report = LabelErrorReport(probs, labels, names=("spam", "ham"))     # probs (M, T, n, C) of M judges with T prompts
    report.flagged(0.8), report.worklist(100), report.error_rate(experts)
    clean = report.apply(dataset, "flip", threshold=0.8, label_column="label")

Source: Nahum et al., EMNLP 2025, arXiv:2410.18889 (sections 3 and 5); no code is published.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hf_labels.labels.issues import LabelIssues
from hf_labels.labels.kinds import MISSING
from hf_labels.metrics.functional.intervals import clopper_pearson, hypergeometric_interval, label_issue_detection

logger = logging.getLogger(__name__)


def check_judgements(probs: Any, renormalize: bool = False) -> np.ndarray:
    """Probabilities `(M, T, n, C)` as float64; a row of NaN was not answered.

    Args:
        probs (array of shape `(M, T, n, C)`, `(M, n, C)` or `(n, C)`): Of M judges with T prompts.
        renormalize (`bool`, *optional*, defaults to `False`): Divide rows by their sum instead of refusing them.

    Raises:
        ValueError: For another shape, negative numbers, or rows that do not sum to 1 within 1e-3; names judge, prompt
            and row.
    """
    table = np.asarray(probs, dtype=np.float64)
    while 2 <= table.ndim < 4:
        table = table[None] if table.ndim == 2 else table[:, None]
    if table.ndim != 4 or table.shape[3] < 2 or not table.shape[0] * table.shape[1]:
        raise ValueError(f"`probs` must be (judges, prompts, items, classes >= 2), got {np.shape(probs)}.")
    silent = np.asarray(np.isnan(table).all(-1))
    sums = table.sum(-1)
    with np.errstate(invalid="ignore"):
        wrong = ~silent & ((table < 0).any(-1) | np.isnan(table).any(-1) | (sums <= 0))
        if not renormalize:
            wrong |= ~silent & ~(abs(sums - 1) <= 1e-3)
    if wrong.any():
        judge, prompt, row = np.argwhere(wrong)[0]
        raise ValueError(
            f"`probs` of judge {judge}, prompt {prompt} are no probabilities at row {row}: "
            f"{table[judge, prompt, row].round(4).tolist()}. `renormalize=True` divides scores by their sum."
        )
    return (
        np.where(silent[..., None], np.nan, table / np.where(silent, 1.0, sums)[..., None]) if renormalize else table
    )


def ensemble(probs: np.ndarray) -> np.ndarray:
    """Mean over the prompts of each judge, then over the judges: `(M, T, n, C)` -> `(n, C)`.

    Answers that are missing (NaN) are passed over; a row that nobody judged is NaN.
    """
    return _mean(_mean(probs, 1), 0)


def _mean(table: np.ndarray, axis: int) -> np.ndarray:
    known = ~np.isnan(table)
    count = known.sum(axis)
    total = np.where(known, table, 0.0).sum(axis)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


@dataclass(eq=False)
class LabelErrorReport:
    """Judgements next to the labels that they are about.

    Parameters:
        probs (`np.ndarray` of shape `(M, T, n, C)`): Of M judges with T prompts; NaN rows were not answered.
        original (`np.ndarray` of shape `(n,)`): Class ids, -1 = missing (-100 and None count as missing too).
        names (`tuple[str, ...]`, *optional*): Names of the C classes.
        judges, prompts (sequences of `str`, *optional*): Who, and how they were asked; for the record.
        ordinal (`bool`, *optional*, defaults to `False`): Classes are grades: a label is disputed if the mean grade of
            the ensemble is at least `delta` away from it.
        delta (`float`, *optional*, defaults to `1.0`): For `ordinal`.

    Raises:
        ValueError: As [`check_judgements`]; for labels of another number of rows, or outside the C classes.
    """

    probs: np.ndarray
    original: np.ndarray
    names: tuple[str, ...] | None = None
    judges: Sequence[str] = ()
    prompts: Sequence[str] = ()
    ordinal: bool = False
    delta: float = 1.0
    q: np.ndarray = field(init=False)
    """(n, C): the ensemble; NaN where nobody answered."""

    def __post_init__(self) -> None:
        self.probs = check_judgements(self.probs)
        classes = self.probs.shape[3]
        labels = np.asarray([MISSING if value is None else value for value in np.asarray(self.original, object)])
        labels = np.where(labels.astype(np.int64) == -100, MISSING, labels.astype(np.int64))
        if labels.shape != (self.probs.shape[2],):
            raise ValueError(f"There are labels of {labels.shape} rows and judgements of {self.probs.shape[2]}.")
        wrong = np.flatnonzero((labels < MISSING) | (labels >= classes))
        if len(wrong):
            raise ValueError(f"The label of row {wrong[0]} is {labels[wrong[0]]}, expected 0 to {classes - 1} or -1.")
        if self.names is not None and len(self.names) != classes:
            raise ValueError(f"There are {len(self.names)} names for {classes} classes.")
        self.original = labels
        self.q = ensemble(self.probs)
        if self.probs.shape[0] == 1:
            logger.warning("There is one judge only; the confidence of an ensemble of several is better founded.")

    def __len__(self) -> int:
        return len(self.original)

    # What the judges say

    @property
    def judged(self) -> np.ndarray:
        """(n,) bool: at least one judge answered."""
        return ~np.isnan(self.q).any(1)

    @property
    def predicted(self) -> np.ndarray:
        """(n,): class of the ensemble, the lowest id on ties; -1 where nobody answered."""
        best = np.where(np.isnan(self.q), -1.0, self.q).argmax(1)
        return np.where(self.judged, best, MISSING)

    @property
    def confidence(self) -> np.ndarray:
        """(n,): largest probability of the ensemble; NaN where nobody answered."""
        return np.where(self.judged, np.where(np.isnan(self.q), 0.0, self.q).max(1), np.nan)

    @property
    def votes(self) -> np.ndarray:
        """(n, M * T): class of each judge and prompt; -1 where it did not answer."""
        flat = self.probs.reshape(-1, *self.probs.shape[2:])
        best = np.where(np.isnan(flat), -1.0, flat).argmax(-1)
        return np.where(np.isnan(flat).any(-1), MISSING, best).T

    @property
    def disputed(self) -> np.ndarray:
        """(n,) bool: the ensemble disagrees with the label. Rows without label or judgement are not disputed."""
        known = self.judged & (self.original != MISSING)
        if not self.ordinal:
            return known & (self.predicted != self.original)
        grade = np.where(np.isnan(self.q), 0.0, self.q) @ np.arange(self.q.shape[1])
        return known & (abs(grade - self.original) >= self.delta)

    def flagged(self, threshold: float) -> np.ndarray:
        """(n,) bool: disputed with a confidence of at least `threshold`. Above 1 nothing is flagged.

        Raises:
            ValueError: For a threshold below 1 / C.
        """
        if not threshold >= 1 / self.q.shape[1] - 1e-12:
            raise ValueError(f"`threshold` is {threshold}; a confidence is never below 1 / {self.q.shape[1]} classes.")
        return self.disputed & (np.nan_to_num(self.confidence) >= threshold)

    def issues(self, threshold: float) -> LabelIssues:
        """The flags in the format of all label tools; `label_quality` is the margin of the label, in [0, 1]."""
        rows, safe = np.arange(len(self)), np.where(self.original == MISSING, 0, self.original)
        q = np.where(np.isnan(self.q), 0.0, self.q)
        own, others = q[rows, safe], q.copy()
        others[rows, safe] = -1.0
        quality = np.where(self.judged & (self.original != MISSING), (own - others.max(1) + 1) / 2, np.nan)
        suggested = np.where(self.judged, self.predicted, self.original)
        return LabelIssues(self.original, suggested, quality, self.flagged(threshold), self.names, "llm_label_errors")

    # What to do about it

    def worklist(self, size: int | None = None) -> np.ndarray:
        """Row numbers for experts: the disputed rows, most confident first, whatever the confidence.

        Show the experts neither the original label nor the judges'.
        """
        rows = np.flatnonzero(self.disputed)
        order = np.argsort(-self.confidence[rows], kind="stable")
        return rows[order][:size]

    def apply(
        self, dataset: Any, treatment: str, threshold: float = 0.8, label_column: str = "labels", **options: Any
    ) -> Any:
        """Filter or flip the flagged rows; arguments and errors as in [`LabelIssues.apply`]."""
        return self.issues(threshold).apply(dataset, treatment, label_column, **options)

    def random_control(self, threshold: float, seed: int, treatment: str = "filter") -> LabelIssues:
        """As many rows, chosen at random among those that could be treated: the control of the same size.

        For `filter` all labelled rows, for `flip` the disputed ones take the judges' label, as in the paper's figure
        the others would not change.
        """
        real = self.issues(threshold)
        pool = np.flatnonzero((self.original != MISSING) & self.judged)
        rng = np.random.default_rng([seed, 0xE44])
        chosen = np.zeros(len(self), dtype=bool)
        chosen[rng.choice(pool, size=int(real.is_issue.sum()), replace=False)] = True
        if treatment not in ("filter", "flip"):
            raise ValueError(f"`treatment` is {treatment!r}, expected 'filter' or 'flip'.")
        return LabelIssues(self.original, real.suggested, real.quality, chosen, self.names, "random control")

    # What experts say about it

    def gold(self, experts: Any) -> np.ndarray:
        """Labels after re-annotation: the experts' where the label was disputed, else the original. -1 stays missing.

        Args:
            experts (array of shape `(n,)`, or mapping row -> class id): Needed for the disputed rows only; -1 = none.

        Raises:
            ValueError: If a disputed row has no expert label; names the rows.
        """
        if isinstance(experts, dict):
            table = np.full(len(self), MISSING, dtype=np.int64)
            for row, label in experts.items():
                table[int(row)] = int(label)
        else:
            table = np.asarray(experts, dtype=np.int64)
        if table.shape != (len(self),):
            raise ValueError(
                f"`experts` must have one label for each of {len(self)} rows (-1 = none), got {table.shape}."
            )
        absent = np.flatnonzero(self.disputed & (table < 0))
        if len(absent):
            shown = ", ".join(map(str, absent[:10])) + (", ..." if len(absent) > 10 else "")
            raise ValueError(
                f"{len(absent)} disputed rows have no expert label: {shown}. Label them, or judge fewer rows."
            )
        return np.where(self.disputed, table, self.original)

    def error_rate(self, experts: Any, population_size: int | None = None, alpha: float = 0.05) -> dict[str, Any]:
        """Share of wrong labels with an exact interval.

        Errors on which the judges agree with the label are not seen: the rate is a lower bound.

        Args:
            experts: As in [`gold`].
            population_size (`int`, *optional*): Size of the data set of which these rows are a sample; the interval is
                then that of a finite population. Without it that of Clopper and Pearson.
            alpha (`float`, *optional*, defaults to 0.05): 1 - coverage.

        Returns:
            `dict`: `error_rate`, `low`, `high`, `errors`, `items`, `left_out` (row numbers without a label).
        """
        gold, known = self.gold(experts), self.original != MISSING
        if not known.any():
            raise ValueError("No row has a label: there is no error rate.")
        errors, items = int((gold != self.original)[known].sum()), int(known.sum())
        if population_size is None:
            low, high = clopper_pearson(errors, items, alpha)
        else:
            low, high = hypergeometric_interval(errors, items, population_size, alpha)
        rest = np.flatnonzero(~known).tolist()
        return {
            "error_rate": errors / items,
            "low": low,
            "high": high,
            "errors": errors,
            "items": items,
            "left_out": rest,
        }

    def detection(self, experts: Any, threshold: float) -> dict[str, float]:
        """Precision, recall and F1 of the flags against the labels that the experts changed."""
        known = self.original != MISSING
        return label_issue_detection(self.flagged(threshold)[known], (self.gold(experts) != self.original)[known])

    def precision_by_confidence(
        self, experts: Any, bins: int = 10, draws: int = 1000, seed: int = 0
    ) -> list[dict[str, float]]:
        """How often the ensemble is right on disputed rows, in bins of equal size by rising confidence.

        Args:
            experts: As in [`gold`].
            bins (`int`, *optional*, defaults to 10): Fewer where there are fewer disputed rows.
            draws (`int`, *optional*, defaults to 1000), seed (`int`, *optional*): Of the bootstrap.

        Returns:
            `list[dict]`: `n`, `mean_conf`, `llm_precision`, `original_precision`, and the percentile interval `low`,
            `high` of `llm_precision` at 95 %.
        """
        gold, rows = self.gold(experts), self.worklist()[::-1]
        order = np.lexsort((rows, self.confidence[rows]))
        rng, out = np.random.default_rng(seed), []
        for part in np.array_split(rows[order], max(min(bins, len(rows)), 1)):
            if not len(part):
                continue
            right = (self.predicted == gold)[part].astype(np.float64)
            means = np.concatenate(
                [
                    right[rng.integers(len(part), size=(min(256, draws - at), len(part)))].mean(1)
                    for at in range(0, draws, 256)
                ]
            )
            low, high = np.quantile(means, [0.025, 0.975])
            out.append(
                {
                    "n": len(part),
                    "mean_conf": float(self.confidence[part].mean()),
                    "llm_precision": float(right.mean()),
                    "original_precision": float((self.original == gold)[part].mean()),
                    "low": float(low),
                    "high": float(high),
                }
            )
        return out

    def ensemble_sizes(self, experts: Any, threshold: float, draws: int = 20, seed: int = 0) -> list[dict[str, float]]:
        """Detection by random subsets of the judges, for every size: mean `f1` and `auroc` of the disputed confidence.

        Returns:
            `list[dict]`: `size`, `f1`, `auroc` (of 1 - q[label] against "the label is wrong"; NaN where none is).
        """
        from sklearn.metrics import roc_auc_score

        wrong = self.gold(experts) != self.original
        known = self.original != MISSING
        flat = self.probs.reshape(-1, 1, *self.probs.shape[2:])
        rng, out = np.random.default_rng(seed), []
        for size in range(1, len(flat) + 1):
            found: dict[str, list[float]] = {"f1": [], "auroc": []}
            for _ in range(draws if size < len(flat) else 1):
                q = ensemble(flat[rng.choice(len(flat), size=size, replace=False)])
                usable = known & ~np.isnan(q).any(1)
                part, truth = q[usable], wrong[usable]
                labels = self.original[usable]
                flags = (part.argmax(1) != labels) & (part.max(1) >= threshold)
                found["f1"].append(label_issue_detection(flags, truth)["f1"])
                if 0 < truth.sum() < len(truth):
                    found["auroc"].append(float(roc_auc_score(truth, 1 - part[np.arange(len(part)), labels])))
            means = {name: float(np.mean(values)) if values else float("nan") for name, values in found.items()}
            out.append({"size": size, **means})
        return out
