"""Pieces that all cards share: the Jinja environment, rows of tables, links and pictures."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from hf_labels.hub_cards.escape import Markdown, clean, code, escaped, prose
from hf_labels.hub_cards.hub_names import is_hub_id, is_local

if TYPE_CHECKING:
    import jinja2

MARKER = (
    "<!-- hf_labels card: written by the library, and written anew at the next save. "
    "Take this line out to keep your own text. -->"
)
# Arguments that name a place on someone's machine, or a secret. They have no business on a public page.
_PRIVATE = re.compile(
    r"(output_dir|logging_dir|run_name|resume_from|local_rank|push_to_hub|report_to|hub_).*"
    r"|(.*_)?(token|password|secret|api_?key|credentials?)",
    re.IGNORECASE,
)


@lru_cache(maxsize=1)
def environment() -> "jinja2.Environment":
    """The Jinja environment of all cards: an unknown name is an error, and every value printed is escaped.

    Data is only ever a value, never part of a template, so Jinja syntax in it stays text.
    """
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_labels.hub_cards", "templates"),
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    env.filters["join_cells"] = lambda cells: Markdown(" | ".join(prose(cell) for cell in cells))
    return env


def _finalize(value: Any) -> Any:
    import jinja2

    return value if isinstance(value, jinja2.Undefined) else prose(value)


def as_list(value: str | Iterable[Any] | None) -> list[Any]:
    """`None` is nothing, a text is one item."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def hub_link(name: str, kind: str = "") -> Markdown:
    """A link to a Hub id (`kind="datasets/"` for data), or the name as code when it is not one."""
    if not is_hub_id(name) or is_local(name):
        return code(os.path.basename(name.rstrip("/\\")) or name if os.path.isabs(name) else name)
    escaped = name.replace("_", "\\_")
    return Markdown(f"[{escaped}](https://huggingface.co/{kind}{name})")


def shown_value(value: Any) -> Markdown:
    """A setting as code: JSON where that is possible, the text otherwise."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return code(value)
    try:
        return code(json.dumps(value, ensure_ascii=False, default=str))
    except (TypeError, ValueError):
        return code(value)


def is_private(name: str) -> bool:
    """Whether an argument names a secret or a place on a machine."""
    return _PRIVATE.fullmatch(name) is not None


def setting_rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[Markdown, Markdown]]:
    """Rows of a table of settings; nested mappings become dotted names, secrets and local paths are left out."""
    rows: list[tuple[Markdown, Markdown]] = []
    for name, value in values.items():
        if is_private(str(name)):
            continue
        if isinstance(value, Mapping) and value and not prefix:
            rows += setting_rows(value, f"{name}.")
        else:
            rows.append((code(f"{prefix}{name}"), shown_value(value)))
    return rows


def label_rows(labels: Any) -> list[tuple[Markdown, Markdown]]:
    """Rows of the table of labels, from names, from a mapping of names to meanings, or from a `LabelSpace`."""
    if labels is None:
        return []
    if hasattr(labels, "names") and hasattr(labels, "descriptions"):
        labels = {name: labels.descriptions.get(name, "") for name in labels.names}
    if not isinstance(labels, Mapping):
        labels = {name: "" for name in as_list(labels)}
    return [(code(name), prose(meaning) if meaning else Markdown("-")) for name, meaning in labels.items()]


def plot_links(plots: Iterable[Any]) -> list[dict[str, Markdown]]:
    """Alternative text and relative address of each picture.

    Each is a `CardPlot`, a pair (file, alternative text), or a file. Only the file name counts: a picture lies beside
    the card.

    Raises:
        ValueError: If a file name is empty or two pictures have one name.
    """
    found: list[dict[str, Markdown]] = []
    for plot in plots:
        file, alt = plot if isinstance(plot, tuple) else (plot, getattr(plot, "alt", ""))
        name = os.path.basename(os.fspath(file))
        if name in ("", ".", ".."):
            raise ValueError(f"`plots` must name picture files, got {os.fspath(file)!r}.")
        link = Markdown(quote(name.encode("utf-8", "surrogateescape")))
        if any(link == other["link"] for other in found):
            raise ValueError(f"Two `plots` have the file name {name!r}; give each its own.")
        text = clean(alt) or os.path.splitext(name)[0].replace("_", " ")
        found.append({"alt": Markdown(escaped(text)), "link": link})
    return found


def tidy(body: str) -> str:
    """At most one empty line in a row, and one line end at the end. No fenced block of ours has two."""
    return re.sub(r"\n{3,}", "\n\n", body).strip("\n") + "\n"
