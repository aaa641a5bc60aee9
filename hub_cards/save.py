"""Writing a card beside its model, without ever destroying what a person wrote."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

from hf_labels.hub_cards.parts import MARKER
from hf_labels.hub_cards.validate import image_links

_MARKER_START = MARKER.split(":", 1)[0]


def is_own_card(path: str | os.PathLike[str]) -> bool:
    """Whether the file carries the line that `render_card` writes."""
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    return any(line.startswith(_MARKER_START) for line in text.splitlines())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a reader sees the old content or the new one."""
    temporary = path.with_name(f".{path.name[:40]}.{uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_card(
    card: Any, folder: str | os.PathLike[str], plots: Iterable[Any] = (), *, overwrite: bool = False
) -> Path:
    """Write `README.md`, and put the pictures that it shows beside it.

    Args:
        card (`ModelCard`, `DatasetCard` or `str`): What to write.
        folder: Folder of the model or data set; it is made when it is not there.
        plots (*optional*): Picture files, `CardPlot` or (file, alternative text), copied into `folder` unless they are
            there already.
        overwrite (`bool`, *optional*, defaults to `False`): Also replace a `README.md` that is not ours.

    Returns:
        `Path`: The file.

    Raises:
        FileExistsError: If there is a `README.md` without the mark of this package and `overwrite` is off.
        FileNotFoundError: If a picture, or one that the card shows, is not there.
        ValueError: If two different pictures have one name.
    """
    folder = Path(folder)
    target = folder / "README.md"
    if target.exists() and not overwrite and not is_own_card(target):
        raise FileExistsError(
            f"`{target}` was not written by hf_labels and stays as it is. Pass `overwrite=True`, or move it."
        )
    sources: dict[str, Path] = {}
    for plot in plots:
        source = Path(plot[0] if isinstance(plot, tuple) else plot)
        if not source.is_file():
            raise FileNotFoundError(f"The picture `{source}` does not exist; draw it before the card is saved.")
        if sources.setdefault(source.name, source).resolve() != source.resolve():
            raise ValueError(f"Two pictures are called {source.name!r}; give each its own file name.")
    text = str(card)
    links = [unquote(link, errors="surrogateescape") for link in image_links(text)]
    for name in links:
        if "://" not in name and name not in sources and not (folder / name).is_file():
            raise FileNotFoundError(
                f"The card shows `{name}`, which is not in `{folder}`. Pass it as one of `plots`, or take it out."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        if source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
    replace_file(target, text.encode("utf-8"))
    return target
