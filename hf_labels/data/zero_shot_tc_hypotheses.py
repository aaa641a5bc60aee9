"""Labels as sentences that a text may entail: one around the name, one around the WordNet definition."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_labels.data.offline_wordnet import WordNet, load_wordnet
from hf_labels.labels.verbalize import LabelSpace

logger = logging.getLogger(__name__)

_QUESTION = "Define `{}` in one short clause, as a dictionary does, without the word itself."
_MOST_WORDS = 24  # of a definition: a hypothesis is never cut, the text is


@dataclass(frozen=True)
class Aspect:
    """One task of the benchmark: its labels, its patterns, its rules.

    Parameters:
        name (`str`): `"topic"`, `"emotion"`, `"situation"` or your own.
        name_template (`str`): Hypothesis around the words of a label, with one `{}`.
        definition_template (`str`): The same around its definitions.
        words (`dict[str, tuple[str, ...]]`): Label -> the words that are put in the name hypothesis, joined by "or".
            A label without entry is its own word.
        lookups (`dict[str, tuple[str, ...]]`): Label -> what is looked up in WordNet; defaults to `words`.
        pos (`str`): Part of speech that is looked up first.
        none_label (`str`, *optional*): What "no label" is called in the data.
        multi_label (`bool`): Texts may have several labels.
        seen_margin, seen_threshold, threshold (`float`): Of [`~hf_labels.labels.zero_shot_tc.DecisionRule`].
        columns (`tuple[str, ...]`): Columns of the benchmark's tab-separated files.
    """

    name: str
    name_template: str
    definition_template: str
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lookups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pos: str = "noun"
    none_label: str | None = None
    multi_label: bool = False
    seen_margin: float = 0.1
    seen_threshold: float = 0.6
    threshold: float = 0.5
    columns: tuple[str, ...] = ("labels", "text")

    @property
    def labels(self) -> tuple[str, ...]:
        """The benchmark's labels in its order, without the none label."""
        return tuple(self.words)


TOPIC = Aspect(
    "topic",
    "It is related with {}.",
    "This text describes something about {}.",
    {
        "Society & Culture": ("society", "culture"),
        "Science & Mathematics": ("science", "mathematics"),
        "Health": ("health",),
        "Education & Reference": ("education", "reference"),
        "Computers & Internet": ("computers", "internet"),
        "Sports": ("sports",),
        "Business & Finance": ("business", "finance"),
        "Entertainment & Music": ("entertainment", "music"),
        "Family & Relationships": ("family", "relationships"),
        "Politics & Government": ("politics", "government"),
    },
)
EMOTION = Aspect(
    "emotion",
    "This person feels {}.",
    "This person expresses {}.",
    {
        "sadness": ("sad",),
        "joy": ("joyful",),
        "anger": ("angry",),
        "disgust": ("disgusted",),
        "fear": ("afraid of something",),
        "surprise": ("surprised",),
        "shame": ("ashamed",),
        "guilt": ("guilty",),
        "love": ("love",),
    },
    {name: (name,) for name in ("sadness joy anger disgust fear surprise shame guilt love").split()},
    none_label="noemo",
    seen_margin=0.05,
    columns=("labels", "domain", "text"),
)
SITUATION = Aspect(
    "situation",
    "The people there need {}.",
    "{} is needed or happened there.",
    {
        "search": ("a search",),
        "evac": ("evacuation",),
        "infra": ("infrastructure",),
        "utils": ("utilities",),
        "water": ("water",),
        "shelter": ("shelter",),
        "med": ("medical assistance",),
        "food": ("food",),
        "crimeviolence": ("help against crime and violence",),
        "terrorism": ("help against terrorism",),
        "regimechange": ("help in a change of government",),
    },
    {
        **{"search": ("search",), "evac": ("evacuation",), "infra": ("infrastructure",), "utils": ("utility",)},
        **{"med": ("medicine", "medical care"), "crimeviolence": ("crime", "violence"), "terrorism": ("terrorism",)},
        **{"regimechange": ("overthrow",)},
    },
    none_label="out-of-domain",
    multi_label=True,
    columns=("labels", "text"),
)
ASPECTS = {aspect.name: aspect for aspect in (TOPIC, EMOTION, SITUATION)}


def wordnet_hypotheses(
    labels: Sequence[str],
    aspect: str | Aspect = "topic",
    *,
    words: Mapping[str, Sequence[str]] | None = None,
    definitions: Mapping[str, str] | None = None,
    wordnet: WordNet | Literal[False] | None = None,
    lm: Any = None,
    use: str = "both",
) -> dict[str, list[str]]:
    """Hypotheses of labels: `"It is related with society or culture."`, `"This text describes something about <the
    WordNet definitions>."`

    The definition of a label is, in this order: yours, that of WordNet (first meaning of each of its words, at most 24
    words long, joined by "or"), one written by a language model. A label that has none keeps its name
    hypothesis; a warning lists it.

    Args:
        labels (sequence of `str`): Distinct names, at least one.
        aspect (`str` or [`Aspect`], *optional*, defaults to `"topic"`): Patterns and words: `"topic"`, `"emotion"`,
            `"situation"`, or your own.
        words (`dict`, *optional*): Label -> words to show and to look up, in place of the aspect's; default: the name.
        definitions (`dict`, *optional*): Label -> definition of your own.
        wordnet ([`WordNet`], *optional*): Loaded when it is needed; `False`: not used.
        lm ([`~hf_labels.lm.BlackBoxLM`], *optional*): Asked for a one-line definition where WordNet has none.
        use (`str`, *optional*, defaults to `"both"`): `"both"`, `"names"` or `"definitions"` (compared in the paper).

    Returns:
        `dict[str, list[str]]`: Label -> its hypotheses, name first.

    Raises:
        ValueError: No labels, doubles, an unknown aspect or `use`, words or definitions of an unknown label.
        FileNotFoundError: WordNet is needed and not there; says how to get it.

    Source: Yin, Hay and Roth, EMNLP 2019, section 5.1; the wording is ours, the patterns are theirs.
    """
    plan = find_aspect(aspect)
    if use not in ("both", "names", "definitions"):
        raise ValueError(f"`use` must be 'both', 'names' or 'definitions', got {use!r}.")
    space = LabelSpace.from_names(labels)
    for name, given in (("words", words), ("definitions", definitions)):
        strange = [key for key in given or {} if key not in space.names]
        if strange:
            raise ValueError(f"`{name}` names {strange[0]!r}, which is not a label: {', '.join(space.names[:8])}.")
    texts = dict(definitions or {})
    texts = {} if use == "names" else texts
    missing = [name for name in space.names if name not in texts] if use != "names" else []
    if missing and wordnet is not False:
        source = wordnet or load_wordnet()
        texts |= {name: text for name in missing if (text := _define(source, name, plan, words))}
    unknown = [name for name in missing if name not in texts]
    if unknown and lm is not None:
        asked = [_QUESTION.format(name) for name in unknown]
        answers = lm.generate_text(asked)
        texts |= {name: line for name, text in zip(unknown, answers, strict=True) if (line := _one_line(text))}
        unknown = [name for name in unknown if name not in texts]
    if unknown and wordnet is not False:
        logger.warning("WordNet defines no word of %s: only the name is used. Give `definitions`.", ", ".join(unknown))
    found: dict[str, list[str]] = {}
    for name in space.names:
        shown = tuple((words or {}).get(name, ())) or plan.words.get(name) or (name,)
        named = plan.name_template.replace("{}", " or ".join(shown))
        defined = [plan.definition_template.replace("{}", texts[name])] if name in texts else []
        found[name] = ([named] if use != "definitions" or not defined else []) + defined
    return {name: [line[:1].upper() + line[1:] for line in lines] for name, lines in found.items()}


def complete_hypotheses(
    labels: Sequence[str], hypotheses: Mapping[str, Sequence[str] | str] | None, template: str
) -> dict[str, list[str]]:
    """Every label with its hypotheses; one without gets the template.

    Args:
        labels (sequence of `str`): Distinct names, at least one.
        hypotheses (`dict`, *optional*): Label -> sentences.
        template (`str`): With one `{}` for the label.

    Raises:
        ValueError: No labels, double labels, a template without `{}`, hypotheses of an unknown label or an empty one.
    """
    if not isinstance(labels, str) and not len(labels):
        raise ValueError("`candidate_labels` is empty: give at least one label.")
    space = LabelSpace.from_names(labels, [template])
    found = space.hypotheses(definitions=False)
    for name, lines in (hypotheses or {}).items():
        if name not in found:
            raise ValueError(
                f"`hypotheses` are given for {name!r}, which is not a label: {', '.join(space.names[:8])}."
            )
        texts = [lines] if isinstance(lines, str) else list(lines)
        if any(not isinstance(text, str) or not text.strip() for text in texts):
            raise ValueError(f"A hypothesis of {name!r} is empty or no text: {texts}.")
        if texts:
            found[name] = texts
    return found


def find_aspect(aspect: str | Aspect) -> Aspect:
    """An aspect by its name; an [`Aspect`] passes.

    Raises:
        ValueError: An unknown name.
    """
    if isinstance(aspect, Aspect):
        return aspect
    if aspect not in ASPECTS:
        raise ValueError(f"`aspect` must be one of {', '.join(ASPECTS)} or an `Aspect`, got {aspect!r}.")
    return ASPECTS[aspect]


def _define(wordnet: WordNet, name: str, plan: Aspect, words: Mapping[str, Sequence[str]] | None) -> str | None:
    given = tuple((words or {}).get(name, ()))
    lookups = given or plan.lookups.get(name) or plan.words.get(name) or (name,)
    order = [plan.pos, *(pos for pos in ("noun", "adj", "verb", "adv") if pos != plan.pos)]
    parts = []
    for word in lookups:
        found = wordnet.synsets(word, order)
        if found:
            parts.append(_shortened(found[0].definition))
    return " or ".join(dict.fromkeys(parts)) or None


def _shortened(definition: str) -> str:
    """Its first clauses, as many as fit, without clauses that are remarks in brackets."""
    clauses = [clause.strip() for clause in definition.split(";")]
    kept = [clause for clause in clauses if clause and not (clause.startswith("(") and clause.endswith(")"))]
    text = kept[0] if kept else definition
    if text.startswith("(") and ")" in text[:-1]:
        text = text.partition(")")[2].strip()
    for clause in kept[1:]:
        if len(f"{text} {clause}".split()) > _MOST_WORDS or clause.startswith("("):
            break
        text = f"{text}; {clause}"
    return text


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = lines[0].rstrip(".").split() if lines else []
    return " ".join(words[:_MOST_WORDS])
