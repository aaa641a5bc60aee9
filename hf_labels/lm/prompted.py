"""Posterior of the labels of a text under a prompt with demonstrations, for any backend that scores labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_labels.labels.unsupervised_prompt_learning import Demo, PromptTemplate

from .base import BlackBoxLM
from .cache import DiskCache, MemoryCache, cache_key
from .embedding import EmbeddingLM
from .errors import BudgetExceeded
from .scoring import LabelScores, check_labels
from .types import Request, as_request

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Question:
    """One text under one prompt.

    Parameters:
        text (`str`): What is labelled.
        prompt (`str`, *optional*): The words before everything.
        demos (sequence of `(text, label word)`, *optional*): Labelled examples.
        index (`int`, *optional*): Row of the text, for errors.
    """

    text: str
    prompt: str = ""
    demos: Sequence[Demo] = ()
    index: int = -1


class PromptScorer:
    """`log q(label | text, prompt, demonstrations)`, normalised over the label words.

    Parameters:
        lm ([`BlackBoxLM`]): Any backend that can score.
        label_words (list of `str`): The C words that are scored, used as they are.
        template ([`PromptTemplate`]): Without `{demos}`, demonstrations travel in `metadata` (text and demos), which
            only an [`EmbeddingLM`] reads.

    A question that is longer than the model takes is shortened: the text and the texts of its demonstrations lose
    words from their ends, all to one length. The prompt and the end of the template are never touched.

    Raises:
        UnsupportedCapability: If the backend cannot score.
        ValueError: For no label words or double ones.
    """

    def __init__(self, lm: BlackBoxLM, label_words: Sequence[str], template: PromptTemplate) -> None:
        lm._need("score")
        self.lm, self.template = lm, template
        self.label_words = check_labels(label_words)

    @property
    def takes_demos(self) -> bool:
        """Whether demonstrations can reach the model."""
        return self.template.has_demos or isinstance(self.lm, EmbeddingLM)

    def log_probs(self, questions: Sequence[Question]) -> np.ndarray:
        """Log-posteriors `(n, C)`, float64.

        Raises:
            ValueError: If a score is not finite, or a question is too long even with one word of text; names the text
                and the prompt.
            BudgetExceeded: With `partial` `(n, C)`, NaN where there is no answer.
        """
        requests = [self._request(question) for question in questions]
        if not requests:
            return np.zeros((0, len(self.label_words)))
        try:
            scores = self.lm.score_labels(requests, self.label_words)
        except BudgetExceeded as error:
            found = self._checked(error.partial, questions, unasked=True)
            raise BudgetExceeded(str(error), found) from error
        return self._checked(scores, questions)

    def _checked(self, scores: LabelScores, questions: Sequence[Question], unasked: bool = False) -> np.ndarray:
        values = scores.logprobs
        for row, question in enumerate(questions):
            reason = scores.errors[row] if scores.errors else None
            if unasked and reason is not None and "BudgetExceeded" in reason:
                continue
            if not np.isfinite(values[row]).all():
                why = reason or f"the scores are {values[row].tolist()}"
                raise ValueError(
                    f"No finite score for text {question.index} ({question.text[:60]!r}) with the prompt "
                    f"{question.prompt!r}: {why}. Check the text, the label words and the model."
                )
        return scores.log_probs()

    def _request(self, question: Question) -> Request:
        request = self._written(question, None)
        room = self.lm._room(self.label_words)
        if room is None or self.lm._count_tokens(request) <= room:
            return request
        texts = [question.text, *(text for text, _ in question.demos)] if self.template.has_demos else [question.text]
        low, high = 1, max(len(_SPACE.split(text.strip())) for text in texts)
        if self.lm._count_tokens(self._written(question, low)) > room:
            raise ValueError(
                f"Text {question.index} ({question.text[:60]!r}) with the prompt {question.prompt!r} does not fit: "
                f"even one word of each text makes more than {room} tokens. Use fewer demonstrations or a shorter "
                "template."
            )
        while high - low > 1:  # `low` words fit, `high` do not
            middle = (low + high) // 2
            fits = self.lm._count_tokens(self._written(question, middle)) <= room
            low, high = (middle, high) if fits else (low, middle)
        return self._written(question, low)

    def _written(self, question: Question, words: int | None) -> Request:
        text = _first_words(question.text, words)
        demos = [(_first_words(shot, words), word) for shot, word in question.demos]
        request = as_request(self.template.render(question.prompt, text, demos))
        if self.template.has_demos or not demos:
            return request
        return request.replace(metadata={"text": text, "demos": demos})


def _first_words(text: str, words: int | None) -> str:
    if words is None:
        return text
    ends = [found.start() for found in _SPACE.finditer(text.strip())]
    return text.strip() if len(ends) < words else text.strip()[: ends[words - 1]]


def kept_vectors(lm: BlackBoxLM, texts: Sequence[str]) -> np.ndarray:
    """`lm.embed(texts)`, `(n, D)` float64, but what the model's cache holds is not asked again.

    Raises:
        UnsupportedCapability: If the backend has no embeddings.
        BudgetExceeded: Without `partial`; what was embedded is in the cache.
    """
    if lm.cache is None or not texts:
        return np.asarray(lm.embed(texts), dtype=np.float64)
    model = {"kind": "embed", "model_id": lm.model_id, "revision": lm.revision}
    keys = {text: cache_key({**model, "text": text}) for text in texts}
    found = lm.cache.get_many(keys.values())
    missing = [text for text, key in keys.items() if key not in found]
    for start in range(0, len(missing), lm.batch_size):
        part = missing[start : start + lm.batch_size]
        try:
            vectors, error = lm.embed(part), None
        except BudgetExceeded as stop:
            vectors, error = stop.partial, stop
        new = {keys[text]: vector.tolist() for text, vector in zip(part, vectors, strict=False)}
        lm.cache.put_many((key, vector, {}) for key, vector in new.items())
        found |= new
        if error is not None:
            raise BudgetExceeded(str(error), None) from error
    return np.array([found[keys[text]] for text in texts], dtype=np.float64)


@contextmanager
def answers_kept(lm: BlackBoxLM, folder: str | os.PathLike[str] | None = None) -> Iterator[Any]:
    """For the time of the block, a model without a cache keeps its answers in `folder` (or in memory).

    A run that is repeated with the same folder asks nothing twice, whatever ended the first one.
    """
    given = lm.cache
    own: Any = given
    if given is None:
        own = MemoryCache() if folder is None else DiskCache(folder)
    lm.cache = own
    try:
        yield own
    finally:
        lm.cache = given
        if given is None and folder is not None:
            own.close()
