"""A trainer that uses every shared part at once: teacher, memory, queue, stream, terms, random views."""

from typing import Any

import torch
from torch import nn

from hf_labels.data.memory import MomentumQueue, SampleMemory
from hf_labels.losses.soft_targets import soft_cross_entropy
from hf_labels.trainers.base import LabelTrainer
from hf_labels.trainers.teachers import EMATeacher


class ToyTrainer(LabelTrainer):
    """CE on labels + consistency of the unlabelled stream with an EMA teacher + a pull to the remembered output."""

    _extra_columns = ("index", "view_noise")
    _label_kinds = {"labels": "hard"}

    def __init__(self, *args: Any, unlabeled_dataset: Any = None, ratio: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if unlabeled_dataset is not None:
            self.add_stream("unlabeled", unlabeled_dataset, ratio=ratio)
        self.seen: list[list[int]] = []
        self.seen_unlabeled: list[list[int]] = []
        self.seen_noise: list[list[float]] = []

    def init_method_state(self) -> None:
        classes = self.model.config.num_labels
        self.method_state = nn.ModuleDict(
            {
                "teacher": EMATeacher(self.model, decay=0.9, warmup=True),
                "memory": SampleMemory.for_dataset(self.train_dataset, (classes,)),
                "queue": MomentumQueue(10, classes),
            }
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**self.model_inputs(inputs))
        labels, index = inputs["labels"], inputs["index"]
        ce = nn.functional.cross_entropy(outputs.logits, labels)
        loss, terms = ce, {"ce": ce}
        if model.training:
            state = self.method_state
            before = state["memory"].get(index, missing="fill")
            pull = (outputs.logits.softmax(-1) - before).square().mean()
            state["memory"].ema_update(index, outputs.logits.detach().softmax(-1), 0.5, self.accelerator)
            state["queue"].enqueue(outputs.logits.detach(), labels, self.accelerator)
            loss, terms = loss + 0.1 * pull, terms | {"pull": pull}
            self.seen.append(index.tolist())
            if "view_noise" in inputs:
                self.seen_noise.append(inputs["view_noise"].tolist())
        if "unlabeled" in inputs:
            batch = inputs["unlabeled"]
            self.seen_unlabeled.append(batch["index"].tolist())
            target = self.method_state["teacher"](**self.model_inputs(batch)).logits
            student = model(**self.model_inputs(batch)).logits
            consistency = soft_cross_entropy(student, target, targets_are_logits=True)
            loss, terms = loss + 0.5 * consistency, terms | {"consistency": consistency}
        self.log_terms(**terms)
        return (loss, outputs) if return_outputs else loss


class PlainTrainer(LabelTrainer):
    """Cross-entropy as a per-batch mean, with one named term."""

    _extra_columns = ("index",)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**self.model_inputs(inputs))
        loss = nn.functional.cross_entropy(outputs.logits, inputs["labels"])
        self.log_terms(doubled=2 * loss, rows=torch.tensor(float(len(inputs["index"]))))
        return (loss, outputs) if return_outputs else loss
