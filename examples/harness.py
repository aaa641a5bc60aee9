"""What every experiment shares: seeds, pairing, dev-only tuning, the result file, a table, a plot and `RESULTS.md`.

    record = Experiment("crosstune", datasets=["BBC news"])
    record.add("CrossTune", "bbc, K=2", "accuracy", values, seeds)
    record.compare("CrossTune", "logistic regression", "bbc, K=2", "accuracy")
    record.write()

`python examples/harness.py` renders `RESULTS.md` from every file in `results/`.
"""

import datetime
import importlib.metadata
import itertools
import json
import math
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PACKAGES = ("torch", "transformers", "datasets", "scikit-learn", "numpy", "sentence-transformers")


class Experiment:
    """Measured numbers of one method, and where they come from.

    Parameters:
        method (`str`): Slug.
        datasets (`Sequence[str]`): What it was measured on.
        notes (`Sequence[str]`, *optional*): What a reader must know to judge the numbers.
    """

    def __init__(self, method: str, datasets: Sequence[str], notes: Sequence[str] = ()):
        self.method, self.datasets, self.notes = method, list(datasets), list(notes)
        self.rows: list[dict[str, Any]] = []
        self.paired: list[dict[str, Any]] = []
        self._start = time.perf_counter()

    def add(
        self,
        name: str,
        setting: str,
        metric: str,
        values: Sequence[float],
        seeds: Sequence[int],
        kind: str = "method",
    ) -> dict[str, Any]:
        """Add one row: a method under one setting over all seeds.

        Args:
            name (`str`): Method, baseline, ablation or control.
            setting (`str`): For example `"bbc, K=4"`.
            metric (`str`): For example `"accuracy"`.
            values (`Sequence[float]`): One number per seed, in the order of `seeds`.
            seeds (`Sequence[int]`): At least one.
            kind (`str`, *optional*): `"method"`, `"baseline"`, `"ablation"` or `"control"`.

        Raises:
            ValueError: Lengths differ, a number is not finite, or the row is there already.
        """
        if len(values) != len(seeds) or not values:
            raise ValueError(f"{name}, {setting}: {len(values)} values for {len(seeds)} seeds.")
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"{name}, {setting}: a value is not finite: {values}.")
        if self._find(name, setting, metric) is not None:
            raise ValueError(f"{name}, {setting}, {metric} was added before.")
        row = {"name": name, "kind": kind, "setting": setting, "metric": metric, **summary(values)}
        row |= {"seed_list": list(seeds), "values": [float(value) for value in values]}
        self.rows.append(row)
        return row

    def compare(self, a: str, b: str, setting: str, metric: str, higher_is_better: bool = True) -> dict[str, Any]:
        """Add the paired difference `a - b` over the seeds that both rows share; `wins` counts where `a` is better.

        Raises:
            KeyError: If one of the rows is not there.
            ValueError: If their seeds differ.
        """
        one, two = self._find(a, setting, metric), self._find(b, setting, metric)
        if one is None or two is None:
            raise KeyError(f"No row {a if one is None else b!r} in setting {setting!r}.")
        if one["seed_list"] != two["seed_list"]:
            raise ValueError(f"{a} and {b} ({setting}) were not run on the same seeds: pairs mean nothing.")
        pair = {"setting": setting, "a": a, "b": b, "metric": metric, "higher_is_better": higher_is_better}
        pair |= pair_test(one["values"], two["values"], higher_is_better)
        self.paired.append(pair)
        return pair

    def _find(self, name: str, setting: str, metric: str) -> dict[str, Any] | None:
        key = (name, setting, metric)
        return next((row for row in self.rows if (row["name"], row["setting"], row["metric"]) == key), None)

    def to_dict(self, **extra: Any) -> dict[str, Any]:
        """Everything, with command line, versions, hardware, wall time and date."""
        return {
            "method": self.method,
            "datasets": self.datasets,
            "rows": self.rows,
            "paired": self.paired,
            "notes": self.notes,
            "command": command_line(),
            "versions": versions(),
            "hardware": hardware(),
            "wall_time_s": round(time.perf_counter() - self._start, 1),
            "date": datetime.date.today().isoformat(),
            **extra,
        }

    def write(self, path: str | Path | None = None, **extra: Any) -> Path:
        """Write `results/<method>.json` (or `path`), whole or not at all."""
        path = Path(path) if path is not None else RESULTS / f"{self.method}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(self.to_dict(**extra), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)
        return path


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation, standard error of the mean, and number of seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        "mean": sum(values) / len(values),
        "std": deviation,
        "stderr": deviation / math.sqrt(len(values)),
        "seeds": len(values),
    }


def pair_test(a: Sequence[float], b: Sequence[float], higher_is_better: bool = True) -> dict[str, Any]:
    """Paired comparison: `mean_difference` (a - b), `stderr`, `wins` (a is better), `ties`, `n`, two-sided `p_t`
    (paired t test) and `p_sign` (sign test without ties). A p value is `None` when it is not defined: one pair, or no
    spread.

    Raises:
        ValueError: If the lengths differ or there is no pair.
    """
    from scipy import stats

    if len(a) != len(b) or not len(a):
        raise ValueError(f"Pairs need equal lengths of at least 1, got {len(a)} and {len(b)}.")
    differences = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    found = summary(differences)
    wins, losses = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    if not higher_is_better:
        wins, losses = losses, wins
    p_t = float(stats.ttest_1samp(differences, 0).pvalue) if len(a) > 1 and found["std"] > 0 else None
    p_sign = float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else None
    return {
        "mean_difference": found["mean"],
        "stderr": found["stderr"],
        "wins": wins,
        "ties": len(differences) - wins - losses,
        "n": len(differences),
        "p_t": p_t,
        "p_sign": p_sign,
    }


def few_shot_split(labels: Sequence[int], shots: int, dev_shots: int, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers of `shots` training and `dev_shots` dev rows per class, drawn without overlap.

    A class with fewer rows gives half of them (rounded up) to training, at most `shots`, and the rest, at most
    `dev_shots`, to dev. The same seed with fewer shots gives a subset, so that curves over `shots` are nested.
    """
    import numpy as np

    array, train, dev = np.asarray(labels), [], []
    for label in np.unique(array[array >= 0]):
        rows = np.random.default_rng([seed, int(label)]).permutation(np.flatnonzero(array == label))
        number = shots if len(rows) >= shots + dev_shots else min(shots, math.ceil(len(rows) / 2))
        train += rows[:number].tolist()
        dev += rows[::-1][: min(dev_shots, len(rows) - number)].tolist()
    return train, dev


def tune_on_dev(options: Iterable[Any], score: Callable[[Any], float]) -> tuple[Any, dict[str, float]]:
    """The option with the highest dev score (the first among equals), and all scores. Test data have no place here.

    Raises:
        ValueError: If there is no option.
    """
    scores = [(option, float(score(option))) for option in options]
    if not scores:
        raise ValueError("There is no option to choose from.")
    best = max(scores, key=lambda pair: pair[1])[0]
    return best, {str(option): value for option, value in scores}


def grid(**choices: Sequence[Any]) -> list[dict[str, Any]]:
    """All combinations: `grid(lr=[1, 2], heads=[4])` gives two dicts."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def run_tasks(function: Callable[[Any], Any], tasks: Sequence[Any], workers: int | None = None) -> list[Any]:
    """`[function(task) for task in tasks]` on several processes of one thread each, with a progress bar.

    Args:
        function: A function of a module (it is sent to other processes), free of shared state.
        tasks: One argument each.
        workers (`int`, *optional*): Defaults to the number of cores; 1 runs here.
    """
    from tqdm.auto import tqdm

    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1:
        return [function(task) for task in tqdm(tasks, desc="runs", disable=None)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        return list(tqdm(pool.map(function, tasks), total=len(tasks), desc="runs", disable=None))


def one_thread() -> None:
    """Use one thread in this process: two processes then use two cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import torch

    torch.set_num_threads(1)


def versions() -> dict[str, str]:
    """Python and the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """Processor, cores and accelerator, in words."""
    import torch

    where = f"{platform.machine()} CPU, {os.cpu_count()} cores"
    return f"{where}, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else where


def command_line() -> str:
    """The command as a reader would repeat it, without the paths of this machine."""
    script = Path(sys.argv[0])
    name = f"examples/{script.name}" if (HERE / script.name).exists() else script.name
    given = ["FOLDER" if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", name, *given])


def table_cells(rows: Sequence[Mapping[str, Any]], metric: str) -> list[list[str]]:
    """Cells: one line per name, one column per setting, `mean +- standard error`; the first line is the head."""
    rows = [row for row in rows if row["metric"] == metric]
    names = list(dict.fromkeys(row["name"] for row in rows))
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    cells = {(row["name"], row["setting"]): f"{row['mean']:.3f} +- {row['stderr']:.3f}" for row in rows}
    return [[metric, *settings], *([name, *(cells.get((name, s), "-") for s in settings)] for name in names)]


def pair_cells(pairs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Cells of the paired differences; the first line is the head."""
    head = ["setting", "a - b", "metric", "difference", "wins", "p (t)"]
    body = [
        [
            pair["setting"],
            f"{pair['a']} - {pair['b']}",
            pair["metric"],
            f"{pair['mean_difference']:+.3f} +- {pair['stderr']:.3f}",
            f"{pair['wins']}/{pair['n']}",
            "-" if pair.get("p_t") is None else f"{pair['p_t']:.2g}",
        ]
        for pair in pairs
    ]
    return [head, *body]


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Text of cells in aligned columns, a rule under the first line."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:]])


def plot(rows: Sequence[Mapping[str, Any]], metric: str, path: str | Path) -> Path:
    """Means with standard errors, one line per name over the settings, one panel per group before the comma."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["metric"] == metric]
    groups = list(dict.fromkeys(row["setting"].partition(", ")[0] for row in rows))
    figure, axes = plt.subplots(1, len(groups), figsize=(5.5 * len(groups), 4), squeeze=False)
    for axis, group in zip(axes[0], groups, strict=True):
        mine = [row for row in rows if row["setting"].partition(", ")[0] == group]
        settings = list(dict.fromkeys(row["setting"].partition(", ")[2] for row in mine))
        for name in dict.fromkeys(row["name"] for row in mine):
            own = {row["setting"].partition(", ")[2]: row for row in mine if row["name"] == name}
            at = [setting for setting in settings if setting in own]
            means, errors = [own[s]["mean"] for s in at], [own[s]["stderr"] for s in at]
            axis.errorbar([settings.index(s) for s in at], means, errors, marker="o", capsize=3, label=name)
        axis.set_xticks(range(len(settings)), settings)
        axis.set_title(group)
        axis.set_ylabel(metric)
        axis.grid(alpha=0.3)
    axes[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    path = Path(path)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def render(results: str | Path = RESULTS, target: str | Path = HERE / "RESULTS.md") -> Path:
    """Write `RESULTS.md` from all result files, in the order of their names."""
    parts = ["# Results", "", "Measured by the scripts in this folder; written by `python examples/harness.py`.", ""]
    for path in sorted(Path(results).glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        parts += [f"## {result['method']}", "", f"Data: {', '.join(result.get('datasets', []))}.", ""]
        for metric in dict.fromkeys(row["metric"] for row in result["rows"]):
            parts += [markdown(table_cells(result["rows"], metric)), ""]
        if result["paired"]:
            parts += ["Paired over seeds:", "", markdown(pair_cells(result["paired"])), ""]
        parts += [f"- {note}" for note in result.get("notes", [])]
        machine = f"{result['hardware']}; {result['wall_time_s']} s; {result['date']}"
        parts += [f"- `{result['command']}`; {machine}", ""]
    target = Path(target)
    target.write_text("\n".join(parts), encoding="utf-8")
    return target


def markdown(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table; `|` and line ends in cells are made harmless."""
    safe = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in cells]
    lines = ["| " + " | ".join(line) + " |" for line in safe]
    return "\n".join([lines[0], "|" + " --- |" * len(safe[0]), *lines[1:]])


if __name__ == "__main__":
    print(render())
