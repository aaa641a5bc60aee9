"""Frozen-encoder outputs, computed once: a cache on disk keyed by the encoder and by each single item.

An encoder that never changes gives the same vector for the same text forever. [`FeatureCache`] therefore stores rows,
not
data sets: another split, another seed or an augmented set only pays for the items it has not seen. Rows are written in
chunks, each as a whole safetensors file, so an interrupted run goes on where it stopped and several processes can
write at once.
"""

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

FORMAT = 1  # enters the key: raise it when the meaning of stored rows changes
_HASH = "item_hash"
Encode = Callable[[list[Any]], "np.ndarray | Mapping[str, np.ndarray]"]


def cache_root() -> Path:
    """Folder of everything that hf_labels caches: `$HF_LABELS_CACHE`, else `$XDG_CACHE_HOME/hf_labels`, else
    `~/.cache/hf_labels`. Not created here."""
    if os.environ.get("HF_LABELS_CACHE"):
        return Path(os.environ["HF_LABELS_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "hf_labels"


def weights_hash(tensors: Any) -> str:
    """Fingerprint of a model's weights: equal for equal tensors under equal names, whatever folder they came from.

    Args:
        tensors: An `nn.Module`, or a mapping of name to tensor.

    Returns:
        `str`: 32 hex digits. About one second per gigabyte.
    """
    import torch

    state = tensors.state_dict() if hasattr(tensors, "state_dict") else tensors
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        # numpy knows no bfloat16: hash the bytes, not the numbers.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_finite(features: Any, what: str = "features") -> None:
    """Raise `ValueError` naming the first row that holds NaN or infinity.

    Args:
        features (array or tensor of shape `(N, ...)`): Looked at once; not changed.
        what (`str`, *optional*): Name used in the message.
    """
    array = features.detach().float().cpu().numpy() if hasattr(features, "detach") else np.asarray(features)
    bad = np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(1)) if len(array) else np.empty(0, int)
    if len(bad):
        raise ValueError(
            f"`{what}` holds NaN or infinity at row {bad[0]} ({len(bad)} of {len(array)} rows). "
            "Encode that row again, in float32, or drop it."
        )


class FeatureCache:
    """Rows computed by a frozen encoder, kept on disk.

    Parameters:
        key (`Mapping[str, Any]` or `None`): All that decides the rows: model id, revision, weights hash, pooling,
            template, maximal length. JSON values only. `None` switches the disk off (an encoder nobody can name
            again).
        cache_dir (`str` or `Path`, *optional*): Defaults to `cache_root() / "features"`.

    Example:

    ```python
    cache = FeatureCache(encoder.key())
    rows = cache.get(texts, encoder.encode)["features"]  # float32 (N, D)
    ```
    """

    def __init__(self, key: Mapping[str, Any] | None, cache_dir: str | Path | None = None):
        self.folder: Path | None = None
        self.computed = 0  # rows that the encoder had to compute, for reports and tests
        if key is not None:
            text = json.dumps({"format": FORMAT, **key}, sort_keys=True, ensure_ascii=False)
            root = Path(cache_dir) if cache_dir is not None else cache_root() / "features"
            self.folder = root / hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
            self._key_text = text

    def get(
        self,
        items: Iterable[Any],
        encode: Encode,
        *,
        chunk_size: int = 256,
        progress: bool | None = None,
        desc: str = "Encoding",
    ) -> dict[str, np.ndarray]:
        """Rows of all items, in order; only unseen items are encoded, each distinct item once.

        Args:
            items: Texts, bytes, numpy arrays or PIL images.
            encode: Takes a list of M items, gives an array `(M, ...)` or a mapping of name to such arrays (for example
                `features` and `logits`). A single array is called `features`.
            chunk_size (`int`, *optional*, defaults to 256): Items per call of `encode` and per file on disk.
            progress (`bool`, *optional*): Show a bar. Default: when at least two chunks have to be computed.
            desc (`str`, *optional*): Text of the bar.

        Returns:
            `dict[str, np.ndarray]`: Arrays `(N, ...)`; empty for no items.

        Raises:
            ValueError: If `encode` gives another number of rows than items, or NaN (the row is named).
        """
        items = list(items)
        hashes = [item_hash(item) for item in items]
        known = self._load(set(hashes))
        missing = {digest: item for digest, item in zip(hashes, items, strict=True) if digest not in known}
        todo = list(missing.items())
        # Neighbours of one length waste no padding, and later chunks are never slower than the bar promised.
        todo.sort(key=lambda pair: -len(pair[1]) if isinstance(pair[1], str) else 0)
        show = len(todo) > chunk_size if progress is None else progress
        for start, part in _chunks(todo, chunk_size, desc, show):
            rows = _as_arrays(encode([item for _, item in part]), len(part), start)
            self.computed += len(part)
            self._store([digest for digest, _ in part], rows)
            for position, (digest, _) in enumerate(part):
                known[digest] = {name: array[position] for name, array in rows.items()}
        if not items:
            return {}
        names = list(known[hashes[0]])
        return {name: np.stack([known[digest][name] for digest in hashes]) for name in names}

    def _load(self, wanted: set[bytes]) -> dict[bytes, dict[str, np.ndarray]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        found: dict[bytes, dict[str, np.ndarray]] = {}
        if self.folder is None or not wanted:
            return found
        for path in sorted(self.folder.glob("rows-*.safetensors")):
            try:
                arrays = load_file(path)
            except (SafetensorError, OSError) as error:
                logger.warning("Cached features in %s cannot be read (%s): set aside, computed again.", path, error)
                path.replace(path.with_suffix(".bad"))
                continue
            digests = [row.tobytes() for row in arrays.pop(_HASH)]
            for position, digest in enumerate(digests):
                if digest in wanted and digest not in found:
                    found[digest] = {name: array[position] for name, array in arrays.items()}
            if len(found) == len(wanted):
                break
        return found

    def _store(self, digests: Sequence[bytes], rows: Mapping[str, np.ndarray]) -> None:
        from safetensors.numpy import save_file

        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "key.json").exists():
                (self.folder / "key.json").write_text(self._key_text, encoding="utf-8")
            table = np.stack([np.frombuffer(digest, dtype=np.uint8) for digest in digests])
            unique = uuid.uuid4().hex[:12]
            part = self.folder / f".part-{unique}"
            save_file({_HASH: table, **{name: np.ascontiguousarray(array) for name, array in rows.items()}}, part)
            part.replace(self.folder / f"rows-{unique}.safetensors")
        except OSError as error:  # a full or read-only disk must not lose the rows just computed
            logger.warning("Features cannot be cached in %s (%s): kept in memory only.", self.folder, error)
            self.folder = None


def add_features(
    dataset: Any,
    encode: Encode,
    key: Mapping[str, Any] | None,
    *,
    column: str = "text",
    names: Mapping[str, str] | None = None,
    cache_dir: str | Path | None = None,
    chunk_size: int = 256,
    progress: bool | None = None,
) -> Any:
    """A copy of a data set with frozen outputs as new columns.

    Args:
        dataset (`datasets.Dataset`): Must hold `column`.
        encode, key, cache_dir, chunk_size, progress: See [`FeatureCache`].
        column (`str`, *optional*, defaults to `"text"`): What is encoded.
        names (`Mapping[str, str]`, *optional*): New column name for each output, for example
            `{"features": "teacher_features"}`.

    Returns:
        `datasets.Dataset`: With one float32 list column per output; an existing column of that name is replaced.

    Raises:
        KeyError: If `column` is missing.
    """
    import datasets

    if column not in dataset.column_names:
        raise KeyError(f"Column `{column}` is missing; the data set has: {', '.join(dataset.column_names)}.")
    cache = FeatureCache(key, cache_dir)
    outputs = cache.get(dataset[column][:], encode, chunk_size=chunk_size, progress=progress)
    with no_bars(len(dataset)):
        for name, array in outputs.items():
            new = (names or {}).get(name, name)
            if new in dataset.column_names:
                dataset = dataset.remove_columns(new)
            kind: Any = datasets.Value("float32")
            for size in reversed(array.shape[1:]):
                kind = datasets.List(kind, length=size)
            dataset = dataset.add_column(new, list(array.astype(np.float32)), feature=kind)
    return dataset


@contextmanager
def no_bars(rows: int) -> Iterator[None]:
    """Keep `datasets` from showing bars for small copies: under 10 000 rows."""
    import datasets

    hide = rows < 10_000 and not datasets.are_progress_bars_disabled()
    if hide:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()


def item_hash(item: Any) -> bytes:
    """16 bytes that name an item: text, bytes, a numpy array, or a PIL image (mode, size and pixels).

    Raises:
        TypeError: For anything else.
    """
    if isinstance(item, str):
        data = b"t" + item.encode("utf-8", "surrogatepass")
    elif isinstance(item, bytes):
        data = b"b" + item
    elif isinstance(item, np.ndarray):
        data = f"a{item.dtype}{item.shape}|".encode() + np.ascontiguousarray(item).tobytes()
    elif hasattr(item, "tobytes") and hasattr(item, "mode") and hasattr(item, "size"):
        data = f"i{item.mode}{item.size}|".encode() + item.tobytes()
    else:
        raise TypeError(f"Can only encode text, bytes, arrays and images, got {type(item).__name__}.")
    return hashlib.blake2b(data, digest_size=16).digest()


def _as_arrays(rows: Any, count: int, start: int) -> dict[str, np.ndarray]:
    outputs = rows if isinstance(rows, Mapping) else {"features": rows}
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    for name, array in arrays.items():
        if len(array) != count:
            raise ValueError(f"`encode` was given {count} items and returned {len(array)} rows of `{name}`.")
        check_finite(array, f"{name} (of the chunk that starts at item {start} of those left to encode)")
    return arrays


def _chunks(todo: list[tuple[bytes, Any]], size: int, desc: str, show: bool) -> Iterable[tuple[int, list]]:
    if size < 1:
        raise ValueError(f"`chunk_size` must be at least 1, got {size}.")
    from tqdm.auto import tqdm

    with tqdm(total=len(todo), desc=desc, disable=not show or not todo, leave=False) as bar:
        for start in range(0, len(todo), size):
            part = todo[start : start + size]
            yield start, part
            bar.update(len(part))
