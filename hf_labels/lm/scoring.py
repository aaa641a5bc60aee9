"""From log-probabilities of label tokens to scores and probabilities of labels."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

NORMALIZATIONS = ("sum", "mean", "per_char", "pmi")
STYLES = ("plain", "space", "lower", "space_lower", "capital", "letter")


def softmax(scores: Any) -> np.ndarray:
    """Soft-max over the last axis, max-subtracted, in float64. A row of NaN stays NaN."""
    return np.exp(log_softmax(scores))


def log_softmax(scores: Any) -> np.ndarray:
    """Logarithm of [`softmax`]."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape[-1] == 0:
        return scores
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def score_tokens(
    token_logprobs: Sequence[Sequence[Sequence[float]]],
    *,
    normalize: str = "sum",
    num_chars: Sequence[int] | None = None,
    prior_token_logprobs: Sequence[Any] | None = None,
) -> np.ndarray:
    """One score for each prompt and label.

    Args:
        token_logprobs (`[n][C][L_c]`): Log-probability of each token of each label.
        normalize (`str`, *optional*, defaults to `"sum"`): `"sum"`; `"mean"` = sum / number of tokens; `"per_char"` =
            sum / number of characters; `"pmi"` = sum minus the sum under a content-free prompt.
        num_chars (`[C]`, *optional*): Characters of each label, for `"per_char"`.
        prior_token_logprobs (`[C][L_c]` or `[n][C][L_c]`, *optional*): Under the content-free prompt, for `"pmi"`; one
            for all prompts or one for each.

    Returns:
        `np.ndarray` of shape `(n, C)`, float64.

    Raises:
        ValueError: For another `normalize`, or what it needs is missing or has another shape.
    """
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"`normalize` must be one of {', '.join(NORMALIZATIONS)}, got {normalize!r}.")
    rows = [list(row) for row in token_logprobs]
    width = len(rows[0]) if rows else len(num_chars or prior_token_logprobs or ())
    if any(len(row) != width for row in rows):
        raise ValueError("Every prompt needs scores for the same labels.")
    if not rows:
        return np.zeros((0, width))
    sums = _sums(rows, width)
    if normalize == "mean":
        return sums / _table([[len(tokens) for tokens in row] for row in rows], width)
    if normalize == "per_char":
        if num_chars is None or len(num_chars) != width or min(num_chars, default=1) < 1:
            raise ValueError(f"`num_chars` must hold {width} positive numbers, one for each label, got {num_chars}.")
        return sums / np.asarray(num_chars, dtype=np.float64)
    if normalize == "pmi":
        return sums - _prior_sums(prior_token_logprobs, len(rows), width)
    return sums


def _table(rows: list[list[float]], width: int) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)


def _sums(rows: Sequence[Any], width: int) -> np.ndarray:
    return _table([[float(np.sum(tokens)) for tokens in row] for row in rows], width)


def _prior_sums(prior: Sequence[Any] | None, rows: int, width: int) -> np.ndarray:
    if prior is None:
        raise ValueError("`normalize='pmi'` needs a content-free prompt: give `prior_prompt`.")
    first = prior[0] if len(prior) else []
    each = bool(len(first)) and not np.isscalar(first[0])
    found = list(prior) if each else [prior]
    if len(found) not in (1, rows) or any(len(row) != width for row in found):
        raise ValueError(f"The content-free scores must be for {width} labels and for one or all of {rows} prompts.")
    return _sums(found, width)


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Scores of C labels for n prompts.

    Parameters:
        labels (`tuple[str, ...]`): The C labels, in the order that was asked for.
        logprobs (`np.ndarray` of shape `(n, C)`, float64): The chosen score. A row of NaN was not answered.
        token_logprobs (`[n][C][L_c]`, *optional*): Log-probability of each label token, as the model gave it; `None`
            for a prompt that was not answered.
        truncated (`np.ndarray` of shape `(n, C)`, bool, *optional*): True where the score is only an upper bound,
            because the server did not list the label's token.
        errors (`tuple[str | None, ...]`, *optional*): Why a prompt was not answered.
    """

    labels: tuple[str, ...]
    logprobs: np.ndarray
    token_logprobs: list[Any] | None = None
    truncated: np.ndarray | None = None
    errors: tuple[str | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.logprobs)

    def probs(self) -> np.ndarray:
        """Soft-max of the scores over the labels: `(n, C)` float64, rows sum to 1."""
        return softmax(self.logprobs)

    def log_probs(self) -> np.ndarray:
        """Logarithm of `probs`, computed without underflow."""
        return log_softmax(self.logprobs)

    def predictions(self) -> np.ndarray:
        """Id of the best label for each prompt (the lowest on ties), -1 where there is no answer."""
        best = np.full(len(self), -1, dtype=np.int64)
        known = ~np.isnan(self.logprobs).any(axis=1)
        best[known] = self.logprobs[known].argmax(axis=1)
        return best

    def calibrated(self, prior: Any) -> LabelScores:
        """Contextual calibration: `q_c` proportional to `p_c / p_cf_c`.

        Args:
            prior (`np.ndarray` of shape `(C,)` or `(n, C)`): Probabilities under a content-free prompt.

        Raises:
            ValueError: If the shape is another, or a probability is not positive and finite.

        Source: Zhao et al. 2021, arXiv:2102.09690, section 4 (diagonal W).
        """
        prior = np.asarray(prior, dtype=np.float64)
        if (
            prior.ndim not in (1, 2)
            or prior.shape[-1] != len(self.labels)
            or (prior.ndim == 2 and len(prior) not in (1, len(self)))
        ):
            raise ValueError(
                f"`calibrate` must have shape ({len(self.labels)},) or ({len(self)}, {len(self.labels)}), "
                f"got {prior.shape}."
            )
        if not (np.isfinite(prior) & (prior > 0)).all():
            raise ValueError("`calibrate` must hold positive, finite probabilities of the content-free prompt.")
        return dataclasses.replace(self, logprobs=self.log_probs() - np.log(prior))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelScores):
            return NotImplemented
        same_flags = (self.truncated is None) == (other.truncated is None) and (
            self.truncated is None or np.array_equal(self.truncated, other.truncated)  # type: ignore[arg-type]
        )
        return (
            self.labels == other.labels
            and np.array_equal(self.logprobs, other.logprobs, equal_nan=True)
            and self.token_logprobs == other.token_logprobs
            and same_flags
            and self.errors == other.errors
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values; NaN becomes None."""
        logprobs = [[None if np.isnan(v) else float(v) for v in row] for row in self.logprobs]
        return {
            "labels": list(self.labels),
            "logprobs": logprobs,
            "token_logprobs": self.token_logprobs,
            "truncated": None if self.truncated is None else self.truncated.tolist(),
            "errors": None if self.errors is None else list(self.errors),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> LabelScores:
        """Inverse of `to_dict`."""
        labels = tuple(value["labels"])
        rows = [[np.nan if v is None else v for v in row] for row in value["logprobs"]]
        truncated, errors = value.get("truncated"), value.get("errors")
        return cls(
            labels,
            _table(rows, len(labels)),
            value.get("token_logprobs"),
            None if truncated is None else np.array(truncated, dtype=bool).reshape(len(rows), len(labels)),
            None if errors is None else tuple(errors),
        )


def check_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as a tuple.

    Raises:
        ValueError: If there is none, one is empty or one is given twice.
        TypeError: If one is not a text, or `labels` is itself a text.
    """
    if isinstance(labels, str):
        raise TypeError(f"`labels` must be a list of texts, got the text {labels!r}.")
    labels = tuple(labels)
    if not labels:
        raise ValueError("`labels` is empty: give at least one label.")
    for i, label in enumerate(labels):
        if not isinstance(label, str):
            raise TypeError(f"`labels` must hold texts, got {type(label).__name__} at position {i}.")
        if not label:
            raise ValueError(f"`labels` holds an empty text at position {i}.")
    doubles = sorted({label for label in labels if labels.count(label) > 1}) if len(set(labels)) < len(labels) else []
    if doubles:
        raise ValueError(f"`labels` must differ, got {', '.join(map(repr, doubles))} more than once.")
    return labels


@overload
def verbalize(label: str, style: str = "space") -> str: ...  # type: ignore[overload-overlap]
@overload
def verbalize(label: Sequence[str], style: str = "space") -> list[str]: ...
def verbalize(label: str | Sequence[str], style: str = "space") -> str | list[str]:
    """A label as the words that a model scores: `score_labels` takes them exactly as they are.

    Args:
        label (`str` or list of `str`): One label or all of them.
        style (`str`, *optional*, defaults to `"space"`): `"plain"` (as it is), `"space"` (a leading space, for a
            prompt that ends without one), `"lower"`, `"space_lower"`, `"capital"` (first letter), or, for a list of at
            most 26, `"letter"` (A, B, C, ...: one token each with most tokenizers).

    Raises:
        ValueError: For another style; letters for one label or for more than 26.

    Example:
        >>> verbalize("Sports", "space_lower"), verbalize(["sports", "politics"], "letter")
        (' sports', ['A', 'B'])
    """
    if style not in STYLES:
        raise ValueError(f"`style` must be one of {', '.join(STYLES)}, got {style!r}.")
    if not isinstance(label, str):
        if style == "letter":
            if len(label) > 26:
                raise ValueError(f"There are 26 letters for {len(label)} labels: use another style.")
            return list(string.ascii_uppercase[: len(label)])
        return [verbalize(one, style) for one in label]
    if style == "letter":
        raise ValueError("`style='letter'` needs the list of all labels.")
    text = label.lower() if style.endswith("lower") else label
    if style == "capital":
        text = label[:1].upper() + label[1:]
    return " " + text.lstrip() if style.startswith("space") else text
