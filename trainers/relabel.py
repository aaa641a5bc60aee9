"""`ReLabelTrainer`: train a classifier on random crops, each with the soft label of its own place in the image."""

from dataclasses import dataclass, field
from typing import Any, Literal

from hf_labels.data.relabel import Augment, ReLabelCollator
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments


@dataclass
class ReLabelTrainingArguments(SoftLabelTrainingArguments):
    """Arguments of [`ReLabelTrainer`].

    Parameters:
        crop_size (`int`, *optional*, defaults to `224`):
            Side of the crops in pixels.
        crop_scale (`list[float]`, *optional*, defaults to `[0.08, 1.0]`):
            Smallest and largest share of the area.
        crop_ratio (`list[float]`, *optional*, defaults to `[0.75, 1.3333333]`):
            Smallest and largest width to height.
        flip_prob (`float`, *optional*, defaults to `0.5`):
            Probability of mirroring; 0 for text, digits and the like.
        pooling (`str`, *optional*, defaults to `"crop"`):
            `"crop"`: label of the crop; `"image"`: mean over the whole map (the paper's global multi-label).
        cutmix_alpha (`float`, *optional*, defaults to `0.0`):
            CutMix with Beta(alpha, alpha), 0 = off. The paper's best runs use 1.
        cutmix_off_epochs (`int`, *optional*, defaults to `5`):
            CutMix is off in so many last epochs.

    `label_smoothing_factor` smooths the soft labels.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none.
    """

    crop_size: int = field(default=224, metadata={"help": "Side of the crops in pixels; 1 or more."})
    crop_scale: list[float] = field(
        default_factory=lambda: [0.08, 1.0], metadata={"help": "Smallest and largest share of the area, in (0, 1]."}
    )
    crop_ratio: list[float] = field(
        default_factory=lambda: [0.75, 1.3333333], metadata={"help": "Smallest and largest width to height."}
    )
    flip_prob: float = field(default=0.5, metadata={"help": "Probability of mirroring, in [0, 1]."})
    pooling: Literal["crop", "image"] = field(
        default="crop", metadata={"help": "crop (label of the crop) or image (mean over the map)."}
    )
    cutmix_alpha: float = field(default=0.0, metadata={"help": "Beta(alpha, alpha) of CutMix; 0 = off."})
    cutmix_off_epochs: int = field(default=5, metadata={"help": "Last epochs without CutMix; 0 or more."})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("crop_scale", "crop_ratio"):
            value = getattr(self, name)
            if len(value) != 2 or not 0 < value[0] <= value[1]:
                raise ValueError(f"`{name}` must be two rising positive numbers, got {value}.")
        if self.pooling not in ("crop", "image"):
            raise ValueError(f"`pooling` must be crop or image, got {self.pooling!r}.")
        if not self.cutmix_alpha >= 0 or self.cutmix_off_epochs < 0:
            raise ValueError(
                f"`cutmix_alpha` and `cutmix_off_epochs` must be 0 or more, got {self.cutmix_alpha} and "
                f"{self.cutmix_off_epochs}."
            )


class ReLabelTrainer(SoftLabelTrainer):
    """Soft cross-entropy between a crop's prediction and the label that a stored map gives for the crop.

    | input | shape | use |
    | --- | --- | --- |
    | `pixel_values` | (B, C, size, size) | random crops |
    | `soft_labels` | (B, K) | pooled from the label map of the image; mixed with CutMix |
    | `labels` | (B,), -100 = missing | hard labels: only in evaluation, unless `hard_label_weight` > 0 |

    Args:
        model, args, ...: As for [`SoftLabelTrainer`]; `args` is [`ReLabelTrainingArguments`]. `train_dataset` has the
            columns `image`, `index` and (for evaluation) `labels`.
        label_maps ([`SoftLabelStore`]): Maps of the training images, from [`LabelMapAnnotator`].
        augment (callable, *optional*): As in [`ReLabelCollator`]: colour jitter and the like.
        processing_class (*optional*): Image processor, whose mean and standard deviation normalise the crops.
        data_collator ([`ReLabelCollator`], *optional*): In place of `label_maps`, with settings of its own.

    Raises:
        ValueError: If neither maps nor collator are given, or the store has no maps, or lacks an example.

    Source: ReLabel (Yun et al., arXiv:2101.05022).
    """

    args: ReLabelTrainingArguments
    _slug = "relabel"

    def __init__(
        self,
        model: Any = None,
        args: ReLabelTrainingArguments | None = None,
        data_collator: Any = None,
        *rest: Any,
        label_maps: SoftLabelStore | None = None,
        augment: Augment | None = None,
        **kwargs: Any,
    ) -> None:
        args = ReLabelTrainingArguments() if args is None else args
        if not isinstance(args, ReLabelTrainingArguments):
            raise TypeError(f"`args` must be ReLabelTrainingArguments, got {type(args).__name__}.")
        if (label_maps is None) == (data_collator is None):
            raise ValueError("Give `label_maps`, or a `data_collator` that has them (`ReLabelCollator`).")
        if label_maps is not None:
            data_collator = _collator(label_maps, args, kwargs.get("processing_class"), augment)
        super().__init__(model, args, data_collator, *rest, **kwargs)

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        if isinstance(self.data_collator, ReLabelCollator) and self.data_collator.cutmix_epochs is None:
            self.data_collator.cutmix_epochs = max(self._epochs() - self.args.cutmix_off_epochs, 0)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _epochs(self) -> int:
        """Epochs of the whole run, rounded up."""
        if self.args.max_steps <= 0:
            return -int(-self.args.num_train_epochs // 1)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        rows: Any = self.train_dataset
        steps = max(len(rows) // batch if self.args.dataloader_drop_last else -(-len(rows) // batch), 1)
        return -(-self.args.max_steps // steps)


def _collator(store: SoftLabelStore, args: ReLabelTrainingArguments, processor: Any, augment: Any) -> ReLabelCollator:
    low, high = args.crop_scale
    narrow, wide = args.crop_ratio
    return ReLabelCollator(
        store,
        processor if hasattr(processor, "image_mean") else None,
        args.crop_size,
        scale=(low, high),
        ratio=(narrow, wide),
        flip=args.flip_prob,
        pooling=args.pooling,
        cutmix_alpha=args.cutmix_alpha,
        label_smoothing=args.label_smoothing_factor,
        augment=augment,
        seed=args.seed if args.data_seed is None else args.data_seed,
    )
