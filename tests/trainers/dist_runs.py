"""Run by `test_distributed.py` under torchrun with two processes, and alone: same global batch, same result."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets import Dataset  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from toy_trainers import ToyTrainer  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

import toys  # noqa: E402
from hf_labels.trainers.base import LabelTrainingArguments  # noqa: E402
from hf_labels.trainers.queries import fit_queries  # noqa: E402
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments  # noqa: E402

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
RANK = int(os.environ.get("RANK", "0"))
ROWS = 8 // WORLD  # per device
SGD = {"optim": "sgd", "learning_rate": 0.2, "max_grad_norm": 0.0, "logging_steps": 1, "overwrite_output_dir": True}


class CtrlCOnLastRank(TrainerCallback):
    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if RANK == WORLD - 1 and state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)


def toy(folder, resume=None, callbacks=()):
    options = {"per_device_train_batch_size": ROWS, "num_train_epochs": 3, "gradient_accumulation_steps": 1}
    args = LabelTrainingArguments(**toys.quick(folder, **options, **SGD, save_strategy="steps", save_steps=100))
    trainer = ToyTrainer(
        toys.tiny_bert(dropout=0.0),
        args,
        train_dataset=toys.text_dataset(16),
        eval_dataset=toys.text_dataset(8, seed=2),
        unlabeled_dataset=toys.text_dataset(24, seed=5),
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def tokens(folder):
    """Batches with different numbers of labelled tokens on the two processes."""
    rng = np.random.default_rng(0)
    lengths = [2, 3, 2, 2, 9, 8, 9, 9] * 2
    data = Dataset.from_dict(
        {
            "input_ids": [rng.integers(2, toys.VOCAB, size=n).tolist() for n in lengths],
            "attention_mask": [[1] * n for n in lengths],
            "soft_labels": [rng.dirichlet([1, 1, 1], size=n).tolist() for n in lengths],
        }
    )
    options = {"per_device_train_batch_size": ROWS, "train_sampling_strategy": "sequential", **SGD}
    args = SoftLabelTrainingArguments(**toys.quick(folder, **options))
    trainer = SoftLabelTrainer(
        toys.tiny_token_bert(), args, train_dataset=data, processing_class=toys.tiny_tokenizer()
    )
    trainer.train()
    return trainer


def main(folder):
    trainer = toy(folder / "whole")
    metrics = trainer.evaluate()
    gathered = [None] * WORLD
    if WORLD > 1:
        torch.distributed.all_gather_object(gathered, [trainer.seen, trainer.seen_unlabeled])
    else:
        gathered = [[trainer.seen, trainer.seen_unlabeled]]
    try:
        toy(folder / "cut", callbacks=[CtrlCOnLastRank()])
        message = ""
    except KeyboardInterrupt as stop:
        message = str(stop)
    resumed = toy(folder / "cut", resume=True)
    soft = tokens(folder / "tokens")
    asked = []

    def oracle(rows):
        asked.extend(rows)
        return [row % 2 for row in rows]

    bought = fit_queries(
        lambda state, candidates, k, place: candidates[:k],
        oracle,
        lambda state, answers, place: (sum(answers), {"n": len(answers)}),
        pool=6,
        budget=2,
        rounds=2,
        output_dir=folder / "queries",
    )
    states = [None] * WORLD
    if WORLD > 1:
        torch.distributed.all_gather_object(states, toys.weights(trainer.method_state))
        for other in states:
            toys.assert_same(states[0], other)
        answers = [None] * WORLD
        torch.distributed.all_gather_object(answers, [bought.state, len(asked)])
        assert answers == [[6, 4], [6, 0]], answers  # only the main process asks, all know
    if RANK == 0:
        for name, module in (
            ("model", trainer.model),
            ("state", trainer.method_state),
            ("resumed", resumed.model),
            ("resumed_state", resumed.method_state),
            ("tokens", soft.model),
        ):
            save_file(toys.weights(module), folder / f"{name}.safetensors")
        keys = ("loss", "ce", "pull", "consistency")
        logs = [[entry[key] for key in keys] for entry in trainer.state.log_history if "loss" in entry]
        report = {
            "logs": logs,
            "metrics": {name: metrics[name] for name in ("eval_loss", "eval_ce")},
            "seen": gathered,
            "message": message,
            "token_losses": [entry["loss"] for entry in soft.state.log_history if "loss" in entry],
            "history": bought.history,
        }
        (folder / "report.json").write_text(json.dumps(report))
    trainer.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
