"""Answers of a student as values: JSON that was cut off is closed, what cannot be read is null."""

from __future__ import annotations

import json
import re
from typing import Any

from hf_labels.labels.tail_vrd import DocumentSchema

_CLOSING = {"{": "}", "[": "]"}


def close_json(text: str, keep_cut: bool = True) -> tuple[str, bool]:
    """The first JSON object of a text, closed if it was cut off, and whether that was needed.

    Open strings and brackets are closed; if that is no JSON yet, what stands after the last comma goes, then what
    stands after the one before, and so on.

    Args:
        text (`str`): What a model wrote.
        keep_cut (`bool`, *optional*, defaults to `True`): Keep the value in which the text breaks off.

    Raises:
        ValueError: If there is no `{`, or nothing is left.

    Example:
        >>> close_json('Sure: {"vendor":"ACME","items":[{"name":"Te')
        ('{"vendor":"ACME","items":[{"name":"Te"}]}', True)
    """
    start = text.find("{")
    if start < 0:
        raise ValueError("there is no JSON object in the answer")
    body = text[start:]
    cuts = [0]
    stack: list[str] = []
    quoted = escaped = False
    for place, char in enumerate(body):
        if quoted:
            quoted = escaped or char != '"'
            escaped = not escaped and char == "\\"
        elif char == '"':
            quoted = True
        elif char in _CLOSING:
            stack.append(_CLOSING[char])
            cuts.append(place + 1)
        elif char in "}]":
            if not stack or char != stack.pop():
                body = body[:place]
                break
            if not stack:
                whole = body[: place + 1]
                if _is_json(whole):
                    return whole, False
                body = whole
                break
        elif char == ",":
            cuts.append(place)
    ends = [len(body), *reversed(cuts[1:][-200:])]
    if not keep_cut and stack:
        ends = ends[1:]
    for end in ends:
        candidate = _closed(body[:end])
        if candidate is not None:
            return candidate, True
    raise ValueError("the JSON of the answer cannot be repaired")


def _closed(text: str) -> str | None:
    stack: list[str] = []
    quoted = escaped = False
    for char in text:
        if quoted:
            quoted = escaped or char != '"'
            escaped = not escaped and char == "\\"
        elif char == '"':
            quoted = True
        elif char in _CLOSING:
            stack.append(_CLOSING[char])
        elif char in "}]" and (not stack or char != stack.pop()):
            return None
    text = text[:-1] if escaped else text
    candidate = (text + '"' if quoted else text).rstrip(" ,\n\t") + "".join(reversed(stack))
    return candidate if _is_json(candidate) else None


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def read_answer(text: str, schema: DocumentSchema) -> tuple[dict[str, Any], str]:
    """All fields of a schema from what a student wrote.

    Args:
        text (`str`): Its answer.
        schema ([`DocumentSchema`]): The fields.

    Returns:
        `(dict, str)`: Every key of the schema (None where nothing can be read), in its one form; and `"ok"`,
        `"repaired"` (the JSON was closed, or values were picked one by one) or `"failed"`.
    """
    try:
        body, repaired = close_json(text)
        values = json.loads(body)
        if repaired:  # half a text may help, half a date or amount is another one
            whole = json.loads(close_json(text, keep_cut=False)[0])
            values = {n: values.get(n) if schema[n].type == "string" else whole.get(n) for n in schema.names}
    except (ValueError, RecursionError):
        values, repaired = {}, True
    if repaired:
        values = {**_picked(text, schema), **{name: value for name, value in values.items() if value is not None}}
    found = schema.normalize(values)[0]
    failed = repaired and all(value is None for value in found.values())
    return found, "failed" if failed else "repaired" if repaired else "ok"


def _picked(text: str, schema: DocumentSchema) -> dict[str, Any]:
    """Values of `"name":"value"` pairs, wherever they stand."""
    found = {}
    for field in schema.fields:
        match = re.search(rf'"{re.escape(field.name)}"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?=[^\d.]))', text)
        if match and field.type != "list":
            try:
                found[field.name] = json.loads(match[1])
            except ValueError:
                continue
    return found
