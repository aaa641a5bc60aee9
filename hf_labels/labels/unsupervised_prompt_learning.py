"""Parts of unsupervised prompt learning that ask no model: candidate tokens, prompt text, choice of demonstrations."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Demo = tuple[str, str]
"""A text and its label word."""

STRATEGIES = ("random", "nearest")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_FIELDS = ("{prompt}", "{demos}", "{text}")


class ReliableSetEmpty(ValueError):
    """No text is labelled surely enough to begin with."""


def candidate_vocabulary(
    texts: Sequence[str],
    size: int = 50,
    *,
    min_count: int = 5,
    min_pmi: float = 1.0,
    min_frequency: int = 5,
    max_words: int = 5,
) -> list[str]:
    """Segments of words that occur together in the unlabelled texts, the most frequent first.

    Neighbours a, b with `log(T c(a,b) / (c(a) c(b))) >= min_pmi` and `c(a,b) >= min_count` are joined, to at most
    `max_words` words; T is the number of words, c counts.

    Args:
        texts (list of `str`): The corpus; words are lower-cased.
        size (`int`, *optional*, defaults to 50): How many to keep at most (ties in alphabetical order).
        min_count (`int`), min_pmi (`float`): Which neighbours are joined.
        min_frequency (`int`, *optional*, defaults to 5): Keep segments seen more often than this.
        max_words (`int`, *optional*, defaults to 5): Longest segment.

    Returns:
        `list[str]`: Up to `size` segments; empty if none is frequent enough.

    Raises:
        ValueError: If `size` or `max_words` is below 1.

    Source: the vocabulary of BDPL, arXiv:2201.08531, as its released code builds it.
    """
    if size < 1 or max_words < 1:
        raise ValueError(f"`size` and `max_words` must be at least 1, got {size} and {max_words}.")
    lines = [[word.lower() for word in _WORD.findall(text)] for text in texts]
    single = Counter(word for line in lines for word in line)
    pairs = Counter(pair for line in lines for pair in zip(line, line[1:], strict=False))
    total = sum(single.values())
    joined = {
        (a, b)
        for (a, b), count in pairs.items()
        if count >= min_count and math.log(total * count / (single[a] * single[b])) >= min_pmi
    }
    found: Counter[str] = Counter()
    for line in lines:
        segment: list[str] = []
        for word in line:
            if segment and len(segment) < max_words and (segment[-1], word) in joined:
                segment.append(word)
                continue
            if segment:
                found[" ".join(segment)] += 1
            segment = [word]
        if segment:
            found[" ".join(segment)] += 1
    kept = [(segment, count) for segment, count in found.items() if count > min_frequency]
    return [segment for segment, _ in sorted(kept, key=lambda item: (-item[1], item[0]))[:size]]


@dataclass(frozen=True)
class PromptTemplate:
    """Where prompt, demonstrations and text stand. What follows `{demos}` is repeated for each demonstration.

    Parameters:
        template (`str`): With `{text}` once and, before it, `{prompt}` and `{demos}` at most once each. Everything
            after `{demos}` (after `{prompt}`, if there is no `{demos}`) is the form of one example; its end is where
            the label word goes. Without `{demos}` demonstrations are not part of the prompt.

    Raises:
        ValueError: If a field is missing, repeated or in another order.

    Example:
        >>> form = PromptTemplate("{prompt} {demos}\\nReview: {text}\\nSentiment:")
        >>> print(form.render("Films:", "Great fun.", [("So dull.", " negative")]))
        Films:
        Review: So dull.
        Sentiment: negative
        Review: Great fun.
        Sentiment:
    """

    template: str = "{prompt} {demos}\nText: {text}\nLabel:"

    def __post_init__(self) -> None:
        counts = {field: self.template.count(field) for field in _FIELDS}
        places = [self.template.find(field) for field in _FIELDS if counts[field]]
        if counts["{text}"] != 1 or max(counts.values()) > 1 or places != sorted(places):
            raise ValueError(
                "`template` needs `{text}` once and, before it, `{prompt}` and `{demos}` at most once each, in this "
                f"order; got {self.template!r}."
            )

    @property
    def has_demos(self) -> bool:
        """Whether demonstrations are written into the prompt."""
        return "{demos}" in self.template

    @property
    def has_prompt(self) -> bool:
        """Whether there is a place for learned tokens."""
        return "{prompt}" in self.template

    def render(self, prompt: str, text: str, demos: Sequence[Demo] = ()) -> str:
        """The whole question. Braces in texts stay as they are."""
        field = "{demos}" if self.has_demos else "{prompt}" if self.has_prompt else ""
        head, example = ("", self.template) if not field else self.template.split(field, 1)
        if self.has_demos:
            head = head.replace("{prompt}", prompt, 1)
        elif self.has_prompt:
            head += prompt
        before, after = example.split("{text}")
        shown = "".join(f"{before}{shot}{after}{word}" for shot, word in (demos if self.has_demos else ()))
        return f"{head.strip()}{shown}{before}{text}{after}".lstrip()


def prompt_words(vocabulary: Sequence[str], tokens: Sequence[int]) -> str:
    """Tokens as text."""
    return " ".join(vocabulary[int(token)] for token in tokens)


def draw_demonstrations(
    text: str,
    pool_texts: Sequence[str],
    pool_labels: Sequence[int],
    k: int,
    seed: int,
    *,
    draw: int = 0,
) -> list[int]:
    """k places in the pool, the classes in turn, never one with the text itself. The same text gets the same draw.

    Args:
        text (`str`): The text that is to be labelled.
        pool_texts (list of `str`), pool_labels (list of `int`): The demonstrations there are.
        k (`int`): How many; fewer if the pool has fewer other texts.
        seed (`int`), draw (`int`): Another number gives another choice.

    Returns:
        `list[int]`: Distinct places, in random order. Depends on the text and the pool only, not on other texts.
    """
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    rng = np.random.default_rng([seed, draw, int.from_bytes(digest[:8], "big")])
    seen = {text}
    classes: dict[int, list[int]] = {}
    for place in rng.permutation(len(pool_texts)):
        if pool_texts[place] not in seen:
            seen.add(pool_texts[place])
            classes.setdefault(int(pool_labels[place]), []).append(int(place))
    names = sorted(classes)
    order = [names[i] for i in rng.permutation(len(names))]
    chosen: list[int] = []
    while len(chosen) < k and any(classes.values()):
        for label in order:
            if classes[label] and len(chosen) < k:
                chosen.append(classes[label].pop(0))
    return [chosen[i] for i in rng.permutation(len(chosen))]


def nearest_demonstrations(
    text: str, vector: np.ndarray, pool_texts: Sequence[str], pool_vectors: np.ndarray, k: int
) -> list[int]:
    """The k places of the pool that are closest by cosine, the closest last; never one with the text itself.

    Args:
        text (`str`), vector (`(D,)`): What is to be labelled, and its embedding.
        pool_texts (list of `str`), pool_vectors (`(P, D)`): The demonstrations there are.
        k (`int`): How many.
    """
    norms = np.linalg.norm(pool_vectors, axis=1) * np.linalg.norm(vector)
    close = pool_vectors @ vector / np.where(norms > 0, norms, 1.0)
    seen: set[str] = {text}
    chosen: list[int] = []
    for place in np.argsort(-close, kind="stable"):
        if len(chosen) < k and pool_texts[place] not in seen:
            seen.add(pool_texts[place])
            chosen.append(int(place))
    return chosen[::-1]
