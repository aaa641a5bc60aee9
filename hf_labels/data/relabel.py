"""`ReLabelCollator`: random crops, each with the soft label that a stored map gives it; and published maps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hf_labels.data.images import Interpolation, Normalizer, RandomResizedCrop, image_size
from hf_labels.data.soft_label_build import as_callable, key_number
from hf_labels.data.soft_label_collator import EvaluationCollator
from hf_labels.data.soft_label_info import StoreInfo
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.data.soft_label_writer import SoftLabelWriter
from hf_labels.labels.kinds import IGNORE_INDEX, MISSING
from hf_labels.mixing.ops import mixup
from hf_labels.mixing.sampler import MixSampler

Augment = Callable[[Tensor, np.random.Generator], Tensor]


class ReLabelCollator:
    """Cuts a random crop of each image and reads its soft label from the image's label map.

    | in the batch | shape | what |
    | --- | --- | --- |
    | `pixel_values` | (B, C, size, size) | crops, flipped with probability `flip` |
    | `soft_labels` | (B, K) | softmax of the pooled map; mixed with CutMix |
    | `labels` | (B,) | from the data, else from the store; -100 = missing |
    | `mix_labels_b`, `mix_lam` | (B,) | with CutMix: the second hard label and the share of the first |
    | `crop` | (B, 4) | top, left, height, width as fractions |

    Crops are drawn from `(seed, epoch, example)`: the same in any process, batch size or worker, and after a resume. A
    `LabelTrainer` tells the epoch; with another trainer they are drawn anew from torch's generator each time.

    Args:
        store ([`SoftLabelStore`]): Of kind `map`, from [`LabelMapAnnotator`] or [`import_label_maps`].
        image_processor (*optional*): Its mean and standard deviation normalise the crops.
        size (`int`, *optional*, defaults to 224): Side of the crops in pixels.
        scale, ratio, flip, interpolation (*optional*): As in [`RandomResizedCrop`].
        pooling (`str`, *optional*, defaults to `"crop"`): `"crop"`: the label of the crop; `"image"`: the mean over
            the whole map whatever the crop, which is the global multi-label of the paper's ablation.
        cutmix_alpha (`float`, *optional*, defaults to 0.0): CutMix with lam from Beta(alpha, alpha); 0 = off.
        cutmix_epochs (`int`, *optional*): CutMix only in so many first epochs (the paper: all but the last 5).
        label_smoothing (`float`, *optional*, defaults to 0.0): s, the target becomes `(1 - s) t + s / K`.
        augment (callable, *optional*): `(pixels in [0, 1], rng) -> pixels` after the crop, before normalisation:
            colour jitter and the like, which the label does not depend on.
        seed (`int`, *optional*, defaults to 0): Of crops and flips.
        image_column, id_column, label_column (`str`): Columns of the rows.
        eval_resize (`int`, *optional*): Short side before the centre crop when evaluating; `size` by default.

    Raises:
        ValueError: If the store holds no maps, a setting is out of range, or a map is not finite; names the example.
        KeyError: If a row lacks a column, or the store lacks an example; names it.

    Source: ReLabel (Yun et al., arXiv:2101.05022), section 3.2. The released code swaps the axes of the box; here
    `x` is the column, always.
    """

    def __init__(
        self,
        store: SoftLabelStore,
        image_processor: Any = None,
        size: int | tuple[int, int] = 224,
        *,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        interpolation: Interpolation = "bilinear",
        pooling: Literal["crop", "image"] = "crop",
        cutmix_alpha: float = 0.0,
        cutmix_epochs: int | None = None,
        label_smoothing: float = 0.0,
        augment: Augment | None = None,
        seed: int = 0,
        image_column: str = "image",
        id_column: str = "index",
        label_column: str = "labels",
        eval_resize: int | None = None,
    ) -> None:
        if store.info.kind != "map":
            raise ValueError(
                f"The store must hold label maps (kind `map`), got kind `{store.info.kind}`. Make them with "
                "`LabelMapAnnotator`; for stored crops use `SoftLabelCollator`."
            )
        if pooling not in ("crop", "image"):
            raise ValueError(f"`pooling` must be crop or image, got {pooling!r}.")
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"`label_smoothing` must be in [0, 1], got {label_smoothing}.")
        if not cutmix_alpha >= 0:
            raise ValueError(f"`cutmix_alpha` must be 0 or more, got {cutmix_alpha}. 0 switches CutMix off.")
        self.store = store
        self.crop = RandomResizedCrop(size, scale, ratio, flip, interpolation)
        self.normalizer = Normalizer((0.0,), (1.0,))
        if image_processor is not None:
            self.normalizer = Normalizer.from_processor(image_processor)
        self.pooling = pooling
        self.sampler = MixSampler(cutmix_alpha, kind="cutmix", seed="torch")
        self.cutmix_epochs = cutmix_epochs
        self.label_smoothing = label_smoothing
        self.augment = augment
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
    def evaluation_collator(self) -> EvaluationCollator:
        """Whole images with their labels, for evaluation."""
        return EvaluationCollator(
            self.crop.size[0], self.normalizer, self.image_column, self.label_column, resize_to=self.eval_resize
        )

    def set_epoch(self, epoch: int) -> None:
        """Told by the trainer at the start of each epoch."""
        self._epoch.fill_(epoch)

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for name in (self.image_column, self.id_column):
            if name not in features[0]:
                raise KeyError(f"Rows have no column `{name}`. They have: {', '.join(features[0])}.")
        keys = [feature[self.id_column] for feature in features]
        rows = self.store.lookup(keys)
        cuts, crops = zip(*map(self._cut, features), strict=True)
        batch: dict[str, Any] = {"pixel_values": self.normalizer(torch.stack(cuts)), "crop": torch.tensor(crops)}
        batch["soft_labels"] = self.soft_labels(rows, batch["crop"])
        labels = self._labels(features, rows)
        if labels is not None:
            batch["labels"] = labels
        if self.sampler.cutmix_alpha > 0 and (self.cutmix_epochs is None or int(self._epoch) < self.cutmix_epochs):
            self._cutmix(batch)
        if self.label_smoothing:
            s = self.label_smoothing
            batch["soft_labels"] = (1 - s) * batch["soft_labels"] + s / batch["soft_labels"].shape[1]
        return batch

    def soft_labels(self, rows: Mapping[str, Any], crops: Tensor) -> Tensor:
        """Soft labels (B, K) of stored maps and crops (B, 4)."""
        finite = np.isfinite(np.asarray(rows["map_values"], dtype=np.float32)).reshape(len(crops), -1).all(1)
        if not finite.all():
            broken = rows["example_id"].tolist()[int(np.flatnonzero(~finite)[0])]
            raise ValueError(f"The label map of example {broken!r} holds NaN or infinity. Annotate it again.")
        return self.store.decode(rows, crops if self.pooling == "crop" else None)

    def _cut(self, feature: Mapping[str, Any]) -> tuple[Tensor, tuple[float, ...]]:
        epoch = int(self._epoch)
        numbers = [self.seed, epoch, key_number(feature[self.id_column])]
        if epoch < 0:
            numbers = [int(torch.randint(2**62, (), dtype=torch.int64))]
        rng = np.random.default_rng(np.random.SeedSequence(numbers))
        image = feature[self.image_column]
        view = self.crop.draw(*image_size(image), rng)
        pixels = self.crop.cut(image, view)
        return (pixels if self.augment is None else self.augment(pixels, rng)), view.crop

    def _labels(self, features: Sequence[Mapping[str, Any]], rows: Mapping[str, Any]) -> Tensor | None:
        if self.label_column in features[0]:
            given = np.array([feature[self.label_column] for feature in features])
        elif self.store.info.has_labels:
            given = rows["label"]
        else:
            return None
        labels = torch.from_numpy(given.astype(np.int64))
        return labels.masked_fill(labels == MISSING, IGNORE_INDEX)

    def _cutmix(self, batch: dict[str, Any]) -> None:
        pixels = batch["pixel_values"]
        plan = self.sampler.draw(len(pixels), (pixels.shape[2], pixels.shape[3]))
        batch["pixel_values"] = plan.apply(pixels)
        batch["soft_labels"] = mixup(batch["soft_labels"], plan.perm, plan.lam)
        if "labels" in batch:
            batch.update(plan.labels(batch["labels"]).as_batch_fields())


def import_label_maps(
    source: str | Path | Iterable[tuple[Any, Tensor]],
    num_labels: int,
    *,
    transposed: bool,
    folder: str | Path | None = None,
    codec: str = "float16",
    labels: Mapping[Any, int] | None = None,
    **facts: Any,
) -> SoftLabelStore:
    """Read published label maps: one tensor `(2, k, H, W)` per image, values first, then class ids.

    Nothing in such a file says whether rows or columns come first, and the code that reads ReLabel's own archive pools
    as if columns did. Look at [`axis_agreement`], which tells.

    Args:
        source (`str`, `Path` or iterable): A folder of `.pt` files (the key is the path in it, without `.pt`; read
            without pickled code), or pairs of key and tensor.
        num_labels (`int`): K.
        transposed (`bool`): Whether the last two axes are (column, row). There is no default.
        folder (`str` or `Path`, *optional*): Where the store is written; in memory by default.
        codec (`str`, *optional*, defaults to `"float16"`): `"float16"` or `"float32"`.
        labels (mapping of key to class, *optional*): True classes, stored too.
        facts: Further fields of [`StoreInfo`]: `id2label`, `teacher`, `source`.

    Raises:
        FileNotFoundError: If the folder holds no `.pt` file.
        ValueError: If there is no map, a tensor has another shape, values are not finite, or ids are not in [0, K);
            names the example.
    """
    pairs = _files(Path(source)) if isinstance(source, (str, Path)) else source
    writer: SoftLabelWriter | None = None
    with ExitStack() as stack:  # a bad map must not leave the folder locked
        for key, found in pairs:
            if found.dim() != 4 or found.shape[0] != 2:
                raise ValueError(f"The map of example {key!r} must have shape (2, k, H, W), got {tuple(found.shape)}.")
            values, ids = found[0].float(), found[1].round().long()
            if transposed:
                values, ids = values.mT, ids.mT
            values, order = values.sort(dim=0, descending=True, stable=True)
            ids = ids.gather(0, order)
            if writer is None:
                info = StoreInfo(
                    "map",
                    num_labels,
                    k=len(values),
                    codec=codec,
                    map_shape=(values.shape[1], values.shape[2]),
                    has_labels=labels is not None,
                    id_type="string" if isinstance(key, str) else "int64",
                    **facts,
                )
                writer = stack.enter_context(SoftLabelWriter(folder, info))
            known = None if labels is None else [labels[key]]
            if not writer.has(key):
                writer.add_maps([key], ids[None], values[None], known)
    if writer is None:
        raise ValueError("There are no label maps to import.")
    return SoftLabelStore.from_writer(writer)


def axis_agreement(
    store: SoftLabelStore,
    dataset: Any,
    classifier: Any,
    *,
    size: int = 224,
    image_processor: Any = None,
    crops: int = 4,
    scale: tuple[float, float] = (0.08, 0.35),
    seed: int = 0,
    image_column: str = "image",
    id_column: str = "index",
) -> dict[str, float]:
    """Whether the axes of imported label maps are right: how well pooled labels of small crops fit their pixels.

    What is in a crop must come from its pixels: the hard label of the image cannot tell, since random crops are as
    often here as there, and a transposed map agrees with it just as well on average.

    Args:
        store ([`SoftLabelStore`]): Of kind `map`.
        dataset (`datasets.Dataset`): Some of its images, in which objects do not lie in the centre. A few hundred do.
        classifier (`nn.Module` or callable): Logits (B, K) from `pixel_values`; any classifier of these classes.
        size (`int`, *optional*, defaults to 224): Side of the crops for the classifier.
        image_processor (*optional*): Its mean and standard deviation.
        crops (`int`, *optional*, defaults to 4): Crops per image.
        scale (`tuple[float, float]`, *optional*, defaults to (0.08, 0.35)): Their share of the area.
        seed (`int`, *optional*, defaults to 0): Of the crops.
        image_column, id_column (`str`): Columns.

    Returns:
        `dict`: `as_stored` and `transposed`: mean probability that the pooled label gives to the classifier's class.
        The larger one is right.

    Raises:
        ValueError: If the store holds no maps.
    """
    if store.info.kind != "map":
        raise ValueError(f"The store must hold label maps (kind `map`), got kind `{store.info.kind}`.")
    ask = as_callable(classifier)
    normalize = Normalizer((0.0,), (1.0,)) if image_processor is None else Normalizer.from_processor(image_processor)
    cutter = RandomResizedCrop(size, scale, flip=0.0)
    rng = np.random.default_rng(seed)
    sums, count = np.zeros(2), 0
    for row in dataset:
        views = [cutter.draw(*image_size(row[image_column]), rng) for _ in range(crops)]
        pixels = normalize(torch.stack([cutter.cut(row[image_column], view) for view in views]))
        found = ask({"pixel_values": pixels}).argmax(-1, keepdim=True).cpu()
        maps = store.lookup([row[id_column]] * crops)
        boxes = torch.tensor([view.crop for view in views])
        for number, turned in enumerate((maps, _transposed(maps))):
            sums[number] += float(store.decode(turned, boxes).gather(1, found).sum())
        count += crops
    return {"as_stored": sums[0] / max(count, 1), "transposed": sums[1] / max(count, 1)}


def _transposed(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {**rows, "map_ids": rows["map_ids"].swapaxes(2, 3), "map_values": rows["map_values"].swapaxes(2, 3)}


def _files(folder: Path) -> Iterable[tuple[str, Tensor]]:
    paths = sorted(folder.rglob("*.pt"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no .pt file. Give the folder of the unpacked label maps.")
    for path in paths:
        yield path.relative_to(folder).with_suffix("").as_posix(), torch.load(path, weights_only=True).float()
