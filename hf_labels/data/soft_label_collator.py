"""Batches of stored views: the crops are cut again and come with their soft labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hf_labels.data.images import Normalizer, View, center_crop, cut_view
from hf_labels.data.soft_label_build import key_number
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.labels.kinds import IGNORE_INDEX, MISSING
from hf_labels.mixing.self_mix import SelfMix, mixed_targets


class SoftLabelCollator:
    """Draws stored views of each image, cuts them again, and adds what the teacher said about them.

    | in the batch | shape | what |
    | --- | --- | --- |
    | `pixel_values` | (n B, C, size, size) | row `v * B + b` is the v-th drawn view of image b |
    | `soft_label_ids`, `soft_label_values` | (n B, k) | sparse soft labels, residual rule `smooth` |
    | `soft_labels` | (n B, C) | instead, with `dense`, `self_mix`, or a dense store |
    | `labels` | (n B,) | from the data, else from the store; -100 = missing |
    | `index`, `view` | (n B,) | which example (row key) and view |

    `per_device_train_batch_size` counts images: a step trains on n times as many views. Views of an example are drawn
    from `(seed, epoch, example)` without repeating one before all were shown. A `LabelTrainer` tells the epoch; with
    another trainer they are drawn anew from torch's generator each time.

    Args:
        store ([`SoftLabelStore`]): With crops.
        image_processor (*optional*): Its mean and standard deviation normalise the student's pixels.
        views_per_example (`int`, *optional*, defaults to 1): n, views of each image in a batch.
        size (`int`, *optional*): Side of the student's images; that of the store by default.
        dense (`bool`, *optional*, defaults to `False`): Give `soft_labels`.
        self_mix ([`SelfMix`], *optional*): Mix the views of each image with each other.
        allow_fewer (`bool`, *optional*, defaults to `False`): Use fewer views of an example that has fewer than n
            (views that a tool dropped), in place of an error.
        seed (`int`, *optional*, defaults to 0): Of the draws.
        image_column, id_column, label_column (`str`): Columns of the rows.
        eval_resize (`int`, *optional*): Short side before the centre crop when evaluating; `size` by default.

    Raises:
        ValueError: If the store has no crops, or an example has fewer than n views; names it.
        KeyError: If a row lacks a column, or the store lacks an example.
    """

    def __init__(
        self,
        store: SoftLabelStore,
        image_processor: Any = None,
        views_per_example: int = 1,
        *,
        size: int | None = None,
        dense: bool = False,
        self_mix: SelfMix | None = None,
        allow_fewer: bool = False,
        seed: int = 0,
        image_column: str = "image",
        id_column: str = "index",
        label_column: str = "labels",
        eval_resize: int | None = None,
    ) -> None:
        if not store.info.has_crops:
            raise ValueError("The store has no column `crop`: views cannot be cut again. Build it with `crop=...`.")
        if views_per_example < 1:
            raise ValueError(f"`views_per_example` must be at least 1, got {views_per_example}.")
        side = size or store.info.image_size
        if side is None:
            raise ValueError("Pass `size`: the store does not say how large its crops are.")
        self.store = store
        self.normalizer = Normalizer((0.0,), (1.0,))
        if image_processor is not None:
            self.normalizer = Normalizer.from_processor(image_processor)
        self.views_per_example = views_per_example
        self.size = side
        self.dense = dense or self_mix is not None or store.info.kind == "dense"
        self.self_mix = self_mix
        self.allow_fewer = allow_fewer
        self.seed = seed
        self.image_column = image_column
        self.id_column = id_column
        self.label_column = label_column
        self.eval_resize = eval_resize
        self._epoch = torch.full((), -1, dtype=torch.int64).share_memory_()  # loader workers see it change
        store.index.check([])  # made before workers are forked, so that they share it

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns that are read from the rows."""
        return (self.image_column, self.id_column, self.label_column)

    @property
    def evaluation_collator(self) -> "EvaluationCollator":
        """Whole images with their labels, for evaluation."""
        return EvaluationCollator(
            self.size, self.normalizer, self.image_column, self.label_column, resize_to=self.eval_resize
        )

    def set_epoch(self, epoch: int) -> None:
        """Told by the trainer at the start of each epoch."""
        self._epoch.fill_(epoch)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for name in (self.image_column, self.id_column):
            if name not in features[0]:
                raise KeyError(f"Rows have no column `{name}`. They have: {', '.join(features[0])}.")
        image, numbers = self.draw([feature[self.id_column] for feature in features])
        rows = self.store.reader.take(numbers)
        cuts = [
            cut_view(features[b][self.image_column], View(tuple(crop), flip), self.size, self._interpolation())
            for b, crop, flip in zip(image.tolist(), rows["crop"].tolist(), rows["flip"].tolist(), strict=True)
        ]
        batch: dict[str, Any] = {"pixel_values": self.normalizer(torch.stack(cuts))}
        labels = self._labels(features, image, rows)
        if labels is not None:
            batch["labels"] = labels
        if rows["example_id"].dtype.kind != "O":
            batch["index"] = torch.from_numpy(rows["example_id"].astype(np.int64))
        batch["view"] = torch.from_numpy(rows["view"].astype(np.int64))
        if not self.dense:
            batch["soft_label_ids"], batch["soft_label_values"] = self.store.sparse(rows)
            return batch
        batch["soft_labels"] = self.store.decode(rows)
        if self.self_mix is not None:
            plan = self.self_mix.draw(torch.from_numpy(image), (self.size, self.size))
            batch["pixel_values"] = plan.apply(batch["pixel_values"])
            batch["soft_labels"] = mixed_targets(plan, batch["soft_labels"])
        return batch

    def draw(self, example_ids: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Which views are shown: the image (number in the batch) and the row of the store of each, view-major."""
        n, epoch = self.views_per_example, int(self._epoch)
        counts = self.store.index.counts(example_ids)
        fewest = int(counts.min())
        if fewest < n and not self.allow_fewer:
            raise ValueError(
                f"Example {example_ids[int(counts.argmin())]!r} has {fewest} views, {n} are asked for. Lower "
                "`views_per_example`, pass `allow_fewer=True`, or build more views."
            )
        places = np.full((len(example_ids), n), -1, dtype=np.int64)
        for row, (identity, count) in enumerate(zip(example_ids, counts.tolist(), strict=True)):
            shown = min(n, count)
            places[row, :shown] = self._views(identity, count, shown, epoch)
        used = (places >= 0).T
        numbers = self.store.index.nth(example_ids, np.maximum(places, 0)).T
        image = np.broadcast_to(np.arange(len(example_ids)), used.shape)
        return image[used], numbers[used]

    def _views(self, identity: Any, count: int, shown: int, epoch: int) -> np.ndarray:
        """Places of the views that this epoch shows. Every view is shown once in `count // shown` epochs."""
        if epoch < 0:
            return torch.randperm(count)[:shown].numpy()
        turn, place = divmod(epoch, count // shown)
        seeds = np.random.SeedSequence([self.seed, turn, key_number(identity)])
        order = np.random.default_rng(seeds).permutation(count)
        return order[place * shown : (place + 1) * shown]

    def _labels(self, features: Sequence[Mapping[str, Any]], image: np.ndarray, rows: Any) -> torch.Tensor | None:
        if self.label_column in features[0]:
            given = np.array([feature[self.label_column] for feature in features])[image]
        elif self.store.info.has_labels:
            given = rows["label"]
        else:
            return None
        labels = torch.from_numpy(given.astype(np.int64))
        return labels.masked_fill(labels == MISSING, IGNORE_INDEX)

    def _interpolation(self) -> Any:
        return self.store.info.interpolation or "bilinear"


class EvaluationCollator:
    """Whole images, resized and cropped to the centre, with their labels.

    Args:
        size (`int`): Side of the result.
        normalizer ([`Normalizer`]): Applied to the pixels.
        image_column, label_column (`str`): Columns of the rows.
        resize_to (`int`, *optional*): Short side before the crop.
    """

    def __init__(
        self,
        size: int,
        normalizer: Normalizer,
        image_column: str = "image",
        label_column: str = "labels",
        resize_to: int | None = None,
    ) -> None:
        self.size = size
        self.normalizer = normalizer
        self.image_column = image_column
        self.label_column = label_column
        self.resize_to = resize_to

    @property
    def input_columns(self) -> tuple[str, ...]:
        """Columns that are read from the rows."""
        return (self.image_column, self.label_column)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        cuts = [center_crop(feature[self.image_column], self.size, self.resize_to) for feature in features]
        batch: dict[str, Any] = {"pixel_values": self.normalizer(torch.stack(cuts))}
        if self.label_column in features[0]:
            labels = torch.tensor([int(feature[self.label_column]) for feature in features])
            batch["labels"] = labels.masked_fill(labels == MISSING, IGNORE_INDEX)
        return batch
