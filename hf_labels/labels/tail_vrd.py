"""`DocumentSchema`: the fields that are read from a document, their types and formats, and the instruction."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from hf_labels.labels import tail_vrd_values as read

TYPES = ("string", "date", "amount", "currency", "enum", "list")
SCHEMA_FILE = "schema.json"
_FORMATS = {
    "string": "text as it is written",
    "date": "ISO 8601, YYYY-MM-DD",
    "amount": "decimal point, no thousands separator, no currency",
    "currency": "ISO 4217 code",
    "enum": "one of: {values}",
    "list": "list of objects",
}
_EXAMPLES = {"string": "<text>", "date": "YYYY-MM-DD", "amount": "0.00", "currency": "XXX", "enum": "<one of these>"}


@dataclass(frozen=True)
class DocumentField:
    """One field of a document.

    Parameters:
        name (`str`): Key in the JSON.
        type (`str`, *optional*, defaults to `"string"`): `"string"`, `"date"`, `"amount"`, `"currency"`, `"enum"` or
            `"list"` (of objects).
        description (`str`, *optional*): What it means, for the teacher and the student.
        format (`str`, *optional*): How it is written, in words; by default what its type says.
        nullable (`bool`, *optional*, defaults to `False`): It may be absent from a document. A null for a field that
            may not is a missing label; for one that may, it is a label.
        values (`tuple[str, ...]`, *optional*): Of an enum.
        fields (`tuple[DocumentField, ...]`, *optional*): Of the objects of a list.
        keywords (`tuple[str, ...]`, *optional*): Words that stand near it; they decide between equal places.
        grounded (`bool`, *optional*, defaults to `True`): Its value must occur in the text of the document. Switch it
            off for what is concluded, such as a category.
        day_first (`bool`, *optional*): What 03/04/2024 means; left open, such a date is kept raw and flagged.
        decimals (`int`, *optional*, defaults to 2): Digits after the point of an amount.

    Raises:
        ValueError: For an empty name, another type, an enum without values, or a list without fields or in a list.
    """

    name: str
    type: str = "string"
    description: str = ""
    format: str = ""
    nullable: bool = False
    values: tuple[str, ...] = ()
    fields: tuple[DocumentField, ...] = ()
    keywords: tuple[str, ...] = ()
    grounded: bool = True
    day_first: bool | None = None
    decimals: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"A field needs a name, got {self.name!r}.")
        if self.type not in TYPES:
            raise ValueError(f"`type` of field {self.name!r} must be one of {', '.join(TYPES)}, got {self.type!r}.")
        for key in ("values", "keywords"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
        object.__setattr__(self, "fields", _fields(self.fields, f"field {self.name!r}") if self.fields else ())
        if self.type == "enum" and not self.values:
            raise ValueError(f"The enum {self.name!r} has no `values`.")
        if (self.type == "list") != bool(self.fields):
            raise ValueError(f"Field {self.name!r}: a list, and only a list, has `fields`.")
        if any(part.type == "list" for part in self.fields):
            raise ValueError(f"The list {self.name!r} holds another list; lists are one level deep.")

    @property
    def rule(self) -> str:
        """How it is written, in words."""
        return self.format or _FORMATS[self.type].format(values=", ".join(self.values))

    @property
    def example(self) -> Any:
        """An example of the format, not of the data."""
        if self.type == "list":
            return [{part.name: part.example for part in self.fields}]
        return _EXAMPLES[self.type]

    def normalize(self, value: Any) -> tuple[Any, str | None]:
        """The value in its one form, and a flag.

        A value of the wrong type is converted if it can be, else it becomes None. A date that can be read in two ways
        stays as it is. White space around texts goes.
        """
        if value is None or (isinstance(value, float) and value != value):
            return None, None
        if self.type == "list":
            return self._objects(value)
        if isinstance(value, list | dict | bool):
            return None, read.WRONG_TYPE
        text = str(value).strip()
        if not text:
            return None, None
        if self.type == "date":
            found, why = read.parse_date(text, self.day_first)
            return (text, why) if why == read.AMBIGUOUS_DATE else (found, why)
        if self.type == "amount":
            found, why = read.parse_amount(value, self.decimals)
            return (text, why) if why == read.AMBIGUOUS_AMOUNT else (found, why)
        if self.type == "currency":
            return read.parse_currency(text)
        if self.type == "enum":
            known = {option.casefold(): option for option in self.values}
            found = known.get(text.casefold())
            return found, None if found else read.UNKNOWN_VALUE
        return text, None

    def _objects(self, value: Any) -> tuple[list[dict[str, Any]] | None, str | None]:
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            return None, read.WRONG_TYPE
        flag, rows = None, []
        for item in value:
            row = {}
            for part in self.fields:
                row[part.name], found = part.normalize(item.get(part.name))
                flag = flag or found
            rows.append(row)
        return rows, flag

    def json_schema(self) -> dict[str, Any]:
        """For [`~hf_labels.lm.BlackBoxLM.generate_json`]: lenient in scalars, which `normalize` reads."""
        if self.type != "list":
            return {"type": ["string", "number", "null"]}
        parts = {part.name: part.json_schema() for part in self.fields}
        return {"type": ["array", "null"], "items": {"type": "object", "properties": parts, "required": list(parts)}}


def _fields(given: Any, where: str) -> tuple[DocumentField, ...]:
    pairs: Iterable[Any] = (
        ({"name": name, **dict(value)} for name, value in given.items()) if isinstance(given, Mapping) else given
    )
    known = {field.name for field in fields(DocumentField)}
    found = []
    for item in pairs:
        if isinstance(item, Mapping):
            wrong = sorted(set(item) - known)
            if wrong:
                raise ValueError(
                    f"The {where} has the unknown key {wrong[0]!r}; there are: {', '.join(sorted(known))}."
                )
            item = DocumentField(**item)
        if not isinstance(item, DocumentField):
            raise TypeError(f"The {where} must hold fields (dicts), got {type(item).__name__}.")
        found.append(item)
    names = [field.name for field in found]
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if not found or twice is not None:
        raise ValueError(f"The {where} has " + (f"two fields {twice!r}." if found else "no fields."))
    return tuple(found)


@dataclass(frozen=True)
class DocumentSchema:
    """The fields of a kind of document, in the order in which they are written.

    Make one with [`DocumentSchema.from_dict`].

    Raises:
        ValueError: If there are no fields, or two with one name.
    """

    fields: tuple[DocumentField, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _fields(self.fields, "schema"))

    @classmethod
    def from_dict(cls, value: Any) -> DocumentSchema:
        """From `{name: {"type": ..., ...}}`, or a list of dicts with `name`; keys as in [`DocumentField`].

        Example:
            >>> DocumentSchema.from_dict({"total": {"type": "amount"}}).canonical({"total": "1.234,50 EUR"})
            '{"total":"1234.50"}'
        """
        return cls(value)

    def to_dict(self) -> list[dict[str, Any]]:
        """JSON values; `from_dict` reads them."""
        return json.loads(json.dumps([asdict(field) for field in self.fields]))

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write `schema.json` into a folder."""
        path = Path(folder) / SCHEMA_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DocumentSchema:
        """From a folder or its `schema.json`."""
        place = Path(path)
        return cls(json.loads((place / SCHEMA_FILE if place.is_dir() else place).read_text(encoding="utf-8")))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields."""
        return tuple(field.name for field in self.fields)

    def __getitem__(self, name: str) -> DocumentField:
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"The schema has no field {name!r}; it has: {', '.join(self.names)}.")

    def subset(self, names: Iterable[str]) -> DocumentSchema:
        """Only these fields, in the order of the schema."""
        wanted = set(names)
        for name in wanted:
            self[name]
        return replace(self, fields=tuple(field for field in self.fields if field.name in wanted))

    def normalize(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """All fields in their one form (None where there is none), and flags of those that were hard to read."""
        found, flags = {}, {}
        for field in self.fields:
            found[field.name], flag = field.normalize(values.get(field.name))
            if flag:
                flags[field.name] = flag
        return found, flags

    def dumps(self, values: Mapping[str, Any]) -> str:
        """JSON in the order of the schema, without spaces; only fields that `values` has. Nothing is changed."""
        ordered = {name: values[name] for name in self.names if name in values}
        return json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))

    def canonical(self, values: Mapping[str, Any]) -> str:
        """JSON of all fields in their one form; the same again if it is read and written again."""
        return self.dumps(self.normalize(values)[0])

    def empty(self) -> dict[str, Any]:
        """All fields, with None."""
        return dict.fromkeys(self.names)

    def json_schema(self) -> dict[str, Any]:
        """JSON schema of an answer with all fields."""
        parts = {field.name: field.json_schema() for field in self.fields}
        return {"type": "object", "properties": parts, "required": list(parts)}

    def instruction(self, task: str = "", formats: bool = True) -> str:
        """What the student is asked, and therefore what the teacher is told: task, fields, formats, null rule.

        Args:
            task (`str`, *optional*): The context, such as `"expense audit: the merchant is who was paid"`.
            formats (`bool`, *optional*, defaults to `True`): Say how values are written. Without, an answer is not in
                the student's format: a control.
        """
        lines = [f"Read the document. Task: {task}" if task else "Read the document."]
        lines.append("Answer with one JSON object with these keys, in this order:")
        for field in self.fields:
            what = f" {field.description}" if field.description else ""
            rule = f" ({field.rule})" if formats else ""
            lines.append(f"- {field.name}{rule}:{what}" if what else f"- {field.name}{rule}")
            lines += [f"  - {part.name}" + (f" ({part.rule})" if formats else "") for part in field.fields]
        lines.append("Use null when a field is not on the document, do not guess.")
        if formats:
            example = json.dumps({f.name: f.example for f in self.fields}, ensure_ascii=False, separators=(",", ":"))
            lines.append(f"Format: {example}")
        return "\n".join(lines)


def merge_pages(
    schema: DocumentSchema, pages: Sequence[Mapping[str, Any]], join_lists: bool = False
) -> dict[str, Any]:
    """One answer for a document of several pages: for each field the first value that is not None.

    Args:
        schema ([`DocumentSchema`]): The fields.
        pages (sequence of `dict`): One answer per page, in order.
        join_lists (`bool`, *optional*, defaults to `False`): Lists of all pages are put one after the other.
    """
    found = schema.empty()
    for field in schema.fields:
        values = [page[field.name] for page in pages if page.get(field.name) is not None]
        if values:
            joined = field.type == "list" and join_lists
            found[field.name] = [item for value in values for item in value] if joined else values[0]
    return found
