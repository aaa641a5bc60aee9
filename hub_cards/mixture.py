"""The classes that each domain holds, as a picture."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.hub_cards.escape import clean
from hf_labels.hub_cards.plots import CardPlot, _figure, _plain, _save

_MAX_DOMAINS = 60


def mixture_plot(
    mixtures: Any,
    path: str | os.PathLike[str],
    *,
    domain_names: Sequence[str] | None = None,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
) -> CardPlot:
    """Shares of the classes in each domain, as one bar of 100 % per domain.

    Args:
        mixtures (array of shape `(K, r)`): p(class | domain), as `LatentLabelShift.class_prior`.
        path: File to write, `.png` or `.svg`.
        domain_names, class_names (sequence of `str`, *optional*): Numbers by default.
        title (`str`, *optional*): Heading of the picture.

    Returns:
        `CardPlot`: The file and its alternative text, with the largest class of each domain.

    Raises:
        ValueError: If the columns are not distributions, names do not fit, or there are over 60 domains.
    """
    table = np.asarray(mixtures, dtype=np.float64)
    if table.ndim != 2 or not table.size or not (table >= 0).all() or np.abs(table.sum(0) - 1).max() > 1e-3:
        raise ValueError(f"`mixtures` must be (K, r) and its columns must sum to 1, got shape {table.shape}.")
    classes, domains = table.shape
    if domains > _MAX_DOMAINS:
        raise ValueError(f"A picture of {domains} domains cannot be read; show at most {_MAX_DOMAINS} of them.")
    across = [f"domain {i}" for i in range(domains)] if domain_names is None else list(map(str, domain_names))
    kinds = [f"class {i}" for i in range(classes)] if class_names is None else list(map(str, class_names))
    for name, found, wanted in (("domain_names", across, domains), ("class_names", kinds, classes)):
        if len(found) != wanted:
            raise ValueError(f"There are {len(found)} `{name}`, expected {wanted}.")
    from matplotlib import colormaps

    figure, axes = _figure(min(14.0, 3.2 + 0.4 * domains), 3.6)
    below, colours = np.zeros(domains), colormaps["viridis"](np.linspace(0.05, 0.95, classes))
    for row, name, colour in zip(table, kinds, colours, strict=True):
        axes.bar(range(domains), row, bottom=below, color=colour, label=_plain(name, 24), width=0.85)
        below += row
    axes.set_xticks(range(domains), [_plain(name, 24) for name in across], rotation=90, fontsize=8)
    axes.set(ylabel="share of the domain", ylim=(0, 1), xlim=(-0.6, domains - 0.4))
    if classes <= 20:
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    if title:
        axes.set_title(_plain(title, 60), fontsize=10)
    said = "; ".join(
        f"{clean(name, 40)}: {clean(kinds[int(column.argmax())], 40)} {column.max():.0%}"
        for name, column in zip(across, table.T, strict=True)
    )
    return _save(figure, path, f"Shares of {classes} classes in {domains} domains. Largest: {said}")
