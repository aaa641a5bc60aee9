"""Label the rows of a `datasets.Dataset` with a language model."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .base import BlackBoxLM
from .errors import BudgetExceeded
from .scoring import check_labels
from .types import Request, as_request

logger = logging.getLogger(__name__)

COLUMNS = ("llm_label", "llm_confidence", "llm_raw", "llm_error")
MISSING = -1
_CHUNK = 1024  # rows whose prompts are in memory at once


@dataclass
class _Row:
    label: Any = None
    confidence: float | None = None
    raw: str = ""
    error: str | None = None


def label_dataset(
    lm: BlackBoxLM,
    ds: Any,
    prompt_fn: Callable[[dict[str, Any]], str | Request],
    parser: Callable[[str], Any] | None = None,
    *,
    labels: Sequence[str] | None = None,
    normalize: str = "sum",
    **options: Any,
) -> Any:
    """A copy of a data set with what the model says about each row.

    With a `parser`, the model writes and the parser reads. Without one, `labels` are scored and the best one is taken.
    Resumable: with a `cache_dir`, a second run asks only what the first one has not answered. When the budget ends,
    the rows that were not asked say so in `llm_error`.

    Args:
        lm ([`BlackBoxLM`]): The model.
        ds (`datasets.Dataset`): N rows.
        prompt_fn (`Callable`): Row (a dict) -> prompt (`str` or [`Request`]).
        parser (`Callable`, *optional*): Text -> label, or -> (label, confidence in [0, 1]). It raises `ValueError` or
            `KeyError`, or returns None, for a text that it cannot read. With `n` answers for each request the most
            frequent label is taken (ties: the first given) and its share of the `n` is the confidence.
        labels (list of `str`, *optional*): The allowed labels. `llm_label` is then a `ClassLabel` with -1 for a
            missing one; the parser may return a name or an id. Needed without a `parser`.
        normalize (`str`, *optional*, defaults to `"sum"`): For scoring; see [`BlackBoxLM.score_labels`].
        options: Fields of [`Request`], e.g. `max_new_tokens=8`.

    Returns:
        `datasets.Dataset` with four more columns: `llm_label` (ClassLabel with -1; without `labels` an int64 column
        with -1, or a text column with None), `llm_confidence` (float64, None if unknown), `llm_raw` (text; for scoring
        the label), `llm_error` (text or None).

    Raises:
        ValueError: If neither `parser` nor `labels` is given, or the data set has one of the four columns already.
        TypeError: If the parser returns something else than a text or an integer, or both.
        Exception: Of a failed request, unless the model has `on_error="return"`.
    """
    if parser is None and labels is None:
        raise ValueError("Give a `parser`, or `labels` to score.")
    there = [name for name in COLUMNS if name in ds.column_names]
    if there:
        raise ValueError(f"The data set has the column {there[0]!r} already. Remove it: `ds.remove_columns({there})`.")
    names = None if labels is None else check_labels(labels)
    rows: list[_Row] = []
    stopped: str | None = None
    for start in range(0, len(ds), _CHUNK):
        size = min(_CHUNK, len(ds) - start)
        if stopped is not None:
            rows += [_Row(error=stopped) for _ in range(size)]
            continue
        prompts = [as_request(prompt_fn(ds[start + i]), **options) for i in range(size)]
        if parser is None:
            assert names is not None
            found, stopped = _score(lm, prompts, names, normalize)
        else:
            found, stopped = _write(lm, prompts, parser, names)
        rows += found
    if stopped is not None:
        logger.warning("%s The rows that were not asked have `llm_error`.", stopped)
    return _with_columns(ds, rows, names)


def _with_columns(ds: Any, rows: list[_Row], names: tuple[str, ...] | None) -> Any:
    import datasets

    labels, feature = _label_column(rows, names)
    features = datasets.Features(
        {
            "llm_label": feature,
            "llm_confidence": datasets.Value("float64"),
            "llm_raw": datasets.Value("string"),
            "llm_error": datasets.Value("string"),
        }
    )
    values = {
        "llm_label": labels,
        "llm_confidence": [row.confidence for row in rows],
        "llm_raw": [row.raw for row in rows],
        "llm_error": [row.error for row in rows],
    }
    if not rows:  # joining leaves out what is empty
        empty: dict[str, list[Any]] = {name: [] for name in [*ds.column_names, *COLUMNS]}
        return datasets.Dataset.from_dict(empty, features=datasets.Features({**ds.features, **features}))
    return datasets.concatenate_datasets([ds, datasets.Dataset.from_dict(values, features=features)], axis=1)


def _score(
    lm: BlackBoxLM, prompts: list[Request], names: tuple[str, ...], normalize: str
) -> tuple[list[_Row], str | None]:
    stopped = None
    try:
        scores = lm.score_labels(prompts, names, normalize=normalize)
    except BudgetExceeded as error:
        scores, stopped = error.partial, f"BudgetExceeded: {error}"
    rows = []
    for i, (best, probs) in enumerate(zip(scores.predictions(), scores.probs(), strict=True)):
        if best < 0:
            rows.append(_Row(error=(scores.errors or {i: "no answer"})[i]))
        else:
            rows.append(_Row(int(best), float(probs[best]), names[best]))
    return rows, stopped


def _write(
    lm: BlackBoxLM, prompts: list[Request], parser: Callable[[str], Any], names: tuple[str, ...] | None
) -> tuple[list[_Row], str | None]:
    stopped = None
    try:
        answers: Any = lm.generate(prompts)
    except BudgetExceeded as error:
        answers, stopped = error.partial, f"BudgetExceeded: {error}"
    rows = []
    for answer in answers:
        if answer is None:
            rows.append(_Row(error=stopped))
        elif answer.error is not None:
            rows.append(_Row(error=answer.error))
        else:
            rows.append(_vote([_parse(text, parser, names) for text in answer.texts]))
    return rows, stopped


def _parse(text: str, parser: Callable[[str], Any], names: tuple[str, ...] | None) -> _Row:
    try:
        value = parser(text)
    except (ValueError, KeyError, LookupError) as error:
        return _Row(raw=text, error=f"{type(error).__name__}: {error}")
    confidence = None
    if isinstance(value, tuple):
        value, confidence = value
        confidence = float(confidence)
        if not 0 <= confidence <= 1 or math.isnan(confidence):
            return _Row(raw=text, error=f"The parser gave the confidence {confidence}, which is not in [0, 1].")
    if value is None:
        return _Row(raw=text, error="The parser found no label.")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"`parser` must return a text or an integer, got {type(value).__name__} for {text[:80]!r}.")
    if names is not None:
        if isinstance(value, str) and value not in names:
            return _Row(raw=text, error=f"The label {value!r} is not among {', '.join(names)}.")
        if isinstance(value, int) and not 0 <= value < len(names):
            return _Row(raw=text, error=f"The label id {value} is not in [0, {len(names)}).")
        value = names.index(value) if isinstance(value, str) else value
    return _Row(value, confidence, text)


def _vote(rows: list[_Row]) -> _Row:
    if len(rows) == 1:
        return rows[0]
    counts = Counter(row.label for row in rows if row.error is None)
    if not counts:
        return rows[0]
    label, count = counts.most_common(1)[0]  # in order of appearance on ties
    raw = next(row.raw for row in rows if row.error is None and row.label == label)
    return _Row(label, count / len(rows), raw)


def _label_column(rows: list[_Row], names: tuple[str, ...] | None) -> tuple[list[Any], Any]:
    import datasets

    if names is not None:
        return [MISSING if row.label is None else row.label for row in rows], datasets.ClassLabel(names=list(names))
    kinds = {type(row.label) for row in rows if row.label is not None}
    if len(kinds) > 1:
        raise TypeError("`parser` returned texts for some rows and integers for others: return one kind.")
    if kinds == {int}:
        return [MISSING if row.label is None else row.label for row in rows], datasets.Value("int64")
    return [row.label for row in rows], datasets.Value("string")
