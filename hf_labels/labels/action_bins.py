"""Robot actions and states as tokens: uniform bins of OpenVLA for actions, quantile bins for states."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Order = Literal["time", "dim"]


def encode_actions(actions: Any, vocab_size: int, bins: int = 256) -> np.ndarray:
    """Token ids of normalised actions: the last `bins` ids of the vocabulary, -1 has the highest.

    Args:
        actions: Numbers of any shape, in `[-1, 1]` (no unit); what lies outside is clipped.
        vocab_size (`int`): Size V of the vocabulary.
        bins (`int`, *optional*, defaults to `256`): Edges of the grid on `[-1, 1]`.

    Returns:
        `np.ndarray` of the same shape, int64, in `[V - bins, V - 1]`.

    Raises:
        ValueError: Fewer than 2 bins, more bins than ids, or an action that is not finite (with its position).

    Example:
        >>> encode_actions([-1.0, 0.0, 2.0], vocab_size=32000).tolist()
        [31999, 31872, 31744]

    Source: OpenVLA and CEED-VLA (arXiv:2506.13725), `ActionTokenizer`.
    """
    _need_bins(bins, vocab_size)
    array = np.asarray(actions, dtype=np.float64)
    _need_finite(array, "actions")
    return vocab_size - np.digitize(np.clip(array, -1.0, 1.0), np.linspace(-1.0, 1.0, bins))


def decode_actions(ids: Any, vocab_size: int, bins: int = 256) -> np.ndarray:
    """Normalised actions of token ids: centres of the `bins - 1` intervals. Other ids count as the nearest action id.

    Args:
        ids: Integers of any shape.
        vocab_size (`int`): Size V of the vocabulary.
        bins (`int`, *optional*, defaults to `256`): Edges of the grid on `[-1, 1]`.

    Returns:
        `np.ndarray` of the same shape, float64, in `(-1, 1)`.

    Raises:
        ValueError: Fewer than 2 bins or more bins than ids.
        TypeError: Ids that are not integers.

    Source: OpenVLA and CEED-VLA (arXiv:2506.13725), `ActionTokenizer`.
    """
    _need_bins(bins, vocab_size)
    array = np.asarray(ids)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"`ids` must be integers, got {array.dtype}. Actions are encoded with `encode_actions`.")
    edges = np.linspace(-1.0, 1.0, bins)
    centres = (edges[:-1] + edges[1:]) / 2
    return centres[np.clip(vocab_size - array.astype(np.int64) - 1, 0, bins - 2)]


@dataclass(frozen=True)
class ActionBinner:
    """Action chunks `(..., H, D)` in the units of the robot <-> label sequences `(..., H * D [+ 1])` of token ids.

    Actions are normalised per dimension to `[-1, 1]` by the 1st and 99th percentile of the training data, binned
    ([`encode_actions`]), flattened, and closed with `eos_token_id` when there is one.

    Parameters:
        low (sequence of `float`, D numbers): 1st percentile per dimension.
        high (sequence of `float`, D numbers): 99th percentile per dimension.
        mask (sequence of `bool`, D): Where false the dimension is left as it is (a gripper that is 0/1 already).
        vocab_size (`int`): Size of the vocabulary; actions use its last `bins` ids.
        bins (`int`, *optional*, defaults to `256`): Edges of the grid.
        order (`"time"` or `"dim"`, *optional*, defaults to `"time"`): All dimensions of step 1 first, or all steps of
            dimension 1 first.
        eos_token_id (`int`, *optional*): Closes each label.

    Raises:
        ValueError: Lengths differ, an upper bound is below its lower bound, EOS is an action id, or a bad `order`.

    Example:
        >>> binner = ActionBinner.fit([[0.0, 1.0], [10.0, 1.0]], vocab_size=300, eos_token_id=2)
        >>> ids = binner.encode([[5.0, 1.0], [9.8, 1.0]])
        >>> ids.tolist()
        [172, 172, 47, 172, 2]
        >>> binner.decode(ids).round(1).tolist()
        [[5.0, 1.0], [9.8, 1.0]]

    Source: Song et al. 2025, arXiv:2506.13725 (the scheme of OpenVLA): `a = 0.5 (x + 1)(q99 - q01) + q01`.
    """

    low: Sequence[float]
    high: Sequence[float]
    mask: Sequence[bool]
    vocab_size: int
    bins: int = 256
    order: Order = "time"
    eos_token_id: int | None = None

    def __post_init__(self) -> None:
        for name, kind in (("low", float), ("high", float), ("mask", bool)):
            object.__setattr__(self, name, tuple(kind(value) for value in np.asarray(getattr(self, name)).tolist()))
        if not len(self.low) == len(self.high) == len(self.mask) or not self.low:
            raise ValueError(
                "`low`, `high` and `mask` need one entry per action dimension, got "
                f"{len(self.low)}, {len(self.high)} and {len(self.mask)}."
            )
        _need_finite(np.array([self.low, self.high]), "low and high")
        for d, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if low > high:
                raise ValueError(f"Dimension {d}: `low` {low} is above `high` {high}.")
        _need_bins(self.bins, self.vocab_size)
        if self.order not in ("time", "dim"):
            raise ValueError(f"`order` must be 'time' or 'dim', got {self.order!r}.")
        if self.eos_token_id is not None and self.eos_token_id >= self.vocab_size - self.bins:
            raise ValueError(
                f"`eos_token_id` {self.eos_token_id} is an action id: they start at {self.vocab_size - self.bins}."
            )

    @classmethod
    def fit(
        cls,
        actions: Any,
        vocab_size: int,
        *,
        quantiles: tuple[float, float] = (0.01, 0.99),
        mask: Sequence[bool] | None = None,
        **settings: Any,
    ) -> ActionBinner:
        """Take the range of each dimension from training actions `(N, D)` or chunks `(N, H, D)`.

        Args:
            actions: Training data only, in the units of the robot.
            vocab_size (`int`): Size of the vocabulary.
            quantiles (`tuple[float, float]`, *optional*, defaults to `(0.01, 0.99)`): Lower and upper.
            mask (sequence of `bool`, *optional*): Dimensions to normalise; all by default.
            settings: `bins`, `order`, `eos_token_id`.

        Raises:
            ValueError: No action, or one that is not finite.
        """
        array = np.asarray(actions, dtype=np.float64)
        if array.ndim < 2 or not array.size:
            raise ValueError(f"`actions` must be (N, D) or (N, H, D) with at least one row, got shape {array.shape}.")
        _need_finite(array, "actions")
        low, high = np.quantile(array.reshape(-1, array.shape[-1]), quantiles, axis=0)
        return cls(low, high, [True] * len(low) if mask is None else mask, vocab_size, **settings)

    @property
    def dim(self) -> int:
        """Numbers D of one action."""
        return len(self.low)

    @property
    def action_ids(self) -> range:
        """The ids that actions use."""
        return range(self.vocab_size - self.bins, self.vocab_size)

    def normalize(self, actions: Any) -> np.ndarray:
        """`(..., D)` in robot units -> `[-1, 1]`, clipped; a dimension without range becomes 0."""
        array = self._need_dim(np.asarray(actions, dtype=np.float64))
        low, high, mask = np.array(self.low), np.array(self.high), np.array(self.mask)
        span = np.where(high > low, high - low, 1.0)
        scaled = np.where(high > low, 2 * (array - low) / span - 1, 0.0)
        return np.clip(np.where(mask, scaled, array), -1.0, 1.0)

    def unnormalize(self, actions: Any) -> np.ndarray:
        """`(..., D)` in `[-1, 1]` -> robot units."""
        array = self._need_dim(np.asarray(actions, dtype=np.float64))
        low, high = np.array(self.low), np.array(self.high)
        return np.where(np.array(self.mask), 0.5 * (array + 1) * (high - low) + low, array)

    def encode(self, chunks: Any) -> np.ndarray:
        """Token ids `(..., H * D [+ 1])` of chunks `(..., H, D)` in robot units."""
        values = self.normalize(chunks)
        if values.ndim < 2:
            raise ValueError(f"`chunks` must be (..., H, D), got shape {values.shape}.")
        if self.order == "dim":
            values = np.swapaxes(values, -1, -2)
        ids = encode_actions(values.reshape(*values.shape[:-2], -1), self.vocab_size, self.bins)
        if self.eos_token_id is None:
            return ids
        return np.concatenate([ids, np.full((*ids.shape[:-1], 1), self.eos_token_id)], axis=-1)

    def decode(self, ids: Any) -> np.ndarray:
        """Chunks `(..., H, D)` in robot units of token ids `(..., H * D [+ 1])`."""
        return self.unnormalize(self._split(self.decode_labels(ids)))

    def decode_labels(self, ids: Any) -> np.ndarray:
        """Normalised values `(..., H * D)` of labels `(..., H * D [+ 1])` in token order, without EOS.

        The distance of mixed labels is taken on these. Tensors are accepted.
        """
        array = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
        width = array.shape[-1] - (self.eos_token_id is not None) if array.ndim else 0
        if width < 1 or width % self.dim:
            end = " + 1 for EOS" if self.eos_token_id is not None else ""
            raise ValueError(f"A label must have a multiple of {self.dim} ids{end}, got shape {array.shape}.")
        return decode_actions(array[..., :width], self.vocab_size, self.bins)

    def guess(self, steps: int) -> np.ndarray:
        """The label `(H * D [+ 1],)` of a robot that does nothing: normalised action 0 at each of `steps`."""
        ids = encode_actions(np.zeros(steps * self.dim), self.vocab_size, self.bins)
        return ids if self.eos_token_id is None else np.append(ids, self.eos_token_id)

    def save(self, path: str | Path) -> Path:
        """Write the settings as JSON; a folder gets `action_binner.json`."""
        return _save(self, path, "action_binner.json")

    @classmethod
    def load(cls, path: str | Path) -> ActionBinner:
        """Read what `save` wrote (file or folder)."""
        return cls(**_load(path, "action_binner.json"))

    def _split(self, values: np.ndarray) -> np.ndarray:
        lead, steps = values.shape[:-1], values.shape[-1] // self.dim
        if self.order == "time":
            return values.reshape(*lead, steps, self.dim)
        return np.swapaxes(values.reshape(*lead, self.dim, steps), -1, -2)

    def _need_dim(self, array: np.ndarray) -> np.ndarray:
        if array.ndim < 1 or array.shape[-1] != self.dim:
            raise ValueError(f"Actions need {self.dim} numbers in the last dimension, got shape {array.shape}.")
        return array


@dataclass(frozen=True)
class StateBinner:
    """State features `(..., F)` -> token ids `(..., F)`; equally filled bins, own ids for each feature.

    Feature f in bin b has the id `first_id + f * bins + b`.

    Parameters:
        edges (nested sequence of shape (F, bins - 1)): Inner edges per feature, ascending; equal edges are allowed.
        first_id (`int`, *optional*, defaults to `0`): Lowest id.

    Raises:
        ValueError: Edges that are not a table, not finite, or not ascending.

    Example:
        >>> binner = StateBinner.fit([[0.0], [1.0], [2.0], [3.0]], bins=2, first_id=10)
        >>> binner.encode([[0.2], [2.8]]).tolist()
        [[10], [11]]
    """

    edges: Sequence[Sequence[float]]
    first_id: int = 0

    def __post_init__(self) -> None:
        array = np.asarray(self.edges, dtype=np.float64)
        if array.ndim != 2 or not array.size:
            raise ValueError(f"`edges` must be (F, bins - 1), got shape {array.shape}.")
        _need_finite(array, "edges")
        if (np.diff(array, axis=1) < 0).any():
            raise ValueError("`edges` must ascend in each row.")
        object.__setattr__(self, "edges", tuple(map(tuple, array.tolist())))
        object.__setattr__(self, "_table", array)

    @classmethod
    def fit(cls, features: Any, bins: int = 128, first_id: int = 0) -> StateBinner:
        """Quantiles of training features `(N, F)`.

        Raises:
            ValueError: Fewer than 2 bins, no row, or a number that is not finite.
        """
        array = np.asarray(features, dtype=np.float64)
        if bins < 2:
            raise ValueError(f"`bins` must be at least 2, got {bins}.")
        if array.ndim != 2 or not array.size:
            raise ValueError(f"`features` must be (N, F) with at least one row, got shape {array.shape}.")
        _need_finite(array, "features")
        return cls(np.quantile(array, np.arange(1, bins) / bins, axis=0).T.tolist(), first_id)

    @property
    def bins(self) -> int:
        """Bins of each feature."""
        return len(self.edges[0]) + 1

    @property
    def num_ids(self) -> int:
        """Ids in use, from `first_id` on."""
        return len(self.edges) * self.bins

    def encode(self, features: Any) -> np.ndarray:
        """Token ids `(..., F)`, int64.

        Raises:
            ValueError: Another number of features, or one that is not finite.
        """
        array, table = np.asarray(features, dtype=np.float64), self._table  # type: ignore[attr-defined]
        if array.ndim < 1 or array.shape[-1] != len(table):
            raise ValueError(f"`features` need {len(table)} numbers in the last dimension, got shape {array.shape}.")
        _need_finite(array, "features")
        bins = [np.searchsorted(table[f], array[..., f], side="right") for f in range(len(table))]
        return np.stack(bins, axis=-1) + self.first_id + np.arange(len(table)) * self.bins

    def save(self, path: str | Path) -> Path:
        """Write the edges as JSON; a folder gets `state_binner.json`."""
        return _save(self, path, "state_binner.json")

    @classmethod
    def load(cls, path: str | Path) -> StateBinner:
        """Read what `save` wrote (file or folder)."""
        return cls(**_load(path, "state_binner.json"))


def _save(binner: Any, path: str | Path, name: str) -> Path:
    target = Path(path)
    if target.suffix != ".json":
        target.mkdir(parents=True, exist_ok=True)
        target = target / name
    target.write_text(json.dumps(asdict(binner), indent=1) + "\n", encoding="utf-8")
    return target


def _load(path: str | Path, name: str) -> dict[str, Any]:
    target = Path(path)
    return json.loads((target / name if target.is_dir() else target).read_text(encoding="utf-8"))


def _need_bins(bins: int, vocab_size: int) -> None:
    if not 2 <= bins <= vocab_size:
        raise ValueError(f"`bins` must be between 2 and the vocabulary size {vocab_size}, got {bins}.")


def _need_finite(array: np.ndarray, name: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"`{name}` must be finite, got {array[at]} at {at}. Drop such rows.")
