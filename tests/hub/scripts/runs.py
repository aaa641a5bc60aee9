"""Runs of our trainers that are begun in one process, pushed, and finished in another."""

from pathlib import Path

import tiny
import torch
from torch import nn

from hf_labels.trainers import LabelTrainer, LabelTrainingArguments, SoftLabelTrainer, SoftLabelTrainingArguments
from hf_labels.trainers.crowd_soft_labels import CrowdLabelTrainer, CrowdLabelTrainingArguments

SOFT = [[0.2, 0.8], [0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [1.0, 0.0], [0.05, 0.95]]


class CountingTrainer(SoftLabelTrainer):
    """Carries state besides the weights: the sum of all losses so far, which also scales the next one a little."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.method_state = nn.Module()
        self.method_state.register_buffer("total", torch.zeros(()))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            self.method_state.total += loss.detach()
            loss = loss * (1 + 0.1 * self.method_state.total)
        return (loss, outputs) if return_outputs else loss


def counting_run(output_dir: Path, steps: int, **changes: object) -> CountingTrainer:
    base = {
        "max_steps": steps,
        "per_device_train_batch_size": 2,
        "lr_scheduler_type": "constant",
        "learning_rate": 1e-2,
    }
    args = tiny.arguments("counted", output_dir, SoftLabelTrainingArguments, **(base | changes))
    data = tiny.rows(soft_labels=SOFT)
    return CountingTrainer(tiny.classifier(), args, train_dataset=data, processing_class=tiny.tokenizer())


def plain_run(output_dir: Path, **changes: object) -> LabelTrainer:
    args = tiny.arguments(output_dir.name, output_dir, LabelTrainingArguments, **changes)
    data = {"train_dataset": tiny.rows(), "eval_dataset": tiny.rows()}
    return LabelTrainer(tiny.classifier(), args, processing_class=tiny.tokenizer(), **data)


def crowd_run(output_dir: Path, **changes: object) -> CrowdLabelTrainer:
    """Two heads on the answers of three annotators; live pushes come from checkpoints."""
    answers = [[1, 1, 0], [0, 0, -1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]
    args = tiny.arguments(
        "crowd",
        output_dir,
        CrowdLabelTrainingArguments,
        **({"objective": "multi_task", "aggregation": "ds"} | changes),
    )
    data = tiny.rows(annotator_labels=answers).remove_columns("labels")
    return CrowdLabelTrainer(tiny.classifier(), args, train_dataset=data, processing_class=tiny.tokenizer())
