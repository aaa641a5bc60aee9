"""Scores of labels from the list of the likeliest first tokens."""

from __future__ import annotations

from collections.abc import Sequence


def first_token_scores(labels: Sequence[str], listed: Sequence[tuple[str, float]]) -> tuple[list[float], list[bool]]:
    """Log-probability of each label's first token, and whether it is only an upper bound.

    The tokenizer is not known: a label's first token is the longest listed token that begins it, white space at the
    ends aside (a token equal to the label as given goes first). If another label has a longer match, a token that
    begins both is only a bound for this one. A label that no listed token begins gets the lowest listed value, as a
    bound.

    Args:
        labels (`[C]`): Label words.
        listed (`[k]`): Pairs (token, log-probability).

    Returns:
        `[C]` floats and `[C]` booleans (True: upper bound).

    Raises:
        ValueError: If two labels begin with the same token.

    Example:
        >>> first_token_scores(["A", "B", "C"], [("B", -0.1), (" A", -2.5), ("x", -6.0)])
        ([-2.5, -0.1, -6.0], [False, False, True])
    """
    lowest = min(value for _, value in listed)
    matches = [_longest(label, listed) for label in labels]
    owners: dict[str, list[int]] = {}
    for c, match in enumerate(matches):
        if match is not None:
            owners.setdefault(match[0].strip(), []).append(c)
    for token, sharing in owners.items():
        if len(sharing) > 1:
            names = ", ".join(repr(labels[c]) for c in sharing)
            raise ValueError(
                f"The labels {names} begin with the same token {token!r} and cannot be told apart. Score single "
                "letters: `verbalize(labels, 'letter')`."
            )
    values, bounds = [], []
    for c, match in enumerate(matches):
        if match is None:
            values.append(lowest)
            bounds.append(True)
            continue
        token = match[0].strip()
        others = any(d != c and label.strip().startswith(token) for d, label in enumerate(labels))
        values.append(match[1])
        bounds.append(others and token != labels[c].strip())
    return values, bounds


def _longest(label: str, listed: Sequence[tuple[str, float]]) -> tuple[str, float] | None:
    exact = [entry for entry in listed if entry[0] == label]
    if exact:
        return exact[0]
    word = label.strip()
    fitting = [entry for entry in listed if entry[0].strip() and word.startswith(entry[0].strip())]
    return max(fitting, key=lambda entry: (len(entry[0].strip()), entry[1]), default=None)
