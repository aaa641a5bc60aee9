"""A taxonomy as a tree that people can read."""

import os
import textwrap
from collections.abc import Mapping, Sequence

from hf_labels.hub_cards.escape import clean
from hf_labels.hub_cards.plots import _BLUE, _GREY, CardPlot, _figure, _plain, _save


def taxonomy_plot(
    root: str,
    labels: Sequence[tuple[str, str]],
    path: str | os.PathLike[str],
    *,
    counts: Mapping[str, int] | None = None,
) -> CardPlot:
    """Draw labels and their descriptions as branches of the use case, with the number of texts of each.

    Args:
        root (`str`): The use case.
        labels (sequence of pairs): Name and description of each label.
        path: File to write, `.png` or `.svg`.
        counts (mapping, *optional*): Name -> texts.

    Returns:
        `CardPlot`: The file and its alternative text.

    Raises:
        ValueError: If there are no labels.
    """
    if not labels:
        raise ValueError("`labels` is empty: there is nothing to draw.")
    figure, axes = _figure(10, 1.0 + 0.62 * len(labels))
    axes.set_axis_off()
    axes.set_xlim(0, 10)
    axes.set_ylim(-len(labels), 0.2)
    middle = -(len(labels) - 1) / 2 - 0.2
    shown = textwrap.fill(_plain(root, 90), 18)
    axes.text(0.05, middle, shown, fontsize=10, weight="bold", va="center", color=_BLUE)
    for place, (name, text) in enumerate(labels):
        height = -place - 0.2
        axes.plot([1.9, 2.3, 2.3, 2.6], [middle, middle, height, height], color=_GREY, linewidth=0.8)
        size = f"  ({counts[name]})" if counts is not None and name in counts else ""
        axes.text(2.7, height + 0.12, _plain(name, 60) + size, fontsize=9, weight="bold", va="center")
        axes.text(2.7, height - 0.25, _plain(text, 120), fontsize=7.5, va="center", color=_GREY)
    names = ", ".join(clean(name, 40) for name, _ in labels[:12])
    alt = f"Taxonomy of {len(labels)} labels for {clean(root, 80)}: {names}{', ...' if len(labels) > 12 else ''}"
    return _save(figure, path, alt)
