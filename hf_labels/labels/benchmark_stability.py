"""Would a ranking of models change if the errors of the test set were corrected?

Source: Northcutt, Athalye and Mueller, NeurIPS 2021, arXiv:2103.14749 (sections 4 and 5). The expected accuracy at a
given share of errors is linear in that share, so nothing is simulated.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_labels.metrics.functional.corrected import UNKNOWN, corrected_benchmark, crossing_prevalence
from hf_labels.metrics.functional.intervals import rank_shift

CATEGORIES = ("no error", "correctable", "multi-label", "neither", "non-agreement")


@dataclass(frozen=True)
class CheckedTestSet:
    """A test set of which people looked at some labels.

    Parameters:
        labels (`np.ndarray` of shape `(N,)`): As published.
        rows (`np.ndarray` of shape `(M,)`): Rows that were shown.
        guessed (`np.ndarray` of shape `(M,)`): The other label that was proposed.
        votes (`np.ndarray` of shape `(M, 4)`): Raters who chose the given label, the guessed one, neither, both.
        threshold (`int`, *optional*, defaults to 3): Votes that decide.
    """

    labels: np.ndarray
    rows: np.ndarray
    guessed: np.ndarray
    votes: np.ndarray
    threshold: int = 3

    def __post_init__(self) -> None:
        shown = len(self.rows)
        if np.shape(self.guessed) != (shown,) or np.shape(self.votes) != (shown, 4):
            raise ValueError(
                f"`rows` has {shown} entries; `guessed` must be ({shown},) and `votes` ({shown}, 4), got "
                f"{np.shape(self.guessed)} and {np.shape(self.votes)}."
            )
        outside = np.flatnonzero((np.asarray(self.rows) < 0) | (np.asarray(self.rows) >= len(self.labels)))
        if len(outside):
            raise ValueError(f"`rows[{outside[0]}]` is {self.rows[outside[0]]}; there are {len(self.labels)} labels.")
        if len(np.unique(self.rows)) != shown:
            raise ValueError("`rows` names a row twice; join its votes.")

    @classmethod
    def from_records(
        cls, labels: Any, records: Sequence[Mapping[str, Any]], label_ids: Mapping[str, int] | None = None
    ) -> "CheckedTestSet":
        """From the published format: `id`, `our_guessed_label`, `mturk` with `given`, `guessed`, `neither`, `both`.

        Where a kind of vote was not offered, such as `both` for digits, it counts as 0.

        Args:
            labels (array of shape `(N,)`): As published.
            records (sequence of mappings): One per row that was shown.
            label_ids (mapping, *optional*): Name of a label -> its id, when the records hold names.
        """
        names = ("given", "guessed", "neither", "both")
        ids = label_ids or {}
        return cls(
            np.asarray(labels).astype(np.int64),
            np.array([int(record["id"]) for record in records], dtype=np.int64),
            np.array([int(ids.get(g, g)) for g in (r["our_guessed_label"] for r in records)], dtype=np.int64),
            np.array([[int(r["mturk"].get(name, 0)) for name in names] for r in records], dtype=np.int64).reshape(
                -1, 4
            ),
        )

    @property
    def categories(self) -> np.ndarray:
        """What the raters found, of [`CATEGORIES`], `(M,)`."""
        given, guessed, neither, both = self.votes.T >= self.threshold
        return np.select([given, guessed, both, neither], CATEGORIES[:4], CATEGORIES[4])

    @property
    def errors(self) -> np.ndarray:
        """Rows of the test set whose label is wrong."""
        return self.rows[self.categories != "no error"]

    @property
    def corrected(self) -> np.ndarray:
        """Labels after the correction, `(N,)`; -1 where the true label is not known."""
        out = self.labels.copy()
        out[self.errors] = UNKNOWN
        fixed = self.categories == "correctable"
        out[self.rows[fixed]] = self.guessed[fixed]
        return out

    def count(self) -> dict[str, int]:
        """Rows per category."""
        found = self.categories
        return {name: int((found == name).sum()) for name in CATEGORIES}


def benchmark_stability(
    predictions: Mapping[str, Any], test_set: CheckedTestSet, *, draws: int = 1000, alpha: float = 0.05, seed: int = 0
) -> dict[str, Any]:
    """Scores and ranks of models by the published and by the corrected labels.

    Args:
        predictions (`Mapping[str, array]`): Model -> class ids `(N,)` or scores `(N, K)`.
        test_set ([`CheckedTestSet`]): The labels and what people said.
        draws (`int`, *optional*, defaults to 1000): Resamplings of the rows for the intervals.
        alpha (`float`, *optional*, defaults to 0.05): 1 - coverage.
        seed (`int`, *optional*, defaults to 0).

    Returns:
        `dict`: `models` (name -> scores of [`corrected_benchmark`], ranks, `original_interval`, `corrected_interval`),
        `kendall_tau` of the two rankings, `crossings` (`models`, `prevalence` at which the pair changes places),
        `noise_prevalence`.

    Raises:
        ValueError: For no model, or predictions of another length.
    """
    if not predictions:
        raise ValueError("`predictions` is empty; pass at least one model.")
    fixed = test_set.corrected
    guesses = {name: _ids(values, len(fixed), name) for name, values in predictions.items()}
    scores = {name: corrected_benchmark(guess, test_set.labels, fixed) for name, guess in guesses.items()}
    shift = rank_shift(
        {name: found["original_accuracy"] for name, found in scores.items()},
        {name: found["corrected_accuracy"] for name, found in scores.items()},
    )
    right = np.stack([guess == test_set.labels for guess in guesses.values()])
    known = fixed != UNKNOWN
    right_fixed = np.stack([(guess == fixed) & known for guess in guesses.values()])
    intervals = _intervals(right, right_fixed, known, draws, alpha, seed)
    models = {}
    for (name, found), original, corrected in zip(scores.items(), *intervals, strict=True):
        ranks = {key: value for key, value in shift["models"][name].items() if key.startswith("rank")}
        models[name] = found | ranks | {"original_interval": original, "corrected_interval": corrected}
    crossings = []
    for one, other in itertools.combinations(scores, 2):
        point = crossing_prevalence(scores[one], scores[other])
        if point is not None:
            crossings.append({"models": (one, other), "prevalence": point})
    return {
        "models": models,
        "kendall_tau": shift["kendall_tau"],
        "crossings": sorted(crossings, key=lambda entry: entry["prevalence"]),
        "noise_prevalence": next(iter(scores.values()))["noise_prevalence"],
    }


def _ids(values: Any, rows: int, name: str) -> np.ndarray:
    found = np.asarray(values)
    found = found.argmax(1) if found.ndim == 2 else found
    if found.shape != (rows,):
        raise ValueError(f"Model {name!r} predicts {found.shape}, the test set has {rows} rows.")
    return found


def _intervals(
    right: np.ndarray, right_fixed: np.ndarray, known: np.ndarray, draws: int, alpha: float, seed: int
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Percentile intervals over resampled rows, per model."""
    rng, rows = np.random.default_rng(seed), right.shape[1]
    table = np.concatenate([right, right_fixed, known[None]]).astype(np.float64)
    sums = np.stack([table @ np.bincount(rng.integers(rows, size=rows), minlength=rows) for _ in range(draws)], 1)
    models = len(right)
    edges = [alpha / 2, 1 - alpha / 2]
    original = np.quantile(sums[:models] / rows, edges, axis=1).T
    corrected = np.quantile(sums[models:-1] / np.maximum(sums[-1], 1), edges, axis=1).T
    return [(float(a), float(b)) for a, b in original], [(float(a), float(b)) for a, b in corrected]
