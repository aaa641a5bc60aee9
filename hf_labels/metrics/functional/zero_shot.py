"""Scores of zero-shot classification: seen and unseen labels apart, and their harmonic mean.

Source: the evaluators of Yin, Hay and Roth, EMNLP 2019 (`yinwenpeng/BenchmarkingZeroShot`). The harmonic mean, micro
and macro F1, the rate of "none" and the intervals are not in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_EPS = 1e-6  # of the reference: a group without texts scores 0


def harmonic_mean(seen: float, unseen: float) -> float:
    """`2 s u / (s + u)`, 0 when both are 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen > 0 else 0.0


def zero_shot_accuracy(
    predictions: Iterable[Any],
    references: Iterable[Any],
    seen_labels: Iterable[Any] = (),
    labels: Sequence[Any] | None = None,
    none_label: Any = None,
) -> dict[str, float]:
    """Accuracy on texts of seen and of unseen labels (the topic task).

    Args:
        predictions, references (N labels): Names or ids; compared as text. `None` is "no label".
        seen_labels (labels, *optional*): Those with training texts.
        labels (labels, *optional*): All labels; a reference outside them (and not `none_label`) is refused.
        none_label (label, *optional*): What "no label" is called in the references; it counts as unseen.

    Returns:
        `dict[str, float]`: `seen_accuracy`, `unseen_accuracy` (hits / (1e-6 + texts), as in the reference; 0 without
        texts), `accuracy`, `harmonic_mean`, `none_rate`, `n_seen`, `n_unseen`.

    Raises:
        ValueError: Lengths differ, nothing to score, several labels per text, or a reference outside `labels`.
    """
    seen_labels = list(seen_labels)
    guess, gold = _sets(predictions, references, seen_labels, labels, none_label)
    _single(guess, "predictions")
    _single(gold, "references")
    seen = {str(label) for label in seen_labels}
    hits = np.array([a == b for a, b in zip(guess, gold, strict=True)])
    is_seen = np.array([bool(truth & seen) for truth in gold])
    parts = {"seen": is_seen, "unseen": ~is_seen}
    found = {f"{name}_accuracy": float(hits[mask].sum() / (_EPS + mask.sum())) for name, mask in parts.items()}
    found["accuracy"] = float(hits.mean())
    found["harmonic_mean"] = harmonic_mean(found["seen_accuracy"], found["unseen_accuracy"])
    return found | _counts(guess, is_seen, none_label)


def zero_shot_f1(
    predictions: Iterable[Any],
    references: Iterable[Any],
    seen_labels: Iterable[Any] = (),
    labels: Sequence[Any] | None = None,
    none_label: Any = None,
    bootstrap: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, float]:
    """Label-wise weighted F1 on seen labels, unseen labels and all (the emotion and situation tasks).

    Per label the F1 of its own yes/no decisions; averaged with the number of texts that have the label:
    `sum(f1 * count) / (1e-6 + sum(count))`. Labels that no reference has weigh nothing.

    Args:
        predictions, references (N labels, or N lists of labels): Names or ids; compared as text. An empty list or
            `None` is "no label".
        seen_labels (labels, *optional*): Those with training texts.
        labels (labels, *optional*): All labels. A reference outside them (and not `none_label`) is refused;
            `macro_f1` is over them. Default: the labels of the references.
        none_label (label, *optional*): What "no label" is called; a label of its own, always unseen.
        bootstrap (`int`, *optional*, defaults to 0): Resamples of the texts for percentile intervals
            (`..._low`, `..._high`) of the three F1 and the harmonic mean.
        confidence (`float`, *optional*, defaults to 0.95): Of the intervals, in (0, 1).
        seed (`int`, *optional*, defaults to 0): Of the resamples.

    Returns:
        `dict[str, float]`: `seen_f1`, `unseen_f1`, `all_f1`, `harmonic_mean` (of the first two), `micro_f1`,
        `macro_f1`, `none_rate`, `n_seen`, `n_unseen` (texts with a seen label, and the others), and intervals. A group
        without texts scores 0.

    Raises:
        ValueError: Lengths differ, nothing to score, a reference or seen label outside `labels`, or a bad setting.

    Cost O(N K), times the resamples.
    """
    if bootstrap < 0 or not 0 < confidence < 1:
        raise ValueError(
            f"`bootstrap` must be 0 or more and `confidence` in (0, 1), got {bootstrap} and {confidence}."
        )
    seen_labels = list(seen_labels)
    guess, gold = _sets(predictions, references, seen_labels, labels, none_label)
    names = sorted(set().union(*gold) | ({str(label) for label in labels} if labels is not None else set()))
    told, true = (np.array([[name in row for name in names] for row in side], dtype=bool) for side in (guess, gold))
    seen = {str(label) for label in seen_labels}
    is_seen = np.array([name in seen for name in names], dtype=bool)
    found = _f1_groups(told, true, is_seen)
    extra = sum(len(row - set(names)) for row in guess)  # labels that no reference can have: wrong, without a column
    hits, total = (told & true).sum(), told.sum() + extra + true.sum()
    found["micro_f1"] = float(2 * hits / total) if total else 0.0
    found["macro_f1"] = float(_f1(told, true).mean()) if names else 0.0
    found |= _counts(guess, np.array([bool(truth & seen) for truth in gold]), none_label)
    if bootstrap:
        rng = np.random.default_rng(seed)
        rows = [rng.integers(len(gold), size=len(gold)) for _ in range(bootstrap)]
        draws = [_f1_groups(told[row], true[row], is_seen) for row in rows]
        for name in ("seen_f1", "unseen_f1", "all_f1", "harmonic_mean"):
            low, high = np.quantile([draw[name] for draw in draws], [(1 - confidence) / 2, (1 + confidence) / 2])
            found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _f1(guess: np.ndarray, gold: np.ndarray) -> np.ndarray:
    total = guess.sum(0) + gold.sum(0)
    return 2 * (guess & gold).sum(0) / np.maximum(total, 1)


def _f1_groups(guess: np.ndarray, gold: np.ndarray, is_seen: np.ndarray) -> dict[str, float]:
    scores, counts = _f1(guess, gold), gold.sum(0)
    groups = {"seen_f1": is_seen, "unseen_f1": ~is_seen, "all_f1": np.ones_like(is_seen)}
    found = {name: float((scores * counts)[mask].sum() / (_EPS + counts[mask].sum())) for name, mask in groups.items()}
    return found | {"harmonic_mean": harmonic_mean(found["seen_f1"], found["unseen_f1"])}


def _sets(
    predictions: Iterable[Any], references: Iterable[Any], seen_labels: Iterable[Any], labels: Any, none_label: Any
) -> tuple[list[set[str]], list[set[str]]]:
    """Both sides as sets of texts; an empty set becomes the none label when there is one."""
    empty = set() if none_label is None else {str(none_label)}
    sides = [[_labels(item) or set(empty) for item in side] for side in (predictions, references)]
    guess, gold = sides
    if len(guess) != len(gold):
        raise ValueError(f"There are {len(guess)} predictions and {len(gold)} references; each text needs both.")
    if not gold:
        raise ValueError("There is nothing to score: no predictions and no references.")
    if labels is not None:
        known = {str(label) for label in labels} | empty
        for row, truth in enumerate(gold):
            if truth - known:
                raise ValueError(
                    f"Reference {sorted(truth - known)[0]!r} at row {row} is not among `labels`: {_short(known)}. "
                    "Add it, or name it as `none_label`."
                )
        strange = {str(label) for label in seen_labels} - known
        if strange:
            raise ValueError(f"Seen label {sorted(strange)[0]!r} is not among `labels`: {_short(known)}.")
    return guess, gold


def _labels(item: Any) -> set[str]:
    if item is None:
        return set()
    if isinstance(item, str) or not isinstance(item, Iterable):
        return {str(item)}
    return {str(label) for label in item}


def _single(rows: list[set[str]], name: str) -> None:
    for row, found in enumerate(rows):
        if len(found) > 1:
            raise ValueError(
                f"`{name}` has {len(found)} labels at row {row}; accuracy takes one. Use `zero_shot_f1` for several."
            )


def _counts(guess: list[set[str]], is_seen: np.ndarray, none_label: Any) -> dict[str, float]:
    nothing = {str(none_label)} if none_label is not None else set()
    rate = sum(row in (set(), nothing) for row in guess) / len(guess)
    return {"none_rate": rate, "n_seen": int(is_seen.sum()), "n_unseen": int((~is_seen).sum())}


def _short(names: set[str]) -> str:
    return ", ".join(sorted(names)[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
