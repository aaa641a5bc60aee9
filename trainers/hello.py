"""HeLlO: train a label projector on real images, with the logits of several weak teachers.

The student of the second step is trained by [`~hf_labels.trainers.SoftLabelTrainer`] with the projector as
`label_source`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hf_labels.losses.soft_targets import SoftTargets, logit_mse, soft_cross_entropy
from hf_labels.models.hello_adapter import save_head
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments
from hf_labels.trainers.state import checkpoints
from hf_labels.trainers.teachers import EMATeacher, FrozenTeacher, model_logits


@dataclass
class ProjectorTrainingArguments(SoftLabelTrainingArguments):
    """Arguments of [`ProjectorTrainer`].

    Parameters:
        center_logits (`bool`, *optional*, defaults to `False`):
            Compare logits of projector and teachers without each row's mean, so that a constant offset costs nothing.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: `learning_rate` 1e-3, `num_train_epochs`
    > 10; from [`SoftLabelTrainingArguments`]: `soft_loss` `"mse"`, `hard_label_weight` 1 (lambda of the loss).
    """

    learning_rate: float = field(default=1e-3, metadata={"help": "Initial learning rate of AdamW."})
    num_train_epochs: float = field(default=10.0, metadata={"help": "Passes over the real images."})
    soft_loss: Literal["ce", "kl", "mse"] = field(
        default="mse", metadata={"help": "mse (of logits, as in the paper), ce or kl."}
    )
    hard_label_weight: float = field(default=1.0, metadata={"help": "Weight of CE with `labels`; 0 or more."})
    center_logits: bool = field(
        default=False, metadata={"help": "Compare logits without each row's mean (with soft_loss mse)."}
    )


class WeakTeachers(nn.Module):
    """Several teachers that answer with their mean logits.

    Args:
        teachers (sequence of `nn.Module`): Take `pixel_values`, give logits (or an output with `logits`).

    Raises:
        ValueError: If there is none; from `forward`, if they have different numbers of classes.
    """

    def __init__(self, teachers: Sequence[nn.Module]) -> None:
        super().__init__()
        if not teachers:
            raise ValueError("`teachers` is empty: at least one is needed.")
        self.teachers = nn.ModuleList(teachers)

    def forward(self, pixel_values: Tensor) -> Tensor:
        answers = [model_logits(teacher(pixel_values=pixel_values)).float() for teacher in self.teachers]
        widths = [answer.shape[-1] for answer in answers]
        if len(set(widths)) > 1:
            raise ValueError(f"The teachers have different numbers of classes: {', '.join(map(str, widths))}.")
        return torch.stack(answers).mean(0)


def weak_teachers(run: str | Path, count: int = 9, model_class: Any = None) -> list[nn.Module]:
    """Checkpoints of one training run, spread evenly over it: early ones know little, late ones much.

    Args:
        run (`str` or `Path`): `output_dir` of a run with complete checkpoints.
        count (`int`, *optional*, defaults to 9): How many; all, when there are fewer.
        model_class (*optional*): `AutoModelForImageClassification` by default.

    Raises:
        FileNotFoundError: If there is no complete checkpoint.
        ValueError: If `count` is below 1.

    Source: arXiv:2408.08201: nine checkpoints of different stages.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}.")
    found = checkpoints(run)
    if not found:
        raise FileNotFoundError(f"There is no complete checkpoint in {run}. Train the teacher with `save_strategy`.")
    if model_class is None:
        from transformers import AutoModelForImageClassification as model_class
    chosen = sorted({round(i * (len(found) - 1) / max(count - 1, 1)) for i in range(count)}) if count > 1 else [-1]
    return [model_class.from_pretrained(found[place]) for place in chosen]


class ProjectorTrainer(SoftLabelTrainer):
    """Fits the adapter of a [`LabelProjector`]: `MSE(f(x), mean_j z_j(x)) + lambda * CE(f(x), y)`.

    | input | shape | use |
    | --- | --- | --- |
    | `pixel_values` | (B, C, H, W) | projector and teachers; a [`SameView`] normalises for one of them |
    | `labels` | (B,), -100 = missing | hard labels |
    | `mix_labels_b`, `mix_lam` | (B,) | from a [`MixCollator`]: teachers and projector see the mixed image |
    | `sample_weight` | (B,) | factor of each row in the squared error |

    Train it on the views that the student will ask about (crops, flips, CutMix). Evaluation is plain cross-entropy on
    `labels`, and logs `eval_teacher_kl` and `eval_teacher_mse`: how far the projector is from the teachers.

    Saved and pushed is the adapter alone (a few megabytes; with the head when the projector's config says
    `save_head`), not CLIP.

    Args:
        model, args, ...: As for `Trainer`; `model` is a projector with adapters, `args` are
            [`ProjectorTrainingArguments`].
        teachers (sequence of `nn.Module` or of `str`, or `str`, *optional*): Models, their ids or folders; one text is
            a run with checkpoints, see [`weak_teachers`]. Or give `label_source`, as in [`SoftLabelTrainer`].

    Raises:
        ValueError: Without teachers; if their number of classes, or the names of the classes in the data, are not the
            projector's; if the loss is not finite.

    Source: arXiv:2408.08201, section 3.2; the mean over teachers and lambda = 1 are ours.
    """

    args: ProjectorTrainingArguments
    _slug = "hello"

    def __init__(
        self,
        model: Any = None,
        args: ProjectorTrainingArguments | None = None,
        data_collator: Any = None,
        *rest: Any,
        teachers: Sequence[Any] | str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        args = ProjectorTrainingArguments() if args is None else args
        if not isinstance(args, ProjectorTrainingArguments):
            raise TypeError(f"`args` must be ProjectorTrainingArguments, got {type(args).__name__}.")
        if (teachers is None) == (kwargs.get("label_source") is None):
            raise ValueError("Pass `teachers` (models or a run with checkpoints) or `label_source`, one of the two.")
        if teachers is not None:
            kwargs["label_source"] = WeakTeachers(_load_teachers(teachers))
        super().__init__(model, args, data_collator, *rest, **kwargs)

    def soft_targets(self, inputs: Mapping[str, Any]) -> SoftTargets | None:
        found = super().soft_targets(inputs)
        if found is None or found.logits is None:
            return found
        classes = self.num_classes()
        if classes is not None and found.logits.shape[-1] != classes:
            raise ValueError(
                f"The teachers have {found.logits.shape[-1]} classes, the projector {classes}. Build it with the "
                "teachers' class names, in their order."
            )
        return SoftTargets(logits=found.logits, mask=found.mask, weight=found.weight, center=self.args.center_logits)

    def count_items(self, inputs: dict[str, Any]) -> dict[str, int | Tensor]:
        return {"soft": len(inputs["pixel_values"])} | super().count_items(inputs)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if not bool(torch.isfinite(loss)):
            raise ValueError(
                f"The loss is {loss.item()} at step {self.state.global_step}. Lower `learning_rate` or the scale of "
                "the teachers' logits, and look for pixels that are not finite."
            )
        if self._eval_rows is not None and isinstance(self.label_source, (FrozenTeacher, EMATeacher)):
            target = super()._from_source(inputs, None).logits
            assert target is not None
            kl = soft_cross_entropy(outputs["logits"], target, divergence="kl", targets_are_logits=True)
            mse = logit_mse(outputs["logits"], target, center=self.args.center_logits)
            self.log_terms(teacher_kl=kl, teacher_mse=mse)
        return (loss, outputs) if return_outputs else loss

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        data: list[Any] = [self.train_dataset]
        data += list(self.eval_dataset.values()) if isinstance(self.eval_dataset, Mapping) else [self.eval_dataset]
        for dataset in data:
            self._check_names(dataset)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _check_names(self, dataset: Any) -> None:
        """Class k of the data is class k of the projector."""
        names = getattr((getattr(dataset, "features", None) or {}).get("labels"), "names", None)
        mine = getattr(self.accelerator.unwrap_model(self.model).config, "id2label", None)
        if names is None or mine is None:
            return
        for number, name in enumerate(names):
            if mine.get(number) != name:
                raise ValueError(
                    f"Class {number} is {name!r} in column `labels` and {mine.get(number)!r} in the projector. Build "
                    "the projector with the names of the data set, in their order (a dict gives other words for the "
                    "prompt)."
                )

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        folder = Path(output_dir if output_dir is not None else str(self.args.output_dir))
        card = folder / "README.md"
        before = card.read_bytes() if card.is_file() else None
        super()._save(output_dir, state_dict)
        model = self.accelerator.unwrap_model(self.model)
        if not self.args.should_save or not hasattr(model, "peft_config"):
            return
        if before is None:
            card.unlink(missing_ok=True)  # peft writes a form to fill in; the card is written by `create_model_card`
        else:
            card.write_bytes(before)
        save_head(model, folder)


def _load_teachers(teachers: Sequence[Any] | str | Path) -> list[nn.Module]:
    if isinstance(teachers, (str, Path)):
        return weak_teachers(teachers)
    from transformers import AutoModelForImageClassification

    load = AutoModelForImageClassification.from_pretrained
    return [load(teacher) if isinstance(teacher, (str, Path)) else teacher for teacher in teachers]
