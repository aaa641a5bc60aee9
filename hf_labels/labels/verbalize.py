"""Label names, descriptions, templates and hypotheses as one object that every text-driven method shares."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)

DEFAULT_TEMPLATE = "This example is {}."


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a task in words. Immutable; the position of a name is its class id.

    Parameters:
        names (`tuple[str, ...]`): K distinct names that are not empty (white space at the ends is removed).
        descriptions (`dict[str, str]`): Name -> longer text. A name without one is described by itself.
        templates (`tuple[str, ...]`): Hypothesis patterns, each with exactly one `{}`.

    Raises:
        ValueError: Fewer than one name, empty or double names, a description of an unknown name, an empty
            description, a template without `{}` or with more than one.

    Example:
        >>> space = LabelSpace.from_descriptions({"acne": "pimples on the face", "insomnia": ""})
        >>> space.texts()
        ['pimples on the face', 'insomnia']
        >>> space.hypotheses("The text is about {}.")["acne"]
        ['The text is about acne.', 'The text is about pimples on the face.']
        >>> space.label2id
        {'acne': 0, 'insomnia': 1}
    """

    names: tuple[str, ...]
    descriptions: dict[str, str] = field(default_factory=dict)
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise TypeError(f"`names` must be a list of names, got the text {self.names!r}.")
        names = tuple(_clean(name, i) for i, name in enumerate(self.names))
        object.__setattr__(self, "names", names)
        if not names:
            raise ValueError("`names` is empty: at least one label name is needed.")
        _refuse_doubles(names)
        if isinstance(self.descriptions, str) or not isinstance(self.descriptions, Mapping):
            raise TypeError(f"`descriptions` must be a dict name -> text, got {type(self.descriptions).__name__}.")
        texts: dict[str, str] = {}
        for name, text in self.descriptions.items():
            key = str(name).strip()
            self._need_known(key, f"`descriptions` describes {key!r}, which is not a label")
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"`descriptions` of {key!r} is empty. Write one, or leave the name out.")
            texts[key] = text.strip()
        object.__setattr__(self, "descriptions", texts)
        templates = (self.templates,) if isinstance(self.templates, str) else tuple(self.templates)
        object.__setattr__(self, "templates", templates)
        if not templates:
            raise ValueError("`templates` is empty: at least one with `{}` is needed.")
        for template in templates:
            _need_slot(template)

    def __hash__(self) -> int:
        return hash((self.names, tuple(sorted(self.descriptions.items())), self.templates))

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_names(cls, names: Sequence[str], templates: Sequence[str] = (DEFAULT_TEMPLATE,)) -> LabelSpace:
        """Labels that are described by their names only."""
        return cls(tuple(names) if not isinstance(names, str) else names, {}, tuple(templates))  # type: ignore[arg-type]

    @classmethod
    def from_descriptions(
        cls, descriptions: Mapping[str, str | None], templates: Sequence[str] = (DEFAULT_TEMPLATE,)
    ) -> LabelSpace:
        """Labels in the order of a dict name -> description; a name with an empty description is described by itself.

        Logs a warning that names the labels without a description, and those that share one: no method that reads
        only the descriptions can ever tell those apart.
        """
        if not isinstance(descriptions, Mapping):
            raise TypeError(f"`descriptions` must be a dict name -> text, got {type(descriptions).__name__}.")
        texts = {
            str(name).strip(): str(text).strip() for name, text in descriptions.items() if str(text or "").strip()
        }
        silent = [str(name) for name in descriptions if str(name).strip() not in texts]
        if silent:
            logger.warning("No description of %s: the name is used instead.", ", ".join(silent))
        space = cls(tuple(str(name) for name in descriptions), texts, tuple(templates))
        for group in space.indistinct():
            logger.warning("%s have one description and can never be told apart.", " and ".join(group))
        return space

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        column: str = "labels",
        descriptions: Mapping[str, str] | None = None,
        templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    ) -> LabelSpace:
        """Labels of a column: the names of its `ClassLabel`, else its distinct texts or ids, sorted.

        Args:
            dataset (`datasets.Dataset` or `DatasetDict`): With the column.
            column (`str`, *optional*, defaults to `"labels"`).
            descriptions (`dict`, *optional*): Must describe every label of the column, and may describe no other.

        Raises:
            MissingColumnError: (a `KeyError`) The column does not exist.
            ValueError: A label of the data set is not in `descriptions` (with the closest one), or the reverse.
        """
        from hf_labels.labels.encode import label_texts

        names = label_texts(dataset, column)
        if not names:
            raise ValueError(f"Column `{column}` has no label at all: every row is empty. Label some rows first.")
        if descriptions:
            keys = [str(key).strip() for key in descriptions]
            for name in names:
                if name.strip() not in keys:
                    raise ValueError(
                        f"Column `{column}` has the label {name!r}, which `label_descriptions` lacks; it has: "
                        f"{_short(keys)}.{_closest(name, keys)} Add a description of it, or drop its rows."
                    )
        return cls(tuple(names), dict(descriptions or {}), tuple(templates))

    @property
    def label2id(self) -> dict[str, int]:
        """Name -> class id."""
        return {name: i for i, name in enumerate(self.names)}

    @property
    def id2label(self) -> dict[int, str]:
        """Class id -> name."""
        return dict(enumerate(self.names))

    def texts(self) -> list[str]:
        """K texts in the order of the ids: the description, or the name where there is none."""
        return [self.descriptions.get(name, name) for name in self.names]

    def hypotheses(
        self, template: str | Sequence[str] | None = None, *, definitions: bool = True
    ) -> dict[str, list[str]]:
        """Sentences that claim each label: every template with the name, and with the description when there is one.

        Args:
            template (`str` or sequence, *optional*): Patterns with one `{}` each; defaults to `templates`.
            definitions (`bool`, *optional*, defaults to `True`): Also write one with the description.

        Returns:
            `dict[str, list[str]]`: name -> hypotheses, names first, without doubles.
        """
        patterns = (
            self.templates if template is None else (template,) if isinstance(template, str) else tuple(template)
        )
        for pattern in patterns:
            _need_slot(pattern)
        out: dict[str, list[str]] = {}
        for name in self.names:
            words = [name] + ([self.descriptions[name]] if definitions and name in self.descriptions else [])
            out[name] = list(dict.fromkeys(p.replace("{}", word) for p in patterns for word in words))
        return out

    def prompts(self, template: str | None = None) -> list[str]:
        """One text per class id: `template` (or the first of `templates`) with the name, as image-text models need."""
        pattern = template or self.templates[0]
        _need_slot(pattern)
        return [pattern.replace("{}", name) for name in self.names]

    def indistinct(self) -> list[tuple[str, ...]]:
        """Groups of names whose texts are equal up to case and white space."""
        groups: dict[str, list[str]] = {}
        for name, text in zip(self.names, self.texts(), strict=True):
            groups.setdefault(" ".join(text.casefold().split()), []).append(name)
        return [tuple(group) for group in groups.values() if len(group) > 1]

    def id_of(self, label: str) -> int:
        """Class id of a name.

        Raises:
            KeyError: Unknown name; the message has the closest one.
        """
        self._need_known(label, f"{label!r} is not a label", KeyError)
        return self.names.index(label)

    def encode(self, labels: Iterable[str]) -> list[int]:
        """Class ids of names; errors name the row."""
        table, ids = self.label2id, []
        for row, label in enumerate(labels):
            if label not in table:
                self._need_known(str(label), f"{label!r} at row {row} is not a label")
            ids.append(table[label])
        return ids

    def with_descriptions(self, descriptions: Mapping[str, str]) -> LabelSpace:
        """A copy with more or other descriptions."""
        return LabelSpace(self.names, {**self.descriptions, **descriptions}, self.templates)

    def with_templates(self, *templates: str) -> LabelSpace:
        """A copy with other templates."""
        return LabelSpace(self.names, self.descriptions, templates)

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; `from_dict` reads them back."""
        return {"names": list(self.names), "descriptions": dict(self.descriptions), "templates": list(self.templates)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelSpace:
        """The reverse of `to_dict`; unknown keys are refused."""
        extra = set(values) - {"names", "descriptions", "templates"}
        if extra or "names" not in values:
            got = ", ".join(sorted(values)) or "none"
            raise ValueError(f"A label space has the keys names, descriptions, templates; got {got}.")
        templates = values.get("templates", (DEFAULT_TEMPLATE,))
        return cls(tuple(values["names"]), dict(values.get("descriptions", {})), tuple(templates))

    def to_json(self) -> str:
        """One JSON object as text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> LabelSpace:
        """The reverse of `to_json`.

        Raises:
            ValueError: The text is no JSON object of a label space.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"No JSON: {error}.") from error
        if not isinstance(values, dict):
            raise ValueError(f"Expected a JSON object, got {type(values).__name__}.")
        return cls.from_dict(values)

    def _need_known(self, name: str, problem: str, error: type[Exception] = ValueError) -> None:
        if name not in self.names:
            raise error(f"{problem}; the labels are: {_short(self.names)}.{_closest(name, self.names)}")


def _clean(name: Any, place: int) -> str:
    if not isinstance(name, str):
        raise TypeError(f"`names` must be text, got {name!r} at position {place}. Write it as {str(name)!r}.")
    if not name.strip():
        raise ValueError(f"`names` has an empty name at position {place}. Give it a name.")
    return name.strip()


def _refuse_doubles(names: tuple[str, ...]) -> None:
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        if name in seen:
            raise ValueError(f"`names` has {name!r} twice, at positions {seen[name]} and {place}. Rename or drop one.")
        seen[name] = place


def _need_slot(template: Any) -> None:
    if not isinstance(template, str) or template.count("{}") != 1:
        raise ValueError(f"A template needs exactly one `{{}}` for the label, got {template!r}.")


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def _closest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
