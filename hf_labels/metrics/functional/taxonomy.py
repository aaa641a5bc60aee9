"""How good a taxonomy and the labels given with it are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

FALLBACK = ("Other", "Undefined")


def taxonomy_coverage(labels: Sequence[Any], fallback: Collection[Any] = FALLBACK) -> float:
    """Share of texts whose label is a label of the taxonomy, in [0, 1]; 1 if none fell back.

    Args:
        labels (sequence): Primary label of each text; `None` (not answered) does not count.
        fallback (collection, *optional*): Labels that mean "none of them".

    Raises:
        ValueError: If no text has a label.
    """
    known = [label for label in labels if label is not None]
    if not known:
        raise ValueError("No text has a label: there is no coverage.")
    return sum(label not in set(fallback) for label in known) / len(known)


def pairwise_label_accuracy(choices: Sequence[Any], positive: Any = 0) -> float:
    """Share of texts for which a judge prefers the assigned label to a random other one; "none" counts as wrong.

    Args:
        choices (sequence): What the judge chose; `None` (not answered) does not count.
        positive (*optional*, defaults to `0`): The choice that means "the assigned label".

    Raises:
        ValueError: If nothing was chosen.
    """
    known = [choice for choice in choices if choice is not None]
    if not known:
        raise ValueError("The judge chose nothing: there is no accuracy.")
    return sum(choice == positive for choice in known) / len(known)


def label_set_scores(
    predictions: Sequence[Collection[Any]], references: Sequence[Collection[Any]], labels: Sequence[Any]
) -> dict[str, Any]:
    """Precision, recall and F1 of sets of labels.

    Args:
        predictions, references (sequences of collections): Labels of each text.
        labels (sequence): All labels; others are refused.

    Returns:
        `dict`: `micro` (`precision`, `recall`, `f1`; 0 where nothing is predicted or there), `macro_f1` (a label that
        is in neither scores 0) and `exact_match`, all in [0, 1].

    Raises:
        ValueError: If the texts differ in number, there are none, or a label is unknown; names the row.
    """
    if len(predictions) != len(references) or not len(predictions):
        raise ValueError(f"There are predictions for {len(predictions)} texts and references for {len(references)}.")
    place = {label: number for number, label in enumerate(labels)}
    tables = []
    for sets in (predictions, references):
        table = np.zeros((len(sets), len(labels)), dtype=bool)
        for row, found in enumerate(sets):
            for label in found:
                if label not in place:
                    raise ValueError(
                        f"Row {row} has the label {label!r}, which is not one of the {len(labels)} labels."
                    )
                table[row, place[label]] = True
        tables.append(table)
    guess, truth = tables
    hits, predicted, there = (values.sum(0) for values in (guess & truth, guess, truth))
    per_label = np.divide(2.0 * hits, predicted + there, out=np.zeros(len(labels)), where=predicted + there > 0)
    precision = float(hits.sum() / predicted.sum()) if predicted.sum() else 0.0
    recall = float(hits.sum() / there.sum()) if there.sum() else 0.0
    total = precision + recall
    micro = {"precision": precision, "recall": recall, "f1": 2 * precision * recall / total if total else 0.0}
    return {"micro": micro, "macro_f1": float(per_label.mean()), "exact_match": float((guess == truth).all(1).mean())}
