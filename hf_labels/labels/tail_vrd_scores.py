"""How well fields were extracted: ANLS, ANLS*, exact matches, nulls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_labels.labels.tail_vrd import DocumentSchema
from hf_labels.metrics.functional.edit_distance import anls_scores, anls_star, plain_text


def extraction_scores(
    predictions: Sequence[Mapping[str, Any] | None],
    references: Sequence[Mapping[str, Any]],
    schema: DocumentSchema,
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Scores of extracted documents over all fields of the schema.

    Args:
        predictions (sequence of `dict`): n documents; a missing key counts as null, None as all null.
        references (sequence of `dict`): n right ones, as they are written in the data. A list of texts as the value
            of a scalar field holds accepted answers.
        schema ([`DocumentSchema`]): The fields. Exact matches are taken after its normalisation of both sides.
        threshold (`float`, *optional*, defaults to 0.5): Of ANLS.

    Returns:
        `dict`: `anls` (mean over documents and fields but lists; null is `""`), `anls_star`, `exact_match`,
        `null_precision` and `null_recall` (None where nothing is, or was said to be, null), `per_field` (`anls`,
        `exact_match`), `n`.

    Raises:
        ValueError: If the lengths differ, or there is no document.
    """
    if len(predictions) != len(references):
        raise ValueError(f"There are {len(predictions)} predictions for {len(references)} references.")
    if not len(references):
        raise ValueError("There is no document to score.")
    guesses = [dict(guess or {}) for guess in predictions]
    per_field: dict[str, dict[str, float]] = {}
    said = null = both = 0
    for spec in schema.fields:
        exact, texts, accepted = [], [], []
        for guess, right in zip(guesses, references, strict=True):
            value, options = guess.get(spec.name), _options(right.get(spec.name), spec.type)
            mine = spec.normalize(value)[0]
            exact.append(any(_same(mine, spec.normalize(option)[0]) for option in options))
            missing, absent = mine is None, all(spec.normalize(option)[0] is None for option in options)
            said, null, both = said + missing, null + absent, both + (missing and absent)
            texts.append("" if value is None else value)
            accepted.append(["" if option is None else option for option in options])
        scores: dict[str, float] = {"exact_match": sum(exact) / len(exact)}
        if spec.type != "list":
            scores["anls"] = sum(anls_scores(texts, accepted, threshold)) / len(texts)
        per_field[spec.name] = scores
    flat = [scores["anls"] for scores in per_field.values() if "anls" in scores]
    stars = [
        anls_star(
            {name: guess.get(name) for name in schema.names},
            {spec.name: _tree(right.get(spec.name), spec.type) for spec in schema.fields},
            threshold,
        )
        for guess, right in zip(guesses, references, strict=True)
    ]
    return {
        "anls": sum(flat) / len(flat) if flat else None,
        "anls_star": sum(stars) / len(stars),
        "exact_match": sum(scores["exact_match"] for scores in per_field.values()) / len(per_field),
        "null_precision": both / said if said else None,
        "null_recall": both / null if null else None,
        "per_field": per_field,
        "n": len(references),
    }


def _options(value: Any, kind: str) -> list[Any]:
    return list(value) or [None] if isinstance(value, list | tuple) and kind != "list" else [value]


def _tree(value: Any, kind: str) -> Any:
    return tuple(value) if isinstance(value, list | tuple) and kind != "list" and value else value


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and anls_star(one, two) == 1.0
    return one is two if one is None or two is None else plain_text(one) == plain_text(two)
