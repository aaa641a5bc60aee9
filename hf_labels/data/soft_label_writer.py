"""Writing a soft-label store: rows are appended in whole files, so an interrupted run goes on where it stopped."""

import dataclasses
import logging
import os
import platform
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.data.soft_label_codec import encode_values, top_k
from hf_labels.data.soft_label_info import SIDE_CAR, StoreInfo
from hf_labels.data.soft_label_rows import Rows, check_rows, to_table

logger = logging.getLogger(__name__)

DATA_FOLDER = "data"
LOCK, HOLDER = ".writer.lock", ".writer"
_FREE = ("extra", "created_by", "teacher_revision", "views_per_example")  # may differ between two runs of one store


class SoftLabelWriter:
    """Appends soft labels to a folder; a context manager.

    Rows are collected and written as whole Parquet files (to a draft, then renamed), so at any moment the folder holds
    complete files only. After an interruption open the same folder again: [`missing`] says what is not there yet.

        with SoftLabelWriter("labels", StoreInfo("topk", num_labels=1000, k=5)) as writer:
            writer.add(ids, logits=teacher(batch).logits)
        store = SoftLabelStore.from_pretrained("labels")

    Args:
        folder (`str` or `Path`, *optional*): Made if it is not there. `None` keeps the rows in memory.
        info ([`StoreInfo`]): What is stored. Must agree with a store that is there already.
        rows_per_file (`int`, *optional*, defaults to 100 000): Rows that are written at once; so many (at most) are
            lost, to be made again, when the process is killed.

    Raises:
        ValueError: If the folder holds a store of another kind, a row twice, or a damaged file.
        RuntimeError: If somebody else is writing to the folder. The lock ends with its process.
    """

    def __init__(self, folder: str | Path | None, info: StoreInfo, rows_per_file: int = 100_000) -> None:
        if info.kind == "projector":
            raise ValueError("A projector has no rows: use `SoftLabelStore.from_projector`.")
        if rows_per_file < 1:
            raise ValueError(f"`rows_per_file` must be at least 1, got {rows_per_file}.")
        self.folder = None if folder is None else Path(folder)
        self.info = info
        self.rows_per_file = rows_per_file
        self._waiting: list[Rows] = []
        self._count = 0
        self._views: dict[Any, int] = {}  # example -> bits of its views
        self._files: list[Path] = []
        self._rows_in_files = 0
        self._lock: Any = None
        if self.folder is None:
            return
        (self.folder / DATA_FOLDER).mkdir(parents=True, exist_ok=True)
        self._lock = _sole_writer(self.folder)
        try:
            self._read_folder(self.folder)
        except BaseException:  # whoever keeps the error would keep the lock
            self._release()
            raise

    @property
    def rows_written(self) -> int:
        """Rows in files."""
        return self._rows_in_files

    def has(self, example_id: Any, view: int = 0) -> bool:
        """Whether a view is stored or waits to be written."""
        return bool(self._views.get(_plain(example_id), 0) >> int(view) & 1)

    def missing(self, example_ids: Iterable[Any], views: Sequence[int] = (0,)) -> list[tuple[Any, int]]:
        """The pairs of example and view that are not stored yet, in order."""
        return [(e, v) for e in map(_plain, example_ids) for v in views if not self.has(e, v)]

    def add(
        self,
        example_ids: Sequence[Any],
        *,
        logits: Tensor | None = None,
        probs: Tensor | None = None,
        views: Sequence[int] | None = None,
        labels: Sequence[int] | None = None,
        crops: Any = None,
        flips: Any = None,
        mix: tuple[Any, Any, Any] | None = None,
    ) -> None:
        """Append one label per row, from what the teacher answered.

        Args:
            example_ids (sequence of `int` or `str`): Keys of the examples in their data set, never row positions.
            logits (`Tensor` of shape `(N, C)`): Teacher logits; divided by the store's temperature for probabilities.
            probs (`Tensor` of shape `(N, C)`): Or probabilities, taken as they are.
            views (sequence of `int`, *optional*): Number of each row's view; 0 by default.
            labels (sequence of `int`, *optional*): True classes, -1 = unknown; with `info.has_labels`.
            crops (array of shape `(N, 4)`), flips (array of shape `(N,)`): With `info.has_crops`.
            mix (`tuple`, *optional*): `mix_index`, `mix_lam`, `mix_box` of the rows, with `info.has_mix`.

        Raises:
            ValueError: If a row is there already, shapes disagree, an answer is not finite, or probabilities do not
                sum to 1; names example and view.
        """
        given = {"logits": logits, "probs": probs}
        if (logits is None) == (probs is None):
            raise ValueError("Give `logits` or `probs`, one of them.")
        scores = logits if logits is not None else probs
        assert scores is not None
        count = len(example_ids)
        if scores.shape != (count, self.info.num_labels):
            name = next(name for name, value in given.items() if value is not None)
            raise ValueError(
                f"`{name}` must have shape ({count}, {self.info.num_labels}), got {tuple(scores.shape)}. The store "
                f"has {self.info.num_labels} classes."
            )
        columns = self._keys(example_ids, views)
        columns |= self._labels_of(scores.detach().cpu(), logits is not None, columns)
        if self.info.has_labels:
            known = np.full(count, -1) if labels is None else np.asarray(labels)
            columns["label"] = known.astype(np.int32)
        if self.info.has_crops:
            if crops is None or flips is None:
                raise ValueError("The store has crops: give `crops` and `flips`.")
            columns["crop"] = np.asarray(crops, dtype=np.float32)
            columns["flip"] = np.asarray(flips, dtype=bool)
        if self.info.has_mix:
            if mix is None:
                raise ValueError("The store has mixed images: give `mix`.")
            for name, value, dtype in zip(
                ("mix_index", "mix_lam", "mix_box"), mix, (np.int64, np.float32, np.int16), strict=True
            ):
                columns[name] = np.asarray(value, dtype=dtype)
        self.add_rows(columns)

    def add_maps(self, example_ids: Sequence[Any], ids: Any, values: Any, labels: Sequence[int] | None = None) -> None:
        """Append label maps: the k largest logits of each cell.

        Args:
            example_ids (sequence of `int` or `str`): Keys of the examples.
            ids, values (arrays of shape `(N, k, H, W)`): Classes and logits, largest first.
            labels (sequence of `int`, *optional*): True classes, with `info.has_labels`.

        Raises:
            ValueError: As [`add`]; also if H and W are not those of the store.
        """
        columns = self._keys(example_ids, None)
        ids, values = (v.detach().cpu().numpy() if torch.is_tensor(v) else np.asarray(v) for v in (ids, values))
        if self.info.map_shape != ids.shape[2:] or ids.shape != values.shape:
            raise ValueError(
                f"Maps of this store are (k, H, W) = ({self.info.k}, {self.info.map_shape}), got {ids.shape[1:]} and "
                f"{values.shape[1:]} (first example {columns['example_id'][0]})."
            )
        _check_range(ids, self.info.num_labels)
        columns["map_ids"] = ids.astype(self.info.id_dtype)
        columns["map_values"] = self._encode(values, columns)
        if self.info.has_labels:
            known = np.full(len(ids), -1) if labels is None else np.asarray(labels)
            columns["label"] = known.astype(np.int32)
        self.add_rows(columns)

    def add_rows(self, columns: Rows) -> None:
        """Append rows that are encoded already, for example from another store.

        Raises:
            ValueError: As [`check_rows`], or if a row is there already, or the writer is closed.
        """
        if self.folder is not None and self._lock is None:
            raise ValueError(f"This writer of {self.folder} is closed. Open the folder again to go on.")
        if not len(columns["example_id"]):
            return
        columns = {name: columns[name] for name in self.info.features()}
        check_rows(columns, self.info)
        views = columns.get("view", np.zeros(len(columns["example_id"]), np.int32)).tolist()
        self._claim(columns["example_id"].tolist(), views)
        self._waiting.append(columns)
        self._count += len(views)
        if self._count >= self.rows_per_file:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait."""
        if not self._waiting or self.folder is None:
            return
        import pyarrow.parquet as pq

        number = 1 + max((int(path.stem.split("-")[-1]) for path in self._files), default=-1)
        path = self.folder / DATA_FOLDER / f"train-{number:05d}.parquet"
        draft = path.with_name(f".{path.name}.tmp")
        with open(draft, "wb") as file:
            pq.write_table(self.table(), file, row_group_size=self.rows_per_file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        self._files.append(path)
        self._rows_in_files += self._count
        self._waiting, self._count = [], 0

    def table(self) -> Any:
        """Arrow table of the rows that wait; all rows of a writer in memory.

        Raises:
            ValueError: If there are none.
        """
        if not self._waiting:
            raise ValueError("There are no rows: the data set is empty, or all its labels were left out.")
        columns = {name: np.concatenate([part[name] for part in self._waiting]) for name in self._waiting[0]}
        return to_table(columns, self.info)

    def close(self) -> None:
        """Write what waits, and the side-car with the number of views; another writer may come then."""
        if self.folder is not None and self._lock is None:
            return
        try:
            self.flush()
            most = max((bits.bit_length() for bits in self._views.values()), default=1)
            self.info.views_per_example = max(self.info.views_per_example, most)
            if self.folder is not None:
                self.info.save(self.folder)
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None and self.folder is not None:
            (self.folder / HOLDER).unlink(missing_ok=True)
            with suppress(OSError):  # still held: whoever opened it before finds it deleted, and takes a new one
                (self.folder / LOCK).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None

    def __enter__(self) -> "SoftLabelWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _labels_of(self, scores: Tensor, are_logits: bool, columns: Rows) -> Rows:
        info = self.info
        wide = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
        finite = torch.isfinite(wide).all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise ValueError(
                f"The teacher's answer to example {columns['example_id'][row]}, view {columns['view'][row]} holds NaN "
                "or infinity. Run the teacher in float32, or leave the example out."
            )
        if not are_logits:
            _check_probs(wide, columns)
        if info.value_space == "prob":
            wide = torch.softmax(wide.double() / info.temperature, -1) if are_logits else wide.double()
            wide = wide.clamp(0, 1)
        elif not are_logits:
            raise ValueError("This store keeps logits: give `logits`, not `probs`.")
        if info.kind == "dense":
            return {"dense_values": self._encode(wide.numpy(), columns)}
        assert info.k is not None
        ids, values = top_k(wide, info.k)
        out = {"topk_ids": ids.numpy().astype(info.id_dtype)}
        if info.kind != "hard":
            out["topk_values"] = self._encode(values.numpy(), columns)
        return out

    def _encode(self, values: np.ndarray, columns: Rows) -> np.ndarray:
        try:
            return encode_values(values, self.info.codec)  # type: ignore[arg-type]
        except ValueError as error:
            first, last = columns["example_id"][0], columns["example_id"][-1]
            raise ValueError(f"Examples {first} to {last}: {error}") from error

    def _keys(self, example_ids: Sequence[Any], views: Sequence[int] | None) -> Rows:
        text = self.info.id_type == "string"
        plain = [_plain(identity) for identity in example_ids]
        wrong = [identity for identity in plain if isinstance(identity, str) != text]
        if wrong:
            raise ValueError(f"`example_id` of this store is {self.info.id_type}, got {wrong[0]!r}.")
        ids = np.array(plain, dtype=object if text else np.int64)
        numbers = np.zeros(len(ids), np.int32) if views is None else np.asarray(views, dtype=np.int32)
        if numbers.shape != ids.shape or (numbers < 0).any():
            raise ValueError(f"`views` must hold {len(ids)} numbers of 0 or more, got {numbers.tolist()}.")
        return {"example_id": ids} | ({} if self.info.kind == "map" else {"view": numbers})

    def _claim(self, ids: list[Any], views: list[int]) -> None:
        pairs = list(zip(ids, views, strict=True))
        if len(set(pairs)) < len(pairs):
            raise ValueError("The same example and view is given twice in one call.")
        for identity, view in pairs:
            if self.has(identity, view):
                raise ValueError(
                    f"Example {identity!r}, view {view} is stored already. Ask `missing(...)` what is left to do."
                )
        for identity, view in pairs:
            self._views[identity] = self._views.get(identity, 0) | 1 << view

    def _read_folder(self, folder: Path) -> None:
        self._files = data_files(folder)
        if (folder / SIDE_CAR).is_file():
            self._compare(StoreInfo.load(folder / SIDE_CAR))
        elif self._files:
            raise ValueError(f"{folder} holds rows but no {SIDE_CAR}. Choose another folder, or delete the rows.")
        self._read_keys(folder / DATA_FOLDER)
        self.info.save(folder)

    def _read_keys(self, data: Path) -> None:
        import pyarrow.parquet as pq

        for draft in data.glob(".*.tmp"):
            draft.unlink()
        names = ["example_id"] if self.info.kind == "map" else ["example_id", "view"]
        for path in self._files:
            try:
                table = pq.read_table(path, columns=names)
            except Exception as error:
                raise ValueError(f"{path} is damaged ({error}). Delete it; its rows will be made again.") from error
            ids = table.column("example_id").to_pylist()
            views = table.column("view").to_pylist() if "view" in names else [0] * len(ids)
            try:
                self._claim(ids, views)
            except ValueError as error:
                raise ValueError(f"{path.name} repeats rows of an earlier file: {error}") from error
            self._rows_in_files += len(ids)
        if self._files:
            logger.info("%s holds %d rows already.", self.folder, self._rows_in_files)

    def _compare(self, there: StoreInfo) -> None:
        for item in dataclasses.fields(StoreInfo):
            mine, theirs = getattr(self.info, item.name), getattr(there, item.name)
            if item.name not in _FREE and mine != theirs:
                raise ValueError(
                    f"{self.folder} holds a store with `{item.name}={theirs!r}`, not {mine!r}. Choose another folder, "
                    "or delete it."
                )
        self.info.extra = there.extra | self.info.extra


def _sole_writer(folder: Path) -> Any:
    """A lock of the operating system on the folder, gone with its process. Raises `RuntimeError` if it is taken."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            name = (folder / HOLDER).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            name = ""
        who = f"process {name}" if name else "another process"  # no name: it is just coming or going
        raise RuntimeError(
            f"{folder} is being written by {who}. Two writers would make rows twice: wait until it is done (or end "
            "it) and open the folder again, which goes on where it stopped, or choose another folder."
        ) from None
    (folder / HOLDER).write_text(f"{os.getpid()} on {platform.node()}\n", encoding="utf-8")
    return lock


def data_files(folder: str | Path) -> list[Path]:
    """Parquet files of a store, in the order in which they were written."""
    return sorted((Path(folder) / DATA_FOLDER).glob("train-*.parquet"))


def _plain(identity: Any) -> Any:
    return identity.item() if isinstance(identity, np.generic) or torch.is_tensor(identity) else identity


def _check_range(ids: np.ndarray, num_labels: int) -> None:
    if ids.size and not (0 <= ids.min() and ids.max() < num_labels):
        raise ValueError(f"Class ids must be in [0, {num_labels}), got {ids.min()} to {ids.max()}.")


def _check_probs(probs: Tensor, columns: Rows) -> None:
    wrong = (probs < 0).any(1) | (probs > 1 + 1e-6).any(1) | ((probs.double().sum(1) - 1).abs() > 1e-3)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"The probabilities of example {columns['example_id'][row]}, view {columns['view'][row]} are not a "
            f"distribution (sum {float(probs[row].sum()):.4g}, {float(probs[row].min()):.3g} to "
            f"{float(probs[row].max()):.3g}). Pass logits, or normalise them."
        )
