"""A picture of one Jacobi decoding: which token was fixed at which pass."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def fixed_at(iterates: Any) -> np.ndarray:
    """The pass from which on each token kept its last value.

    Args:
        iterates (array-like of shape `(k + 1, n)`): A guess and the block after each pass.

    Returns:
        `np.ndarray` of shape `(n,)`, int: 0 = the guess was right.

    Raises:
        ValueError: If `iterates` is not a non-empty table.

    Example:
        >>> fixed_at([[1, 1, 1], [4, 1, 5], [4, 6, 5]]).tolist()
        [1, 2, 1]
    """
    table = np.asarray(iterates)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"`iterates` must be of shape (k + 1, n), for one row of a batch, got {table.shape}.")
    wrong = table != table[-1]
    return np.where(wrong.any(axis=0), len(table) - np.argmax(wrong[::-1], axis=0), 0)


def plot_decoding_trace(
    iterates: Any, path: str | Path, names: Sequence[str] | Callable[[int], str] | None = None, title: str = ""
) -> Path:
    """Draw the passes of a block from top to bottom, one cell per token, darker the earlier the token was fixed.

    A token that differs from its last value is white; one that is right before its prefix is ("stationary") shows
    as a cell of its colour before those on its left.

    Args:
        iterates (array-like of shape `(k + 1, n)`): One row of `JacobiStats.iterates[block]`, or a `trajectory`.
        path (`str` or `Path`): Picture to write.
        names (*optional*): Text of each token id, for example `tokenizer.convert_ids_to_tokens`; the id by default.
        title (`str`, *optional*)

    Returns:
        `Path`: Where the picture is.

    Raises:
        ValueError: If `iterates` is not a table.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table, since = np.asarray(iterates), fixed_at(iterates)
    rows, columns = table.shape
    done = np.arange(rows)[:, None] >= since
    shade = np.where(done, 0.75 - 0.55 * since / max(1, rows - 1), 0.0)
    figure, axis = plt.subplots(figsize=(1.5 + 0.42 * columns, 1.0 + 0.34 * rows))
    axis.imshow(shade, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    name = names if callable(names) else (lambda i: str(i) if names is None else str(names[i]))
    for row in range(rows):
        for column in range(columns):
            color = "white" if shade[row, column] > 0.5 else "black"
            label = name(int(table[row, column])).replace("$", r"\$")
            axis.text(column, row, label, ha="center", va="center", fontsize=7, color=color)
    axis.set_yticks(range(rows), ["guess", *[f"pass {row}" for row in range(1, rows)]])
    axis.set_xticks(range(0, columns, max(1, columns // 16)))
    axis.set_xlabel("position in the block")
    axis.set_title(title)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return Path(path)
