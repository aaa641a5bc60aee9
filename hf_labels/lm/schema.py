"""A subset of JSON schema: enough for answers of language models, and refusing what it does not know."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

KEYWORDS = frozenset(
    {
        "type",
        "properties",
        "required",
        "enum",
        "items",
        "minItems",
        "maxItems",
        "minimum",
        "maximum",
        "maxLength",
        "additionalProperties",
    }
)
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_SIZES = ("minItems", "maxItems", "maxLength")


class Misfit(ValueError):
    """A value does not fit the schema; says where and why."""


def check_schema(schema: Any, where: str = "schema") -> None:
    """Refuse a schema with a keyword that is not supported, or a keyword with a value of the wrong kind.

    Raises:
        ValueError: Names the place and the keyword.
    """
    if not isinstance(schema, Mapping):
        raise ValueError(f"`{where}` must be a JSON schema (a dict), got {type(schema).__name__}.")
    unknown = sorted(set(map(str, schema)) - KEYWORDS)
    if unknown:
        raise ValueError(
            f"`{where}` uses {', '.join(map(repr, unknown))}, which is not supported. Use "
            f"{', '.join(sorted(KEYWORDS))}, or a pydantic model class."
        )
    wrong = sorted(set(map(str, _types(schema))) - set(TYPES))
    if wrong:
        raise ValueError(f"`{where}.type` must be one of {', '.join(TYPES)}, got {wrong[0]!r}.")
    if not isinstance(schema.get("enum", []), list):
        raise ValueError(f"`{where}.enum` must be a list.")
    if not isinstance(schema.get("required", []), list):
        raise ValueError(f"`{where}.required` must be a list of names.")
    for name in _SIZES:
        size = schema.get(name, 0)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"`{where}.{name}` must be an integer that is not negative, got {size!r}.")
    for name in ("minimum", "maximum"):
        if not _is_number(schema.get(name, 0)):
            raise ValueError(f"`{where}.{name}` must be a number, got {schema[name]!r}.")
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise ValueError(f"`{where}.properties` must be a dict name -> schema.")
    for name, part in properties.items():
        check_schema(part, f"{where}.properties.{name}")
    if "items" in schema:
        check_schema(schema["items"], f"{where}.items")
    extra = schema.get("additionalProperties", False)
    if not isinstance(extra, bool):
        check_schema(extra, f"{where}.additionalProperties")


def fit(value: Any, schema: Mapping[str, Any], where: str = "$") -> Any:
    """The value, checked; a copy without the keys that the schema does not name.

    `additionalProperties` is false by default as soon as `properties` are given: other keys are dropped, not refused.
    A number without a fraction is an integer; a boolean is no number.

    Raises:
        Misfit: Names the place (as in `$.items[2].name`) and what was expected.
    """
    _check_type(value, schema, where)
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        allowed = ", ".join(json.dumps(item, ensure_ascii=False) for item in schema["enum"])
        raise Misfit(f"{where} must be one of {allowed}, got {_short(value)}")
    if isinstance(value, dict):
        return _fit_object(value, schema, where)
    if isinstance(value, list):
        return _fit_array(value, schema, where)
    if isinstance(value, str) and len(value) > schema.get("maxLength", math.inf):
        raise Misfit(f"{where} must have at most {schema['maxLength']} characters, got {len(value)}")
    if _is_number(value):
        if value < schema.get("minimum", -math.inf):
            raise Misfit(f"{where} must be at least {schema['minimum']}, got {value}")
        if value > schema.get("maximum", math.inf):
            raise Misfit(f"{where} must be at most {schema['maximum']}, got {value}")
        integral = "integer" in _types(schema) and "number" not in _types(schema)
        return int(value) if integral and isinstance(value, float) else value
    return value


def _types(schema: Mapping[str, Any]) -> list[str]:
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else list(kind) if isinstance(kind, list) else [repr(kind)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(a: Any, b: Any) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return _is_number(value) and float(value).is_integer()
    if kind == "number":
        return _is_number(value)
    plain = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, plain[kind])


def _check_type(value: Any, schema: Mapping[str, Any], where: str) -> None:
    kinds = _types(schema)
    if kinds and not any(_is(value, kind) for kind in kinds):
        raise Misfit(f"{where} must be of type {' or '.join(kinds)}, got {_short(value)}")


def _fit_object(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> dict[str, Any]:
    missing = [name for name in schema.get("required", []) if name not in value]
    if missing:
        raise Misfit(f"{where} lacks the required key {', '.join(map(repr, missing))}")
    known = schema.get("properties", {})
    extra = schema.get("additionalProperties", "properties" not in schema)
    kept: dict[str, Any] = {}
    for name, item in value.items():
        if name in known:
            kept[name] = fit(item, known[name], f"{where}.{name}")
        elif isinstance(extra, Mapping):
            kept[name] = fit(item, extra, f"{where}.{name}")
        elif extra:
            kept[name] = item
    return kept


def _fit_array(value: list[Any], schema: Mapping[str, Any], where: str) -> list[Any]:
    if len(value) < schema.get("minItems", 0):
        raise Misfit(f"{where} must have at least {schema['minItems']} items, got {len(value)}")
    if len(value) > schema.get("maxItems", math.inf):
        raise Misfit(f"{where} must have at most {schema['maxItems']} items, got {len(value)}")
    if "items" not in schema:
        return value
    return [fit(item, schema["items"], f"{where}[{i}]") for i, item in enumerate(value)]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
