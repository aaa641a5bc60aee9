"""Measured numbers on a card: one `ResultRow` per number, as a table for readers and as `EvalResult` for the Hub."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_labels.hub_cards.escape import Markdown, code, prose

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_LOWER = frozenset(
    {"ece", "mce", "aece", "classwise_ece", "oe", "ue", "nll", "brier", "perplexity", "wer", "cer", "mse", "mae"}
)
_HIGHER = frozenset({"accuracy", "auc", "auroc", "auprc", "map", "mrr", "ndcg", "kappa"})


@dataclass(frozen=True)
class ResultRow:
    """One measured number.

    Parameters:
        dataset (`str`): Name or Hub id of the data that it was measured on.
        split (`str`): Split of that data, for example `"test"`.
        metric (`str`): Name such as `"accuracy"`; a prefix `eval_` or `test_` is dropped. A loss stays a loss.
        value (`float`): The number; with several seeds their mean.
        baseline (`str`, *optional*): What it is compared with, measured on the same data.
        baseline_value (`float`, *optional*): The number of the baseline. Goes with `baseline`.
        seeds (`int` or sequence of `int`, *optional*): Number of runs, or the seeds themselves.
        stderr (`float`, *optional*): Standard error of `value` over the seeds.

    Raises:
        TypeError: If a number is not a number.
        ValueError: If a name is empty, `baseline` and `baseline_value` do not come together, or `seeds` or `stderr`
            cannot be.
    """

    dataset: str
    split: str
    metric: str
    value: float
    baseline: str | None = None
    baseline_value: float | None = None
    seeds: int | Sequence[int] | None = None
    stderr: float | None = None

    def __post_init__(self) -> None:
        for name in ("dataset", "metric"):
            if not str(getattr(self, name)).strip():
                raise ValueError(f"`{name}` of a ResultRow must not be empty.")
        for name in ("dataset", "split", "metric"):
            object.__setattr__(self, name, str(getattr(self, name)))
        as_python = getattr(self.seeds, "tolist", None)  # numpy
        if as_python is not None:
            object.__setattr__(self, "seeds", as_python())
        if (self.baseline is None) != (self.baseline_value is None):
            raise ValueError("`baseline` and `baseline_value` go together: give both or neither.")
        for name in ("value", "baseline_value", "stderr"):
            number = getattr(self, name)
            if number is not None:
                object.__setattr__(self, name, _number(name, number))
        if self.stderr is not None and not self.stderr >= 0:
            raise ValueError(f"`stderr` must be 0 or more, got {self.stderr}.")
        if self.seeds is not None and self.num_seeds < 1:
            raise ValueError(f"`seeds` must be a number of runs of at least 1, or the seeds; got {self.seeds!r}.")

    @property
    def num_seeds(self) -> int:
        """Number of runs behind `value`; 0 when it was not said."""
        if self.seeds is None:
            return 0
        return len(self.seeds) if isinstance(self.seeds, Sequence) else operator.index(self.seeds)

    @property
    def metric_id(self) -> str:
        """The metric without the prefix that `Trainer` puts in front."""
        for prefix in ("eval_", "test_"):
            if self.metric.startswith(prefix) and len(self.metric) > len(prefix):
                return self.metric.removeprefix(prefix)
        return self.metric


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise TypeError(f"`{name}` of a ResultRow must be a number, got {value!r}.")
    return float(value)


def direction(metric: str) -> str:
    """`"lower is better"`, `"higher is better"`, or `""` when the name does not tell."""
    name = metric.lower()
    if name in _LOWER or name.endswith(("loss", "error", "nll", "ece")):
        return "lower is better"
    if name in _HIGHER or name.endswith(("accuracy", "f1", "precision", "recall", "map")):
        return "higher is better"
    return ""


def number(value: float | None) -> Markdown:
    """Four significant digits, without exponent where that is readable; a dash for `None`."""
    if value is None:
        return Markdown("-")
    if not math.isfinite(value):
        return Markdown({math.inf: "infinite", -math.inf: "minus infinite"}.get(value, "not a number"))
    return Markdown(f"{value:.0f}" if abs(value) >= 1e4 and abs(value) < 1e9 else f"{value:.4g}")


def _run_text(row: ResultRow) -> str:
    runs = {0: "not stated", 1: "1"}.get(row.num_seeds, str(row.num_seeds))
    if isinstance(row.seeds, Sequence) and 1 < len(row.seeds) <= 10:
        runs += f" ({', '.join(str(int(seed)) for seed in row.seeds)})"
    return runs


def table_rows(rows: Sequence[ResultRow]) -> list[list[Markdown]]:
    """Cells of the results table: data, split, metric, value, standard error, seeds, baseline, its value."""
    table = []
    for row in rows:
        better = direction(row.metric_id)
        metric = Markdown(f"{code(row.metric_id)} ({better})" if better else code(row.metric_id))
        table.append(
            [
                code(row.dataset),
                code(row.split) if row.split else Markdown("-"),
                metric,
                number(row.value),
                number(row.stderr),
                Markdown(_run_text(row)),
                prose(row.baseline) if row.baseline is not None else Markdown("-"),
                number(row.baseline_value),
            ]
        )
    return table


def eval_results(rows: Sequence[ResultRow], task: str) -> "list[EvalResult]":
    """The rows for the `model-index` of the Hub, each number once (a row per baseline repeats it).

    A number that is not finite has no place there and is left out.
    """
    from huggingface_hub import EvalResult

    found, seen = [], set()
    for row in rows:
        key = (row.dataset, row.split, row.metric_id, row.value, row.num_seeds)
        if not math.isfinite(row.value) or key in seen:
            continue
        seen.add(key)
        name = row.metric_id
        if row.num_seeds > 1:
            name += f", mean of {row.num_seeds} seeds"
            if row.stderr is not None:
                name += f" (standard error {number(row.stderr)})"
        found.append(
            EvalResult(
                task_type=task,
                dataset_type=row.dataset,
                dataset_name=row.dataset,
                dataset_split=row.split or None,
                metric_type=row.metric_id,
                metric_name=name,
                metric_value=row.value,
            )
        )
    return found
