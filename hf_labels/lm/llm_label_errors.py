"""`LabelErrorDetector`: language models (or other judges) read a data set and say which labels they would give."""

from __future__ import annotations

import logging
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.labels.columns import class_names, read_column, require_columns
from hf_labels.labels.kinds import MISSING
from hf_labels.labels.llm_label_errors import LabelErrorReport, check_judgements

from .base import BlackBoxLM
from .errors import BudgetExceeded
from .scoring import check_labels

logger = logging.getLogger(__name__)

_CHUNK = 1024  # rows whose prompts are in memory at once


class LabelErrorDetector:
    """Asks every judge with every prompt about every row, and compares the ensemble with the labels.

        detector = LabelErrorDetector([one, two], PROMPTS, labels=["inconsistent", "consistent"])
        report = detector.report(dataset, label_column="label")

    Args:
        judges (sequence of [`BlackBoxLM`]): M models. One that gives probabilities of labels is asked for them;
            another one writes, and what it names is a vote. Answers are kept in the judges' own `cache_dir`, so that a
            run that was cut off asks only what is missing.
        prompts (sequence of `str` or of pairs): T templates over the columns of a row, such as
            `"Review: {text}\\nCondition:"`. In a pair (prompt, label template) the second, such as
            `"This is about {}."`, says how a label is written for this prompt.
        labels (sequence of `str`): Names of the C classes, in the order of their ids.
        verbalizers (sequence of `str`, *optional*): What the judges may answer, one per class; the names by default.

    Raises:
        ValueError: For no judge, no prompt, fewer than two labels, labels that are not distinct, or a label template
            without `{}`.
    """

    def __init__(
        self,
        judges: Sequence[BlackBoxLM],
        prompts: Sequence[str | tuple[str, str]],
        labels: Sequence[str],
        verbalizers: Sequence[str] | None = None,
    ) -> None:
        self.judges, self.labels = list(judges), tuple(check_labels(labels))
        if not self.judges or not prompts:
            raise ValueError("At least one judge and one prompt are needed.")
        if len(self.labels) < 2:
            raise ValueError(f"Judges choose among at least two labels, got {list(self.labels)}.")
        words = self.labels if verbalizers is None else tuple(check_labels(verbalizers))
        if len(words) != len(self.labels):
            raise ValueError(f"There are {len(words)} verbalizers for {len(self.labels)} labels.")
        self.prompts: list[tuple[str, tuple[str, ...]]] = []
        for prompt in prompts:
            text, template = (prompt, "{}") if isinstance(prompt, str) else prompt
            if template.count("{}") != 1:
                raise ValueError(f"A label template has `{{}}` once, got {template!r}.")
            self.prompts.append((text, tuple(template.format(word) for word in words)))

    def judge(self, dataset: Any) -> np.ndarray:
        """Probabilities `(M, T, n, C)`; rows of NaN where a judge gave no answer (or its budget ended).

        Raises:
            KeyError: If a prompt names a column that the data set lacks.
            ValueError: If the data set is empty.
        """
        if not len(dataset):
            raise ValueError("The data set is empty: there is nothing to judge.")
        for text, _ in self.prompts:
            require_columns(dataset, [name for _, name, _, _ in string.Formatter().parse(text) if name])
        found = np.full((len(self.judges), len(self.prompts), len(dataset), len(self.labels)), np.nan)
        for number, judge in enumerate(self.judges):
            for place, (text, words) in enumerate(self.prompts):
                if not self._ask(judge, text, words, dataset, found[number, place]):
                    break  # its budget is spent
        silent = int(np.isnan(found).all(-1).sum())
        if silent:
            logger.warning("%d of %d questions have no answer.", silent, found[..., 0].size)
        return found

    def _ask(self, judge: BlackBoxLM, text: str, words: tuple[str, ...], dataset: Any, out: np.ndarray) -> bool:
        """Fills `out` (n, C). False when the budget ended."""
        for start in range(0, len(dataset), _CHUNK):
            rows = dataset[start : start + _CHUNK]
            size = min(_CHUNK, len(dataset) - start)
            prompts = [text.format(**{name: values[i] for name, values in rows.items()}) for i in range(size)]
            spent = None
            try:
                answers = self._answers(judge, prompts, words)
            except BudgetExceeded as error:
                spent, answers = error, self._read(error.partial, words)
            out[start : start + size] = answers
            if spent is not None:
                logger.warning("%s Ask again with a larger budget: answers are kept.", spent)
                return False
        return True

    def _answers(self, judge: BlackBoxLM, prompts: list[str], words: tuple[str, ...]) -> np.ndarray:
        if "score" in judge.capabilities:
            return self._read(judge.score_labels(prompts, words), words)
        return self._read(judge.generate(prompts), words)

    def _read(self, answers: Any, words: tuple[str, ...]) -> np.ndarray:
        if hasattr(answers, "probs"):
            return np.asarray(answers.probs())
        out = np.full((len(answers), len(words)), np.nan)
        for row, answer in enumerate(answers):
            vote = named_label("" if answer is None or answer.error else answer.text, words)
            if vote is not None:
                out[row] = np.eye(len(words))[vote]
        return out

    def report(
        self,
        dataset: Any,
        label_column: str = "labels",
        *,
        probs: Any = None,
        renormalize: bool = False,
        **options: Any,
    ) -> LabelErrorReport:
        """Judge a data set and compare with its labels.

        Args:
            dataset (`datasets.Dataset`): With what the prompts name, and labels.
            label_column (`str`, *optional*, defaults to `"labels"`): Class ids (-1, -100 or None = missing).
            probs (array of shape `(M, T, n, C)`, *optional*): Judgements that are there already, such as those of a
                classifier; nobody is asked then.
            renormalize (`bool`, *optional*): As in [`~hf_labels.labels.llm_label_errors.check_judgements`].
            options: `ordinal` and `delta` of [`LabelErrorReport`].

        Raises:
            KeyError: If the column of labels is missing.
            ValueError: If the `ClassLabel` of the data has its classes in another order than `labels`.
        """
        require_columns(dataset, [label_column], "label_column")
        names = class_names(dataset, label_column)
        if names is not None and tuple(names) != self.labels:
            raise ValueError(
                f"Column `{label_column}` has the classes {list(names)}, the detector {list(self.labels)}. "
                "Give both in one order."
            )
        column = read_column(dataset, label_column)
        labels = np.where(column.null, MISSING, column.values)
        table = check_judgements(self.judge(dataset) if probs is None else probs, renormalize)
        judges = [judge.model_id for judge in self.judges]
        return LabelErrorReport(table, labels, self.labels, judges, [text for text, _ in self.prompts], **options)


def named_label(text: str, words: Sequence[str]) -> int | None:
    """Which of the words an answer names: the one that its first line is, else the only one in it; else `None`."""
    import re

    lines = text.strip().splitlines()
    first = lines[0].strip(" \t.:\"'`*").casefold() if lines else ""
    plain = [word.strip().casefold() for word in words]
    if first in plain:
        return plain.index(first)
    there = [i for i, word in enumerate(plain) if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text.casefold())]
    # a word inside a longer one that is there too ("consistent" in "not consistent") does not count
    there = [i for i in there if not any(j != i and plain[i] in plain[j] for j in there)]
    return there[0] if len(there) == 1 else None
