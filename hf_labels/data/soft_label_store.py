"""`SoftLabelStore`: a teacher's soft labels, computed once, kept small, published as a data set, read by anyone."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.data.images import WHOLE, crops_to_boxes
from hf_labels.data.soft_label_codec import decode_values, recover, smooth_values
from hf_labels.data.soft_label_index import RowIndex
from hf_labels.data.soft_label_info import SIDE_CAR, StoreInfo
from hf_labels.data.soft_label_report import label_storage_report
from hf_labels.data.soft_label_rows import RowReader, Rows, check_rows
from hf_labels.data.soft_label_writer import DATA_FOLDER, SoftLabelWriter, data_files
from hf_labels.losses.label_pooling import pooled_logits
from hf_labels.losses.soft_targets import SoftTargets, sparse_soft_cross_entropy

logger = logging.getLogger(__name__)


class SoftLabelStore:
    """Soft labels of a data set: one row per view of an example, or one label map per example.

        store = SoftLabelStore.from_pretrained("me/food101-soft-labels")
        rows = store.lookup([17, 42], views=[0, 3])
        probs = store.decode(rows)                        # (2, C), rows sum to 1
        loss = store.sparse_cross_entropy(logits, rows)   # the same loss, no dense target is built

    A store is a label source: `SoftLabelTrainer(..., label_source=store)` takes the labels of a batch by its column
    `index` (and `view`, and `crop` for label maps). For crops that are cut again use
    [`~hf_labels.data.SoftLabelCollator`].

    Attributes:
        info ([`StoreInfo`]): What the rows mean.
        rows (`datasets.Dataset`, `datasets.IterableDataset` or `None`): Memory-mapped; streamed with `streaming=True`;
            `None` for a projector.
        folder (`Path` or `None`): Where the files lie, when they lie in a local folder.
    """

    def __init__(self, info: StoreInfo, rows: Any = None, folder: str | Path | None = None) -> None:
        if (rows is None) != (info.kind == "projector"):
            raise ValueError(f"Kind `{info.kind}` {'has no rows' if rows is not None else 'needs rows'}.")
        self.info = info
        self.rows = rows
        self.folder = None if folder is None else Path(folder)
        self.projector: Any = None
        self._reader: RowReader | None = None
        self._index: RowIndex | None = None

    # Making and loading

    @classmethod
    def build(cls, teacher: Any, dataset: Any, **options: Any) -> "SoftLabelStore":
        """Ask a teacher about every view of every example. See [`~hf_labels.data.soft_label_build.build_store`]."""
        from hf_labels.data.soft_label_build import build_store

        return build_store(teacher, dataset, **options)

    @classmethod
    def from_arrays(cls, info: StoreInfo, folder: str | Path | None = None, **answers: Any) -> "SoftLabelStore":
        """A store from arrays in memory: the arguments of [`SoftLabelWriter.add`], with `example_ids`.

        Args:
            info ([`StoreInfo`]): What is stored.
            folder (`str` or `Path`, *optional*): Where the files go; in memory by default.
        """
        with SoftLabelWriter(folder, info) as writer:
            writer.add(answers.pop("example_ids"), **answers)
        return cls.from_writer(writer)

    @classmethod
    def from_rows(cls, info: StoreInfo, columns: Rows, folder: str | Path | None = None) -> "SoftLabelStore":
        """A store from encoded columns, for tools that change the rows of another store."""
        with SoftLabelWriter(folder, info) as writer:
            writer.add_rows(columns)
        return cls.from_writer(writer)

    @classmethod
    def from_writer(cls, writer: SoftLabelWriter) -> "SoftLabelStore":
        """What a (closed) writer has written.

        Raises:
            ValueError: If there are no rows.
        """
        if writer.folder is not None:
            return cls.from_pretrained(writer.folder)
        from datasets import Dataset

        return cls(writer.info, Dataset(writer.table()))

    @classmethod
    def from_projector(
        cls, repo_id: str, num_labels: int, revision: str | None = None, prompts: Any = None, **info: Any
    ) -> "SoftLabelStore":
        """A store without rows: a model at `repo_id` makes the labels. Call [`attach`] with it before training."""
        projector = {"repo_id": repo_id, "revision": revision, "prompts": prompts}
        return cls(StoreInfo("projector", num_labels, projector=projector, **info))

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        revision: str | None = None,
        *,
        streaming: bool = False,
        cache_dir: str | None = None,
        token: str | None = None,
    ) -> "SoftLabelStore":
        """Load a store from a folder or from the Hub.

        Args:
            source (`str` or `Path`): Folder, or Hub id of a data set.
            revision (`str`, *optional*): Branch, tag or commit. Rows and side-car come from one commit.
            streaming (`bool`, *optional*, defaults to `False`): Read rows one after the other
                ([`iter_batches`]); nothing is downloaded first and there is no random access.
            cache_dir, token (*optional*): As in `load_dataset`.

        Raises:
            FileNotFoundError: If there is no side-car, or a folder without rows.
            ValueError: If the side-car is damaged, or the rows are not what it says.
        """
        from datasets import load_dataset

        options = {"split": "train", "streaming": streaming, "cache_dir": cache_dir}
        if Path(source).is_dir():
            info = StoreInfo.load(Path(source) / SIDE_CAR)
            if info.kind == "projector":
                return cls(info, None, source)
            files = [str(path) for path in data_files(source)]
            if not files:
                raise FileNotFoundError(f"{source} holds a {SIDE_CAR} but no rows ({DATA_FOLDER}/train-*.parquet).")
            rows = load_dataset("parquet", data_files={"train": files}, features=info.features(), **options)
            return cls(info, rows, source)._checked()
        from hf_labels.hub import commit_of

        commit = commit_of(str(source), revision, "dataset") or revision
        info = StoreInfo.load(_download(str(source), commit, token))
        if info.kind == "projector":
            return cls(info)
        rows = load_dataset(str(source), revision=commit, features=info.features(), token=token, **options)
        return cls(info, rows)._checked()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write rows (Parquet) and side-car to a folder; the files of a store in a folder are copied as they are."""
        import shutil

        target = Path(folder)
        (target / DATA_FOLDER).mkdir(parents=True, exist_ok=True)
        if self.info.kind != "projector":
            if data_files(target) and self.folder != target:
                raise FileExistsError(f"{target} holds rows of a store already. Choose another folder, or delete it.")
            if self.folder is None:
                self._table().to_parquet(str(target / DATA_FOLDER / "train-00000.parquet"))
            elif self.folder.resolve() != target.resolve():
                for path in data_files(self.folder):
                    shutil.copy2(path, target / DATA_FOLDER / path.name)
        self.info.save(target)
        return target

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None, **card: Any) -> Any:
        """Push rows, side-car and a data set card in one commit.

        Args:
            repo_id (`str`): Hub id of a data set; made when it is not there.
            private (`bool`, *optional*), token (`str`, *optional*): As in `HfApi.create_repo`.
            card: Arguments of [`~hf_labels.hub_cards.render_dataset_card`] besides those that the store knows.

        Returns:
            `CommitInfo` of the upload.
        """
        from huggingface_hub import HfApi

        from hf_labels.data.soft_label_report import store_card

        api = HfApi(token=token)
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as place:
            self.save_pretrained(place)
            (Path(place) / "README.md").write_text(str(store_card(self, repo_id, **card)), encoding="utf-8")
            return api.upload_folder(
                repo_id=repo_id,
                repo_type="dataset",
                folder_path=place,
                commit_message="Upload soft labels",
                delete_patterns=[f"{DATA_FOLDER}/*.parquet"],  # an older store's further files would be its rows too
            )

    # Reading

    def __len__(self) -> int:
        return 0 if self.rows is None else len(self._table())

    @property
    def reader(self) -> RowReader:
        """Random access to the rows."""
        if self._reader is None:
            self._reader = RowReader(self._table())
        return self._reader

    @property
    def index(self) -> RowIndex:
        """Where the views of each example stand. Made at the first look-up; 24 bytes per row."""
        if self._index is None:
            names = self.reader.names
            views = self.reader.column("view") if "view" in names else None
            self._index = RowIndex(self.reader.column("example_id"), views)
        return self._index

    @property
    def example_ids(self) -> np.ndarray:
        """Keys of the examples, sorted, each once."""
        return self.index.ids

    def views_of(self, example_id: Any) -> np.ndarray:
        """Numbers of the stored views of an example, rising.

        Raises:
            KeyError: If the store has no such example.
        """
        return self.index.views_of(example_id)

    def row_numbers(self, example_ids: Any, views: Any = None) -> np.ndarray:
        """Rows of examples and views; see [`~hf_labels.data.soft_label_index.RowIndex.rows`]."""
        return self.index.rows(example_ids, views)

    def lookup(self, example_ids: Any, views: Any = None) -> Rows:
        """Stored rows of examples and views, as arrays. Arguments and errors as in [`row_numbers`]."""
        return self.reader.take(self.row_numbers(example_ids, views))

    def iter_batches(self, batch_size: int = 1000) -> Iterator[Rows]:
        """All rows in file order; also of a streamed store."""
        if self.rows is None:
            return
        if hasattr(self.rows, "__len__"):
            for start in range(0, len(self), batch_size):
                yield self.reader.take(np.arange(start, min(start + batch_size, len(self))))
            return
        for batch in self.rows.with_format("arrow").iter(batch_size):
            from datasets import Dataset

            columns = RowReader(Dataset(batch))
            yield columns.take(np.arange(len(columns)))

    # Meaning

    def sparse(self, rows: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Class ids (N, k) and their probabilities under the residual rule `smooth`, whatever the store's rule.

        Raises:
            ValueError: For label maps and dense rows, which have no such form; if an id is not in [0, C).
        """
        info = self.info
        if "topk_ids" not in rows:
            raise ValueError(f"Kind `{info.kind}` has no sparse form. Use `targets` or `decode`.")
        ids = torch.from_numpy(np.asarray(rows["topk_ids"]).astype(np.int64))
        if ids.numel() and not (0 <= int(ids.min()) and int(ids.max()) < info.num_labels):
            raise ValueError(f"Class ids must be in [0, {info.num_labels}), got {int(ids.min())} to {int(ids.max())}.")
        if info.kind == "hard":
            return ids, torch.ones(ids.shape)
        values = decode_values(rows["topk_values"], info.codec)  # type: ignore[arg-type]
        return ids, smooth_values(ids, values, info.num_labels, str(info.residual), info.temperature)

    def decode(self, rows: Mapping[str, Any], crops: Tensor | None = None) -> Tensor:
        """Rows as distributions.

        Args:
            rows (mapping of arrays): From [`lookup`], [`iter_batches`] or `store.rows[...]`.
            crops (`Tensor` of shape `(N, 4)`, *optional*): For label maps: the crop of each row as fractions
                (top, left, height, width); the whole image by default.

        Returns:
            `Tensor` of shape `(N, C)`, float32: Rows sum to 1.
        """
        info = self.info
        if info.kind == "map":
            values = decode_values(rows["map_values"], info.codec)  # type: ignore[arg-type]
            ids = torch.from_numpy(np.asarray(rows["map_ids"]).astype(np.int64))
            boxes = crops_to_boxes(torch.tensor(WHOLE).expand(len(ids), 4) if crops is None else crops.float().cpu())
            return torch.softmax(pooled_logits(values, ids, boxes, info.num_labels) / info.temperature, dim=-1)
        if info.kind == "dense":
            values = decode_values(rows["dense_values"], info.codec)  # type: ignore[arg-type]
            if info.value_space == "logit":
                return torch.softmax(values / info.temperature, dim=-1)
            return values / values.sum(-1, keepdim=True).clamp_min(1e-12)
        return recover(*self.sparse(rows), info.num_labels, "smooth")

    def targets(self, rows: Mapping[str, Any], crops: Tensor | None = None, device: Any = None) -> SoftTargets:
        """Rows as the targets of a soft loss: sparse when the kind allows it, else dense."""
        if "topk_ids" in rows:
            ids, values = self.sparse(rows)
            return SoftTargets(ids=ids.to(device), values=values.to(device), residual="smooth")
        return SoftTargets(probs=self.decode(rows, crops).to(device))

    def sparse_cross_entropy(self, logits: Tensor, rows: Mapping[str, Any], **options: Any) -> Tensor:
        """Cross-entropy of logits (N, C) against rows; no target of C classes is built.

        `options` as in [`~hf_labels.losses.soft_targets.sparse_soft_cross_entropy`]; `temperature` there divides the
        student's logits.
        """
        ids, values = self.sparse(rows)
        return sparse_soft_cross_entropy(logits, ids.to(logits.device), values.to(logits.device), **options)

    def __call__(self, inputs: Mapping[str, Any]) -> SoftTargets:
        """Targets of a batch, as a label source: by `index`, `view` (when there are several) and `crop` (maps).

        Raises:
            KeyError: If the batch has no `index`, or the store lacks an example.
        """
        if "index" not in inputs:
            raise KeyError("The soft-label store finds labels by the column `index`, which the batch does not have.")
        index, view, crop = (_host(inputs.get(name)) for name in ("index", "view", "crop"))
        device = next((v.device for v in inputs.values() if torch.is_tensor(v)), None)
        if self.info.kind == "map":
            view = None
        return self.targets(self.lookup(index, view), None if crop is None else torch.as_tensor(crop), device)

    def attach(self, projector: Any) -> "SoftLabelStore":
        """Give a store of kind `projector` its model (any module or callable that makes logits). Returns itself."""
        if self.info.kind != "projector":
            raise ValueError(f"Only kind `projector` takes a model; this store is `{self.info.kind}`.")
        self.projector = projector
        return self

    # Checks and numbers

    def check_model(self, config: Any) -> None:
        """Compare classes and their names with a model's config; see [`StoreInfo.check_labels`]."""
        names = getattr(config, "id2label", None)
        self.info.check_labels(getattr(config, "num_labels", None), names)

    def check_examples(self, example_ids: Any) -> None:
        """Raise `KeyError` naming the first example that the store does not have."""
        if self.info.kind != "projector":
            self.index.check(example_ids)

    def nbytes_report(self, **options: Any) -> dict[str, Any]:
        """What the labels cost; see [`~hf_labels.data.soft_label_report.label_storage_report`]."""
        return label_storage_report(self, **options)

    def filter(self, keep: Callable[[Rows], np.ndarray], folder: str | Path | None = None) -> "SoftLabelStore":
        """A new store of the rows for which `keep(rows)` (bool per row) is true."""
        with SoftLabelWriter(folder, StoreInfo.from_dict(self.info.to_dict())) as writer:
            for rows in self.iter_batches(10_000):
                mask = np.asarray(keep(rows), dtype=bool)
                writer.add_rows({name: values[mask] for name, values in rows.items()})
        return type(self).from_writer(writer)

    def _checked(self) -> "SoftLabelStore":
        for rows in self.iter_batches(1000):  # the first rows: damage and wrong side-cars show there
            check_rows(rows, self.info)
            return self
        raise ValueError("The store has no rows.")

    def _table(self) -> Any:
        if self.rows is None:
            raise ValueError("A projector store has no rows: the labels come from its model.")
        if not hasattr(self.rows, "__len__"):
            raise ValueError("A streamed store has no random access. Load it without `streaming=True`.")
        return self.rows


def _download(repo_id: str, revision: str | None, token: str | None) -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return hf_hub_download(repo_id, SIDE_CAR, repo_type="dataset", revision=revision, token=token)
    except EntryNotFoundError as error:
        raise FileNotFoundError(
            f"The data set {repo_id} has no {SIDE_CAR}: it is no soft-label store, and rows alone cannot be decoded."
        ) from error


def _host(value: Any) -> Any:
    return value.detach().cpu().numpy() if torch.is_tensor(value) else value
