"""`FerKDTrainer`: distil stored views of images, with labels sorted and repaired by their confidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from hf_labels.data.ferkd import FerKDCalibrator
from hf_labels.data.ferkd_collator import FerKDCollator
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.labels.ferkd import HARD, UNINFORMATIVE, check_thresholds
from hf_labels.mixing.self_mix import SelfMix
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments


@dataclass
class FerKDTrainingArguments(SoftLabelTrainingArguments):
    """Arguments of [`FerKDTrainer`].

    Parameters:
        views_per_example (`int`, *optional*, defaults to `4`):
            Stored views of each image in a step. `per_device_train_batch_size` counts images.
        t_low (`float`, *optional*), t_mid (`float`, *optional*), t_top (`float`, *optional*):
            Thresholds on the teacher's confidence (T_L, T_M, T_T in the paper), all or none. None: from `quantiles`.
        quantiles (`list[float]`, *optional*, defaults to `[0.02, 0.15, 0.98]`):
            Quantiles of the confidence over all stored views that give the thresholds. Our choice.
        epsilon (`float`, *optional*, defaults to `0.1`):
            Smoothing of the true label in the hard region, in [0, 1).
        confidence (`str`, *optional*, defaults to `"max"`):
            `"max"`: the largest probability of the soft label; `"ground_truth"`: that of the true class.
        self_mix_prob (`float`, *optional*, defaults to `0.5`):
            Probability that the views of an image are mixed with each other; 0 switches SelfMix off.
        self_mix_alpha (`float`, *optional*, defaults to `1.0`):
            The share of a view is drawn from Beta(alpha, alpha).
        view_size (`int`, *optional*):
            Side of the student's images in pixels; by default that of the stored views.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none.
    """

    views_per_example: int = field(default=4, metadata={"help": "Stored views of each image in a step; 1 or more."})
    t_low: float | None = field(default=None, metadata={"help": "Views below are dropped; in [0, 1]."})
    t_mid: float | None = field(default=None, metadata={"help": "Views below get the smoothed true label; in [0, 1]."})
    t_top: float | None = field(default=None, metadata={"help": "Views above are dropped; in [0, 1]."})
    quantiles: list[float] = field(
        default_factory=lambda: [0.02, 0.15, 0.98],
        metadata={"help": "Three rising quantiles of the confidence, used without thresholds."},
    )
    epsilon: float = field(default=0.1, metadata={"help": "Smoothing of the true label in hard views, in [0, 1)."})
    confidence: Literal["max", "ground_truth"] = field(
        default="max", metadata={"help": "max (of the soft label) or ground_truth (its true class)."}
    )
    self_mix_prob: float = field(default=0.5, metadata={"help": "Probability of SelfMix per image, in [0, 1]."})
    self_mix_alpha: float = field(default=1.0, metadata={"help": "Beta(alpha, alpha) of SelfMix; 0 or more."})
    view_size: int | None = field(default=None, metadata={"help": "Side of the student's images in pixels."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views_per_example < 1:
            raise ValueError(f"`views_per_example` must be at least 1, got {self.views_per_example}.")
        if len(self.quantiles) != 3:
            raise ValueError(f"`quantiles` must be three numbers, got {self.quantiles}.")
        if not 0 <= self.self_mix_prob <= 1:
            raise ValueError(f"`self_mix_prob` must be in [0, 1], got {self.self_mix_prob}.")
        if self.t_low is not None and self.t_mid is not None and self.t_top is not None:
            check_thresholds(self.t_low, self.t_mid, self.t_top, self.epsilon)
        self.calibrator()  # the other checks

    def calibrator(self) -> FerKDCalibrator:
        """The calibrator that these settings describe."""
        low, mid, top = self.quantiles
        return FerKDCalibrator(self.t_low, self.t_mid, self.t_top, self.epsilon, self.confidence, (low, mid, top))


class FerKDTrainer(SoftLabelTrainer):
    """Soft cross-entropy on stored views whose labels FerKD has adapted.

    | input | shape | use |
    | --- | --- | --- |
    | `pixel_values` | (n B, C, size, size) | n views of each of B images, cut again from the stored crops |
    | `soft_label_ids`, `soft_label_values` | (n B, k) | adapted labels; or `soft_labels` (n B, K) with SelfMix |
    | `soft_label_mask` | (n B,) | False for dropped views |
    | `soft_label_region` | (n B,) | 0 = dropped, 1 = hard, 2 = important; logged as `kept` and `hard_region` shares |

    The loss is the mean over the views that are kept, over the whole update; 0 when all are dropped. One epoch shows
    `views_per_example` views of each image: for E passes over single views set `num_train_epochs = E / n`.

    Args:
        model, args, ...: As for [`SoftLabelTrainer`]; `args` is [`FerKDTrainingArguments`]. `train_dataset` has the
            columns `image`, `index` and (for evaluation) `labels`.
        soft_label_store ([`SoftLabelStore`]): The teacher's labels of the views, with crops and true labels. One that
            [`FerKDCalibrator.apply`] made is used as it is.
        processing_class (*optional*): Image processor, whose mean and standard deviation normalise the views.
        data_collator ([`FerKDCollator`], *optional*): In place of `soft_label_store`.

    Raises:
        ValueError: If neither store nor collator is given, or the store has no crops, or lacks an example.

    Source: FerKD (Shen, arXiv:2312.17473), on the views of FKD (Shen and Xing, arXiv:2112.01528).
    """

    args: FerKDTrainingArguments
    _slug = "ferkd"
    _extra_columns: ClassVar[tuple[str, ...]] = (*SoftLabelTrainer._extra_columns, "soft_label_region")

    def __init__(
        self,
        model: Any = None,
        args: FerKDTrainingArguments | None = None,
        data_collator: Any = None,
        *rest: Any,
        soft_label_store: SoftLabelStore | None = None,
        **kwargs: Any,
    ) -> None:
        args = FerKDTrainingArguments() if args is None else args
        if not isinstance(args, FerKDTrainingArguments):
            raise TypeError(f"`args` must be FerKDTrainingArguments, got {type(args).__name__}.")
        if (soft_label_store is None) == (data_collator is None):
            raise ValueError("Give `soft_label_store`, or a `data_collator` that has one (`FerKDCollator`).")
        if soft_label_store is not None:
            data_collator = _collator(soft_label_store, args, kwargs.get("processing_class"))
        super().__init__(model, args, data_collator, *rest, **kwargs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        region = inputs.get("soft_label_region")
        if region is not None:
            kept, hard = region != UNINFORMATIVE, region == HARD
            self.log_terms(kept=kept.float().mean(), hard_region=hard.float().mean())
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def card_facts(self, finetuned_from: str | None = None) -> dict[str, Any]:
        facts = super().card_facts(finetuned_from)
        collator: Any = self.data_collator
        used: Mapping[str, Any] = {}
        if getattr(collator, "calibrator", None) is not None:
            used = dict(zip(("t_low", "t_mid", "t_top"), collator.calibrator.thresholds, strict=True))
        elif getattr(collator, "store", None) is not None:
            used = {n: v for n, v in collator.store.info.extra.get("ferkd", {}).items() if n[:2] == "t_"}
        if used:
            from hf_labels.trainers.card import changed_arguments

            facts["training"] = changed_arguments(self.args) | {name: round(value, 4) for name, value in used.items()}
        return facts


def _collator(store: SoftLabelStore, args: FerKDTrainingArguments, processor: Any) -> FerKDCollator:
    mix = SelfMix(args.self_mix_prob, alpha=args.self_mix_alpha) if args.self_mix_prob > 0 else None
    seed = args.seed if args.data_seed is None else args.data_seed
    return FerKDCollator(
        store,
        processor if hasattr(processor, "image_mean") else None,
        args.views_per_example,
        calibrator=args.calibrator(),
        self_mix=mix,
        size=args.view_size,
        seed=seed,
    )
