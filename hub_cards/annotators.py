"""Pictures of annotators: what each of them says when the truth is known."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.hub_cards.plots import CardPlot, _plain, _save

_MOST = 25


def annotator_plot(
    confusion: Any,
    skill: Any,
    path: str | os.PathLike[str],
    *,
    workers: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    limit: int = 12,
    title: str | None = None,
) -> CardPlot:
    """A confusion matrix per annotator, the least skilled first.

    Args:
        confusion (array of shape `(W, K, K)`): p(worker says l | truth k), axes worker, said, true; that of
            `CrowdLabels`.
        skill (array of shape `(W,)`): Skill of each worker; orders the pictures.
        path: File to write, `.png` or `.svg`.
        workers (sequence, *optional*): Names of the workers.
        names (sequence of `str`, *optional*): Names of the labels.
        limit (`int`, *optional*, defaults to `12`): Workers in the picture; half of the worst, half of the best.
        title (`str`, *optional*): Heading.

    Returns:
        `CardPlot`: The file and its alternative text.

    Raises:
        ValueError: If shapes disagree, or there are over 25 labels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table, levels = np.asarray(confusion, dtype=np.float64), np.asarray(skill, dtype=np.float64)
    if table.ndim != 3 or table.shape[1] != table.shape[2] or levels.shape != table.shape[:1] or not len(levels):
        raise ValueError(f"`confusion` must be (W, K, K) and `skill` (W,), got {table.shape} and {levels.shape}.")
    size = table.shape[1]
    if size > _MOST:
        raise ValueError(f"A picture of {size} labels cannot be read; show at most {_MOST} of them.")
    order = np.argsort(levels, kind="stable")
    if len(order) > limit:
        order = np.concatenate([order[: limit - limit // 2], order[len(order) - limit // 2 :]])
    across = min(4, len(order))
    down = -(-len(order) // across)
    figure = Figure(figsize=(2.3 * across + 0.6, 2.4 * down + 0.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    cells = np.atleast_1d(figure.subplots(down, across, squeeze=False)).ravel()
    shown = [_plain(name, 10) for name in names] if names else [str(k) for k in range(size)]
    for cell in cells[len(order) :]:
        cell.set_axis_off()
    image: Any = None
    for cell, worker in zip(cells, order, strict=False):
        image = cell.imshow(table[worker].T, cmap="Blues", vmin=0, vmax=1)
        name = workers[worker] if workers is not None else worker
        cell.set_title(f"{_plain(name, 16)}: skill {levels[worker]:.2f}", fontsize=8)
        few = size <= 6
        cell.set_xticks(range(size) if few else [], shown if few else [], fontsize=6, rotation=90)
        cell.set_yticks(range(size) if few else [], shown if few else [], fontsize=6)
    figure.supxlabel("said", fontsize=8)
    figure.supylabel("true", fontsize=8)
    figure.colorbar(image, ax=cells.tolist(), shrink=0.6, label="share of the true label")
    if title:
        figure.suptitle(_plain(title, 60), fontsize=10)
    worst, best = int(order[0]), int(order[-1])
    ends = [f"{_plain(workers[w] if workers is not None else w, 16)} ({levels[w]:.2f})" for w in (worst, best)]
    alt = f"Confusion matrices of {len(order)} of {len(levels)} annotators, from {ends[0]} to {ends[1]}."
    return _save(figure, path, alt)
