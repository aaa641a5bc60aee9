"""Tables of a method: one entry per training row (`SampleMemory`), or the last N entries (`MomentumQueue`).

Both are modules of buffers. Put them into `LabelTrainer.method_state` and they are placed, saved in every checkpoint
and restored on resume. Under several processes give `accelerator=`: updates are gathered, so that all ranks hold the
same table. Updates are never differentiated.
"""

from typing import Any

import torch
from torch import Tensor, nn


def add_index(dataset: Any, column: str = "index") -> Any:
    """Add the row id that survives shuffling and selecting: a column `0 .. N-1` (a new data set; an old one is kept).

    Args:
        dataset (`datasets.Dataset`): Not changed.
        column (`str`, *optional*, defaults to `"index"`): Name of the column.

    Raises:
        ValueError: If the column exists and its values are not distinct and non-negative.
    """
    if column not in dataset.column_names:
        return dataset.add_column(column, list(range(len(dataset))))
    ids = torch.as_tensor(dataset.with_format(None)[column][:])
    if ids.is_floating_point() or bool((ids < 0).any()) or ids.unique().numel() != ids.numel():
        raise ValueError(
            f"Column `{column}` must hold distinct integers of 0 or more, one per row. "
            f"Remove it (`dataset.remove_columns({column!r})`) to have it made."
        )
    return dataset


class SampleMemory(nn.Module):
    """A value per training row, found again by the row's `index`.

    Args:
        num_rows (`int`): N; indices run from 0 to N-1.
        shape (`tuple[int, ...]`, *optional*, defaults to `()`): Shape of one value.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): Type of the values.
        fill (`float`, *optional*, defaults to `0.0`): Value of rows that were never set.

    Attributes:
        values (`Tensor` of shape `(N, *shape)`): The table.
        counts (`Tensor` of shape `(N,)`, int64): How often a row was updated.

    Raises:
        ValueError: If `num_rows` is not positive.
        IndexError: From all methods, for an index outside `[0, N)`; names the first one.
        KeyError: From [`get`], for a row that was never set.

    Memory: N * prod(shape) values. Each call checks its indices (one synchronisation on an accelerator).

    Example:
        >>> import torch
        >>> memory = SampleMemory(num_rows=4, shape=(2,))
        >>> memory.ema_update(torch.tensor([1]), torch.tensor([[1.0, 0.0]]), decay=0.9)
        >>> memory.ema_update(torch.tensor([1]), torch.tensor([[0.0, 1.0]]), decay=0.9)
        >>> memory.get(torch.tensor([1])).tolist()
        [[0.8999999761581421, 0.10000000149011612]]
    """

    values: Tensor
    counts: Tensor

    def __init__(
        self, num_rows: int, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.float32, fill: float = 0.0
    ) -> None:
        super().__init__()
        if num_rows < 1:
            raise ValueError(f"`num_rows` must be at least 1, got {num_rows}.")
        self.register_buffer("values", torch.full((num_rows, *shape), fill, dtype=dtype))
        self.register_buffer("counts", torch.zeros(num_rows, dtype=torch.int64))

    @classmethod
    def for_dataset(cls, dataset: Any, shape: tuple[int, ...] = (), column: str = "index", **options: Any) -> Any:
        """A memory as large as the largest `index` of a data set asks for.

        Raises:
            KeyError: If the column is missing.
            ValueError: If the data set is empty or the ids are not distinct integers of 0 or more.
        """
        from hf_labels.labels.kinds import require_columns

        require_columns(dataset, [column])
        add_index(dataset, column)
        if len(dataset) == 0:
            raise ValueError("The data set is empty.")
        return cls(int(max(dataset.with_format(None)[column][:])) + 1, shape, **options)

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def seen(self) -> Tensor:
        """`Tensor` of shape `(N,)`, bool: rows that were set at least once."""
        return self.counts > 0

    def get(self, index: Tensor, missing: str = "error") -> Tensor:
        """Values of rows, on the device of `index`.

        Args:
            index (`Tensor` of shape `(B,)`, integer): Row ids.
            missing (`str`, *optional*, defaults to `"error"`): `"fill"` returns the fill value of rows never set.

        Returns:
            `Tensor` of shape `(B, *shape)`: A copy.
        """
        rows = self._rows(index)
        if missing == "error" and not bool((self.counts[rows] > 0).all()):
            first = int(rows[self.counts[rows] == 0][0])
            raise KeyError(
                f"Row {first} of the memory was never set. Fill it first (one pass over the training set), "
                'or pass `missing="fill"`.'
            )
        return self.values[rows].to(index.device)

    @torch.no_grad()
    def set(self, index: Tensor, values: Tensor, accelerator: Any = None) -> None:
        """Write values. A row that occurs twice keeps its last value.

        Args:
            index (`Tensor` of shape `(B,)`, integer), values (`Tensor` of shape `(B, *shape)`): What to write where.
            accelerator (`accelerate.Accelerator`, *optional*): Gather from all ranks first.
        """
        self._write(index, values, None, accelerator)

    @torch.no_grad()
    def ema_update(self, index: Tensor, values: Tensor, decay: float, accelerator: Any = None) -> None:
        """`memory <- decay * memory + (1 - decay) * values`; a row never set takes the value as it is.

        Args:
            index, values, accelerator: As in [`set`].
            decay (`float`): Weight of the old value, in [0, 1].
        """
        if not 0 <= decay <= 1:
            raise ValueError(f"`decay` must be in [0, 1], got {decay}.")
        if not self.values.is_floating_point():
            raise TypeError(f"A moving average needs a float memory, this one holds {self.values.dtype}. Use `set`.")
        self._write(index, values, decay, accelerator)

    def _write(self, index: Tensor, values: Tensor, decay: float | None, accelerator: Any) -> None:
        if values.shape != (*index.shape, *self.values.shape[1:]):
            raise ValueError(
                f"`values` must have shape {(*index.shape, *self.values.shape[1:])}, got {tuple(values.shape)}."
            )
        self._rows(index)
        index, values = gather_rows(index, values, accelerator)
        rows = self._rows(index)
        last = _last_of_each(rows)
        rows, new = rows[last], values[last].detach().to(self.values)
        if decay is not None:
            fresh = (self.counts[rows] == 0).view(-1, *[1] * (new.dim() - 1))
            new = torch.where(fresh, new, decay * self.values[rows] + (1 - decay) * new)
        self.values[rows] = new
        self.counts[rows] += 1

    def _rows(self, index: Tensor) -> Tensor:
        if index.is_floating_point() or index.dtype == torch.bool or index.dim() != 1:
            raise IndexError(f"`index` must be integers of shape (B,), got {index.dtype} of {tuple(index.shape)}.")
        rows = index.to(self.values.device, torch.int64)
        outside = (rows < 0) | (rows >= len(self))
        if bool(outside.any()):
            raise IndexError(
                f"Index {int(rows[outside][0])} is outside the memory of {len(self)} rows. The column `index` must be "
                "the row number of the data set that the memory was made for (`add_index`)."
            )
        return rows


class MomentumQueue(nn.Module):
    """First-in first-out ring of features, with a label each.

    Args:
        size (`int`): Q, the capacity.
        dim (`int`): D, the width of a feature.

    Attributes:
        features (`Tensor` of shape `(Q, D)`), labels (`Tensor` of shape `(Q,)`, int64): -1 = no label.
        pointer, filled (`Tensor` of shape `()`, int64): Where the next entry goes; how many entries are real.

    Raises:
        ValueError: If `size` or `dim` is not positive, or shapes disagree.

    Source: He et al., MoCo, arXiv:1911.05722, section 3.2. Unlike there, Q need not be a multiple of the batch.
    """

    features: Tensor
    labels: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"`size` and `dim` must be positive, got {size} and {dim}.")
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return self.features.shape[0]

    @property
    def valid(self) -> Tensor:
        """`Tensor` of shape `(Q,)`, bool: entries that were written."""
        return torch.arange(len(self), device=self.features.device) < self.filled

    @torch.no_grad()
    def enqueue(self, features: Tensor, labels: Tensor | None = None, accelerator: Any = None) -> None:
        """Add entries; the oldest fall out. Of more than Q entries the last Q stay.

        Args:
            features (`Tensor` of shape `(B, D)`): New entries, in order.
            labels (`Tensor` of shape `(B,)`, integer, *optional*): Their labels.
            accelerator (`accelerate.Accelerator`, *optional*): Gather from all ranks first, in rank order.
        """
        size, dim = self.features.shape
        if features.dim() != 2 or features.shape[1] != dim:
            raise ValueError(f"`features` must have shape (B, {dim}), got {tuple(features.shape)}.")
        if labels is None:
            labels = features.new_full(features.shape[:1], -1, dtype=torch.int64)
        if labels.shape != features.shape[:1]:
            raise ValueError(f"`labels` must have shape {tuple(features.shape[:1])}, got {tuple(labels.shape)}.")
        labels, features = gather_rows(labels, features, accelerator, pad=_PADDED_LABEL)
        skipped = max(0, features.shape[0] - size)
        steps = torch.arange(skipped, features.shape[0], device=self.features.device)
        place = (self.pointer + steps) % size
        self.features[place] = features[skipped:].detach().to(self.features)
        self.labels[place] = labels[skipped:].to(self.labels)
        self.pointer.copy_((self.pointer + features.shape[0]) % size)
        self.filled.copy_((self.filled + features.shape[0]).clamp_max(size))


_PADDED_LABEL = torch.iinfo(torch.int64).min


def gather_rows(
    index: Tensor, values: Tensor, accelerator: Any = None, pad: int = _PADDED_LABEL
) -> tuple[Tensor, Tensor]:
    """Rows of all ranks, in rank order, on every rank; ranks may hold different numbers of rows.

    Args:
        index (`Tensor` of shape `(B,)`, int64), values (`Tensor` of shape `(B, ...)`): This rank's rows.
        accelerator (`accelerate.Accelerator`, *optional*): `None` or one process: returned as they are.
        pad (`int`, *optional*): Marks filled-up rows; must not occur in `index`.

    Returns:
        `tuple[Tensor, Tensor]`: Index and values of all ranks, without the filled-up rows.
    """
    if accelerator is None or accelerator.num_processes == 1:
        return index, values
    index = accelerator.pad_across_processes(index.contiguous(), dim=0, pad_index=pad)
    values = accelerator.pad_across_processes(values.detach().contiguous(), dim=0)
    index, values = accelerator.gather(index), accelerator.gather(values)
    kept = index != pad
    return index[kept], values[kept]


def _last_of_each(rows: Tensor) -> Tensor:
    """Positions of the last occurrence of every distinct value; deterministic, unlike writing duplicates."""
    order = torch.argsort(rows, stable=True)
    ordered = rows[order]
    is_last = torch.ones_like(ordered, dtype=torch.bool)
    is_last[:-1] = ordered[1:] != ordered[:-1]
    return order[is_last]
