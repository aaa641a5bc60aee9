"""Whether a conformal predictor keeps its promise, and what that costs, as a picture."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_labels.hub_cards.escape import clean
from hf_labels.hub_cards.plots import _BLUE, _GREY, _ORANGE, CardPlot, _figure, _plain, _save


def validity_plot(
    scores: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], *, title: str | None = None
) -> CardPlot:
    """Measured error against significance, in a band of two standard errors, and below it the size of the sets.

    Args:
        scores (sequence of `Mapping`): As [`~hf_labels.labels.lp_icp.LabelPowersetICP.score`] returns: `epsilon`,
            `error_rate`, `validity_stderr` and `median_size` of each level.
        path: File to write, `.png` or `.svg`.
        title (`str`, *optional*): Heading of the picture.

    Returns:
        `CardPlot`: The file and its alternative text with the numbers.

    Raises:
        KeyError: If a level lacks a key.
        ValueError: If there is no level.
    """
    if not scores:
        raise ValueError("`scores` is empty: there is nothing to draw.")
    for row in scores:
        for key in ("epsilon", "error_rate", "validity_stderr", "median_size"):
            if key not in row:
                raise KeyError(f"A level lacks `{key}`; pass what `LabelPowersetICP.score` returns.")
    rows = sorted(scores, key=lambda row: float(row["epsilon"]))
    levels, errors, spread = (
        np.array([float(row[key]) for row in rows]) for key in ("epsilon", "error_rate", "validity_stderr")
    )
    sizes = np.array([float(row["median_size"]) for row in rows])
    figure, axes = _figure(5.2, 5.6)
    axes.remove()
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    top = max(float(levels.max()), float(errors.max())) * 1.15
    above.plot([0, top], [0, top], color=_GREY, linestyle="--", linewidth=1, label="promise")
    above.fill_between(levels, levels - 2 * spread, levels + 2 * spread, color=_GREY, alpha=0.2, linewidth=0)
    above.plot(levels, errors, color=_BLUE, marker="o", markersize=4, label="measured")
    above.set(ylabel="share of sets without the true label set", xlim=(0, top), ylim=(0, top))
    above.legend(loc="upper left", fontsize=8, frameon=False)
    if title:
        above.set_title(_plain(title, 60), fontsize=10)
    below.plot(levels, np.maximum(sizes, 0), color=_ORANGE, marker="o", markersize=4)
    below.set_yscale("symlog", linthresh=1)
    below.set(xlabel="significance", ylabel="median label sets", ylim=(0, None))
    said = "; ".join(
        f"{level:g}: error {error:.3f}, median size {size:g}"
        for level, error, size in zip(levels, errors, sizes, strict=True)
    )
    head = f"{clean(title, 60)}: error" if title else "Error"
    return _save(figure, path, f"{head} and size of prediction sets by significance. {said}")
