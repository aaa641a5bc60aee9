"""From the key of an example and the number of a view to the row of a soft-label store."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class RowIndex:
    """Sorted keys of all rows; look-ups by binary search, whatever the order of the rows.

    Args:
        example_ids (array of shape `(N,)`): Integers or texts.
        views (array of shape `(N,)`, *optional*): Number of each row's view; 0 by default.

    Attributes:
        ids (array of shape `(E,)`): The examples, sorted, each once.
    """

    def __init__(self, example_ids: np.ndarray, views: np.ndarray | None = None) -> None:
        self.ids, numbers = np.unique(_ids(example_ids), return_inverse=True)
        numbers = numbers.astype(np.int64)
        view = np.zeros(len(numbers), np.int64) if views is None else views.astype(np.int64)
        self._width = int(view.max(initial=0)) + 1
        keys = numbers * self._width + view
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def rows(self, example_ids: Any, views: Any = None) -> np.ndarray:
        """Rows of examples and views.

        Args:
            example_ids (sequence of shape `(M,)`): Keys.
            views (sequence of shape `(M,)`, *optional*): Number of the view of each; by default the only one.

        Returns:
            array of shape `(M,)`, int64.

        Raises:
            KeyError: If an example is not there; names it.
            ValueError: If it has no such view, or has several and `views` is not given; names it.
        """
        ids = _ids(example_ids)
        first, last, numbers = self._range(ids)
        if views is None:
            several = np.flatnonzero(last - first != 1)
            if len(several):
                raise ValueError(f"Example {_show(ids[several[0]])} has several views. Pass `views` (column `view`).")
            return self._order[first]
        wanted = np.asarray(views, dtype=np.int64)
        if wanted.shape != ids.shape:
            raise ValueError(f"`views` must have shape {ids.shape}, got {wanted.shape}.")
        sought = numbers * self._width + np.clip(wanted, 0, self._width - 1)
        place = np.minimum(np.searchsorted(self._keys, sought), len(self._keys) - 1)
        wrong = np.flatnonzero((self._keys[place] != sought) | (wanted < 0) | (wanted >= self._width))
        if len(wrong):
            row = wrong[0]
            raise ValueError(
                f"Example {_show(ids[row])} has no view {wanted[row]}; it has "
                f"{_some(self._keys[first[row] : last[row]] % self._width)}."
            )
        return self._order[place]

    def views_of(self, example_id: Any) -> np.ndarray:
        """Numbers of the views of an example, rising. Raises `KeyError` if it is not there."""
        first, last, _ = self._range(_ids([example_id]))
        return self._keys[first[0] : last[0]] % self._width

    def counts(self, example_ids: Any) -> np.ndarray:
        """Number of views of each example, (M,). Raises `KeyError` for one that is not there."""
        first, last, _ = self._range(_ids(example_ids))
        return last - first

    def nth(self, example_ids: Any, places: np.ndarray) -> np.ndarray:
        """Rows of the views at `places` (M, n) among the stored views of each example: (M, n)."""
        first, _, _ = self._range(_ids(example_ids))
        return self._order[first[:, None] + places]

    def check(self, example_ids: Any) -> None:
        """Raise `KeyError` naming the first example that is not there."""
        self._range(_ids(example_ids))

    def _range(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the sorted keys of each example begin and end, and its number."""
        if ids.size == 0:
            empty = np.zeros(0, np.int64)
            return empty, empty, empty
        if ids.dtype.kind != self.ids.dtype.kind:
            wanted = "texts" if self.ids.dtype.kind == "U" else "integers"
            raise KeyError(f"The keys of the store are {wanted}, got {_show(ids[0])}.")
        numbers = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        absent = np.flatnonzero(self.ids[numbers] != ids)
        if len(absent):
            raise KeyError(
                f"The store has no soft label for example {_show(ids[absent[0]])} ({len(absent)} of {len(ids)} asked "
                "for are missing). Build the store for the whole data set, or filter the data."
            )
        width = self._width
        return (
            np.searchsorted(self._keys, numbers * width),
            np.searchsorted(self._keys, (numbers + 1) * width),
            numbers,
        )


def _ids(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array.astype(str) if array.dtype.kind in "OU" else array.astype(np.int64)


def _show(value: Any) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)


def _some(views: Sequence[int] | np.ndarray) -> str:
    shown = ", ".join(str(int(view)) for view in views[:8])
    return f"{shown}, ... ({len(views)} views)" if len(views) > 8 else shown
