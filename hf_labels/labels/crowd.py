"""Annotations of a crowd as flat arrays, from long tables, wide columns and data sets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hf_labels.labels.columns import Column, class_names, column_names, read_column, require_columns
from hf_labels.labels.kinds import MISSING


@dataclass(frozen=True)
class CrowdAnnotations:
    """Who said what about which item: one entry per annotation.

    Parameters:
        item, worker, label (`np.ndarray` of shape `(N,)`): Ids counted from 0: T items, W workers, K labels.
        num_items, num_workers, num_labels (`int`): T, W, K.
        items, workers (sequence, *optional*): Names of the items and workers, by id.
        names (`tuple[str, ...]`, *optional*): Names of the labels.

    Raises:
        ValueError: For fewer than two labels, other shapes, an id out of range, or no annotation at all.
    """

    item: np.ndarray
    worker: np.ndarray
    label: np.ndarray
    num_items: int
    num_workers: int
    num_labels: int
    items: Sequence[Any] | None = None
    workers: Sequence[Any] | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.num_labels < 2:
            raise ValueError(
                f"`num_labels` is {self.num_labels}; there is nothing to decide with fewer than two labels."
            )
        if not np.shape(self.item) == np.shape(self.worker) == np.shape(self.label) == (np.size(self.item),):
            shapes = [np.shape(one) for one in (self.item, self.worker, self.label)]
            raise ValueError(f"`item`, `worker` and `label` must be (N,) all three, got {shapes}.")
        if not len(self.item):
            raise ValueError("There is no annotation.")
        for name, count in (("item", self.num_items), ("worker", self.num_workers), ("label", self.num_labels)):
            ids = getattr(self, name)
            wrong = np.flatnonzero((ids < 0) | (ids >= count))
            if len(wrong):
                raise ValueError(f"`{name}` must be in [0, {count}), got {ids[wrong[0]]} at annotation {wrong[0]}.")

    def __len__(self) -> int:
        return len(self.item)

    @classmethod
    def from_arrays(
        cls,
        item: Any,
        worker: Any,
        label: Any,
        num_items: int | None = None,
        num_workers: int | None = None,
        num_labels: int | None = None,
    ) -> "CrowdAnnotations":
        """From ids that count from 0. Labels of -1 are missing and left out."""
        arrays = [np.asarray(values) for values in (item, worker, label)]
        if len({values.shape for values in arrays}) == 1 and arrays[0].ndim == 1:
            known = arrays[2] != MISSING
            arrays = [values[known] for values in arrays]
        ids = [values.astype(np.int64) for values in arrays]
        given = (num_items, num_workers, num_labels)
        counts = [int(v.max(initial=-1)) + 1 if count is None else count for v, count in zip(ids, given, strict=True)]
        return cls(ids[0], ids[1], ids[2], counts[0], counts[1], counts[2])

    @classmethod
    def from_long(
        cls,
        data: Any,
        item_column: str = "task",
        worker_column: str = "worker",
        label_column: str = "label",
        num_labels: int | None = None,
    ) -> "CrowdAnnotations":
        """From a table with one row per annotation.

        Args:
            data (`datasets.Dataset`, `pandas.DataFrame` or mapping of columns): Items and workers may be any values,
                labels are class ids or names; None, NaN and -1 are missing labels.
            item_column, worker_column, label_column (`str`, *optional*): Columns.
            num_labels (`int`, *optional*): K; else from the names of the column, the texts, or the largest id.
        """
        data = _table(data)
        require_columns(data, [item_column, worker_column, label_column])
        columns = [read_column(data, name) for name in (item_column, worker_column, label_column)]
        for name, column in zip((item_column, worker_column), columns, strict=False):
            if column.null.any():
                raise ValueError(f"Column `{name}` is empty at row {int(column.null.argmax())}. Fill or drop the row.")
        labels, names = _label_ids(columns[2], class_names(data, label_column))
        items, item = np.unique(columns[0].values, return_inverse=True)
        workers, worker = np.unique(columns[1].values, return_inverse=True)
        _check_labels(labels, label_column)
        known = labels != MISSING
        empty = np.setdiff1d(np.arange(len(items)), item[known])
        if len(empty):
            shown = ", ".join(str(items[i]) for i in empty[:5])
            raise ValueError(
                f"{len(empty)} items have no label in column `{label_column}`: {shown}"
                f"{', ...' if len(empty) > 5 else ''}. Drop their rows."
            )
        count = num_labels or (len(names) if names else int(labels.max(initial=-1)) + 1)
        ids = (item[known].astype(np.int64), worker[known].astype(np.int64), labels[known])
        return cls(*ids, len(items), len(workers), count, items.tolist(), workers.tolist(), names)

    @classmethod
    def from_wide(
        cls,
        data: Any,
        annotation_column: str = "annotations",
        worker_column: str | None = None,
        num_labels: int | None = None,
    ) -> "CrowdAnnotations":
        """From one row per item, with a list of labels.

        Args:
            data (`datasets.Dataset` or mapping of columns): `annotation_column` holds lists of class ids, -1 or None =
                missing.
            annotation_column (`str`, *optional*).
            worker_column (`str`, *optional*): Lists of worker ids of the same lengths. Without it all lists have one
                length and the place in the list is the worker.
            num_labels (`int`, *optional*): K; else from the names of the column, or the largest id + 1.

        An item without any label stays an item without annotations.
        """
        require_columns(data, [annotation_column, *([worker_column] if worker_column else [])])
        column = read_column(data, annotation_column)
        if column.lengths is None:
            raise ValueError(
                f"Column `{annotation_column}` holds one value per row, expected a list of labels. "
                "For a table with one row per annotation pass `item_column` and `worker_column`."
            )
        labels, names = _label_ids(column, class_names(data, annotation_column))
        lengths = np.maximum(column.lengths, 0)
        item = np.repeat(np.arange(len(lengths)), lengths)
        if worker_column:
            found = read_column(data, worker_column)
            if found.lengths is None or (np.maximum(found.lengths, 0) != lengths).any():
                raise ValueError(
                    f"Columns `{worker_column}` and `{annotation_column}` must hold lists of equal lengths."
                )
            workers, worker = np.unique(found.values, return_inverse=True)
        else:
            if len(set(lengths.tolist())) > 1:
                raise ValueError(
                    f"Lists in column `{annotation_column}` differ in length, so places are no workers. "
                    "Pass `worker_column`, or fill up with -1."
                )
            width = int(lengths[0]) if len(lengths) else 0
            workers, worker = np.arange(width), np.tile(np.arange(width), len(lengths))
        _check_labels(labels, annotation_column, item)
        known = labels != MISSING
        count = num_labels or (len(names) if names else int(labels.max(initial=-1)) + 1)
        ids = (item[known], worker[known].astype(np.int64), labels[known])
        return cls(*ids, len(lengths), len(workers), count, None, workers.tolist(), names)

    @property
    def empty_items(self) -> np.ndarray:
        """Items without an annotation."""
        return np.flatnonzero(np.bincount(self.item, minlength=self.num_items) == 0)

    def sorted(self) -> "CrowdAnnotations":
        """The same annotations by item, worker and label."""
        code = (self.item * self.num_workers + self.worker) * self.num_labels + self.label
        if (np.diff(code) >= 0).all():
            return self
        order = np.argsort(code, kind="stable")
        return replace(self, item=self.item[order], worker=self.worker[order], label=self.label[order])

    def counts(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Votes per item and label, `(T, K)` float64; weighted if each annotation has a weight."""
        cells = self.item * self.num_labels + self.label
        found = np.bincount(cells, weights=weights, minlength=self.num_items * self.num_labels)
        return found.reshape(self.num_items, self.num_labels).astype(np.float64)


def _table(data: Any) -> Any:
    """Data frames as mappings of columns."""
    return {name: data[name].to_numpy() for name in data.columns} if hasattr(data, "iloc") else data


def _label_ids(column: Column, names: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Class ids, -1 = missing; texts are numbered in alphabetical order."""
    if column.is_text:
        texts = column.values[~column.null]
        found = np.unique(texts.astype(str))
        ids = np.full(len(column.values), MISSING, dtype=np.int64)
        ids[~column.null] = np.searchsorted(found, texts.astype(str))
        return ids, tuple(found.tolist())
    return np.where(column.null, MISSING, column.values).astype(np.int64), names


def _check_labels(labels: np.ndarray, column: str, rows: np.ndarray | None = None) -> None:
    wrong = np.flatnonzero(labels < MISSING)
    if len(wrong):
        row = wrong[0] if rows is None else rows[wrong[0]]
        raise ValueError(
            f"Column `{column}` holds {labels[wrong[0]]} at row {row}; expected class ids, or -1 = missing."
        )


def read_annotations(
    data: Any,
    item_column: str = "task",
    worker_column: str | None = "worker",
    label_column: str = "label",
    num_labels: int | None = None,
) -> CrowdAnnotations:
    """Long or wide: lists in `label_column` mean one row per item."""
    if isinstance(data, CrowdAnnotations):
        return data
    table = _table(data)
    require_columns(table, [label_column], "label_column")
    if read_column(table, label_column).lengths is None:
        if worker_column is None:
            raise ValueError(
                f"Column `{label_column}` holds one cell per row: name the `worker_column` of a table with one row "
                "per annotation, or give lists (`parse_list_cells` reads them from the texts of a CSV file)."
            )
        return CrowdAnnotations.from_long(table, item_column, worker_column, label_column, num_labels)
    workers = worker_column if worker_column in column_names(table) else None
    return CrowdAnnotations.from_wide(table, label_column, workers, num_labels)
