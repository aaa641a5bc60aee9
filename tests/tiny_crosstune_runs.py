"""Runs of a tiny CrossTune trainer, shared by its tests."""

from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from hf_labels.trainers.crosstune import CrossTuneTrainer, CrossTuneTrainingArguments
from tiny_text import text_dataset, tiny_crosstune

TESTS = Path(__file__).resolve().parents[1]


def make_trainer(folder, train=None, dev=None, model=None, **options):
    mine = {k: options.pop(k) for k in ("augment_with", "switch", "teacher", "exclude_texts") if k in options}
    set_seed(0)
    settings = {
        "output_dir": str(folder),
        "use_cpu": True,
        "num_train_epochs": 6,
        "learning_rate": 1e-2,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "seed": 0,
    }
    args = CrossTuneTrainingArguments(**{**settings, **options})
    train = text_dataset() if train is None else train
    return CrossTuneTrainer(model or tiny_crosstune(), args, train_dataset=train, eval_dataset=dev, **mine)


def weights_of(trainer):
    return {k: v.clone() for k, v in trainer.model.state_dict().items()}


def same(one, two, atol=0.0):
    return all(torch.allclose(one[k], two[k], rtol=0, atol=atol) for k in one)


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step
