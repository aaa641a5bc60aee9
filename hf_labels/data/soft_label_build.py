"""Ask a teacher about every view of every example, once, and write down what it says."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_labels.data.images import Normalizer, RandomResizedCrop, View, image_size
from hf_labels.data.soft_label_codec import check_option
from hf_labels.data.soft_label_info import StoreInfo
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.data.soft_label_writer import SoftLabelWriter

logger = logging.getLogger(__name__)


def build_store(
    teacher: Any,
    dataset: Any,
    *,
    views: int = 1,
    k: int | None = None,
    kind: str = "topk",
    residual: str | None = None,
    codec: str = "float16",
    temperature: float = 1.0,
    crop: RandomResizedCrop | None = None,
    like: SoftLabelStore | None = None,
    image_processor: Any = None,
    collator: Callable[[list[Any]], Mapping[str, Any]] | None = None,
    batch_size: int = 32,
    folder: str | Path | None = None,
    seed: int = 0,
    num_labels: int | None = None,
    image_column: str = "image",
    id_column: str = "index",
    label_column: str = "labels",
    rows_per_file: int = 100_000,
    teacher_id: str | None = None,
    **facts: Any,
) -> SoftLabelStore:
    """Build a [`SoftLabelStore`].

    Views are drawn from `(seed, example, view)`, so a run that was interrupted and is called again with the same
    `folder` makes exactly the rows that are missing, and the store is that of an uninterrupted run.

    Args:
        teacher (`nn.Module` or callable): Gives logits (B, C) for a batch of inputs: a module is put into eval mode
            and called with `**inputs`; a callable gets the mapping.
        dataset (`datasets.Dataset`): With a key per example (`id_column`), and images or inputs for `collator`.
        views (`int`, *optional*, defaults to 1): Views per example; more than one needs `crop`.
        k, kind, residual, codec, temperature: As in [`StoreInfo`]. `kind` is not `map` or `projector`.
        crop ([`RandomResizedCrop`], *optional*): Draws and cuts the views of images.
        like ([`SoftLabelStore`], *optional*): Use the crops and flips of this store, for labels of another teacher on
            the same views; `crop` then only cuts.
        image_processor (*optional*): Of the teacher; its mean and standard deviation are used with `crop`, and it
            makes the inputs of whole images without.
        collator (callable, *optional*): Makes the teacher's inputs from a list of rows, for texts.
        batch_size (`int`, *optional*, defaults to 32): Views per call of the teacher.
        folder (`str` or `Path`, *optional*): Where the store is written; in memory by default.
        seed (`int`, *optional*, defaults to 0): Of the views.
        num_labels (`int`, *optional*): C; the teacher's `config.num_labels`, or the width of its first answer.
        image_column, id_column, label_column (`str`): Columns; labels are stored when the data has them.
        rows_per_file (`int`, *optional*, defaults to 100 000): As in [`SoftLabelWriter`].
        teacher_id (`str`, *optional*): Hub id of the teacher, for the side-car and the card.
        facts: Further fields of [`StoreInfo`]: `teacher_revision`, `source`, `id2label`.

    Raises:
        ValueError: If the data is empty, a column is missing, views are asked for without crops, or the teacher's
            answers are not finite or of another width; names example and view.
    """
    check_option("kind", kind, ("hard", "smoothing", "topk", "dense"))
    _check_data(dataset, id_column, image_column if crop is not None else None)
    if like is not None and crop is None:
        raise ValueError("`like` gives the views, but `crop` must say how to cut them (size and interpolation).")
    if views > 1 and crop is None:
        raise ValueError(f"{views} views of one example would be the same without `crop`. Pass `crop=...` or views=1.")
    if like is not None and not like.info.has_crops:
        raise ValueError("The store given as `like` has no column `crop`.")
    ids = dataset[id_column][:]
    ask = as_callable(teacher)
    make = _InputMaker(crop, image_processor, collator, image_column)
    classes = num_labels or getattr(getattr(teacher, "config", None), "num_labels", None)
    if classes is None:
        classes = int(ask(make([dataset[0]], [View() if crop is not None else None])).shape[-1])
    info = StoreInfo(
        kind,
        classes,
        k=k,
        residual=residual,
        codec=codec,
        temperature=temperature,
        views_per_example=views,
        has_crops=crop is not None,
        has_labels=label_column in dataset.column_names,
        image_size=crop.size[0] if crop is not None else None,
        interpolation=crop.interpolation if crop is not None else None,
        id_type="string" if isinstance(ids[0], str) else "int64",
        teacher=teacher_id,
        **({"id2label": _names(teacher, dataset, label_column, classes)} | facts),
    )
    with SoftLabelWriter(folder, info, rows_per_file) as writer:
        for batch in _batches(writer, dataset, ids, views, crop, like, seed, image_column, batch_size):
            rows, shown, numbers = batch
            answers = ask(make(rows, shown))
            known = [row[label_column] for row in rows] if info.has_labels else None
            place: dict[str, Any] = {}
            if crop is not None:
                place = {"crops": [view.crop for view in shown], "flips": [view.flip for view in shown]}
            keys = [row[id_column] for row in rows]
            writer.add(keys, logits=answers, views=numbers, labels=known, **place)
    return SoftLabelStore.from_writer(writer)


def view_of(seed: int, example_id: Any, number: int, crop: RandomResizedCrop, height: int, width: int) -> View:
    """The view with this number of an example: depends on the seed, the key and the number only."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, key_number(example_id), number]))
    return crop.draw(height, width, rng)


def key_number(example_id: Any) -> int:
    """A number for seeding from the key of an example: integers as they are, texts hashed."""
    if isinstance(example_id, str):
        return int.from_bytes(hashlib.blake2b(example_id.encode(), digest_size=8).digest(), "little")
    return int(example_id) % 2**64


def _batches(
    writer: SoftLabelWriter,
    dataset: Any,
    ids: Sequence[Any],
    views: int,
    crop: RandomResizedCrop | None,
    like: SoftLabelStore | None,
    seed: int,
    image_column: str,
    batch_size: int,
) -> Iterator[tuple[list[Any], list[Any], list[int]]]:
    """Rows, views and view numbers that are still to be asked for, in order."""
    rows: list[Any] = []
    shown: list[Any] = []
    numbers: list[int] = []
    for position, identity in enumerate(ids):
        wanted = range(views) if like is None else like.views_of(identity).tolist()
        missing = [number for _, number in writer.missing([identity], wanted)]
        if not missing:
            continue
        row = dataset[position]
        old = None if like is None else like.lookup([identity] * len(missing), missing)
        for place, number in enumerate(missing):
            view = None
            if old is not None:
                view = View(tuple(old["crop"][place].tolist()), bool(old["flip"][place]))
            elif crop is not None:
                view = view_of(seed, identity, number, crop, *image_size(row[image_column]))
            rows.append(row)
            shown.append(view)
            numbers.append(number)
            if len(rows) == batch_size:
                yield rows, shown, numbers
                rows, shown, numbers = [], [], []
    if rows:
        yield rows, shown, numbers


class _InputMaker:
    """Inputs of the teacher from rows and views."""

    def __init__(self, crop: RandomResizedCrop | None, processor: Any, collator: Any, image_column: str) -> None:
        self.crop = crop
        self.processor = processor
        self.collator = collator
        self.image_column = image_column
        if crop is None and processor is None and collator is None:
            raise ValueError("Give `crop`, `image_processor` or `collator`: how rows become the teacher's inputs.")
        self.normalizer = Normalizer((0.0,), (1.0,))
        if crop is not None and processor is not None:
            self.normalizer = Normalizer.from_processor(processor)

    def __call__(self, rows: list[Any], views: Sequence[View | None]) -> Mapping[str, Any]:
        if self.crop is not None:
            cuts = [
                self.crop.cut(row[self.image_column], view)
                for row, view in zip(rows, views, strict=True)
                if view is not None
            ]
            return {"pixel_values": self.normalizer(torch.stack(cuts))}
        if self.collator is not None:
            return self.collator(rows)
        return self.processor([row[self.image_column] for row in rows], return_tensors="pt")


def as_callable(teacher: Any) -> Callable[[Mapping[str, Any]], Tensor]:
    """A teacher as a function from a batch to logits `(B, C)`.

    A module is put into eval mode, and called on its device without gradients and without the labels of the batch; a
    function is called with the batch as it is.
    """
    if not isinstance(teacher, nn.Module):
        return lambda inputs: torch.as_tensor(_logits(teacher(inputs)))
    teacher.eval()
    device = next((p.device for p in teacher.parameters()), torch.device("cpu"))

    def ask(inputs: Mapping[str, Any]) -> Tensor:
        hidden = ("labels", "label", "label_ids")
        mine = {n: v.to(device) if torch.is_tensor(v) else v for n, v in inputs.items() if n not in hidden}
        with torch.no_grad():
            return _logits(teacher(**mine))

    return ask


def _logits(output: Any) -> Any:
    return output["logits"] if isinstance(output, Mapping) else output


def _names(teacher: Any, dataset: Any, label_column: str, classes: int) -> dict[int, str] | None:
    """Names of the classes, from the teacher, else from the data."""
    names = getattr(getattr(teacher, "config", None), "id2label", None)
    if names and not all(str(name) == f"LABEL_{number}" for number, name in names.items()):
        return dict(names)
    known = getattr((getattr(dataset, "features", None) or {}).get(label_column), "names", None)
    return dict(enumerate(known)) if known and len(known) == classes else None


def _check_data(dataset: Any, id_column: str, image_column: str | None) -> None:
    if len(dataset) == 0:
        raise ValueError("There are no rows: the data set is empty.")
    for name in (id_column, *([image_column] if image_column else [])):
        if name not in dataset.column_names:
            hint = " `hf_labels.data.add_index` adds one." if name == id_column else ""
            raise ValueError(f"Column `{name}` is missing; the data set has: {', '.join(dataset.column_names)}.{hint}")
