"""Pictures for cards. Drawn with matplotlib on a canvas of their own: no window, no global state, safe in threads."""

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_labels.hub_cards.escape import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BLUE, _ORANGE, _GREY = "#31688e", "#d95f02", "#666666"
_MAX_CLASSES = 60


@dataclass(frozen=True)
class CardPlot(os.PathLike[str]):
    """A picture with the text that stands for it. Works wherever a path does.

    Parameters:
        path (`Path`): The file.
        alt (`str`): What the picture shows, with its main numbers.
    """

    path: Path
    alt: str

    def __fspath__(self) -> str:
        return str(self.path)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: "Figure", path: str | os.PathLike[str], alt: str) -> CardPlot:
    """Write the picture whole or not at all; the same input gives the same bytes."""
    import warnings

    from hf_labels.hub_cards.save import replace_file

    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"`path` must end in .png or .svg, got {path.name!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    kind = path.suffix.lower()[1:]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in a script that the font lacks
        figure.savefig(buffer, format=kind, metadata={"Software": None} if kind == "png" else {"Date": None})
    replace_file(path, buffer.getvalue())
    return CardPlot(path, alt)


def _plain(text: Any, limit: int = 40) -> str:
    """Text for a label: one line, and no `$` that matplotlib would read as mathematics."""
    return clean(text, limit).replace("$", r"\$")


def reliability_diagram(
    per_bin: Mapping[str, Any], path: str | os.PathLike[str], *, title: str | None = None
) -> CardPlot:
    """Accuracy against confidence per bin, with the share of the rows below: the gap to the diagonal is the error.

    Args:
        per_bin (`Mapping`): `count` (M,), `acc` (M,), `conf` (M,), `edges` (M+1,), as `calibration_scores(...,
            per_bin=True)` returns under `per_bin`; the whole result is accepted too. Empty bins hold NaN.
        path: File to write, `.png` or `.svg`.
        title (`str`, *optional*): Heading of the picture.

    Returns:
        `CardPlot`: The file and its alternative text (bins, expected calibration error, accuracy, mean confidence).

    Raises:
        KeyError: If an array is missing.
        ValueError: If the arrays disagree in length, or all bins are empty.
    """
    inner = per_bin.get("per_bin", per_bin)
    for name in ("count", "acc", "conf", "edges"):
        if name not in inner:
            raise KeyError(f"`per_bin` lacks `{name}`; pass what `calibration_scores(..., per_bin=True)` returns.")
    count, acc, conf, edges = (np.asarray(inner[name], dtype=np.float64) for name in ("count", "acc", "conf", "edges"))
    if not len(count) == len(acc) == len(conf) == len(edges) - 1:
        raise ValueError(f"`per_bin` arrays disagree: {len(count)}, {len(acc)}, {len(conf)}, {len(edges)} - 1 bins.")
    full = count > 0
    if not full.any():
        raise ValueError("`per_bin` has only empty bins: there is nothing to draw.")
    share = count[full] / count.sum()
    error = float((share * np.abs(acc[full] - conf[full])).sum())
    accuracy, confidence = float((share * acc[full]).sum()), float((share * conf[full]).sum())

    figure, axes = _figure(4.6, 4.6)
    middles, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    axes.bar(middles[full], acc[full], widths[full], color=_BLUE, edgecolor="white", label="accuracy")
    gaps = conf[full] - acc[full]
    axes.bar(
        middles[full], gaps, widths[full] * 0.5, bottom=acc[full], color=_ORANGE, alpha=0.6, label="gap to confidence"
    )
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfect calibration")
    axes.scatter(conf[full], np.full(int(full.sum()), 0.01), s=220 * share, color="black", alpha=0.5, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence (dots: share of the rows)", ylabel="accuracy")
    axes.set_title(_plain(title, 60) if title else f"ECE {error:.3f}, accuracy {accuracy:.3f}", fontsize=10)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    alt = (
        f"Reliability diagram with {len(count)} bins over {int(count.sum())} rows: expected calibration error "
        f"{error:.3f}, accuracy {accuracy:.3f}, mean confidence {confidence:.3f}"
    )
    return _save(figure, path, alt)


def confusion_matrix_plot(
    matrix: Any, names: Sequence[str], path: str | os.PathLike[str], *, title: str | None = None
) -> CardPlot:
    """Confusion matrix: a row per true class, a column per predicted class, coloured by the share of the row.

    Args:
        matrix (array of shape `(C, C)`): Counts, as `sklearn.metrics.confusion_matrix` returns.
        names (sequence of `str`): Names of the C classes. Above 20 classes no numbers are written into the cells.
        path: File to write, `.png` or `.svg`.
        title (`str`, *optional*): Heading of the picture.

    Returns:
        `CardPlot`: The file and its alternative text, which names the most frequent confusion.

    Raises:
        ValueError: If the matrix is not square, has a negative or not finite entry, does not fit `names`, or has over
            60 classes.
    """
    values = np.asarray(matrix, dtype=np.float64)
    size = len(names)
    if values.ndim != 2 or values.shape != (size, size) or size == 0:
        raise ValueError(f"`matrix` must have shape ({size}, {size}) for {size} `names`, got {values.shape}.")
    if not np.isfinite(values).all() or (values < 0).any():
        raise ValueError("`matrix` must hold counts: finite and not negative.")
    if size > _MAX_CLASSES:
        raise ValueError(f"A picture of {size} classes cannot be read; show at most {_MAX_CLASSES} of them.")
    rows = values.sum(1, keepdims=True)
    share = np.divide(values, rows, out=np.zeros_like(values), where=rows > 0)
    side = min(12.0, 2.4 + 0.45 * size)
    figure, axes = _figure(side + 0.6, side)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    labels = [_plain(name, 24) for name in names]
    axes.set_xticks(range(size), labels, rotation=90 if size > 3 else 0, fontsize=8)
    axes.set_yticks(range(size), labels, fontsize=8)
    axes.set(xlabel="predicted", ylabel="true")
    if title:
        axes.set_title(_plain(title, 60), fontsize=10)
    if size <= 20:
        for row in range(size):
            for column in range(size):
                colour = "white" if share[row, column] > 0.5 else "black"
                axes.text(column, row, f"{values[row, column]:g}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return _save(figure, path, _confusion_text(values, names))


def _confusion_text(values: np.ndarray, names: Sequence[str]) -> str:
    total = values.sum()
    right = f"{np.trace(values) / total:.1%} on the diagonal" if total else "no rows"
    off = values - np.diag(np.diag(values))
    text = f"Confusion matrix of {len(names)} classes, {right}"
    if off.max() > 0:
        true, predicted = divmod(int(off.argmax()), len(names))
        text += (
            f"; most frequent confusion: {clean(names[true], 60)} taken for {clean(names[predicted], 60)} "
            f"({off.max():g} times)"
        )
    return text


def paired_results_plot(
    pairs: Sequence[Mapping[str, Any]] | Mapping[str, Any], path: str | os.PathLike[str], *, title: str | None = None
) -> CardPlot:
    """Paired differences with their standard errors, one line each; right of zero, the first system is higher.

    Args:
        pairs (sequence of `Mapping`): `setting`, `a`, `b`, `mean_difference`, `stderr`, `wins`, `n`, as in the key
            `paired` of a result file; the whole result is accepted too.
        path: File to write, `.png` or `.svg`.
        title (`str`, *optional*): Heading of the picture.

    Returns:
        `CardPlot`: The file and its alternative text with the differences.

    Raises:
        KeyError: If a pair lacks a key.
        ValueError: If there is no pair, or a difference is not finite.
    """
    rows = list(pairs["paired"] if isinstance(pairs, Mapping) else pairs)
    if not rows:
        raise ValueError("There is no pair to draw.")
    names, means, errors = [], [], []
    for place, pair in enumerate(rows):
        lacking = [key for key in ("setting", "a", "b", "mean_difference", "stderr", "wins", "n") if key not in pair]
        if lacking:
            raise KeyError(f"Pair {place} lacks {', '.join(lacking)}.")
        if not (math.isfinite(pair["mean_difference"]) and math.isfinite(pair["stderr"])):
            raise ValueError(f"Pair {place} has a difference or standard error that is not finite.")
        names.append(f"{clean(pair['setting'], 40)}: {clean(pair['a'], 30)} - {clean(pair['b'], 30)}")
        means.append(float(pair["mean_difference"]))
        errors.append(float(pair["stderr"]))
    figure, axes = _figure(8.0, 1.2 + 0.38 * len(rows))
    places = np.arange(len(rows))[::-1]
    axes.axvline(0, color=_GREY, linestyle="--", linewidth=1)
    axes.errorbar(means, places, xerr=errors, fmt="o", color=_BLUE, capsize=3)
    wins = [f"{int(pair['wins'])}/{int(pair['n'])}" for pair in rows]
    axes.set_yticks(
        places, [f"{_plain(name, 110)}  ({won})" for name, won in zip(names, wins, strict=True)], fontsize=8
    )
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel("mean paired difference, bar: standard error (in brackets: wins)", fontsize=8)
    if title:
        axes.set_title(_plain(title, 80), fontsize=10)
    said = [
        f"{name} {mean:+.3f} (standard error {error:.3f})"
        for name, mean, error in zip(names, means, errors, strict=True)
    ]
    return _save(figure, path, "Paired differences: " + "; ".join(said[:6]) + ("; ..." if len(said) > 6 else ""))
