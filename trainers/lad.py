"""Label Assisted Distillation: `LADTeacherTrainer` for the teacher, `CWDDistillTrainer` for the student."""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hf_labels.data.rng import derive_seed
from hf_labels.losses.lad import (
    LabelNoiser,
    class_codes,
    dist_distillation,
    dual_path_consistency,
    pixel_distillation,
    segmentation_cross_entropy,
    upsample,
)
from hf_labels.losses.mcl_electra_noise import RowNoise
from hf_labels.losses.soft_targets import channel_wise_distillation
from hf_labels.metrics.compute_metrics import TrainerMetrics
from hf_labels.metrics.functional.segmentation import pixel_confusion, segmentation_scores
from hf_labels.models.lad import LABEL_CHANNEL, auxiliary_logits, input_channels, saved_noiser
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
from hf_labels.trainers.lad_checks import check_segmentation_data
from hf_labels.trainers.teachers import FrozenTeacher

logger = logging.getLogger(__name__)

_EVALUATION = 2**31  # the step number of evaluation draws: none that training reaches


@dataclass
class LADTrainingArguments(LabelTrainingArguments):
    """Arguments of [`LADTeacherTrainer`] and [`CWDDistillTrainer`].

    Parameters:
        consistency_weight (`float`, *optional*, defaults to `5.0`):
            Teacher: weight of the consistency of the two paths.
        distill_weight (`float`, *optional*, defaults to `3.0`):
            Student: weight of the distillation.
        temperature (`float`, *optional*, defaults to `4.0`):
            Temperature of both; above 0.
        distill_loss (`str`, *optional*, defaults to `"cwd"`):
            Student: `"cwd"` (channel-wise), `"pixel"` (pixel-wise) or `"dist"` (correlations; over each device's
            batch, without temperature).
        teacher_aux_weight (`float`, *optional*, defaults to `0.4`):
            Teacher: weight of the auxiliary head's cross-entropy, for models that have one.
        student_aux_weight (`float`, *optional*, defaults to `0.02`):
            Student: the same.
        align_corners (`bool`, *optional*, defaults to `True`):
            How logits are up-sampled for the cross-entropy: as in the authors' code; stock models use `False`.
        freeze_batch_norm (`bool`, *optional*, defaults to `False`):
            Keep the running statistics of batch norms, for small batches and for students that are trained already.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none. The authors use `optim="sgd"`,
    > `optim_args="momentum=0.9"`, `learning_rate=1e-3` (student), `weight_decay=1e-4`, 40 000 steps of 16 crops, and
    > `lr_scheduler_type="polynomial"` with `lr_scheduler_kwargs={"power": 0.9, "lr_end": 0.0}`.
    """

    consistency_weight: float = field(default=5.0, metadata={"help": "Weight of the consistency; 0 or more."})
    distill_weight: float = field(default=3.0, metadata={"help": "Weight of the distillation; 0 or more."})
    temperature: float = field(default=4.0, metadata={"help": "Temperature of both; above 0."})
    distill_loss: Literal["cwd", "pixel", "dist"] = field(default="cwd", metadata={"help": "cwd, pixel or dist."})
    teacher_aux_weight: float = field(default=0.4, metadata={"help": "Auxiliary head, teacher; 0 or more."})
    student_aux_weight: float = field(default=0.02, metadata={"help": "Auxiliary head, student; 0 or more."})
    align_corners: bool = field(default=True, metadata={"help": "Corners of the up-sampling, as the authors'."})
    freeze_batch_norm: bool = field(default=False, metadata={"help": "Keep the statistics of batch norms."})

    def __post_init__(self):
        super().__post_init__()
        for name in ("consistency_weight", "distill_weight", "teacher_aux_weight", "student_aux_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}.")
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}.")
        if self.distill_loss not in ("cwd", "pixel", "dist"):
            raise ValueError(f"`distill_loss` must be cwd, pixel or dist, got {self.distill_loss!r}.")


class SegmentationTrainer(LabelTrainer):
    """What the two trainers share: cross-entropy of maps, noise per image, checks, and mean IoU as the metric."""

    args: LADTrainingArguments
    _slug = "lad"
    _required_columns = ("pixel_values", "labels")

    def __init__(self, model: Any = None, args: LADTrainingArguments | None = None, *rest: Any, **kwargs: Any):
        args = LADTrainingArguments() if args is None else args
        if not isinstance(args, LADTrainingArguments):
            raise TypeError(f"`args` must be LADTrainingArguments, got {type(args).__name__}.")
        own = kwargs.get("compute_metrics") is None and kwargs.get("preprocess_logits_for_metrics") is None
        if own:
            kwargs |= {"compute_metrics": TrainerMetrics(self._scores), "preprocess_logits_for_metrics": self._classes}
        super().__init__(model, args, *rest, **kwargs)
        self.ignore_index = int(getattr(self.bare_model.config, "semantic_loss_ignore_index", 255))

    @property
    def bare_model(self) -> Any:
        """The model without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        classes: Any = self.num_classes()
        for name, data in (("train_dataset", self.train_dataset), ("eval_dataset", self.eval_dataset)):
            check_segmentation_data(data, classes, self.ignore_index, self._image_channels(), name)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def required_columns(self) -> list[str]:
        """None of a data set with a lazy transform: it makes the columns when a row is read."""
        lazy = getattr(self.train_dataset, "format", {}).get("type") == "custom"
        return [] if lazy else super().required_columns()

    def count_items(self, inputs):
        labels = inputs["labels"]
        return {"pixels": (labels != self.ignore_index).sum(), "images": len(labels)}

    def _image_channels(self) -> tuple[int, ...]:
        """Channels that the images may have."""
        return (input_channels(self.bare_model),)

    def _noise(self, images: Tensor) -> RowNoise:
        """Random numbers of this step for each image, whatever batch it stands in."""
        step = self.state.global_step if self._eval_rows is None else _EVALUATION
        bits = images[:, 0].float().contiguous().view(torch.int32).flatten(1)
        return RowNoise(bits, torch.ones_like(bits), derive_seed(self.args.seed, step))

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        total = segmentation_cross_entropy(logits, labels, self.ignore_index, self.args.align_corners, "sum")
        return self.mean_over_update(total, "pixels", (labels != self.ignore_index).sum())

    def _per_image(self, mean: Tensor, images: int) -> Tensor:
        """A mean over the images of this batch as its share in the mean over those of the update."""
        return self.mean_over_update(mean * images, "images", images)

    def _hold_statistics(self, model: nn.Module) -> None:
        if self.args.freeze_batch_norm:
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _classes(self, logits: Any, labels: Tensor | None) -> Tensor:
        """Class ids at the size of the labels; without labels (`predict`) at that of the logits."""
        logits = logits[0] if isinstance(logits, tuple) else logits
        size: Any = tuple((logits if labels is None else labels).shape[-2:])
        return upsample(logits, size, self.args.align_corners).argmax(1)

    def _scores(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return segmentation_scores(pixel_confusion(predictions, labels, self.num_classes() or 0, self.ignore_index))


class LADTeacherTrainer(SegmentationTrainer):
    """Trains a segmentation model that sees the image and its noised label.

    Inputs: `pixel_values` (B, C, H, W) | `labels` (B, H, W), class ids or the model's `semantic_loss_ignore_index`.

    Each image gets two independent noisings of its label; both go through the network in one pass of 2 B rows.
    `loss = CE(o1) + CE(o2) + consistency_weight * (CWD(o1, o2) + CWD(o2, o1))`, with the auxiliary head's
    cross-entropies if the model has one. The noise depends on the seed, the step and the image alone, so resumed,
    accumulated and distributed runs equal a plain one (but for batch norms).

    **Evaluation** shows the true label under its fixed code, as when the teacher teaches. It is given the answer: its
    mean IoU says whether it can teach, and is no result of a model. [`copy_gap`] tells reading from recognising.

    Args:
        model: A segmentation model after [`~hf_labels.models.lad.add_input_channel`].
        args, data_collator, train_dataset, eval_dataset, ...: As for `Trainer`; `args` are [`LADTrainingArguments`].
        label_noiser ([`~hf_labels.losses.lad.LabelNoiser`], *optional*): Defaults to that of the model's config, else
            to one with the paper's noise and a gain for images of deviation 1. Written into the config.

    Raises:
        TypeError: If `args` are others.
        ValueError: From `train()`: images that leave no channel for the label, maps of another size or with unknown
            ids; a `label_noiser` for other classes.

    Source: Qiu et al., ECCV 2024, section 3; weights and noise as in the authors' code.
    """

    def __init__(self, *args: Any, label_noiser: LabelNoiser | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.label_noiser = _noiser(label_noiser, self.bare_model, self.ignore_index)
        setattr(self.bare_model.config, LABEL_CHANNEL, asdict(self.label_noiser))

    def _image_channels(self) -> tuple[int, ...]:
        return (input_channels(self.bare_model) - 1,)

    def with_label(self, images: Tensor, labels: Tensor, codes: Tensor | None = None) -> Tensor:
        """Images with the fixed-code channel, `(B, C + 1, H, W)`; `codes` (K + 1,) replaces the classes' own."""
        channel = self.label_noiser.fixed(labels, self._noise(images), codes)
        return torch.cat([images, channel.to(images)], dim=1)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        images, labels = inputs["pixel_values"], inputs["labels"]
        if self._eval_rows is not None:
            outputs = model(pixel_values=self.with_label(images, labels))
            loss = self._cross_entropy(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss
        self._hold_statistics(model)
        noise = self._noise(images)
        paths = [torch.cat([images, self.label_noiser.random(labels, noise).to(images)], 1) for _ in range(2)]
        with auxiliary_logits(self.bare_model) as auxiliary:
            outputs = model(pixel_values=torch.cat(paths))
        one, two = outputs.logits.chunk(2)
        ce = self._cross_entropy(one, labels) + self._cross_entropy(two, labels)
        consistency = self._per_image(dual_path_consistency(one, two, self.args.temperature), len(labels))
        loss = ce + self.args.consistency_weight * consistency
        self.log_terms(ce=ce, consistency=consistency)
        for logits in auxiliary:
            aux = sum((self._cross_entropy(half, labels) for half in logits.chunk(2)), ce.new_zeros(()))
            loss = loss + self.args.teacher_aux_weight * aux
            self.log_terms(aux=aux)
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def copy_gap(self, dataset: Any = None) -> dict[str, float]:
        """What the teacher takes from the label: mean IoU under three codes.

        `right_code`: each class under its own; `wrong_code`: under that of the next class; `no_code`: all under 0.
        `copy_gap` is right minus wrong. Large: the class is read from the code. Near 0 with `right_code` above
        `no_code`: shapes are used, as they should. All three alike: the label is not used at all, and the teacher
        knows no more than the images show; lower `consistency_weight`.

        Args:
            dataset (*optional*): Defaults to `eval_dataset`.
        """
        loader = self.get_eval_dataloader(dataset)
        codes = class_codes(self.label_noiser.num_labels, self.label_noiser.code_step).float()
        wrong = torch.cat([codes[:-1].roll(-1), codes[-1:]])
        tables = {}
        model: Any = self.model
        model.eval()
        self._eval_rows = 0
        try:
            for name, given in (("right_code", codes), ("wrong_code", wrong), ("no_code", torch.zeros_like(codes))):
                total: Any = 0
                for batch in loader:
                    batch = self._prepare_inputs(batch)
                    images, labels = batch["pixel_values"], batch["labels"]
                    found = self._classes(model(pixel_values=self.with_label(images, labels, given)).logits, labels)
                    found, labels = self.accelerator.gather_for_metrics((found, labels))
                    total = total + pixel_confusion(
                        found.cpu(), labels.cpu(), self.label_noiser.num_labels, self.ignore_index
                    )
                tables[name] = segmentation_scores(total)["mean_iou"]
        finally:
            self._eval_rows = None
        return tables | {"copy_gap": tables["right_code"] - tables["wrong_code"]}

    def card_facts(self, finetuned_from: str | None = None) -> dict[str, Any]:
        """The label channel."""
        settings = ", ".join(f"{name} {value}" for name, value in asdict(self.label_noiser).items())
        return {"extra": {"input": "image and noised label: a teacher, no predictor", "label channel": settings}}


class CWDDistillTrainer(SegmentationTrainer):
    """Trains a segmentation model with a teacher's maps: `loss = CE(s, y) + distill_weight * CWD(s, t)`.

    Inputs: `pixel_values` (B, C, H, W) | `labels` (B, H, W), class ids or the model's `semantic_loss_ignore_index`.

    A teacher that reads one channel more than the images have is a LAD teacher and is shown the label under its fixed
    code; one that reads the images alone makes this plain channel-wise distillation. A student with one channel more
    (as in the paper) sees zeros there: [`~hf_labels.models.lad.strip_input_channel`] takes it out afterwards.

    Args:
        model: The student. The paper starts from one that is trained already.
        args, data_collator, train_dataset, eval_dataset, ...: As for `Trainer`; `args` are [`LADTrainingArguments`].
        teacher (`nn.Module`): A segmentation model with the student's classes; frozen here.
        label_noiser ([`~hf_labels.losses.lad.LabelNoiser`], *optional*): Of a LAD teacher; its config has it.

    Raises:
        TypeError: If `args` are others, or there is no teacher although `distill_weight` is above 0.
        ValueError: Teacher and student have different classes, or channels that do not fit; from `train()` as
            [`LADTeacherTrainer`].

    Source: Qiu et al., ECCV 2024, section 3; Shu et al., arXiv:2011.13256 (CWD).
    """

    def __init__(
        self, *args: Any, teacher: nn.Module | None = None, label_noiser: LabelNoiser | None = None, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        if teacher is None and self.args.distill_weight > 0:
            raise TypeError("`teacher` is missing. Pass a segmentation model, or `distill_weight=0`.")
        self.teacher: FrozenTeacher | None = None
        self.label_noiser: LabelNoiser | None = None
        channels = input_channels(self.bare_model)
        self.image_channels: tuple[int, ...] = (channels, channels - 1)
        self._warned = False
        if teacher is None:
            return
        inner: Any = teacher.model if isinstance(teacher, FrozenTeacher) else teacher
        if inner.config.num_labels != self.num_classes():
            raise ValueError(
                f"The teacher has {inner.config.num_labels} classes, the student {self.num_classes()}. Maps are "
                "compared class by class: train both with the same labels."
            )
        self.teacher = teacher if isinstance(teacher, FrozenTeacher) else FrozenTeacher(teacher)
        self._read_channels(inner, channels, label_noiser)
        self.teacher.place(self.accelerator)

    def _read_channels(self, teacher: Any, student_channels: int, noiser: LabelNoiser | None) -> None:
        """What the images have, and whether the teacher takes the label."""
        theirs = input_channels(teacher)
        sees_label = noiser is not None or saved_noiser(teacher) is not None
        images = theirs - 1 if sees_label else theirs
        if student_channels - images not in (0, 1):
            raise ValueError(
                f"The teacher reads {theirs} channels{' (one is the label)' if sees_label else ''}, the student "
                f"{student_channels}. A LAD teacher needs `label_noiser` or a config with `{LABEL_CHANNEL}`; a "
                "student reads the images, and one channel more at most."
            )
        self.image_channels = (images,)
        if sees_label:
            self.label_noiser = _noiser(noiser, teacher, self.ignore_index)

    def _image_channels(self) -> tuple[int, ...]:
        return self.image_channels

    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        images, wanted = inputs.get("pixel_values"), input_channels(self.bare_model)
        if images is not None and images.shape[1] == wanted - 1:
            empty = images.new_zeros(len(images), 1, *images.shape[2:])
            inputs = {**inputs, "pixel_values": torch.cat([images, empty], dim=1)}
        return inputs

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        images, labels = inputs["pixel_values"], inputs["labels"]
        training = self._eval_rows is None
        if training:
            self._hold_statistics(model)
        with auxiliary_logits(self.bare_model) as auxiliary:
            outputs = model(pixel_values=images)
        logits = outputs.logits
        ce = self._cross_entropy(logits, labels)
        loss = ce
        if training and self.teacher is not None and self.args.distill_weight > 0:
            term = self._per_image(self._distillation(logits, self._targets(images, labels)), len(labels))
            loss = loss + self.args.distill_weight * term
            self.log_terms(ce=ce, distillation=term)
        if training:
            for other in auxiliary:
                loss = loss + self.args.student_aux_weight * self._cross_entropy(other, labels)
        return (loss, outputs) if return_outputs else loss

    def _targets(self, images: Tensor, labels: Tensor) -> Tensor:
        """The teacher's logits."""
        assert self.teacher is not None
        images = images[:, : self.image_channels[0]]
        if self.label_noiser is not None:
            channel = self.label_noiser.fixed(labels, self._noise(images))
            images = torch.cat([images, channel.to(images)], dim=1)
        return self.teacher.logits({"pixel_values": images})

    def _distillation(self, student: Tensor, teacher: Tensor) -> Tensor:
        if teacher.shape[-2:] != student.shape[-2:]:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "The teacher's maps are %s, the student's %s: the teacher's are resized.",
                    tuple(teacher.shape[-2:]),
                    tuple(student.shape[-2:]),
                )
            teacher = upsample(teacher, tuple(student.shape[-2:]), self.args.align_corners)  # type: ignore[arg-type]
        if self.args.distill_loss == "dist":
            return dist_distillation(student.float(), teacher.float())
        loss = channel_wise_distillation if self.args.distill_loss == "cwd" else pixel_distillation
        return loss(student, teacher, self.args.temperature)


def _noiser(given: LabelNoiser | None, model: Any, ignore_index: int) -> LabelNoiser:
    classes = int(model.config.num_labels)
    noiser = given or saved_noiser(model) or LabelNoiser(classes, ignore_index)
    if (noiser.num_labels, noiser.ignore_index) != (classes, ignore_index):
        raise ValueError(
            f"The label noiser is made for {noiser.num_labels} classes and ignores {noiser.ignore_index}; the model "
            f"has {classes} classes and ignores {ignore_index} (`config.semantic_loss_ignore_index`)."
        )
    return noiser
