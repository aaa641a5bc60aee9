"""Scores of name tagging: whole entities, and how often a source entity is taken for a target one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Span = tuple[int, int, int, str]


def entity_spans(tags: Sequence[Sequence[str]]) -> set[Span]:
    """Entities `(row, first word, last word, type)` of tagged sentences, read as seqeval reads them by default.

    An entity begins at B-, and also at an I- that follows O or another type.

    Args:
        tags (sequence of sequences of `str`): `O`, `B-X`, `I-X`.

    Raises:
        ValueError: For another tag; names row and word.
    """
    found: set[Span] = set()
    for row, sentence in enumerate(tags):
        start, kind = -1, ""
        for word, tag in enumerate([*sentence, "O"]):
            prefix, _, name = tag.partition("-")
            if tag != "O" and (prefix not in ("B", "I") or not name):
                raise ValueError(f"Tags must be O, B-X or I-X, got {tag!r} at row {row}, word {word}.")
            begins = prefix == "B" or (prefix == "I" and (not kind or name != kind))
            if kind and (begins or tag == "O"):
                found.add((row, start, word - 1, kind))
                kind = ""
            if begins:
                start, kind = word, name
    return found


def entity_f1(predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Micro precision, recall and F1 of whole entities: type, first and last word must be right.

    Args:
        predictions, references (sequences of sequences of `str`): Tags `O`, `B-X`, `I-X` of the same words.

    Returns:
        `dict`: `precision`, `recall`, `f1` in [0, 1] (0 where nothing is predicted, or nothing there), `macro_f1` over
        the types of predictions and references, and per type `per_type[X]` = `precision`, `recall`, `f1`,
        `predicted`, `correct`, `there`.

    Raises:
        ValueError: If sentences differ in number or length (names the row), or for another tag.

    Example:
        >>> scores = entity_f1([["B-A", "I-A", "O"]], [["B-A", "I-A", "B-B"]])
        >>> scores["precision"], scores["recall"], round(scores["f1"], 3)
        (1.0, 0.5, 0.667)
    """
    _same_shape(predictions, references)
    guess, truth = entity_spans(predictions), entity_spans(references)
    types = sorted({span[3] for span in guess | truth})
    per_type = {}
    for name in types:
        counts = [sum(span[3] == name for span in spans) for spans in (guess, guess & truth, truth)]
        per_type[name] = _scores(*counts) | dict(zip(("predicted", "correct", "there"), counts, strict=True))
    whole = _scores(len(guess), len(guess & truth), len(truth))
    macro = float(np.mean([scores["f1"] for scores in per_type.values()])) if types else 0.0
    return {**whole, "macro_f1": macro, "per_type": per_type}


def source_as_target_rate(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], sources: Sequence[Sequence[str]]
) -> dict[str, float | int]:
    """Share of the source entities in target text that the tagger takes for target entities; lower is better.

    Args:
        predictions (sequence of sequences of `str`): Target tags that were predicted.
        references (sequence of sequences of `str`): True target tags. A source entity that is a target entity too
            does not count.
        sources (sequence of sequences of `str`): Tags of source entities in the same words.

    Returns:
        `dict`: `source_as_target_rate` in [0, 1] (NaN without a source entity), `n_source_entities`. An entity is
        taken for a target one if any of its words gets a tag other than O.

    Raises:
        ValueError: As [`entity_f1`].
    """
    _same_shape(predictions, references)
    _same_shape(predictions, sources)
    found = sorted(entity_spans(sources))
    spans = [(r, a, b) for r, a, b, _ in found if all(references[r][w] == "O" for w in range(a, b + 1))]
    taken = sum(any(predictions[r][w] != "O" for w in range(a, b + 1)) for r, a, b in spans)
    return {"source_as_target_rate": taken / len(spans) if spans else float("nan"), "n_source_entities": len(spans)}


def tag_rows(ids: Any, labels: Any, names: Sequence[str]) -> tuple[list[list[str]], list[list[str]]]:
    """Predicted and true tags as names, of the words that have a label.

    Args:
        ids (array of shape `(N, T)`, or `(N, T, K)` of scores): Predicted tag ids.
        labels (array of shape `(N, T)`): True tag ids; -100 = no word starts here.
        names (sequence of `str`): Names of the K tags.

    Returns:
        `tuple`: Predictions and references, for [`entity_f1`].
    """
    found, truth = np.asarray(ids), np.asarray(labels)
    found = found.argmax(-1) if found.ndim == 3 else found
    kept = truth >= 0
    return tuple(  # type: ignore[return-value]
        [[names[int(tag)] for tag in row[mask]] for row, mask in zip(rows, kept, strict=True)]
        for rows in (found, truth)
    )


def _same_shape(one: Sequence[Sequence[str]], two: Sequence[Sequence[str]]) -> None:
    if len(one) != len(two):
        raise ValueError(f"There are {len(one)} predicted sentences and {len(two)} others.")
    for row, (a, b) in enumerate(zip(one, two, strict=True)):
        if len(a) != len(b):
            raise ValueError(f"Row {row} has {len(a)} predicted tags and {len(b)} others.")


def _scores(predicted: int, correct: int, there: int) -> dict[str, float]:
    precision = correct / predicted if predicted else 0.0
    recall = correct / there if there else 0.0
    total = precision + recall
    return {"precision": precision, "recall": recall, "f1": 2 * precision * recall / total if total else 0.0}
