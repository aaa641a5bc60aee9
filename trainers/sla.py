"""`SLATrainer`: joint labels of class and transformation, aggregated, and distilled into a plain head."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from hf_labels.labels.kinds import IGNORE_INDEX
from hf_labels.losses.sla import plain_loss, sla_loss, sla_sd_loss, transformation_loss
from hf_labels.metrics.compute_metrics import TrainerMetrics
from hf_labels.models.sla import SLAForImageClassification, SLAOutput
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments


@dataclass
class SLATrainingArguments(LabelTrainingArguments):
    """Arguments of [`SLATrainer`].

    Parameters:
        sd_temperature (`float`, *optional*, defaults to `1.0`):
            Temperature of the self-distillation (T in the code; the paper has none, which is 1).
        hard_label_weight (`float`, *optional*, defaults to `1.0`):
            Weight of the plain head's cross-entropy (beta in the paper).
        with_large_loss (`bool`, *optional*, defaults to `False`):
            Sum the joint loss over the transformations in place of the mean; the authors do so on ImageNet and
            iNaturalist.
        evaluate_aggregated (`bool`, *optional*, defaults to `False`):
            Evaluate with all transformations: adds `eval_aggregated_accuracy` and `eval_transform_accuracy`, at M
            forward passes.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none. The authors train from scratch with
    > `optim="sgd"`, `optim_args="momentum=0.9"`, `learning_rate=0.1`, `weight_decay=1e-4`.
    """

    sd_temperature: float = field(default=1.0, metadata={"help": "Temperature of the self-distillation; above 0."})
    hard_label_weight: float = field(default=1.0, metadata={"help": "Weight of the plain head's CE; 0 or more."})
    with_large_loss: bool = field(default=False, metadata={"help": "Sum over the transformations, not their mean."})
    evaluate_aggregated: bool = field(default=False, metadata={"help": "Evaluate with all transformations too."})

    def __post_init__(self):
        super().__post_init__()
        if not self.sd_temperature > 0:
            raise ValueError(f"`sd_temperature` must be above 0, got {self.sd_temperature}.")
        if not self.hard_label_weight >= 0:
            raise ValueError(f"`hard_label_weight` must be 0 or more, got {self.hard_label_weight}.")


class SLATrainer(LabelTrainer):
    """Trains a [`~hf_labels.models.sla.SLAForImageClassification`] in the mode of its config.

    Inputs: `pixel_values` (B, C, H, W), cropped and flipped already | `labels` (B,), -100 = missing (-1 in the data).

    The images are transformed on the device, and all M views of a batch pass through the network together (batch norms
    see all of them). One step so costs about M steps of plain training. Means are over the labelled images of a whole
    update.

    | mode | loss |
    | --- | --- |
    | `sla` | joint cross-entropy; with a plain head, its cross-entropy and the distillation into it |
    | `baseline` | cross-entropy of the images as they are |
    | `da` | cross-entropy of all transformed images with the class: asks for invariance |
    | `mt` | the same, plus cross-entropy with the transformation from a second head |

    **Evaluation** is plain: `eval_loss` is the cross-entropy of `logits`, one pass. `eval_accuracy` is that of the
    plain head, without one of single inference.

    Args:
        model, args, data_collator, train_dataset, eval_dataset, ...: As for `Trainer`.

    Raises:
        TypeError: If the model is no SLA model.
        ValueError: From `train()`, for labels that are no class ids of the model ("SLA needs integer single labels").

    Source: Lee, Hwang and Shin, ICML 2020, section 3; orders and reductions as in `hankook/SLA`.
    """

    args: SLATrainingArguments
    _slug = "sla"
    _label_kinds = {"labels": "hard"}

    def __init__(self, model: Any = None, args: SLATrainingArguments | None = None, *rest: Any, **kwargs: Any):
        if not isinstance(model, SLAForImageClassification):
            raise TypeError(
                f"`SLATrainer` trains a `SLAForImageClassification`, got {type(model).__name__}. Make one with "
                "`SLAForImageClassification.from_backbone(model, num_labels)`."
            )
        kwargs.setdefault("compute_metrics", TrainerMetrics(_accuracy))
        super().__init__(model, SLATrainingArguments() if args is None else args, *rest, **kwargs)

    @property
    def bare_model(self) -> SLAForImageClassification:
        """The model without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        check_single_labels(self.train_dataset)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def count_items(self, inputs):
        return {"images": (inputs["labels"] != IGNORE_INDEX).sum()}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.get("labels")
        if self._eval_rows is not None:
            return self._evaluation_loss(model, inputs, labels, return_outputs)
        outputs = model(**self.model_inputs(inputs), transform=True)
        known = (labels != IGNORE_INDEX).sum()
        parts = self._parts(outputs, labels)
        shares = {name: self.mean_over_update(total, "images", known) for name, total in parts.items()}
        loss = shares.pop("loss")
        self.log_terms(**shares)
        return (loss, outputs) if return_outputs else loss

    def _parts(self, outputs: SLAOutput, labels: Tensor) -> dict[str, Tensor]:
        """Sums over the labelled images: `loss` and what it is made of."""
        args, config = self.args, self.bare_model.config
        number = config.num_transformations
        if config.mode == "baseline":
            return {"loss": plain_loss(_need(outputs.logits), labels, "sum")}
        if config.mode != "sla":
            classes = plain_loss(_need(outputs.class_logits), labels, "sum")
            if config.mode == "da":
                return {"loss": classes}
            which = transformation_loss(_need(outputs.transform_logits), labels, "sum")
            return {"loss": classes + which, "hard": classes, "transformation": which}
        joint = _need(outputs.joint_logits)
        if not config.self_distillation:
            return {"loss": sla_loss(joint, labels, number, args.with_large_loss, "sum")}
        return sla_sd_loss(
            joint,
            _need(outputs.logits),
            labels,
            number,
            temperature=args.sd_temperature,
            with_large_loss=args.with_large_loss,
            hard_label_weight=args.hard_label_weight,
            reduction="sum",
        )

    def _evaluation_loss(
        self, model: Any, inputs: Mapping[str, Any], labels: Tensor | None, return_outputs: bool
    ) -> Any:
        all_views = self.args.evaluate_aggregated and self.bare_model.config.mode != "baseline"
        outputs = model(**self.model_inputs(inputs), transform=all_views)
        logits = outputs["logits"]
        if labels is None:
            raise ValueError("The evaluation data set has no column `labels`. Use `predict` for data without labels.")
        loss = plain_loss(logits, labels)
        known = labels != IGNORE_INDEX
        if all_views and known.any():
            number, weight = self.bare_model.config.num_transformations, float(known.float().mean())
            right = (outputs["aggregated_logits"].argmax(-1) == labels)[known]
            self.log_terms(weight, aggregated_accuracy=right.float().mean())
            which = outputs.get("transform_logits")
            if outputs.get("joint_logits") is not None:
                which = outputs["joint_logits"].unflatten(1, (-1, number)).logsumexp(1)
            if which is not None:
                found = which.argmax(-1).view(-1, number)[known]
                self.log_terms(weight, transform_accuracy=(found == _numbers(found)).float().mean())
        return (loss, outputs) if return_outputs else loss


def check_single_labels(dataset: Any) -> None:
    """Refuse labels that have no joint label with a transformation, before anything else looks at them.

    Raises:
        ValueError: If `labels` holds floats or lists.
    """
    column = (getattr(dataset, "features", None) or {}).get("labels")
    kind = str(getattr(column, "dtype", ""))
    if column is not None and not kind.startswith(("int", "uint")):
        raise ValueError(
            "SLA needs integer single labels: column `labels` holds "
            f"{kind or type(column).__name__} from row 0 on. Convert it to class ids "
            '(`convert_column(dataset, "soft", "hard")`, for example).'
        )


def _need(logits: Tensor | None) -> Tensor:
    assert logits is not None  # the model gives what its mode needs
    return logits


def _numbers(found: Tensor) -> Tensor:
    return found.new_tensor(range(found.shape[1])).expand_as(found)


def _accuracy(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    known = labels >= 0
    return {"accuracy": float((predictions.argmax(-1) == labels)[known].mean())} if known.any() else {}
