"""Label names and their descriptions, checked before a model reads them."""

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


def clean_descriptions(labels: Any) -> dict[str, str]:
    """Names and descriptions, checked.

    Args:
        labels: `{name: description}`, a list of names, or an object with `names` and `descriptions`. An empty
            description becomes the name, with a warning.

    Raises:
        ValueError: Fewer than two labels, a repeated name, or a label with neither name nor description.
    """
    if hasattr(labels, "names") and hasattr(labels, "descriptions"):
        given = labels.descriptions or {}
        pairs = [(name, given.get(name, name)) for name in labels.names]
    elif isinstance(labels, Mapping):
        pairs = list(labels.items())
    else:
        pairs = [(name, name) for name in labels]
    names = [name for name, _ in pairs]
    if len(pairs) < 2:
        raise ValueError(f"`label_descriptions` needs at least two labels, got {names}.")
    if len(set(names)) < len(names):
        raise ValueError(f"`label_descriptions` names a label twice: {names}.")
    cleaned: dict[str, str] = {}
    for name, text in pairs:
        text = (text or "").strip()
        if not text and not str(name).strip():
            raise ValueError("A label has neither a name nor a description. Give it one of them.")
        if not text:
            logger.warning("Label %r has no description: its name is used.", name)
        cleaned[str(name)] = text or str(name).strip()
    same: dict[str, list[str]] = {}
    for name, text in cleaned.items():
        same.setdefault(text, []).append(name)
    for twins in same.values():
        if len(twins) > 1:
            logger.warning(
                "Labels %s have one and the same description: they can never be told apart.", ", ".join(twins)
            )
    return cleaned


def label_text(template: str, name: str, description: str) -> str:
    """Text that stands for a label: the template filled in; a label that is described by its name stays bare."""
    if description == name:
        return name
    return template.replace("{name}", name).replace("{description}", description)
