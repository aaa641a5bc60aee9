"""Answers as JSON: extraction, validation and repair. Nothing is ever evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import BudgetExceeded
from .schema import check_schema, fit
from .types import Message, Request, Response, Usage, as_request

if TYPE_CHECKING:
    from .base import BlackBoxLM

MAX_REASON = 500  # characters of the validator's message in a repair request
MAX_ECHO = 8000  # characters of the bad answer in a repair request
_CLOSING = {"{": "}", "[": "]"}


@dataclass(frozen=True)
class Structured:
    """A JSON answer.

    Parameters:
        value (`Any`): The value that fits the schema (an instance, for a pydantic model class); None if there is none.
        error (`str`, *optional*): Why there is no value.
        raw (`str`): The last text that the model gave.
        repairs (`int`): Repair requests that were sent.
        usage (`Usage`): Of all requests for this item.
    """

    value: Any
    error: str | None = None
    raw: str = ""
    repairs: int = 0
    usage: Usage = field(default_factory=Usage)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        value = self.value.model_dump(mode="json") if hasattr(self.value, "model_dump") else self.value
        return {
            "value": value,
            "error": self.error,
            "raw": self.raw,
            "repairs": self.repairs,
            "usage": self.usage.to_dict(),
        }


def extract_json(text: str) -> Any:
    """The JSON between the first `{` or `[` of a text and its balanced closing bracket; code fences do not matter.

    Raises:
        ValueError: If there is no bracket, it is never closed, or what is between is not JSON (NaN and Infinity are
            not).

    Example:
        >>> extract_json('Here it is: ```json {"a": [1, "}"]} ``` Good luck.')
        {'a': [1, '}']}
    """
    starts = [place for place in (text.find("{"), text.find("[")) if place >= 0]
    if not starts:
        raise ValueError("there is no JSON object or array in the answer")
    start = min(starts)
    end = _closing(text, start)
    return json.loads(text[start:end], parse_constant=_no_constant)


def _closing(text: str, start: int) -> int:
    """Position after the bracket that closes the one at `start`; brackets inside strings do not count."""
    expected: list[str] = []
    quoted = escaped = False
    for place in range(start, len(text)):
        char = text[place]
        if quoted:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char in _CLOSING:
            expected.append(_CLOSING[char])
        elif char in "}]":
            if char != expected.pop():
                raise ValueError(f"the brackets do not match at character {place}: unexpected {char!r}")
            if not expected:
                return place + 1
    raise ValueError(f"the JSON is cut off: {expected[-1]!r} is missing at the end")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True)
class Validator:
    """A schema that was checked, and how to check values against it."""

    schema: dict[str, Any]
    validate: Callable[[Any], Any]

    @classmethod
    def of(cls, schema: Any) -> Validator:
        """From a JSON-schema dict or a pydantic model class.

        Raises:
            ValueError: For an unknown keyword, or a schema whose values are neither objects nor arrays.
            TypeError: For anything else.
        """
        if isinstance(schema, type) and hasattr(schema, "model_validate"):
            model: Any = schema
            return cls(model.model_json_schema(), model.model_validate)
        if not isinstance(schema, Mapping):
            raise TypeError(f"`schema` must be a dict or a pydantic model class, got {schema!r}.")
        check_schema(schema)
        kinds = schema.get("type", "object")
        if not {"object", "array"} & set([kinds] if isinstance(kinds, str) else kinds):
            raise ValueError(f"`schema` must describe an object or an array, got the type {kinds!r}.")
        copy = json.loads(json.dumps(schema))
        return cls(copy, lambda value: fit(value, copy))

    def parse(self, text: str) -> Any:
        """The value in a text.

        Raises:
            ValueError: Says what is wrong, for the model and for people.
        """
        try:
            return self.validate(extract_json(text))
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error


def with_instruction(request: Request) -> Request:
    """The request with its schema in words, for a model that has no JSON mode."""
    assert request.schema is not None
    schema = json.dumps(request.schema, ensure_ascii=False)
    text = f"Answer with one JSON value that fits this JSON schema, and nothing else:\n{schema}"
    messages = list(request.messages)
    users = [i for i, message in enumerate(messages) if message.role == "user"]
    if not users:
        messages.append(Message("user", text))
        return request.replace(messages=tuple(messages))
    last = messages[users[-1]]
    if isinstance(last.content, str):
        content: Any = f"{last.content}\n\n{text}"
    else:
        content = [*last.content, {"type": "text", "text": text}]
    messages[users[-1]] = Message("user", content)
    return request.replace(messages=tuple(messages))


def repair_request(request: Request, bad: str, reason: str) -> Request:
    """The conversation so far, the bad answer, and what is wrong with it (at most 500 characters)."""
    shown = bad if len(bad) <= MAX_ECHO else bad[:MAX_ECHO] + " ..."
    complaint = (
        f"This answer cannot be used: {reason[:MAX_REASON]}\n"
        "Answer again with the corrected JSON only, without any other text."
    )
    messages = list(request.messages)
    if messages[-1].role == "assistant":  # an answer that was begun
        shown = messages.pop().text + shown
    turns = (
        Message("assistant", shown or "(empty)"),
        Message("user", complaint),
    )  # some templates refuse an empty turn
    return request.replace(messages=(*messages, *turns))


def generate_json(
    lm: BlackBoxLM, requests: Sequence[str | Request], schema: Any, *, max_repairs: int = 2
) -> list[Structured]:
    """Answers as JSON that fits a schema.

    For each item: generate; take the text between the first bracket and its closing one; load; validate. On failure
    send the bad answer and the validator's message back, at most `max_repairs` times.

    Args:
        lm ([`BlackBoxLM`]): The model. One without a JSON mode gets the schema in words.
        requests (list of `str | Request`): With `n=1`.
        schema (`dict` or pydantic model class): For a dict, the keywords type, properties, required, enum, items,
            minItems, maxItems, minimum, maximum, maxLength and additionalProperties (false by default: extra keys are
            dropped).
        max_repairs (`int`, *optional*, defaults to 2): Repair requests for one item.

    Returns:
        list of [`Structured`], in order; an item that never fits has `value=None` and `error`.

    Raises:
        ValueError: For an unknown keyword, `n` above 1, or a negative `max_repairs`.
        BudgetExceeded: With `partial`, a list with None where nothing was answered.
    """
    validator = Validator.of(schema)
    if not isinstance(max_repairs, int) or max_repairs < 0:
        raise ValueError(f"`max_repairs` must be an integer that is not negative, got {max_repairs!r}.")
    asked = [as_request(request).replace(schema=validator.schema) for request in requests]
    if any(request.n != 1 for request in asked):
        raise ValueError(
            "`generate_json` needs requests with `n=1`: send a request for each sample, with its own seed."
        )
    if "json_mode" not in lm.capabilities:
        asked = [with_instruction(request) for request in asked]
    results: list[Structured | None] = [None] * len(asked)
    waiting = list(range(len(asked)))
    for attempt in range(max_repairs + 1):
        try:
            answers = lm.generate([asked[i] for i in waiting])
        except BudgetExceeded as error:
            for i, answer in zip(waiting, error.partial, strict=True):
                if answer is not None:
                    results[i] = _read(validator, answer, results[i], attempt)
            raise BudgetExceeded(str(error), results) from error
        for i, answer in zip(waiting, answers, strict=True):
            results[i] = _read(validator, answer, results[i], attempt)
        waiting = [i for i in waiting if _is_bad(results[i])]
        if not waiting:
            break
        for i in waiting:
            found = results[i]
            assert found is not None
            asked[i] = repair_request(asked[i], found.raw, found.error or "")
    return [result for result in results if result is not None]


_FAILED = "the request failed: "


def _is_bad(result: Structured | None) -> bool:
    return result is not None and result.error is not None and not result.error.startswith(_FAILED)


def _read(validator: Validator, answer: Response, before: Structured | None, repairs: int) -> Structured:
    usage = answer.usage + (before.usage if before else Usage())
    if answer.error is not None:
        raw = before.raw if before else ""
        return Structured(None, _FAILED + answer.error, raw, repairs, usage)
    try:
        return Structured(validator.parse(answer.text), None, answer.text, repairs, usage)
    except ValueError as error:  # json.JSONDecodeError and pydantic.ValidationError are ValueErrors too
        return Structured(None, str(error), answer.text, repairs, usage)
