"""ANLS and ANLS*: how near extracted texts and structures are to the right ones. Pure Python but for the matching."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ANY_OF = "__any_of__"


def plain_text(text: Any) -> str:
    """Lower case, stripped, white space collapsed; `""` for None and NaN.

    Example:
        >>> plain_text("  New   York ")
        'new york'
    """
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return ""
    return " ".join(str(text).lower().split())


def levenshtein(a: str, b: str, limit: int | None = None) -> int:
    """Fewest insertions, deletions and replacements that turn one text into the other.

    Args:
        a, b (`str`): Texts of L1 and L2 characters.
        limit (`int`, *optional*): Stop as soon as the distance must be above it; `limit + 1` is returned then.

    Cost O(L1 ceil(L2 / 30)): a column of the table is one integer (Myers 1999; Hyyrö 2003).

    Example:
        >>> levenshtein("kitten", "sitting"), levenshtein("kitten", "sitting", limit=1)
        (3, 2)
    """
    if len(a) < len(b):
        a, b = b, a
    start, end = 0, len(b)
    while start < end and a[start] == b[start]:
        start += 1
    shift = len(a) - len(b)
    while end > start and a[end + shift - 1] == b[end - 1]:
        end -= 1
    a, b = a[start : end + shift], b[start:end]
    most = len(a) if limit is None else limit
    if shift > most:
        return most + 1
    if not b:
        return len(a)
    places: dict[str, int] = {}
    for place, char in enumerate(b):
        places[char] = places.get(char, 0) | 1 << place
    full, last = (1 << len(b)) - 1, 1 << (len(b) - 1)
    up, down, score, left = full, 0, len(b), len(a)
    for char in a:
        equal = places.get(char, 0)
        flat = equal | down
        diagonal = (((equal & up) + up) ^ up) | equal
        rise = down | (full & ~(diagonal | up))
        fall = up & diagonal
        score += 1 if rise & last else -1 if fall & last else 0
        left -= 1
        if score - left > most:
            return most + 1
        rise = (rise << 1 | 1) & full
        up = (fall << 1 & full) | (full & ~(flat | rise))
        down = rise & flat
    return score


def similarity(a: Any, b: Any, least: float = 0.0) -> float:
    """`1 - Levenshtein / longer length` of two texts after [`plain_text`]; 1 for two empty ones.

    Args:
        a, b: Texts, or what `str` makes one of.
        least (`float`, *optional*): A similarity under it may come back as any number under it, which is faster.
    """
    one, two = plain_text(a), plain_text(b)
    size = max(len(one), len(two))
    if one == two:
        return 1.0
    return 1 - levenshtein(one, two, int((1 - least) * size) + 1) / size


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise ValueError(f"`threshold` must be in [0, 1], got {threshold}.")


def anls_scores(
    predictions: Sequence[Any], references: Sequence[Sequence[Any]], threshold: float = 0.5
) -> list[float]:
    """Normalised similarity of each answer with the best of its references, 0 where it is too far.

    With NL = Levenshtein / longer length of the texts in lower case with white space collapsed, a score is `1 - NL` if
    `NL < threshold` else 0; two empty texts score 1.

    Args:
        predictions (sequence of `str`): n answers; None and NaN count as `""`.
        references (sequence of sequences of `str`): At least one right answer per question.
        threshold (`float`, *optional*, defaults to 0.5): In [0, 1].

    Returns:
        `list[float]`: n scores in [0, 1].

    Raises:
        ValueError: If the lengths differ, a question has no reference (names it), or the threshold is out of range.
        TypeError: If the references of a question are one text.

    Example:
        >>> anls_scores(["Acme Coffee", "17/03"], [["ACME Cofee", "Acme"], ["2024-03-17"]])
        [0.9090909090909091, 0.0]

    Source: Biten et al., ICCV 2019, section 4; run against the public implementation of shunk031/ANLS.
    """
    _check_threshold(threshold)
    if len(predictions) != len(references):
        raise ValueError(f"There are {len(predictions)} predictions for {len(references)} lists of references.")
    scores = []
    for row, (guess, accepted) in enumerate(zip(predictions, references, strict=True)):
        if isinstance(accepted, str):
            raise TypeError(f"References of question {row} must be a list of texts, got one text: put it in a list.")
        if not len(accepted):
            raise ValueError(f"Question {row} has no reference. Leave it out, or give `['']` for no answer.")
        scores.append(max(_classic(guess, right, threshold) for right in accepted))
    return scores


def _classic(guess: Any, right: Any, threshold: float) -> float:
    one, two = plain_text(guess), plain_text(right)
    if one == two:
        return 1.0 if threshold > 0 else 0.0
    size = max(len(one.upper()), len(two.upper()))  # as the public code does it: "ß" is as long as "SS"
    far = levenshtein(one, two, int(threshold * size) + 1) / size
    return 1 - far if far < threshold else 0.0


def anls(
    predictions: Sequence[Any], references: Sequence[Sequence[Any]], threshold: float = 0.5
) -> dict[str, float | int]:
    """Mean of [`anls_scores`] over the questions.

    Returns:
        `dict`: `anls` in [0, 1], higher is better, and `n`, the number of questions.

    Raises:
        ValueError: As in [`anls_scores`], and for no question at all.
    """
    scores = anls_scores(predictions, references, threshold)
    if not scores:
        raise ValueError("There is no question: the mean of nothing is not a number.")
    return {"anls": sum(scores) / len(scores), "n": len(scores)}


def from_json_values(value: Any) -> Any:
    """JSON values in which `{"__any_of__": [...]}` becomes a tuple of alternatives."""
    if isinstance(value, Mapping):
        if set(value) == {ANY_OF}:
            return tuple(from_json_values(item) for item in value[ANY_OF])
        return {key: from_json_values(item) for key, item in value.items()}
    return [from_json_values(item) for item in value] if isinstance(value, list) else value


def anls_star(
    prediction: Any, reference: Any, threshold: float = 0.5, count_empty_hallucinations: bool = True
) -> float:
    """ANLS* of one structure: leaf scores over the number of leaves.

    Dicts are compared over the union of their keys, lists by the matching that maximises the mean similarity of their
    elements, leaves (texts, numbers) as texts; other types next to each other score 0. Missing and added parts count
    with all their leaves. None matches None, a missing key and what is empty.

    Args:
        prediction: Dict, list, text, number or None, nested.
        reference: The same; a tuple holds alternatives, of which the best counts.
        threshold (`float`, *optional*, defaults to 0.5): A leaf counts if `1 - NL >= threshold` (the classic ANLS is
            strict: `NL < threshold`).
        count_empty_hallucinations (`bool`, *optional*, defaults to `True`): An added key with an empty value counts in
            the number of leaves, as in the published code; its text says that it is ignored.

    Returns:
        `float` in [0, 1]; 1 for two empty structures.

    Raises:
        TypeError: For another type; a tuple in the prediction.
        ValueError: For a tuple without alternatives; a threshold out of range.

    Example:
        >>> anls_star({"total": "12.50", "items": ["Tea", "Latte"]}, {"total": ("12.5", "12.50"), "items": ["latte"]})
        0.6666666666666666

    Source: Peer et al., arXiv:2402.03848; run against deepopinion/anls_star_metric. Cost O(k^3) for a list of k, and
    one comparison for each pair of its elements.
    """
    _check_threshold(threshold)
    found, leaves = _Star(threshold, count_empty_hallucinations).compare(reference, prediction)
    return found / leaves if leaves else 1.0


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)


def _parts(value: Any, tuples: bool) -> Iterator[Any]:
    """The direct parts of a container; refuses what is no JSON value."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, tuple):
        if not tuples:
            raise TypeError("A prediction holds a tuple: tuples are alternatives of a reference. Use a list.")
        if not value:
            raise ValueError("A reference holds a tuple without alternatives.")
        yield from value
    elif value is not None and not isinstance(value, str | int | float):
        raise TypeError(f"ANLS* compares dicts, lists, texts, numbers and None, got {type(value).__name__}.")


class _Star:
    """One comparison of two trees."""

    def __init__(self, threshold: float, count_empty: bool) -> None:
        self.threshold, self.count_empty = threshold, count_empty

    def leaves(self, value: Any, tuples: bool) -> int:
        sizes = [self.leaves(part, tuples) for part in _parts(value, tuples)]
        if isinstance(value, tuple):
            return max(sizes)
        return sum(sizes) if isinstance(value, Mapping | list) else 1

    def compare(self, gold: Any, pred: Any) -> tuple[float, int]:
        """Sum of the leaf scores, and the number of leaves of the pair."""
        if isinstance(gold, tuple):
            options = [(self.compare(option, pred), option == pred) for option in _parts(gold, True)]
            if not options:
                raise ValueError("A reference holds a tuple without alternatives.")
            return max(options, key=lambda item: (_mean(*item[0]), item[1]))[0]
        if isinstance(gold, Mapping) and isinstance(pred, Mapping):
            return self._dicts(gold, pred)
        if isinstance(gold, list) and isinstance(pred, list):
            return self._lists(gold, pred)
        size = max(self.leaves(gold, True), self.leaves(pred, False))
        if gold is None:
            return float(_is_empty(pred)), size
        if isinstance(gold, Mapping | list | tuple) or pred is None or isinstance(pred, Mapping | list):
            return 0.0, size
        return self._leaf(gold, pred), size

    def _leaf(self, gold: Any, pred: Any) -> float:
        one, two = (" ".join(str(value).lower().split()) for value in (gold, pred))
        size = max(len(one), len(two))
        if one == two:
            return 1.0
        score = 1 - levenshtein(one, two, int((1 - self.threshold) * size) + 1) / size
        return score if score >= self.threshold else 0.0

    def _dicts(self, gold: Mapping, pred: Mapping) -> tuple[float, int]:
        found, size = 0.0, 0
        for key in [*gold, *(key for key in pred if key not in gold)]:
            score, leaves = self.compare(gold.get(key), pred.get(key))
            if key not in gold and _is_empty(pred[key]):
                score, leaves = 0.0, leaves if self.count_empty else 0
            found, size = found + score, size + leaves
        return found, size

    def _lists(self, gold: list, pred: list) -> tuple[float, int]:
        pairs = [[self.compare(one, two) for two in pred] for one in gold]
        rows: list[int] = []
        columns: list[int] = []
        if gold and pred:
            import numpy as np
            from scipy.optimize import linear_sum_assignment

            means = np.array([[_mean(*pair) for pair in row] for row in pairs])
            same = np.array([[one == two for two in pred] for one in gold])  # equal parts win ties
            best = linear_sum_assignment(np.where(same, np.nextafter(means, np.inf), means), maximize=True)
            rows, columns = best[0].tolist(), best[1].tolist()
        chosen = [pairs[i][j] for i, j in zip(rows, columns, strict=True)]
        left = sum(self.leaves(one, True) for i, one in enumerate(gold) if i not in rows)
        left += sum(self.leaves(two, False) for j, two in enumerate(pred) if j not in columns)
        return sum(score for score, _ in chosen), left + sum(size for _, size in chosen)


def _mean(found: float, leaves: int) -> float:
    return found / leaves if leaves else 1.0
