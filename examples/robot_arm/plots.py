"""Pictures of the robot experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def success_against_speed(points: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Success with its exact interval over passes and over milliseconds per chunk.

    Args:
        points: `name`, `family` (one colour and line each), `passes`, `ms` (or `None`), `rate`, `ci95`.
        path: Picture to write.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), sharey=True)
    labels = {"passes": "forward passes per chunk", "ms": "milliseconds per chunk"}
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for number, family in enumerate(dict.fromkeys(point["family"] for point in points)):
            mine = [point for point in points if point["family"] == family and point.get(key) is not None]
            if not mine:
                continue
            mine.sort(key=lambda point: point[key])
            x = [point[key] for point in mine]
            y = np.array([100 * point["rate"] for point in mine])
            ends = np.array([[100 * bound for bound in point["ci95"]] for point in mine]).T
            bars = np.maximum([y - ends[0], ends[1] - y], 0)
            line = "-" if len(mine) > 1 else "none"
            color = f"C{number}"
            axis.errorbar(x, y, bars, marker="o", capsize=3, label=family, color=color, linestyle=line)
            up = 7 if family.startswith("student") else -9
            for point, a, b in zip(mine, x, y, strict=True):
                side = {"ha": "left", "va": "bottom", "rotation": 50} if up > 0 else {"ha": "right", "va": "top"}
                axis.annotate(point["name"], (a, b), textcoords="offset points", xytext=(-3, up), fontsize=7, **side)
        axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylim(-3, 112)
    axes[0].set_ylabel("success, % (exact 95% interval)")
    axes[0].legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def traces(iterates: Mapping[str, np.ndarray], final: Mapping[str, np.ndarray], path: Path) -> Path:
    """Which action token was fixed at which pass, one panel per decoder: steps to the right, dimensions downward.

    Args:
        iterates: Title -> (k + 1, n) tokens, the guess first.
        final: Title -> (n,) the model's own autoregressive decode.
        path: Picture to write.
    """
    from hf_labels.generation.trace import fixed_at

    plt = _pyplot()
    figure, axes = plt.subplots(len(iterates), 1, figsize=(11, 0.9 + 1.05 * len(iterates)), squeeze=False)
    most = max(len(rows) - 1 for rows in iterates.values())
    for axis, (title, rows) in zip(axes[:, 0], iterates.items(), strict=True):
        since = fixed_at(rows)
        image = axis.imshow(since[None], cmap="viridis_r", vmin=0, vmax=most, aspect="auto")
        wrong = np.flatnonzero(rows[-1] != final[title])
        axis.scatter(wrong, np.zeros(len(wrong)), marker="x", color="red", s=24, linewidths=1)
        for place, number in enumerate(since):
            axis.text(place, 0.28, str(number), ha="center", va="center", fontsize=6, color="grey")
        axis.set_yticks([])
        places = range(0, len(since), 4)
        axis.set_xticks(places, ["end" if i == len(since) - 1 else f"step {i // 4 + 1}" for i in places])
        axis.set_title(title, fontsize=9, loc="left")
    figure.tight_layout()
    bar = figure.colorbar(image, ax=axes[:, 0].tolist(), pad=0.01)
    bar.set_label("pass that fixed the token")
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def frames(pictures: Sequence[np.ndarray], titles: Sequence[str], path: Path) -> Path:
    """Rendered frames in a row."""
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(pictures), figsize=(3 * len(pictures), 3.2), squeeze=False)
    for axis, picture, title in zip(axes[0], pictures, titles, strict=True):
        axis.imshow(picture)
        axis.set_axis_off()
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=100, bbox_inches="tight")
    plt.close(figure)
    return path
