"""`LabelMapAnnotator`: run a classifier once per image and keep where it sees each class."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_labels.data.images import Normalizer, View, cut_view, pair
from hf_labels.data.soft_label_codec import top_k
from hf_labels.data.soft_label_info import StoreInfo
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.data.soft_label_writer import SoftLabelWriter
from hf_labels.models.heads import Head, find_head

logger = logging.getLogger(__name__)

_HARMLESS = (nn.Flatten, nn.Dropout, nn.Identity, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d)
_INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # numbers of PIL


class LabelMapAnnotator:
    """A classifier whose last layer is applied to every cell of its last feature map, in place of their mean.

        annotator = LabelMapAnnotator.from_pretrained("timm/resnet50.a1_in1k")
        maps = annotator.annotate(data, k=5)      # a SoftLabelStore of kind "map"
        maps.push_to_hub("me/set-label-maps")

    For a linear layer after a global mean, `mean over cells of the map = ordinary logits`; this is checked on the
    first image. It holds for ResNet, RegNet, EfficientNet, Swin, MobileNet and most models of timm. A norm layer after
    the mean (ConvNeXt) breaks it: refused, unless `approximate`. A ViT that classifies by its CLS
    token works, with a warning: nobody trained its patches for that.

    Args:
        model (`PreTrainedModel`): An image classifier. Put into eval mode.
        image_processor (*optional*): Its mean, standard deviation and size.
        approximate (`bool`, *optional*, defaults to `False`): Accept a map whose mean is not the logits. A norm layer
            after the mean is then applied to each cell.

    Raises:
        ValueError: If the classifier is not one linear layer (up to pooling, flatten and dropout).

    Source: ReLabel (Yun et al., arXiv:2101.05022), section 3.1.
    """

    def __init__(self, model: Any, image_processor: Any = None, *, approximate: bool = False) -> None:
        self.model = model.eval()
        self.processor = image_processor
        self.approximate = approximate
        self.head = linear_head(model)
        self.num_labels = self.head.num_labels
        self.normalizer = Normalizer((0.0,), (1.0,))
        if image_processor is not None:
            self.normalizer = Normalizer.from_processor(image_processor)
        self._cls_token = False

    @classmethod
    def from_pretrained(
        cls, source: str, *, revision: str | None = None, approximate: bool = False, **options: Any
    ) -> "LabelMapAnnotator":
        """Load a classifier and its image processor from the Hub or a folder.

        Args:
            source (`str`): Hub id or folder; `timm/...` ids need the package timm.
            revision (`str`, *optional*): Of both.
            approximate: As above.
            options: For `AutoModelForImageClassification.from_pretrained`.
        """
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        options = {"dtype": torch.float32, "revision": revision} | options
        model = AutoModelForImageClassification.from_pretrained(source, **options)
        try:
            processor = AutoImageProcessor.from_pretrained(source, revision=revision, backend="pil")
        except OSError:  # a model that was saved without one
            logger.warning("%s has no image processor: pixels in [0, 1] are not normalised.", source)
            processor = None
        return cls(model, processor, approximate=approximate)

    @torch.no_grad()
    def label_maps(self, pixel_values: Tensor) -> Tensor:
        """Logits of every cell.

        Args:
            pixel_values (`Tensor` of shape `(B, C, H, W)`): Normalised images.

        Returns:
            `Tensor` of shape `(B, K, h, w)`: h runs down the image, w across.

        Raises:
            ValueError: If the classifier reads more than the features of a cell.
        """
        features = self._features(pixel_values)
        if features.shape[1] != self.head.in_features:
            raise ValueError(
                f"The classifier of {type(self.model).__name__} reads {self.head.in_features} numbers, a cell has "
                f"{features.shape[1]}: it pools more than the cells. Choose another annotator."
            )
        layer: Any = self.head.module
        bias = None if layer.bias is None else layer.bias.to(features)
        return F.conv2d(features, layer.weight.to(features).flatten(1)[:, :, None, None], bias)

    @torch.no_grad()
    def check(self, pixel_values: Tensor) -> float:
        """Largest difference between the mean of the map and the ordinary logits, relative to the largest logit.

        Raises:
            ValueError: If it is above 1e-3, the model does not classify by a CLS token, and `approximate` is not set.
        """
        maps = self.label_maps(pixel_values)
        logits = self.model(pixel_values=pixel_values).logits
        gap = float((maps.mean((2, 3)) - logits).abs().max() / logits.abs().max().clamp_min(1e-6))
        if gap <= 1e-3 or self.approximate:
            return gap
        if self._cls_token:
            logger.warning(
                "%s does not classify by the mean of its patches; its classifier was not trained for single patches: "
                "look at some maps before you train on them.",
                type(self.model).__name__,
            )
            return gap
        raise ValueError(
            f"The mean of the label map of {type(self.model).__name__} is not its logits (relative difference "
            f"{gap:.2g}): there is more than a linear layer after the pooling. Choose another annotator, or pass "
            "`approximate=True`."
        )

    def annotate(
        self,
        dataset: Any,
        *,
        k: int = 5,
        size: int | tuple[int, int] | None = None,
        batch_size: int = 32,
        folder: str | Path | None = None,
        codec: str = "float16",
        image_column: str = "image",
        id_column: str = "index",
        label_column: str = "labels",
        rows_per_file: int = 10_000,
        progress: Callable[[int], None] | None = None,
        **facts: Any,
    ) -> SoftLabelStore:
        """Make the label map of every image, once. An interrupted run with the same `folder` goes on where it stopped.

        Images are resized to `size` without keeping their ratio and without a crop, so that a place in the map is a
        place in the image.

        Args:
            dataset (`datasets.Dataset`): Images and a key per row.
            k (`int`, *optional*, defaults to 5): Classes kept per cell.
            size (`int` or `tuple[int, int]`, *optional*): Height and width for the annotator; by default what its
                image processor says. More pixels give more cells.
            batch_size (`int`, *optional*, defaults to 32): Images per forward pass.
            folder (`str` or `Path`, *optional*): Where the store is written; in memory by default.
            codec (`str`, *optional*, defaults to `"float16"`): `"float16"` or `"float32"`.
            image_column, id_column, label_column (`str`): Columns; labels are stored when the data has them.
            rows_per_file (`int`, *optional*, defaults to 10 000): As in [`SoftLabelWriter`].
            progress (callable, *optional*): Called with the number of images after each batch.
            facts: Further fields of [`StoreInfo`]: `teacher`, `teacher_revision`, `source`.

        Returns:
            [`SoftLabelStore`] of kind `map`.

        Raises:
            ValueError: If the data is empty, a column is missing, k is more than the classes, the maps are not
                finite, or the model cannot be converted.
        """
        if len(dataset) == 0:
            raise ValueError("There are no rows: the data set is empty.")
        for name in (image_column, id_column):
            if name not in dataset.column_names:
                raise ValueError(f"Column `{name}` is missing; the data set has: {', '.join(dataset.column_names)}.")
        if not 1 <= k <= self.num_labels:
            raise ValueError(f"k must be in [1, {self.num_labels}], the number of classes, got {k}.")
        shape = self._size(size)
        pixels = self._pixels([dataset[0][image_column]], shape)
        self.check(pixels)
        cells = self.label_maps(pixels).shape[2:]
        keys = dataset[id_column][:]
        info = StoreInfo(
            "map",
            self.num_labels,
            k=k,
            codec=codec,
            map_shape=(int(cells[0]), int(cells[1])),
            has_labels=label_column in dataset.column_names,
            image_size=shape[0],
            interpolation=self._interpolation(),
            id_type="string" if isinstance(keys[0], str) else "int64",
            **({"id2label": self._names()} | facts),
        )
        with SoftLabelWriter(folder, info, rows_per_file) as writer:
            todo = [row for row, key in enumerate(keys) if not writer.has(key)]
            for start in range(0, len(todo), batch_size):
                rows = [dataset[row] for row in todo[start : start + batch_size]]
                maps = self.label_maps(self._pixels([row[image_column] for row in rows], shape)).float().cpu()
                ids, values = top_k(maps.movedim(1, -1), k)
                known = [row[label_column] for row in rows] if info.has_labels else None
                _check_finite(maps, [row[id_column] for row in rows])
                writer.add_maps([row[id_column] for row in rows], ids.movedim(-1, 1), values.movedim(-1, 1), known)
                if progress is not None:
                    progress(len(rows))
        return SoftLabelStore.from_writer(writer)

    def _pixels(self, images: list[Any], size: tuple[int, int]) -> Tensor:
        channels = getattr(self.model.config, "num_channels", None) or 3
        wanted = "L" if channels == 1 else "RGB"
        cuts = []
        for image in images:
            if hasattr(image, "convert") and image.mode != wanted:
                image = image.convert(wanted)
            cuts.append(cut_view(image, View(), size, self._interpolation()))
        device = next(self.model.parameters()).device
        return self.normalizer(torch.stack(cuts)).to(device)

    def _features(self, pixel_values: Tensor) -> Tensor:
        """The last features as (B, d, h, w)."""
        width = self.head.in_features
        if hasattr(self.model, "timm_model"):
            found = self.model.timm_model.forward_features(pixel_values)
            if found.dim() == 4:
                return found if found.shape[1] == width else found.movedim(-1, 1)
            return self._grid(found, pixel_values, None)
        shifted = "Swin" in type(self.model).__name__  # its tokens carry no shape of their own
        more = {"output_hidden_states": True} if shifted else {}
        output = self.model.base_model(pixel_values=pixel_values, **more)
        found = output.last_hidden_state
        if found.dim() == 4:
            norm = getattr(self.model.base_model, "layernorm", None)
            if self.approximate and isinstance(norm, nn.LayerNorm):
                return norm(found.movedim(1, -1)).movedim(-1, 1)
            return found
        maps = output.reshaped_hidden_states if shifted else None
        return self._grid(found, pixel_values, tuple(maps[-1].shape[-2:]) if maps else None)

    def _grid(self, tokens: Tensor, pixel_values: Tensor, cells: tuple[int, ...] | None) -> Tensor:
        """Tokens (B, L, d) as (B, d, h, w); tokens that stand before those of the patches are left out."""
        if cells is None:
            config = self.model.config
            module = getattr(self.model, "timm_model", None)
            patch = getattr(config, "patch_size", None) or getattr(
                getattr(module, "patch_embed", None), "patch_size", 0
            )
            rows, columns = patch if isinstance(patch, (tuple, list)) else (patch, patch)
            if not rows or not columns:
                raise ValueError(f"{type(self.model).__name__} gives tokens, and no `patch_size` says where they lie.")
            cells = (pixel_values.shape[2] // rows, pixel_values.shape[3] // columns)
        first = tokens.shape[1] - cells[0] * cells[1]
        if first < 0:
            raise ValueError(
                f"{type(self.model).__name__} gives {tokens.shape[1]} tokens for {cells[0]} x {cells[1]} patches."
            )
        self._cls_token = first > 0
        return tokens[:, first:].movedim(1, -1).reshape(tokens.shape[0], -1, *cells)

    def _size(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        if size is not None:
            return pair(size)
        known: Any = getattr(self.processor, "size", None)
        if hasattr(known, "get"):
            short = known.get("shortest_edge")
            if known.get("height") or short:
                return pair((known.get("height") or short, known.get("width") or short))
        side = getattr(self.model.config, "image_size", None)
        if side is None:
            raise ValueError("Pass `size`: neither the image processor nor the model says how large images are.")
        return pair(side if isinstance(side, int) else tuple(side))

    def _interpolation(self) -> Any:
        return _INTERPOLATIONS.get(getattr(self.processor, "resample", 2) or 0, "bilinear")

    def _names(self) -> dict[int, str] | None:
        names = getattr(self.model.config, "id2label", None)
        if not names or all(str(name) == f"LABEL_{number}" for number, name in names.items()):
            return None
        return dict(names)


def linear_head(model: Any) -> Head:
    """The classifier of a model, when it is one linear layer on the pooled features.

    Raises:
        ValueError: If there is no such layer, or the block of the classifier has another layer than pooling, flatten
            and dropout.
    """
    head = find_head(model)
    if hasattr(model, "timm_model"):
        return head  # one module holds all: `check` sees from the numbers what stands before the classifier
    block = model.get_submodule(head.name.split(".")[0])
    leaves = [part for part in block.modules() if not list(part.children())]
    if any(part is not head.module and not isinstance(part, _HARMLESS) for part in leaves):
        names = ", ".join(type(part).__name__ for part in leaves)
        raise ValueError(
            f"The classifier of {type(model).__name__} is not one linear layer ({names}): it cannot be applied to "
            "each cell of a map. Choose an annotator with a linear classifier after global average pooling."
        )
    return head


def _check_finite(maps: Tensor, keys: list[Any]) -> None:
    wrong = (~torch.isfinite(maps).flatten(1).all(1)).nonzero()
    if len(wrong):
        raise ValueError(
            f"The label map of example {keys[int(wrong[0])]!r} holds NaN or infinity. Run the annotator in float32, "
            "or leave the example out."
        )
