"""Rows of a soft-label store: written as Arrow tables, read as numpy views of memory-mapped files, and checked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from hf_labels.data.soft_label_info import StoreInfo

Rows = dict[str, np.ndarray]


class RowReader:
    """Random access to the columns of a `datasets.Dataset` without copying a file into memory.

    Numbers are numpy views of the memory-mapped Arrow buffers; only the rows that are asked for are copied.
    """

    def __init__(self, dataset: Any) -> None:
        if dataset._indices is not None:
            dataset = dataset.flatten_indices()
        self._length = len(dataset)
        self._columns: dict[str, list[np.ndarray]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._ends: dict[str, np.ndarray] = {}
        for name, feature in dataset.features.items():
            shape = _shape(feature)
            chunks = [_view(chunk, shape) for chunk in dataset.data.column(name).chunks if len(chunk)]
            self._columns[name], self._shapes[name] = chunks, shape
            self._ends[name] = np.cumsum([len(chunk) for chunk in chunks])

    def __len__(self) -> int:
        return self._length

    @property
    def names(self) -> tuple[str, ...]:
        """Columns."""
        return tuple(self._columns)

    def column(self, name: str) -> np.ndarray:
        """A whole column; no copy when the file has one chunk."""
        chunks = self._columns[name]
        if len(chunks) == 1:
            return chunks[0]
        return np.concatenate(chunks) if chunks else np.empty((0, *self._shapes[name]))

    def take(self, rows: np.ndarray, names: Sequence[str] | None = None) -> Rows:
        """Some rows of some columns, as new arrays."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and not (0 <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"Rows must be in [0, {len(self)}), got {rows.min()} to {rows.max()}.")
        found: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
        out: Rows = {}
        for name in names or self._columns:
            chunks = self._columns[name]
            if len(chunks) <= 1:
                out[name] = chunks[0][rows] if chunks else self.column(name)
                continue
            ends = self._ends[name]
            key = ends.tobytes()
            if key not in found:
                which = np.searchsorted(ends, rows, side="right")
                found[key] = which, rows - np.where(which > 0, ends[which - 1], 0)
            which, place = found[key]
            values = np.empty((len(rows), *self._shapes[name]), dtype=chunks[0].dtype)
            for number in np.unique(which):
                mine = which == number
                values[mine] = chunks[number][place[mine]]
            out[name] = values
        return out


def to_table(columns: Mapping[str, np.ndarray], info: StoreInfo) -> pa.Table:
    """Columns as an Arrow table with the features of the store."""
    features = info.features()
    schema = features.arrow_schema
    return pa.Table.from_arrays([_arrow(columns[name], schema.field(name).type) for name in features], schema=schema)


def check_rows(columns: Mapping[str, np.ndarray], info: StoreInfo) -> None:
    """Check encoded rows before they are written, or when they are read.

    Raises:
        ValueError: A column is missing or of another shape, an id repeats in a row or is not in [0, C), values are
            not finite, not in [0, 1], or not in descending order. Names example and view.
    """
    wanted, rows = info.features(), len(columns["example_id"])
    for name, feature in wanted.items():
        if name not in columns:
            raise ValueError(f"Column `{name}` is missing; kind `{info.kind}` needs {', '.join(wanted)}.")
        shape = (rows, *_shape(feature))
        if columns[name].shape != shape:
            raise ValueError(
                f"Column `{name}` must have shape {shape}, got {columns[name].shape} (first example "
                f"{_name(columns, 0)})."
            )
    for name, axis in (("topk_ids", 1), ("map_ids", 1)):
        if name in columns:
            _check_ids(columns, name, axis, info)
    for name in ("topk_values", "dense_values", "map_values"):
        if name in columns:
            _check_values(columns, name, info)
    if info.has_crops:
        crop = columns["crop"]
        slack = 1e-6
        inside = (crop >= 0).all(1) & (crop[:, 2:] > 0).all(1) & (crop[:, :2] + crop[:, 2:] <= 1 + slack).all(1)
        _refuse(~inside, columns, "has a crop that leaves the image: fractions (top, left, height, width) are wanted")


def _check_ids(columns: Mapping[str, np.ndarray], name: str, axis: int, info: StoreInfo) -> None:
    ids = columns[name].astype(np.int64)
    flat = ids.reshape(len(ids), -1)
    _refuse(((flat < 0) | (flat >= info.num_labels)).any(1), columns, f"has a class id outside [0, {info.num_labels})")
    ordered = np.sort(ids, axis=axis)
    again = (np.diff(ordered, axis=axis) == 0).reshape(len(ids), -1).any(1)
    _refuse(again, columns, "names a class twice")


def _check_values(columns: Mapping[str, np.ndarray], name: str, info: StoreInfo) -> None:
    values = columns[name]
    if values.dtype == np.uint8:
        wide = values
    else:
        wide = values.astype(np.float32, copy=False)
        _refuse(~np.isfinite(wide).reshape(len(wide), -1).all(1), columns, "has values that are not finite")
        if info.value_space == "prob":
            outside = ((wide < 0) | (wide > 1)).reshape(len(wide), -1).any(1)
            _refuse(outside, columns, "has probabilities outside [0, 1]")
    if name != "dense_values" and len(wide):
        falling = (wide[:, 1:] <= wide[:, :-1]).reshape(len(wide), -1).all(1)
        _refuse(~falling, columns, "does not store its values in descending order")


def _refuse(wrong: Any, columns: Mapping[str, np.ndarray], what: str) -> None:
    if wrong.any():
        raise ValueError(f"{_name(columns, int(np.flatnonzero(wrong)[0]))} {what}.")


def _name(columns: Mapping[str, np.ndarray], row: int) -> str:
    if not len(columns["example_id"]):
        return "none"
    view = f", view {int(columns['view'][row])}" if "view" in columns else ""
    identity = columns["example_id"][row]
    return f"Example {identity.item() if isinstance(identity, np.generic) else identity!r}{view}"


def _shape(feature: Any) -> tuple[int, ...]:
    from datasets import Array3D, List

    if isinstance(feature, Array3D):
        return tuple(feature.shape)
    return (feature.length,) if isinstance(feature, List) else ()


def _view(chunk: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A chunk as numpy, without a copy for numbers."""
    if isinstance(chunk, pa.ExtensionArray):
        chunk = chunk.storage
    while pa.types.is_nested(chunk.type):
        chunk = chunk.flatten()
    if chunk.null_count:
        raise ValueError("A soft-label store has no empty cells, but a column holds None.")
    plain = pa.types.is_integer(chunk.type) or pa.types.is_floating(chunk.type)
    return chunk.to_numpy(zero_copy_only=plain).reshape(-1, *shape)


def _arrow(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.ExtensionType):
        return pa.ExtensionArray.from_storage(kind, _arrow(values, kind.storage_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(_arrow(values.reshape(-1), kind.value_type), kind.list_size)
    if pa.types.is_list(kind):
        inner = _arrow(values.reshape(-1, *values.shape[2:]), kind.value_type)
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), inner)
    return pa.array(values, type=kind)
