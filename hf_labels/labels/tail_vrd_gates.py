"""Which fields of a teacher's answers are trained on: agreement of samples, grounding in the text, checks of sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hf_labels.labels.tail_vrd import DocumentField, DocumentSchema
from hf_labels.labels.tail_vrd_values import amounts_in, dates_in
from hf_labels.metrics.functional.edit_distance import anls_star, plain_text, similarity

OK, INCONSISTENT, UNGROUNDED, NULL = "ok", "inconsistent", "ungrounded", "null"


@dataclass(frozen=True)
class CrossCheck:
    """A rule between fields.

    Parameters:
        name (`str`): For the report.
        fields (`tuple[str, ...]`): What it is about; all of them become "inconsistent" where it fails.
        test (`Callable`): From a dict of all fields to True, False, or None where it does not apply.
    """

    name: str
    fields: tuple[str, ...]
    test: Callable[[Mapping[str, Any]], bool | None]


def sum_check(items: str = "items", price: str = "price", total: str = "total", tolerance: float = 0.01) -> CrossCheck:
    """The prices of a list must add up to the total; not applied where one of them is missing or no number."""

    def test(values: Mapping[str, Any]) -> bool | None:
        rows = values.get(items)
        try:
            prices = [Decimal(str(row[price])) for row in rows or []]
            right = Decimal(str(values.get(total)))
        except (ArithmeticError, KeyError, TypeError, ValueError):
            return None
        return abs(sum(prices) - right) <= Decimal(str(tolerance)) if prices else None

    return CrossCheck(f"sum of {items} = {total}", (items, total), test)


@dataclass(frozen=True)
class LabelGates:
    """Rules that remove labels. None of them changes one.

    Parameters:
        missing (`bool`, *optional*, defaults to `True`): A null for a field that is not nullable is no label.
        consistency (`bool`, *optional*, defaults to `True`): With two samples or more, they must agree.
        grounding (`bool`, *optional*, defaults to `True`): With a text, values must occur in it.
        agreement (`float`, *optional*, defaults to 0.9): ANLS* from which two samples agree on a field.
        min_share (`float`, *optional*, defaults to 1.0): Share of the samples that must agree with the first one.
        grounding_similarity (`float`, *optional*, defaults to 0.8): Of a value and a part of the text.
        checks (`tuple[CrossCheck, ...]`, *optional*): Rules between fields.

    Raises:
        ValueError: For a number outside [0, 1].
    """

    missing: bool = True
    consistency: bool = True
    grounding: bool = True
    agreement: float = 0.9
    min_share: float = 1.0
    grounding_similarity: float = 0.8
    checks: tuple[CrossCheck, ...] = ()

    def __post_init__(self) -> None:
        for name in ("agreement", "min_share", "grounding_similarity"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")

    @classmethod
    def off(cls) -> LabelGates:
        """Keep every answer: what the paper trains on."""
        return cls(missing=False, consistency=False, grounding=False)


@dataclass(frozen=True)
class GatedAnswer:
    """One document after the gates.

    Parameters:
        values (`dict`): The first sample, all fields, unchanged.
        status (`dict[str, str]`): Per field `"ok"`, `"null"`, `"inconsistent"` or `"ungrounded"`.
        confidence (`dict[str, float]`): Per field the share of the samples that agree with the first one.
        kept (`tuple[str, ...]`): Fields to train on, in the order of the schema.
        failed_checks (`tuple[str, ...]`): Names of the cross-checks that failed.
    """

    values: dict[str, Any]
    status: dict[str, str]
    confidence: dict[str, float]
    kept: tuple[str, ...]
    failed_checks: tuple[str, ...] = field(default=())


def apply_gates(
    samples: Sequence[Mapping[str, Any]],
    schema: DocumentSchema,
    gates: LabelGates,
    text: str | None = None,
    asked: int | None = None,
) -> GatedAnswer:
    """Decide which fields of one document are labels.

    Args:
        samples (sequence of `dict`): The answers that could be read, at least one, with all fields.
        schema ([`DocumentSchema`]): The fields.
        gates ([`LabelGates`]): The rules.
        text (`str`, *optional*): Of the document, by OCR. Without it nothing is grounded.
        asked (`int`, *optional*): r, samples that were asked for; one that could not be read agrees with nothing.

    Raises:
        ValueError: If there is no sample.
    """
    if not samples:
        raise ValueError("There is no sample to judge.")
    asked = max(asked or 0, len(samples))
    values = {name: samples[0].get(name) for name in schema.names}
    failed = tuple(check for check in gates.checks if check.test(values) is False)
    contradicted = {name for check in failed for name in check.fields}
    status, confidence, kept = {}, {}, []
    known = None if text is None else GroundedText(text)
    for spec in schema.fields:
        value = values[spec.name]
        agreeing = 1 + sum(_agree(value, other.get(spec.name), gates.agreement) for other in samples[1:])
        confidence[spec.name] = agreeing / asked
        verdict = NULL if value is None else OK
        if gates.consistency and asked > 1 and confidence[spec.name] < gates.min_share:
            verdict = INCONSISTENT
        elif spec.name in contradicted:
            verdict = INCONSISTENT
        elif value is not None and gates.grounding and known is not None and spec.grounded:
            verdict = OK if known.holds(value, spec, gates.grounding_similarity) else UNGROUNDED
        status[spec.name] = verdict
        if verdict == OK or (verdict == NULL and (spec.nullable or not gates.missing)):
            kept.append(spec.name)
    return GatedAnswer(values, status, confidence, tuple(kept), tuple(check.name for check in failed))


def _agree(one: Any, two: Any, least: float) -> bool:
    if one is None or two is None:
        return one is two
    return anls_star(two, one) >= least


class GroundedText:
    """The text of a document, in which values are looked for.

    Example:
        >>> GroundedText("ACME Coffee, 17.03.2024").holds("2024-03-17", DocumentField("date", "date"))
        True
    """

    def __init__(self, text: str) -> None:
        self.text, self.words = text, plain_text(text).split()
        self._joined = " ".join(self.words)

    def holds(self, value: Any, spec: DocumentField, least: float = 0.8) -> bool:
        """True if the value occurs: dates and amounts in any format, texts up to the similarity `least`."""
        if value is None:
            return True
        if spec.type == "list":
            return all(self.holds(row.get(part.name), part, least) for row in value for part in spec.fields)
        if spec.type in ("enum", "currency") or not spec.grounded:
            return True
        if spec.type == "date" and value in dates_in(self.text, spec.day_first):
            return True
        if spec.type == "amount":
            found = amounts_in(self.text, spec.decimals)
            return value in found or value.lstrip("-") in found
        wanted = plain_text(value)
        if wanted in self._joined:
            return True
        return best_window(wanted, self.words, least) is not None


def best_window(wanted: str, words: Sequence[str], least: float) -> tuple[float, list[tuple[int, int]]] | None:
    """The windows of words that are most similar to a text.

    Args:
        wanted (`str`): After [`plain_text`].
        words (sequence of `str`): In lower case.
        least (`float`): Similarity from which a window counts.

    Returns:
        `(similarity, [(start, end), ...])` with the longest of the best windows (`end` exclusive), in order; None if
        there is none. Windows are at most two words longer or shorter than the text.
    """
    count = max(len(wanted.split()), 1)
    best, found = least, list[tuple[int, int]]()
    for size in range(max(1, count - 2), count + 3):
        for start in range(len(words) - size + 1):
            window = " ".join(words[start : start + size])
            if abs(len(window) - len(wanted)) > (1 - best) * max(len(window), len(wanted)) + 1e-9:
                continue
            near = similarity(window, wanted, best)
            if near > best + 1e-12:
                best, found = near, []
            if near >= best - 1e-12:
                found.append((start, start + size))
    if not found:
        return None
    longest = max(end - start for start, end in found)
    return best, sorted(span for span in found if span[1] - span[0] == longest)
