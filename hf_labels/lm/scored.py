"""What a backend says about the labels of one prompt, and how many of these become `LabelScores`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .scoring import LabelScores, score_tokens
from .types import Usage


@dataclass(frozen=True)
class Scored:
    """Token log-probabilities of C labels after one prompt.

    Parameters:
        logprobs (`[C][L_c]`): Empty if the prompt failed.
        truncated (`[C]`, *optional*): Which are only upper bounds.
        usage (`Usage`, *optional*): What it took.
        error (`str`, *optional*): Why there is no answer.
    """

    logprobs: list[list[float]]
    truncated: list[bool] | None = None
    usage: Usage = field(default_factory=Usage)
    error: str | None = None


@dataclass(frozen=True)
class Assemble:
    """Answers to `count` prompts, and to the content-free prompts behind them, as `LabelScores`.

    An item that is None was not asked; its row is NaN, and so is the row of a prompt whose content-free prompt failed.
    """

    labels: tuple[str, ...]
    count: int
    normalize: str
    calibrate: Any

    def __call__(self, items: Sequence[Scored | None]) -> LabelScores:
        own, priors = list(items[: self.count]), list(items[self.count :])
        scores = score_tokens(
            [self._row(item) for item in own],
            normalize=self.normalize,
            num_chars=[len(label) for label in self.labels],
            prior_token_logprobs=self._prior([self._row(item) for item in priors]),
        )
        errors = self._errors(own, priors)
        flags = [item.truncated if item is not None else None for item in own]
        truncated = None
        if any(flag is not None for flag in flags):
            truncated = np.array([flag or [False] * len(self.labels) for flag in flags], dtype=bool)
        result = LabelScores(
            self.labels,
            scores,
            [item.logprobs if item is not None and not item.error else None for item in own],
            truncated,
            tuple(errors) if any(errors) else None,
        )
        return result if self.calibrate is None else result.calibrated(self.calibrate)

    def _row(self, item: Scored | None) -> list[list[float]]:
        if item is None or item.error:
            return [[float("nan")]] * len(self.labels)
        return item.logprobs

    @staticmethod
    def _prior(rows: list[Any]) -> Any:
        return (rows[0] if len(rows) == 1 else rows) if rows else None

    @staticmethod
    def _errors(own: list[Scored | None], priors: list[Scored | None]) -> list[str | None]:
        def of(item: Scored | None) -> str | None:
            return "BudgetExceeded: not asked" if item is None else item.error

        errors = [of(item) for item in own]
        for i in range(len(errors) if priors else 0):
            prior = of(priors[0 if len(priors) == 1 else i])
            if prior and not errors[i]:
                errors[i] = f"content-free prompt: {prior}"
        return errors
