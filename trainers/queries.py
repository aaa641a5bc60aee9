"""Buying labels: a query / oracle / update loop that never asks for the same row twice."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.trainers.places import (
    INFO,
    Place,
    RoundsResult,
    finish,
    is_main,
    make_place,
    need_rounds,
    open_plan,
    plain,
    read_json,
    split_result,
    wait,
    write_json,
    write_text,
)


def fit_queries(
    query: Callable[[Any, np.ndarray, int, Place], Sequence[int]],
    oracle: Callable[[list[int]], Sequence[Any]],
    update: Callable[[Any, dict[int, Any], Place], Any],
    *,
    pool: int | Sequence[int],
    budget: int | Sequence[int],
    output_dir: str | Path,
    rounds: int | None = None,
    initial: Any = None,
    load: Callable[[Place], Any] | None = None,
    oracle_batch: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RoundsResult:
    """Choose rows, buy their labels, train on all labels bought so far, repeat. No row is ever bought twice.

    Every answer is on disk before the next question: after an interruption only unanswered rows are asked.

    Args:
        query (callable): `(state, candidates, k, place) -> k row ids` out of `candidates` (int64, not yet answered).
        oracle (callable): `(row ids) -> answers`, JSON values (a class id, a list of probabilities, ...), one per row;
            `None` = no answer: spent, but not among the labels.
        update (callable): `(state, answers, place) -> state` or `(state, numbers)`; `answers` maps row id -> answer,
            of all rounds. Saves in `place.folder` what `load` needs. The numbers make the curve.
        pool (`int` or sequence of `int`): Row ids, or their number.
        budget (`int` or sequence of `int`): Rows per round, or of each round.
        output_dir (`str`): Holds `answers.jsonl` and a folder per round.
        rounds (`int`, *optional*): Number of rounds; the length of `budget` when that is a sequence.
        initial (*optional*): State of the first `query`.
        load (callable, *optional*): `(place) -> state` of a finished round. Without it `update` is run again for the
            last finished round when the loop resumes (from `initial`, with all answers).
        oracle_batch (`int`, *optional*): Rows per call of `oracle`; all of a round when not given.
        settings (`dict`, *optional*): JSON values that must not change between interruption and resume.

    Returns:
        `RoundsResult`: Entries of `history` have `spent` and `unanswered`; `.area("accuracy")` is the area under the
        learning curve. The loop ends early when the pool is used up.

    Raises:
        ValueError: If `query` returns rows that are not candidates or returns one twice, the oracle returns another
            number of answers, a budget is negative, or `output_dir` holds a loop with other settings.
    """
    budgets = [budget] * need_rounds(rounds) if isinstance(budget, int) else list(budget)
    if any(size < 0 for size in budgets):
        raise ValueError(f"A budget must be 0 or more, got {budgets}.")
    ids = np.arange(pool) if isinstance(pool, int) else np.asarray(pool, dtype=np.int64)
    output = open_plan(output_dir, "queries", settings)
    ledger = _Ledger(output / "answers.jsonl")
    state, history, in_memory = initial, [], True

    def state_of(number: int) -> Any:
        place = make_place(output, number)
        return load(place) if load is not None else split_result(update(initial, ledger.labels(number), place))[0]

    for number, size in enumerate(budgets):
        place = make_place(output, number)
        done = read_json(place.folder / INFO)
        if done is None:
            if not in_memory:
                state, in_memory = state_of(number - 1), True
            rows = _wanted(query, state, ids, size, ledger, place)
            if not rows and size > 0:
                break  # the pool is used up
            ledger.buy(oracle, rows, number, oracle_batch or max(len(rows), 1))
            state, numbers = split_result(update(state, ledger.labels(), place))
            done = finish(place, {**ledger.counts(), **numbers})
        else:
            in_memory = False
        history.append(done)
    return RoundsResult(state if in_memory else state_of(len(history) - 1), history)


def read_answers(output_dir: str | Path) -> dict[int, Any]:
    """Row id -> answer, of all rounds that [`fit_queries`] has run in a folder; refusals are left out."""
    return _Ledger(Path(output_dir) / "answers.jsonl").labels()


def ask_once(
    oracle: Callable[[list[int]], Sequence[Any]], rows: Sequence[int], path: str | Path, batch: int | None = None
) -> dict[int, Any]:
    """Row id -> answer (`None` = refused) of rows outside of the rounds, such as those that check an oracle.

    Only the main process asks, all processes get the answers. Each call's answers are in the file `path` before the
    next call; rows that it holds are not asked again.

    Args:
        oracle (callable): As in [`fit_queries`].
        rows (sequence of `int`): Row ids.
        path (`str`): The file, JSON lines.
        batch (`int`, *optional*): Rows per call; all when not given.
    """
    ledger = _Ledger(Path(path))
    ledger.buy(oracle, list(rows), 0, batch or max(len(rows), 1))
    return {row: ledger.answers[row] for row in rows}


class _Ledger:
    """Answers of an oracle on disk, one JSON line each. Only the main process asks; all read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[int, Any] = {}
        self.rounds: dict[int, int] = {}
        self._read()

    def _read(self) -> None:
        wait()
        text = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
        whole, _, cut = text.rpartition("\n")  # a line without its end was cut off while it was written
        for line in whole.split("\n") if whole else ():
            entry = json.loads(line)
            self.answers[entry["row"]], self.rounds[entry["row"]] = entry["answer"], entry["round"]
        wait()
        if cut and is_main():
            write_text(self.path, f"{whole}\n" if whole else "")

    def buy(self, oracle: Callable[[list[int]], Sequence[Any]], rows: list[int], number: int, batch: int) -> None:
        """Ask for those rows that have no answer yet; every call's answers are on disk before the next call."""
        unanswered = [row for row in rows if row not in self.answers] if is_main() else []
        for start in range(0, len(unanswered), batch):
            asked = unanswered[start : start + batch]
            answers = [plain(answer) for answer in oracle(list(asked))]
            if len(answers) != len(asked):
                raise ValueError(f"The oracle was asked for {len(asked)} rows and gave {len(answers)} answers.")
            entries = [{"row": r, "answer": a, "round": number} for r, a in zip(asked, answers, strict=True)]
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(entry) + "\n" for entry in entries))
                file.flush()
                os.fsync(file.fileno())
        self._read()

    def labels(self, number: int | None = None) -> dict[int, Any]:
        """Answers up to a round; refusals are left out."""
        last = max(self.rounds.values(), default=0) if number is None else number
        return {row: a for row, a in self.answers.items() if a is not None and self.rounds[row] <= last}

    def counts(self) -> dict[str, int]:
        """Numbers for the history."""
        return {"spent": len(self.answers), "unanswered": len(self.answers) - len(self.labels())}


def _wanted(query: Any, state: Any, ids: np.ndarray, size: int, ledger: _Ledger, place: Place) -> list[int]:
    """Rows of this round: those that were chosen before an interruption, else a new choice, written down first."""
    path = place.folder / "query.json"
    if read_json(path) is None:
        candidates = np.setdiff1d(ids, np.fromiter(ledger.answers, dtype=np.int64, count=len(ledger.answers)))
        size = min(size, len(candidates))
        rows = [int(row) for row in query(state, candidates, size, place)] if size else []
        unknown = sorted(set(rows) - set(candidates.tolist()))
        if unknown or len(set(rows)) != len(rows) or len(rows) > size:
            what = (
                f"row {unknown[0]} is not a candidate" if unknown else f"{len(rows)} rows, {len(set(rows))} distinct"
            )
            raise ValueError(f"`query` must return up to {size} different rows out of the candidates: {what}.")
        wait()
        if is_main():
            write_json(path, {"rows": rows})
    wait()
    return read_json(path)["rows"]
