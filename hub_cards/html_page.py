"""Self-contained HTML pages: one file, pictures inside it, no script, no address outside, every text escaped."""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_labels.hub_cards.escape import clean

if TYPE_CHECKING:
    import jinja2

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Part:
    """One section of a page. All texts are plain text; they are escaped when the page is written.

    Parameters:
        heading (`str`): Heading; "" for none.
        text (`Sequence[str]`): Paragraphs.
        code (`Sequence[str]`): Commands to copy.
        header (`Sequence[str]`): Names of the columns of a table.
        rows (`Sequence[Sequence]`): Cells: text, a number, or a picture as `embed_image` gives.
        pictures (`Sequence[Mapping]`): Pictures below the table, as `embed_image` gives.
    """

    heading: str = ""
    text: Sequence[str] = ()
    code: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    pictures: Sequence[Mapping[str, str]] = field(default_factory=tuple)


@lru_cache(maxsize=1)
def _environment() -> "jinja2.Environment":
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.PackageLoader("hf_labels.hub_cards", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    env.filters["figure"] = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
    return env


def embed_image(image: Any, alt: str, *, size: int | None = None) -> dict[str, str]:
    """A picture as a data address, to put into a page.

    Args:
        image (`CardPlot`, path or `PIL.Image`): A `.png` or `.svg` file, or an image, which becomes PNG.
        alt: The text that stands for it.
        size (`int`, *optional*): Longest side in pixels of a `PIL.Image`; larger ones are made smaller.

    Raises:
        ValueError: For a file that is not `.png` or `.svg`.
    """
    if hasattr(image, "save") and hasattr(image, "convert"):
        picture = image.convert("RGBA" if image.mode in ("RGBA", "LA", "PA", "P") else "RGB")
        if size is not None:
            picture.thumbnail((size, size))
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        kind, content = "image/png", buffer.getvalue()
    else:
        path = Path(image)
        if path.suffix.lower() not in _TYPES:
            raise ValueError(f"`image` must be a .png or .svg file, got {path.name!r}.")
        kind, content = _TYPES[path.suffix.lower()], path.read_bytes()
    return {"src": f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}", "alt": clean(alt)}


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping | int | float) and not isinstance(value, bool):
        return value
    return clean(value, 1000)


def write_page(path: str | os.PathLike[str], title: str, parts: Sequence[Part], intro: Sequence[str] = ()) -> Path:
    """Write a page, whole or not at all.

    Args:
        path: File to write, `.html`.
        title: Title and heading.
        parts (`Sequence[Part]`): Sections.
        intro (`Sequence[str]`): Paragraphs below the title.

    Returns:
        `Path`: The file.

    Raises:
        ValueError: If `path` does not end in .html.
    """
    from hf_labels.hub_cards.save import replace_file

    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"`path` must end in .html, got {path.name!r}.")
    shown = [
        Part(
            clean(part.heading),
            [clean(line, 2000) for line in part.text],
            part.code,
            [clean(name) for name in part.header],
            [[_cell(cell) for cell in row] for row in part.rows],
            part.pictures,
        )
        for part in parts
    ]
    text = (
        _environment()
        .get_template("page.html.j2")
        .render(title=clean(title), intro=[clean(line, 2000) for line in intro], parts=shown)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode("utf-8", "replace"))
    return path
