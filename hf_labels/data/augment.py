"""Ask a language model for new texts of each class, and keep a record of what became of every one.

Used by few-shot methods. What the model writes is data: it is parsed, never executed, and nothing of it is believed
before a filter (the "switch" of CrossTune, a teacher, a person) has looked at it.
"""

import json
import logging
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

PROMPT = (
    "Write {number} different short texts that somebody could have written. Topic of every text: {name}"
    "{meaning}. They must be as varied as the examples and written in the same style.\n\nExamples:\n{examples}\n\n"
    "{form}"
)
DEMO_CHARACTERS = 500  # of each text shown; the rest of a long one says little more about its class
_LINES = "Write one text per line, each starting with '- '. Write nothing else."
_JSON = 'Answer with JSON of the form {"texts": ["...", "..."]} and nothing else.'
SCHEMA = {
    "type": "object",
    "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
    "required": ["texts"],
    "additionalProperties": False,
}


@dataclass
class Generated:
    """One generated text.

    Parameters:
        text (`str`): As parsed.
        label (`int`): The class it was written for.
        dropped (`str`, *optional*): Why it is not used: `empty`, `short`, `duplicate`, `copy`, `disagrees`,
            `unsure`, `rank`, `dataset`. `None` while it is kept.
    """

    text: str
    label: int
    dropped: str | None = None


@dataclass
class AugmentationReport:
    """What was asked, written, kept and dropped, and why.

    Parameters:
        names (`list[str]`): Labels.
        asked (`list[int]`): Texts asked for per label.
        texts (`list[Generated]`): All that was written.
        switch (`str`): `"example"`, `"dataset"` or `"none"`.
        used (`bool`): Whether generated texts were trained on.
        dev_scores (`dict[str, float]`): With `switch="dataset"`: score on the dev set with and without.
        stopped (`str`, *optional*): Why generation ended early (a budget).
        model_id (`str`, *optional*): The language model.
    """

    names: list[str]
    asked: list[int]
    texts: list[Generated] = field(default_factory=list)
    switch: str = "example"
    used: bool = True
    dev_scores: dict[str, float] = field(default_factory=dict)
    stopped: str | None = None
    model_id: str | None = None

    @property
    def kept(self) -> list[Generated]:
        """Texts that are trained on."""
        return [item for item in self.texts if item.dropped is None]

    def counts(self) -> dict[str, dict[str, int]]:
        """Per label: `asked`, `generated`, `kept`, and one number for each reason of dropping."""
        table = {}
        for label, name in enumerate(self.names):
            mine = [item for item in self.texts if item.label == label]
            reasons = Counter(item.dropped for item in mine if item.dropped)
            kept = sum(item.dropped is None for item in mine)
            table[name] = {
                "asked": self.asked[label],
                "generated": len(mine),
                "kept": kept,
                **dict(sorted(reasons.items())),
            }
        return table

    def __str__(self) -> str:
        lines = [f"Generated texts (switch: {self.switch}; {'used' if self.used else 'not used'}):"]
        for name, row in self.counts().items():
            lines.append(f"  {name}: " + ", ".join(f"{value} {key}" for key, value in row.items()))
        if self.dev_scores:
            lines.append("  dev: " + ", ".join(f"{key} {value:.3f}" for key, value in self.dev_scores.items()))
        if self.stopped:
            lines.append(f"  stopped early: {self.stopped}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """JSON text; the inverse is [`from_json`]."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "AugmentationReport":
        values = json.loads(text)
        return cls(**{**values, "texts": [Generated(**item) for item in values["texts"]]})


def generate_texts(
    lm: Any,
    descriptions: Mapping[str, str],
    shots: Sequence[tuple[str, int]],
    *,
    per_class: int = 50,
    demos: int = 4,
    texts_per_request: int = 10,
    temperature: float = 0.9,
    max_new_tokens: int = 400,
    form: str = "auto",
    exclude: Iterable[str] = (),
    min_words: int = 3,
    seed: int = 0,
) -> AugmentationReport:
    """Let a language model write texts for each label.

    Each request shows `demos` labelled texts of the class and its description. Empty answers, repetitions (case and
    white space aside) and copies of labelled or excluded texts are marked as dropped. A class that gets nothing is no
    error.

    Args:
        lm ([`~hf_labels.lm.BlackBoxLM`]): Must be able to generate.
        descriptions (`Mapping[str, str]`): Label -> description, in the order of the class ids.
        shots (`Sequence[tuple[str, int]]`): Labelled texts with class ids.
        per_class (`int`, *optional*, defaults to 50): Texts asked for per label; the model may write fewer.
        demos (`int`, *optional*, defaults to 4): Labelled texts shown per request (fewer when there are fewer).
        texts_per_request (`int`, *optional*, defaults to 10): Asked for at once.
        temperature, max_new_tokens: Of each request.
        form (`str`, *optional*, defaults to `"auto"`): `"lines"`, `"json"`, or `"json"` if the model has a JSON mode.
        exclude (`Iterable[str]`, *optional*): Texts that must not be repeated, such as dev and test texts.
        min_words (`int`, *optional*, defaults to 3): Shorter texts are dropped.
        seed (`int`, *optional*, defaults to 0): Chooses demonstrations and seeds the requests.

    Returns:
        `AugmentationReport`: All texts, none filtered by meaning yet.

    Raises:
        ValueError: `per_class`, `demos` or `texts_per_request` out of range, or another `form`.
        UnsupportedCapability: If `lm` cannot generate.
    """
    if per_class < 1 or demos < 0 or texts_per_request < 1:
        raise ValueError(
            "`per_class` and `texts_per_request` must be at least 1 and `demos` at least 0, "
            f"got {per_class}, {texts_per_request}, {demos}."
        )
    if form not in ("auto", "lines", "json"):
        raise ValueError(f"`form` must be 'auto', 'lines' or 'json', got {form!r}.")
    if form == "auto":
        form = "json" if "json_mode" in getattr(lm, "capabilities", ()) else "lines"
    report = AugmentationReport(list(descriptions), [per_class] * len(descriptions))
    report.model_id = getattr(lm, "model_id", None)
    labels, requests = [], []
    for label, (name, description) in enumerate(descriptions.items()):
        mine = [text for text, owner in shots if owner == label]
        rng = random.Random(f"{seed}-{name}")
        for start in range(0, per_class, texts_per_request):
            number = min(texts_per_request, per_class - start)
            shown = rng.sample(mine, min(demos, len(mine)))
            labels.append(label)
            requests.append(
                _request(name, description, shown, number, form, temperature, max_new_tokens, seed + start)
            )
    answers, report.stopped = _ask(lm, requests, form)
    _collect(report, labels, answers, [text for text, _ in shots], exclude, min_words)
    return report


def parse_texts(answer: str) -> list[str]:
    """Texts of an answer: items of the first JSON list, or, without one, lines without their bullets and numbers."""
    found = re.search(r"\[.*\]", answer, flags=re.DOTALL)
    if found:
        try:
            items = json.loads(found.group())
        except ValueError:
            items = None
        if isinstance(items, list) and all(isinstance(item, str) for item in items):
            return [" ".join(item.split()) for item in items]
    lines = []
    for line in filter(str.strip, answer.splitlines()):
        line = re.sub(r"^\s*(?:[-*•]|\(?\d{1,3}[.):])\s*", "", line)
        lines.append(" ".join(line.strip().strip('"“”').split()))
    return lines


def fold(text: str) -> str:
    """Text without differences of case and white space, to find repetitions."""
    return " ".join(text.casefold().split())


def _request(
    name: str, description: str, shown: list[str], number: int, form: str, temperature: float, tokens: int, seed: int
) -> Any:
    from hf_labels.lm import Message, Request

    prompt = PROMPT.format(
        number=number,
        name=name,
        meaning="" if description == name else f" ({description.rstrip('.')})",
        examples="\n".join(f"- {' '.join(text.split())[:DEMO_CHARACTERS]}" for text in shown) or "(none)",
        form=_JSON if form == "json" else _LINES,
    )
    return Request(
        (Message("user", prompt),),
        max_new_tokens=tokens,
        temperature=temperature,
        seed=seed if temperature > 0 else None,
        metadata={"label": name},
    )


def _ask(lm: Any, requests: list[Any], form: str) -> tuple[list[list[str]], str | None]:
    """Parsed answers, one list per request, and why it stopped early (`None` when it did not)."""
    from hf_labels.lm import BudgetExceeded

    stopped = None
    try:
        answers = lm.generate_json(requests, SCHEMA) if form == "json" else lm.generate(requests)
    except BudgetExceeded as error:
        logger.warning("Generation stopped: %s What was written until then is used.", error)
        answers, stopped = list(error.partial or []), str(error)
    parsed: list[list[str]] = []
    for answer in answers:
        if answer is None:
            parsed.append([])
        elif form == "json" and answer.value is not None:
            parsed.append([" ".join(text.split()) for text in answer.value["texts"]])
        elif form == "json":  # no valid JSON even after a repair: take what can be read as a list
            parsed.append(parse_texts(answer.raw or ""))
        else:
            parsed.append([text for written in answer.texts for text in parse_texts(written)])
    return parsed + [[] for _ in range(len(requests) - len(parsed))], stopped


def _collect(
    report: AugmentationReport,
    labels: list[int],
    answers: list[list[str]],
    shots: Sequence[str],
    exclude: Iterable[str],
    min_words: int,
) -> None:
    known = {fold(text) for text in [*shots, *exclude]}
    seen: set[str] = set()
    for label, texts in zip(labels, answers, strict=True):
        for text in texts:
            folded, reason = fold(text), None
            if not folded:
                reason = "empty"
            elif folded in known:
                reason = "copy"
            elif folded in seen:
                reason = "duplicate"
            elif len(folded.split()) < min_words:
                reason = "short"
            seen.add(folded)
            report.texts.append(Generated(text, label, reason))
    for label, name in enumerate(report.names):
        if not any(item.label == label and item.dropped is None for item in report.texts):
            logger.warning(
                "The language model gave no usable text for label %r: it keeps its labelled texts only.", name
            )
