"""Prompts and JSON schemas of TnT-LLM. Texts are data: they stand between marks and are never part of a template.

`VERSION` changes with the wording; it is kept in the config of every taxonomy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_labels.labels.tnt_llm import FALLBACK, Taxonomy

from .types import Message, Request

VERSION = "1"
_LABELS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "description": {"type": "string"}},
        "required": ["name", "description"],
    },
}
GENERATE = {"type": "object", "properties": {"labels": _LABELS}, "required": ["labels"]}
UPDATE = {
    "type": "object",
    "properties": {
        "rating": {"type": "integer", "minimum": 0, "maximum": 100},
        "explanation": {"type": "string"},
        "edits": {"type": "string"},
        "labels": _LABELS,
    },
    "required": ["rating", "labels"],
}
LABEL = {
    "type": "object",
    "properties": {
        "rationale": {"type": "string"},
        "primary": {"type": "string"},
        "all": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["primary"],
}
CHOICE = {"type": "object", "properties": {"choice": {"enum": ["A", "B", "none"]}}, "required": ["choice"]}
RELEVANT = {"type": "object", "properties": {"relevant": {"type": "boolean"}}, "required": ["relevant"]}


def summarize(use_case: str, text: str, words: int) -> Request:
    """A summary of one document for the use case."""
    ask = f"Summarize the text below in at most {words} words, for this use case: {use_case}\nGive the summary only."
    return Request((Message("user", f"{ask}\n\n<text>\n{text}\n</text>"),), max_new_tokens=4 * words)


def _rules(max_labels: int, name_words: int, description_words: int) -> str:
    return (
        f"Rules: 2 to {max_labels} labels. Names are distinct, specific and have at most {name_words} words; "
        f"descriptions have at most {description_words} words and tell labels apart. Labels do not overlap. No vague "
        'labels such as "Other" or "General".'
    )


def _documents(summaries: Sequence[str]) -> str:
    return "\n".join(f"<document {number}> {' '.join(text.split())}" for number, text in enumerate(summaries, start=1))


def generate(use_case: str, summaries: Sequence[str], limits: tuple[int, int, int]) -> Request:
    """The first table."""
    text = (
        f"Use case: {use_case}\nMake a list of labels that sorts documents like these for the use case.\n"
        f"{_rules(*limits)}\nAnswer with JSON: "
        '{"labels": [{"name": ..., "description": ...}]}\n\n'
        f"{_documents(summaries)}"
    )
    return Request((Message("user", text),), max_new_tokens=2048)


def update(
    use_case: str, table: Taxonomy, summaries: Sequence[str], limits: tuple[int, int, int], words: tuple[int, int]
) -> Request:
    """Rate and improve a table, with a batch of documents."""
    text = (
        f"Use case: {use_case}\nCurrent labels:\n{table.to_markdown()}\n\nRate from 0 to 100 how well the labels "
        "are made (format, no overlap, nothing vague) and how well they sort the documents below. Explain in at most "
        f"{words[0]} words. "
        f'Suggest edits in at most {words[1]} words, or "N/A". Then give the updated list: edit, merge, split, add or '
        f"remove labels.\n{_rules(*limits)}\nAnswer with JSON: "
        '{"rating": ..., "explanation": ..., "edits": ..., "labels": [{"name": ..., "description": ...}]}\n\n'
        f"{_documents(summaries)}"
    )
    return Request((Message("user", text),), max_new_tokens=2048)


def repair(request: Request, answer: str, problems: Sequence[str]) -> Request:
    """Ask again, with what was wrong."""
    say = f"This list cannot be used: {'; '.join(problems)}. Give a corrected answer in the same JSON format."
    return request.replace(messages=(*request.messages, Message("assistant", answer), Message("user", say)))


def label(taxonomy: Taxonomy, text: str) -> Request:
    """The labels of one document."""
    ask = (
        f"Use case: {taxonomy.use_case}\nLabels:\n{taxonomy.to_markdown()}\n\nWhich label fits the text best "
        '("primary"), and which all fit? Reason first, in at most 30 words. If none fits, the label is '
        f'"{FALLBACK}".\n'
        'Answer with JSON: {"rationale": ..., "primary": ..., "all": [...]}\n\n'
        f"<text>\n{text}\n</text>"
    )
    return Request((Message("user", ask),), max_new_tokens=256)


def choose(use_case: str, text: str, one: str, two: str) -> Request:
    """Which of two labels describes a document better."""
    ask = (
        f"Use case: {use_case}\nWhich label describes the text better?\nA: {one}\nB: {two}\n"
        'Answer with JSON: {"choice": "A"}, {"choice": "B"} or {"choice": "none"}\n\n'
        f"<text>\n{text}\n</text>"
    )
    return Request((Message("user", ask),), max_new_tokens=32)


def relevant(use_case: str, name: str, description: str) -> Request:
    """Whether a label serves the use case."""
    ask = f"Use case: {use_case}\nLabel: {name}: {description}\nIs this label relevant to the use case?\n"
    return Request((Message("user", ask + 'Answer with JSON: {"relevant": true} or {"relevant": false}'),))


def table_of(value: Any) -> list[dict[str, Any]]:
    """The labels of an answer."""
    return list(value["labels"])
