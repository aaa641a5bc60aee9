"""What goes into a language model and what comes out. All frozen, all JSON-serialisable through `to_dict`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .images import check_image, image_from_json, image_hash, image_to_json

Part = dict[str, Any]
"""`{"type": "text", "text": str}` or `{"type": "image", "image": PIL image | path | bytes | URL}`."""
Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "error"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Parameters:
        role (`str`): `"system"`, `"user"` or `"assistant"`.
        content (`str | list[Part]`): Text, or parts `{"type": "text", "text": ...}` and
            `{"type": "image", "image": PIL image | path | bytes | URL}`.

    Raises:
        ValueError: For another role, or a part of another type.
        TypeError: For content that is neither text nor parts.
    """

    role: Role
    content: str | Sequence[Part]

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise ValueError(f"`role` must be 'system', 'user' or 'assistant', got {self.role!r}.")
        if isinstance(self.content, str):
            return
        if not isinstance(self.content, Sequence) or isinstance(self.content, bytes):
            raise TypeError(f"`content` must be text or a list of parts, got {type(self.content).__name__}.")
        object.__setattr__(self, "content", tuple(_checked_part(part) for part in self.content))

    @property
    def text(self) -> str:
        """The text parts, joined by newlines."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part["text"] for part in self.content if part["type"] == "text")

    @property
    def images(self) -> list[Any]:
        """The images of the image parts, in order."""
        if isinstance(self.content, str):
            return []
        return [part["image"] for part in self.content if part["type"] == "image"]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        parts = [
            {"type": "image", "image": image_to_json(p["image"])} if p["type"] == "image" else dict(p)
            for p in self.content
        ]
        return {"role": self.role, "content": parts}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Message:
        """Inverse of `to_dict`."""
        content = value["content"]
        if not isinstance(content, str):
            content = [
                {"type": "image", "image": image_from_json(p["image"])} if p["type"] == "image" else dict(p)
                for p in content
            ]
        return cls(value["role"], content)

    def for_key(self) -> dict[str, Any]:
        """JSON values in which an image is the SHA-256 of its bytes."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        parts = [
            {"type": "image", "sha256": image_hash(p["image"])} if p["type"] == "image" else dict(p)
            for p in self.content
        ]
        return {"role": self.role, "content": parts}


def _checked_part(part: Any) -> Part:
    if not isinstance(part, Mapping):
        raise TypeError(f"A part must be a dict with `type`, got {type(part).__name__}.")
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if part.get("type") == "image" and part.get("image") is not None:
        check_image(part["image"])
        return {"type": "image", "image": part["image"]}
    raise ValueError(
        "A part must be {'type': 'text', 'text': str} or {'type': 'image', 'image': ...}, "
        f"got the type {part.get('type')!r} with keys {sorted(map(str, part))}."
    )


@dataclass(frozen=True)
class Request:
    """One question to a language model.

    Parameters:
        messages (`tuple[Message, ...]`): The conversation. A `str` becomes one user message; a last message of the
            role "assistant" is continued.
        max_new_tokens (`int`, *optional*, defaults to 256): At least 1.
        temperature (`float`, *optional*, defaults to 0.0): 0 is greedy decoding.
        top_p (`float`, *optional*, defaults to 1.0): In `(0, 1]`.
        stop (`tuple[str, ...]`, *optional*): The text ends before the first of these.
        seed (`int`, *optional*): Without it, an answer at `temperature > 0` is never cached.
        n (`int`, *optional*, defaults to 1): Number of answers.
        schema (`dict`, *optional*): JSON schema of the answer; see `generate_json`.
        metadata (`dict`, *optional*): The caller's own values. Never sent, never in the cache key.

    Raises:
        ValueError: For a value out of range, or no message.
        TypeError: For messages of another type.
    """

    messages: tuple[Message, ...]
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    n: int = 1
    schema: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        messages: Any = self.messages
        if isinstance(messages, str):
            messages = (Message("user", messages),)
        elif isinstance(messages, Message):
            messages = (messages,)
        messages = tuple(Message.from_dict(m) if isinstance(m, Mapping) else m for m in messages)
        wrong = [type(m).__name__ for m in messages if not isinstance(m, Message)]
        if wrong:
            raise TypeError(f"`messages` must hold Message objects, got {wrong[0]}.")
        if not messages:
            raise ValueError("`messages` is empty: at least one message is needed.")
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "messages", messages)
        object.__setattr__(self, "stop", stop)
        if not all(isinstance(text, str) and text for text in stop):
            raise ValueError(f"`stop` must hold texts that are not empty, got {list(stop)}.")
        for name, low in (("max_new_tokens", 1), ("n", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"`{name}` must be an integer of at least {low}, got {value!r}.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"`temperature` must be finite and not negative, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be in (0, 1], got {self.top_p}.")
        if self.seed is not None and (not isinstance(self.seed, int) or isinstance(self.seed, bool)):
            raise ValueError(f"`seed` must be an integer or None, got {self.seed!r}.")

    @property
    def text(self) -> str:
        """The text of all messages, joined by newlines."""
        return "\n".join(message.text for message in self.messages)

    @property
    def images(self) -> list[Any]:
        """All images, in order."""
        return [image for message in self.messages for image in message.images]

    @property
    def cacheable(self) -> bool:
        """False if the answer is drawn without a seed."""
        return self.temperature == 0 or self.seed is not None

    def replace(self, **changes: Any) -> Request:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)

    def sampling(self) -> dict[str, Any]:
        """The parameters of sampling as JSON values."""
        return {
            "max_new_tokens": self.max_new_tokens,
            "temperature": float(self.temperature),
            "top_p": float(self.top_p),
            "stop": list(self.stop),
            "seed": self.seed,
            "n": self.n,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        messages = [message.to_dict() for message in self.messages]
        return {"messages": messages, **self.sampling(), "schema": self.schema, "metadata": self.metadata}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Request:
        """Inverse of `to_dict`."""
        return cls(**{**value, "messages": tuple(Message.from_dict(m) for m in value["messages"])})


def as_request(prompt: str | Request, **changes: Any) -> Request:
    """A `str` becomes a request of one user message; a request is copied with the changes.

    Raises:
        TypeError: For anything else; an unknown name among the changes.
    """
    if isinstance(prompt, str):
        return Request((Message("user", prompt),), **changes)
    if isinstance(prompt, Request):
        return prompt.replace(**changes) if changes else prompt
    raise TypeError(f"A prompt must be a str or a Request, got {type(prompt).__name__}.")


@dataclass(frozen=True)
class Usage:
    """What was spent. Adds up with `+` and `sum`; all fields are not negative.

    Parameters:
        prompt_tokens (`int`), completion_tokens (`int`): Tokens of calls that were made.
        calls (`int`): Requests answered by the model.
        cached_calls (`int`): Requests answered by the cache, or by another request of the same call; they cost
            nothing.
        cost_usd (`float`): From the prices given to the model.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0
    cached_calls: int = 0
    cost_usd: float = 0.0

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if not value >= 0:
                raise ValueError(f"`{name}` must not be negative, got {value}.")

    def __add__(self, other: Any) -> Usage:
        if other == 0:
            return self
        if not isinstance(other, Usage):
            return NotImplemented
        mine, theirs = self.to_dict(), other.to_dict()
        return Usage(**{name: mine[name] + theirs[name] for name in mine})

    __radd__ = __add__

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Usage:
        """Inverse of `to_dict`."""
        return cls(**value)


@dataclass(frozen=True)
class Response:
    """The answers to one request.

    Parameters:
        texts (`tuple[str, ...]`): `n` texts; empty if the request failed.
        finish_reasons (`tuple[str, ...]`): `"stop"`, `"length"` or `"error"` for each text; one `"error"` if the
            request failed.
        usage (`Usage`): What this request cost; a cached one costs nothing.
        cached (`bool`): The answer came from the cache, or from an equal request of the same call.
        error (`str`, *optional*): What went wrong, with `on_error="return"`.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[FinishReason, ...] = ("stop",)
    usage: Usage = field(default_factory=Usage)
    cached: bool = False
    error: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "finish_reasons", tuple(self.finish_reasons))
        if self.texts and len(self.texts) != len(self.finish_reasons):
            raise ValueError(f"{len(self.texts)} texts need as many finish reasons, got {len(self.finish_reasons)}.")

    @property
    def text(self) -> str:
        """The first text; empty if the request failed."""
        return self.texts[0] if self.texts else ""

    def replace(self, **changes: Any) -> Response:
        """A copy with other values."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "texts": list(self.texts),
            "finish_reasons": list(self.finish_reasons),
            "usage": self.usage.to_dict(),
            "cached": self.cached,
            "error": self.error,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Response:
        """Inverse of `to_dict`."""
        return cls(**{**value, "usage": Usage.from_dict(value["usage"])})


@dataclass(frozen=True)
class Budget:
    """The most that a model may spend between two `reset_usage` calls; None is no limit.

    `max_calls` is never passed: the last batch is made smaller. Tokens and cost are known only after a call, so the
    last batch may pass them.

    Parameters:
        max_calls (`int`, *optional*), max_tokens (`int`, *optional*), max_cost_usd (`float`, *optional*): Not
            negative.
    """

    max_calls: int | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if value is not None and not value >= 0:
                raise ValueError(f"`{name}` must not be negative, got {value}.")

    def reached(self, usage: Usage) -> str | None:
        """Which limit is reached, in words; None if there is room for a call."""
        tokens = usage.prompt_tokens + usage.completion_tokens
        spent = {"max_calls": usage.calls, "max_tokens": tokens, "max_cost_usd": usage.cost_usd}
        for name, value in spent.items():
            limit = getattr(self, name)
            if limit is not None and value >= limit:
                return f"`{name}`={limit} of the budget is reached ({value} spent)"
        return None

    def room(self, usage: Usage) -> int | None:
        """How many more calls `max_calls` allows; None if it is not set."""
        return None if self.max_calls is None else max(0, self.max_calls - usage.calls)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
