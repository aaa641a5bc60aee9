"""The loop behind `generate` and `score_labels`: look up, drop repeats, batch, try again, store, count."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import BudgetExceeded, ImageError, ItemError, UnsupportedCapability
from .types import Request, Usage

if TYPE_CHECKING:
    from .base import BlackBoxLM

logger = logging.getLogger(__name__)

PROGRESS_DELAY_S = 2.0


@dataclass(frozen=True)
class Task:
    """How one kind of question is asked and kept.

    Parameters:
        name (`str`): For the progress bar.
        ask (`Callable[[list[Request]], list[Any]]`): Answers of a batch; a backend's work.
        usage (`Callable[[Any], Usage]`): Usage of an answer without price.
        finish (`Callable[[Any, Usage, bool], Any]`): The answer with its usage, and whether it was cached.
        failed (`Callable[[str], Any]`): The answer that stands for a failure.
        dump (`Callable[[Any], Any]`), load (`Callable[[Any], Any]`): To and from JSON.
    """

    name: str
    ask: Callable[[list[Request]], list[Any]]
    usage: Callable[[Any], Usage]
    finish: Callable[[Any, Usage, bool], Any]
    failed: Callable[[str], Any]
    dump: Callable[[Any], Any]
    load: Callable[[Any], Any]


def run(lm: BlackBoxLM, requests: Sequence[Request], keys: Sequence[str | None], task: Task) -> list[Any]:
    """Answers in the order of the requests.

    Equal keys are asked once; `None` is never looked up, stored or shared. Whatever a batch has answered is stored
    before the next one begins, and also when it is interrupted.

    Raises:
        BudgetExceeded: With the answers so far as `partial`, `None` where there is none.
        Exception: Of the first failed request, unless `on_error="return"`.
    """
    results: list[Any] = [None] * len(requests)
    groups = _groups(keys)
    found = lm.cache.get_many(key for key in keys if key) if lm.cache is not None else {}
    pending: list[list[int]] = []
    for group in groups:
        key = keys[group[0]]
        if key in found:
            answer = task.load(found[key])
            for position in group:
                results[position] = task.finish(answer, Usage(cached_calls=1), True)
            lm._spend(Usage(cached_calls=len(group)))
        else:
            pending.append(group)
    if not pending:
        return results
    order = lm._order([requests[group[0]] for group in pending])
    queue = [pending[i] for i in order]
    with _progress(lm, task.name, len(requests), len(requests) - sum(map(len, queue))) as bar:
        start = 0
        while start < len(queue):
            room = _room(lm, results)
            batch = queue[start : start + min(lm.batch_size, room)]
            start += len(batch)
            _do_batch(lm, requests, keys, task, batch, results, bar)
    return results


def _groups(keys: Sequence[str | None]) -> list[list[int]]:
    groups: list[list[int]] = []
    known: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        if key is not None and key in known:
            known[key].append(position)
            continue
        group = [position]
        groups.append(group)
        if key is not None:
            known[key] = group
    return groups


def _room(lm: BlackBoxLM, results: list[Any]) -> int:
    if lm.budget is None:
        return lm.batch_size
    reached = lm.budget.reached(lm.usage)
    if reached:
        done = sum(result is not None for result in results)
        raise BudgetExceeded(
            f"{reached}: {done} of {len(results)} requests are answered. Raise the budget, or keep `error.partial`.",
            results,
        )
    room = lm.budget.room(lm.usage)
    return lm.batch_size if room is None else max(1, room)


def _do_batch(
    lm: BlackBoxLM,
    requests: Sequence[Request],
    keys: Sequence[str | None],
    task: Task,
    batch: list[list[int]],
    results: list[Any],
    bar: Any,
) -> None:
    failures: list[tuple[int, Exception]] = []
    store: list[tuple[str, Any, dict[str, Any]]] = []
    try:
        for index, outcome in _outcomes(lm, [requests[group[0]] for group in batch], task):
            group = batch[index]
            bar.update(len(group))
            if isinstance(outcome, Exception):
                if isinstance(outcome, ItemError | ImageError):
                    reason = outcome.reason if isinstance(outcome, ItemError) else str(outcome)
                    outcome = ItemError(group[0], reason)
                failures.append((group[0], outcome))
                for position in group:
                    results[position] = task.failed(f"{type(outcome).__name__}: {outcome}")
                continue
            usage = lm._priced(task.usage(outcome))
            lm._spend(usage + Usage(cached_calls=len(group) - 1))
            results[group[0]] = task.finish(outcome, usage, False)
            for position in group[1:]:
                results[position] = task.finish(outcome, Usage(cached_calls=1), True)
            key = keys[group[0]]
            if key is not None:
                store.append((key, task.dump(outcome), usage.to_dict()))
    finally:
        if lm.cache is not None:
            lm.cache.put_many(store)
    if failures and lm.on_error == "raise":
        raise min(failures, key=lambda failure: failure[0])[1]


def _outcomes(lm: BlackBoxLM, batch: list[Request], task: Task) -> Iterator[tuple[int, Any]]:
    """Pairs (index in the batch, answer or exception), as they come."""
    if lm._concurrent and len(batch) > 1:
        yield from _threads(lm, batch, task)
        return
    try:
        answers = lm._retry.call(lambda: _asked(task, batch))
    except (UnsupportedCapability, BudgetExceeded):
        raise
    except Exception as error:
        if len(batch) == 1 or (lm.on_error == "raise" and not isinstance(error, ImageError)):
            index = error.item if isinstance(error, ItemError) else 0
            yield index, error
            return
        for index, request in enumerate(batch):  # find the ones that can be answered
            for _, outcome in _outcomes(lm, [request], task):
                yield index, outcome
        return
    yield from enumerate(answers)


def _asked(task: Task, batch: list[Request]) -> list[Any]:
    answers = task.ask(batch)
    if len(answers) != len(batch):
        raise RuntimeError(f"The backend gave {len(answers)} answers to {len(batch)} requests.")
    return answers


def _threads(lm: BlackBoxLM, batch: list[Request], task: Task) -> Iterator[tuple[int, Any]]:
    stop = threading.Event()

    def one(request: Request) -> Any:
        return lm._retry.call(lambda: _asked(task, [request]), stop)[0]

    pool = ThreadPoolExecutor(max_workers=len(batch), thread_name_prefix="hf_labels_lm")
    try:
        futures = {pool.submit(one, request): index for index, request in enumerate(batch)}
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, UnsupportedCapability) or (error is not None and not isinstance(error, Exception)):
                raise error
            yield futures[future], future.result() if error is None else error
    finally:
        stop.set()  # ends the waits of threads that would try again
        pool.shutdown(wait=False, cancel_futures=True)


def _progress(lm: BlackBoxLM, name: str, total: int, done: int) -> Any:
    from tqdm import tqdm

    hidden = None if lm.progress is None else not lm.progress  # None: shown on a terminal only
    delay = PROGRESS_DELAY_S if lm.progress is None else 0
    return tqdm(total=total, initial=done, desc=f"{name} ({lm.model_id})", disable=hidden, delay=delay, unit="request")
