"""`LLMLabeler`: labels of a taxonomy for a data set; and a judge's opinion on taxonomy and labels."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np

from hf_labels.labels.columns import require_columns, write_column
from hf_labels.labels.kinds import MISSING
from hf_labels.labels.tnt_llm import FALLBACK, Taxonomy
from hf_labels.metrics.functional.taxonomy import pairwise_label_accuracy, taxonomy_coverage

from . import tnt_llm_prompts as prompts
from .base import BlackBoxLM
from .errors import BudgetExceeded

logger = logging.getLogger(__name__)

COLUMNS = ("label", "labels", "rationale", "llm_raw", "llm_error")
_CHUNK = 1024  # rows whose prompts are in memory at once


class LLMLabeler:
    """Labels texts with a taxonomy.

    A model that writes gives a reason, the primary label and all that fit. One that only scores (an [`EmbeddingLM`])
    chooses the description that fits best. With a `cache_dir` a second run asks only what is missing; repeated texts
    are asked about once.

    Args:
        lm ([`BlackBoxLM`]): The model.
        taxonomy ([`Taxonomy`]): The labels.
        similarity (`float`, *optional*, defaults to 0.9): How alike an unknown name must be to count as a label.

    Attributes:
        counts (`Counter`): Of the last run: `labelled`, `fallback`, `unknown` names, `failed` answers.
    """

    def __init__(self, lm: BlackBoxLM, taxonomy: Taxonomy, similarity: float = 0.9) -> None:
        self.lm, self.taxonomy, self.similarity = lm, taxonomy, similarity
        self.counts: Counter[str] = Counter()

    def label(self, dataset: Any, text_column: str = "text") -> Any:
        """Add `label` (ClassLabel of names and `"Other"`, -1 = no answer), `labels` (0 or 1 per name), and reasons.

        The reasons are in the columns `rationale`, `llm_raw` and `llm_error`.

        Args:
            dataset (`datasets.Dataset`): N rows.
            text_column (`str`, *optional*, defaults to `"text"`): Column of the texts.

        Raises:
            KeyError: If the column is missing.
            ValueError: If the data set is empty, or has one of the new columns already.
        """
        import datasets

        require_columns(dataset, [text_column], "text_column")
        there = [name for name in COLUMNS if name in dataset.column_names]
        if there or not len(dataset):
            problem = f"has the column {there[0]!r} already. Remove it first." if there else "is empty."
            raise ValueError(f"The data set {problem}")
        texts = dataset[text_column][:]
        unique = list(dict.fromkeys(texts))
        place = {text: row for row, text in enumerate(unique)}
        self.counts = Counter()
        found = self._scored(unique) if "generate" not in self.lm.capabilities else self._written(unique)
        rows = [found[place[text]] for text in texts]
        self._warn(len(unique))
        size, text_kind = len(self.taxonomy), datasets.Value("string")
        primary = np.array([row[0] for row in rows], dtype=np.int64)
        sets = np.array([row[1] for row in rows], dtype=np.int64).reshape(len(rows), size)
        out = write_column(dataset, "label", primary, self.taxonomy.as_class_label())
        out = write_column(out, "labels", sets, datasets.List(datasets.Value("int64"), length=size))
        for name, number in (("rationale", 2), ("llm_raw", 3), ("llm_error", 4)):
            out = write_column(out, name, [row[number] for row in rows], text_kind)
        return out

    def _written(self, texts: list[str]) -> list[tuple[int, list[int], str | None, str | None, str | None]]:
        found: list[Any] = []
        stopped: str | None = None
        for start in range(0, len(texts), _CHUNK):
            part = texts[start : start + _CHUNK]
            if stopped is not None:
                found += [self._row(None, stopped)] * len(part)
                continue
            try:
                answers: list[Any] = list(
                    self.lm.generate_json([prompts.label(self.taxonomy, text) for text in part], prompts.LABEL)
                )
            except BudgetExceeded as error:
                stopped, answers = f"BudgetExceeded: {error}", list(error.partial)
                logger.warning("%s Rows that were not asked have `llm_error`.", error)
            found += [self._row(answer, stopped) for answer in answers]
        return found

    def _row(self, answer: Any, stopped: str | None) -> tuple[int, list[int], str | None, str | None, str | None]:
        nothing = [0] * len(self.taxonomy)
        if answer is None or answer.value is None:
            self.counts["failed"] += 1
            return MISSING, nothing, None, getattr(answer, "raw", None), getattr(answer, "error", stopped) or stopped
        value = answer.value
        primary = self._known(value["primary"])
        named = {self._known(name) for name in value.get("all", ())} | {primary}
        sets = [int(number in named) for number in range(len(self.taxonomy))]
        self.counts["fallback" if primary == len(self.taxonomy) else "labelled"] += 1
        return primary, sets, value.get("rationale"), answer.raw, None

    def _known(self, name: Any) -> int:
        place = self.taxonomy.match(name, self.similarity)
        if place is None:
            self.counts["unknown"] += 1
            return len(self.taxonomy)
        return place

    def _scored(self, texts: list[str]) -> list[tuple[int, list[int], str | None, str | None, str | None]]:
        words = [f"{label.name}: {label.description}" for label in self.taxonomy.labels]
        try:
            scores = self.lm.score_labels(texts, words)
        except BudgetExceeded as error:
            logger.warning("%s Rows that were not asked have `llm_error`.", error)
            scores = error.partial
        rows: list[Any] = []
        for row, best in enumerate(scores.predictions().tolist()):
            if best < 0:
                self.counts["failed"] += 1
                why = (scores.errors or {row: "no answer"})[row]
                rows.append((MISSING, [0] * len(words), None, None, why))
                continue
            self.counts["labelled"] += 1
            rows.append((best, [int(number == best) for number in range(len(words))], None, words[best], None))
        return rows

    def _warn(self, total: int) -> None:
        share = self.counts["fallback"] / max(total, 1)
        if share > 0.2:
            logger.warning("%.0f %% of the texts fit no label: the taxonomy does not cover the corpus.", 100 * share)
        if self.counts["unknown"]:
            logger.warning("%d answers name labels that are not in the taxonomy.", self.counts["unknown"])


def evaluate_taxonomy(
    taxonomy: Taxonomy,
    labelled: Any,
    judge: BlackBoxLM,
    *,
    text_column: str = "text",
    sample_size: int | None = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Coverage, and what a judge says: is the assigned label better than a random other one, is a label of use?

    Report it only next to a sample that people have checked.

    Args:
        taxonomy ([`Taxonomy`]), labelled (`datasets.Dataset`): From [`LLMLabeler.label`].
        judge ([`BlackBoxLM`]): Another model than the labeller. One that only scores compares the two labels.
        text_column (`str`, *optional*): Column of the texts.
        sample_size (`int`, *optional*, defaults to 200): Texts that the judge sees at most; `None` for all.
        seed (`int`, *optional*): Of the sample, the other labels and the order of the two.

    Returns:
        `dict`: `coverage`, `pairwise_accuracy` (chance is 0.5), `judged`, `relevance` (share of labels; `None` for a
        judge that only scores), `choices` (row -> 0 assigned, 1 other, 2 none, None unanswered).
    """
    names = [*taxonomy.names, FALLBACK]
    labels = labelled["label"][:]
    coverage = taxonomy_coverage([None if label < 0 else names[label] for label in labels])
    usable = [row for row, label in enumerate(labels) if 0 <= label < len(taxonomy)]
    rng = np.random.default_rng(seed)
    if sample_size is not None and len(usable) > sample_size:
        usable = np.sort(rng.choice(usable, size=sample_size, replace=False)).tolist()
    others = [int((labels[row] + rng.integers(1, len(taxonomy))) % len(taxonomy)) for row in usable]
    first = rng.random(len(usable)) < 0.5
    texts = [labelled[row][text_column] for row in usable]
    words = [f"{label.name}: {label.description}" for label in taxonomy.labels]
    if "generate" in judge.capabilities:
        pairs = [
            (words[labels[row]], words[other]) if swap else (words[other], words[labels[row]])
            for row, other, swap in zip(usable, others, first, strict=True)
        ]
        asked = [prompts.choose(taxonomy.use_case, text, *pair) for text, pair in zip(texts, pairs, strict=True)]
        answers = judge.generate_json(asked, prompts.CHOICE)
        said = [None if one.value is None else one.value["choice"] for one in answers]
        right = {"A": 0, "B": 1, "none": 2, None: None}
        choices = [
            right[answer] if swap or answer in ("none", None) else 1 - right[answer]  # type: ignore[operator]
            for answer, swap in zip(said, first, strict=True)
        ]
        checked = judge.generate_json(
            [prompts.relevant(taxonomy.use_case, label.name, label.description) for label in taxonomy.labels],
            prompts.RELEVANT,
        )
        known = [one.value["relevant"] for one in checked if one.value is not None]
        relevance = float(np.mean(known)) if known else None
    else:
        table = judge.score_labels(texts, words).logprobs if texts else np.zeros((0, len(words)))
        choices = [
            None if np.isnan(scores).any() else int(scores[other] > scores[labels[row]])
            for row, other, scores in zip(usable, others, table, strict=True)
        ]
        relevance = None
    accuracy = pairwise_label_accuracy(choices) if any(choice is not None for choice in choices) else float("nan")
    return {
        "coverage": coverage,
        "pairwise_accuracy": accuracy,
        "judged": sum(choice is not None for choice in choices),
        "relevance": relevance,
        "choices": dict(zip(usable, choices, strict=True)),
    }
