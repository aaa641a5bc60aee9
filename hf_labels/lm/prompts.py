"""Requests as text and token ids for a local model: chat templates, context length, truncation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import ItemError
from .types import Message, Request


def template_messages(request: Request, images: bool) -> list[dict[str, Any]]:
    """Messages as a chat template takes them; with images, every content is a list of parts."""
    if not images:
        return [{"role": message.role, "content": message.text} for message in request.messages]
    turns = []
    for message in request.messages:
        content = message.content
        parts: Any = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns.append(
            {
                "role": message.role,
                "content": [{"type": "image"} if part["type"] == "image" else dict(part) for part in parts],
            }
        )
    return turns


def render(source: Any, request: Request, chat: bool, images: bool = False) -> tuple[str, bool]:
    """A request as one text, and whether a template wrote it (then its special tokens are already in).

    Args:
        source: A tokenizer or processor.
        request (`Request`): A last message of the role "assistant" is left open, so that the model goes on with it.
        chat (`bool`): Use the chat template if there is one; else the contents are joined by newlines.
        images (`bool`, *optional*, defaults to `False`): Keep the places of images.
    """
    if not chat or not getattr(source, "chat_template", None):
        return request.text, False
    begun = request.messages[-1].role == "assistant"
    text = source.apply_chat_template(
        template_messages(request, images),
        tokenize=False,
        add_generation_prompt=not begun,
        continue_final_message=begun,
    )
    return text, True


def encode(tokenizer: Any, text: str, templated: bool) -> list[int]:
    """Token ids; special tokens are added only where no template has written them."""
    return list(tokenizer(text, add_special_tokens=not templated).input_ids)


def context_length(config: Any) -> int | None:
    """How many positions a model has; None if its config does not say."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def too_long(item: int, length: int, limit: int, hint: str = "") -> ItemError:
    """The error that names both lengths."""
    return ItemError(
        item,
        f"the prompt has {length} tokens and the model takes {limit}{hint}. Shorten it, or set `truncate=True` to "
        "drop the oldest user content.",
    )


def shorten(
    request: Request, item: int, limit: int, count: Callable[[Request], int], cut: Callable[[str, int], str]
) -> Request:
    """Drop user content from its beginning, oldest message first, until `count(request) <= limit`.

    Args:
        request (`Request`): At least one token of the last user message is kept.
        item (`int`): For the error.
        limit (`int`): Most tokens.
        count (`Callable`): Tokens of a request.
        cut (`Callable`): `cut(text, k)` is the text without its first `k` tokens.

    Raises:
        ItemError: If the rest alone is too long; names both lengths.
    """
    length = count(request)
    places = [i for i, message in enumerate(request.messages) if message.role == "user" and message.text]
    while length > limit:
        if not places:
            raise ItemError(
                item, f"the prompt has {length} tokens and the model takes {limit}, even without all user content."
            )
        message = request.messages[places[0]]
        shorter = cut(message.text, length - limit)
        if not shorter:
            places.pop(0)
            if not places:
                raise ItemError(
                    item, f"the prompt has {length} tokens and the model takes {limit}: no user content would be left."
                )
        messages = list(request.messages)
        messages[request.messages.index(message)] = Message("user", _with_text(message, shorter))
        request = request.replace(messages=tuple(messages))
        length = count(request)
    return request


def _with_text(message: Message, text: str) -> Any:
    if not message.images:
        return text
    images = [{"type": "image", "image": image} for image in message.images]
    return [*images, {"type": "text", "text": text}] if text else images


def token_cutter(tokenizer: Any) -> Callable[[str, int], str]:
    """`cut(text, k)`: the text without its first `k` tokens (at least one is dropped)."""

    def cut(text: str, k: int) -> str:
        k = max(1, k)
        if getattr(tokenizer, "is_fast", False):
            spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            return text[spans[k][0] :] if k < len(spans) else ""
        ids = tokenizer(text, add_special_tokens=False).input_ids
        return tokenizer.decode(ids[k:]) if k < len(ids) else ""

    return cut
