"""Galleries of suspected label errors: a page to read, and a picture for the card."""

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hf_labels.hub_cards.escape import clean
from hf_labels.hub_cards.html_page import Part, embed_image, write_page
from hf_labels.hub_cards.plots import CardPlot, _plain, _save


class Issues(Protocol):
    """What a gallery needs of `hf_labels.labels.LabelIssues`."""

    given: np.ndarray
    suggested: np.ndarray
    quality: np.ndarray
    is_issue: np.ndarray
    source: str

    def __len__(self) -> int: ...
    def ranked(self) -> np.ndarray: ...
    def name_of(self, label: Any) -> str: ...


def _shown_column(issues: Issues, dataset: Any, column: str | None) -> str:
    import datasets

    if len(dataset) != len(issues):
        raise ValueError(f"The data set has {len(dataset)} rows, the issues were found in {len(issues)}.")
    if column is not None:
        if column not in dataset.column_names:
            known = ", ".join(dataset.column_names)
            raise KeyError(f"Column `{column}` is missing; the data set has: {known}. Pass `column=...`.")
        return column
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            return str(name)
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Value) and feature.dtype in ("string", "large_string"):
            return str(name)
    raise ValueError("The data set has neither an image nor a text column to show. Pass `column=...`.")


def _is_image(value: Any) -> bool:
    return hasattr(value, "convert") and hasattr(value, "save")


def label_issue_page(
    issues: Issues,
    dataset: Any,
    path: str | os.PathLike[str],
    *,
    column: str | None = None,
    limit: int = 100,
    title: str = "Suspected label errors",
) -> Path:
    """A self-contained HTML page of the flagged rows, most suspicious first.

    Args:
        issues (`LabelIssues`): What was found.
        dataset (`datasets.Dataset`): The data set that was judged.
        path: File to write, `.html`.
        column (`str`, *optional*): What to show of a row; the first image or text column by default.
        limit (`int`, *optional*, defaults to `100`): Rows on the page.
        title (`str`, *optional*): Heading.

    Returns:
        `Path`: The file.
    """
    column = _shown_column(issues, dataset, column)
    rows = issues.ranked()
    table = []
    for row in rows[:limit]:
        value = dataset[int(row)][column]
        shown = embed_image(value, f"row {row}", size=160) if _is_image(value) else clean(value, 600)
        given, suggested = issues.name_of(issues.given[row]), issues.name_of(issues.suggested[row])
        table.append([int(row), shown, given, suggested, float(issues.quality[row])])
    judged = int((~np.isnan(issues.quality)).sum())
    intro = [f"{len(rows)} of {judged} judged rows are flagged{f' by {issues.source}' if issues.source else ''}."]
    if len(rows) > limit:
        intro.append(f"The {limit} most suspicious ones are shown.")
    intro.append("A flag is a suspicion: look before you change a label.")
    part = Part(header=("row", column, "label in the data", "suggested label", "quality"), rows=table)
    return write_page(path, title, [part] if table else [], intro)


def label_issue_picture(
    issues: Issues,
    dataset: Any,
    path: str | os.PathLike[str],
    *,
    column: str | None = None,
    limit: int = 12,
    title: str | None = None,
) -> CardPlot:
    """A picture of the most suspicious rows: images in a grid, texts one below the other.

    Args:
        issues (`LabelIssues`): What was found.
        dataset (`datasets.Dataset`): The data set that was judged.
        path: File to write, `.png` or `.svg`.
        column (`str`, *optional*): What to show of a row; the first image or text column by default.
        limit (`int`, *optional*, defaults to `12`): Rows in the picture.
        title (`str`, *optional*): Heading.

    Returns:
        `CardPlot`: The file and its alternative text.

    Raises:
        ValueError: If nothing is flagged.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    column = _shown_column(issues, dataset, column)
    rows = issues.ranked()[:limit]
    if not len(rows):
        raise ValueError("No row is flagged; there is nothing to draw.")
    values = [dataset[int(row)][column] for row in rows]
    images = all(_is_image(value) for value in values)
    across = min(4, len(rows)) if images else 1
    down = -(-len(rows) // across)
    figure = Figure(figsize=(2.2 * across + 0.4, 2.5 * down) if images else (9, 0.62 * down + 0.6), dpi=120)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    cells = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    for cell in cells:
        cell.set_axis_off()
    for cell, row, value in zip(cells, rows, values, strict=False):
        given, suggested = (_plain(issues.name_of(labels[row]), 30) for labels in (issues.given, issues.suggested))
        if images:
            cell.imshow(np.asarray(value.convert("RGB")))
            cell.set_title(f"{row}: {given}\n→ {suggested}", fontsize=8)
        else:
            cell.text(0, 0.75, f"{row}: {given} → {suggested}", fontsize=9, weight="bold", va="center")
            cell.text(0, 0.2, _plain(value, 110), fontsize=8, va="center")
    if title:
        figure.suptitle(_plain(title, 80), fontsize=10)
    given, suggested = (clean(issues.name_of(labels[rows[0]]), 60) for labels in (issues.given, issues.suggested))
    alt = (
        f"The {len(rows)} most suspicious of {int(issues.is_issue.sum())} flagged rows; the first is row {rows[0]}, "
        f"labelled {given}, suggested {suggested}"
    )
    return _save(figure, path, alt)
