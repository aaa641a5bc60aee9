"""Values of a teacher as tags of words: what an extractive student is trained on, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_labels.labels.tail_vrd import DocumentField, DocumentSchema
from hf_labels.labels.tail_vrd_gates import best_window
from hf_labels.metrics.functional.edit_distance import plain_text

OUTSIDE = "O"


def tag_names(schema: DocumentSchema) -> list[str]:
    """`O`, then `B-x` and `I-x` of each field but lists, in the order of the schema."""
    return [OUTSIDE, *(f"{mark}-{spec.name}" for spec in schema.fields if spec.type != "list" for mark in "BI")]


def align_value(
    value: Any, words: Sequence[str], spec: DocumentField, least: float = 0.8, taken: Sequence[bool] = ()
) -> tuple[int, int] | None:
    """Where a value stands among the words of a document.

    A window that reads as the same date or amount fits best; otherwise the most similar window, the longest among
    equals. Of several such places the one nearest to a keyword of the field wins, else the first.

    Args:
        value: A scalar; None is nowhere.
        words (sequence of `str`): T words, in reading order.
        spec ([`DocumentField`]): Its field.
        least (`float`, *optional*, defaults to 0.8): Similarity from which a place counts.
        taken (sequence of `bool`, *optional*): T words that are not free.

    Returns:
        `(start, end)`, `end` exclusive, or None.

    Example:
        >>> align_value("12.50", ["Total", "EUR", "12,50"], DocumentField("total", "amount"))
        (2, 3)
    """
    if value is None:
        return None
    small = [plain_text(word) for word in words]
    places = _same_value(value, words, spec) if spec.type in ("date", "amount") else []
    places = [place for place in places if not any(taken[place[0] : place[1]])]
    if not places:
        free = ["\0" if place < len(taken) and taken[place] else word for place, word in enumerate(small)]
        found = best_window(plain_text(value), free, least)
        places = [] if found is None else found[1]
    if not places:
        return None
    keys = _keyword_places(small, spec)
    if len(places) == 1 or not keys:
        return places[0]
    return min(places, key=lambda place: (min(_distance(place, key) for key in keys), place))


def _same_value(value: Any, words: Sequence[str], spec: DocumentField) -> list[tuple[int, int]]:
    """The shortest windows whose text is the same date or amount."""
    for size in (1, 2, 3, 4) if spec.type == "date" else (1, 2):
        found = []
        for start in range(len(words) - size + 1):
            text = " ".join(words[start : start + size]).strip(" ,;:")
            if any(char.isdigit() for char in text) and spec.normalize(text)[0] == value:
                found.append((start, start + size))
        if found:
            return found
    return []


def _keyword_places(words: Sequence[str], spec: DocumentField) -> list[tuple[int, int]]:
    places = []
    for keyword in spec.keywords or (spec.name,):
        parts = plain_text(keyword).split()
        for start in range(len(words) - len(parts) + 1):
            if [word.strip(":.,#") for word in words[start : start + len(parts)]] == parts:
                places.append((start, start + len(parts)))
    return places


def _distance(place: tuple[int, int], key: tuple[int, int]) -> float:
    """Words between a place and a keyword; one that stands before it is half a word nearer."""
    return place[0] - key[1] if key[1] <= place[0] else key[0] - place[1] + 0.5


def align_document(
    values: Mapping[str, Any], words: Sequence[str], schema: DocumentSchema, least: float = 0.8
) -> tuple[list[str], list[str]]:
    """Tags of the words of one document.

    Args:
        values (`dict`): Labels; fields that are missing from it are not labelled. Earlier fields choose first.
        words (sequence of `str`): T words.
        schema ([`DocumentSchema`]): The fields; lists are left out.
        least (`float`, *optional*, defaults to 0.8): As in [`align_value`].

    Returns:
        `(tags, lost)`: T tags `O`, `B-x`, `I-x`; and the fields whose value stands nowhere.
    """
    tags, taken, lost = [OUTSIDE] * len(words), [False] * len(words), []
    for spec in schema.fields:
        value = values.get(spec.name)
        if spec.type == "list" or value is None:
            continue
        place = align_value(value, words, spec, least, taken)
        if place is None:
            lost.append(spec.name)
            continue
        for number in range(*place):
            tags[number], taken[number] = f"{'B' if number == place[0] else 'I'}-{spec.name}", True
    return tags, lost


def read_tags(
    tags: Sequence[str], words: Sequence[str], schema: DocumentSchema, scores: Sequence[float] | None = None
) -> dict[str, Any]:
    """Values of tagged words: for each field its surest span, in its one form; all keys of the schema.

    Args:
        tags, words (sequences of `str`): T each. An `I-x` that follows no `x` begins a span too.
        schema ([`DocumentSchema`]): The fields.
        scores (sequence of `float`, *optional*): Probability of each tag; a span counts as its mean. Without, the
            first span wins.
    """
    spans: dict[str, list[tuple[float, str]]] = {name: [] for name in schema.names}
    start, name = 0, ""
    for place, tag in enumerate([*tags, OUTSIDE]):
        mark, _, kind = tag.partition("-")
        if name and (mark != "I" or kind != name):
            mean = 0.0 if scores is None else sum(scores[start:place]) / (place - start)
            spans.get(name, []).append((mean, " ".join(words[start:place])))
            name = ""
        if kind and not name:
            start, name = place, kind
    best = {name: max(found, key=lambda span: span[0])[1] for name, found in spans.items() if found}
    return schema.normalize({name: text.strip(" ,;") for name, text in best.items()})[0]
