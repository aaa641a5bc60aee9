"""Trains a chat student and a tagger for two steps; process 0 prints a sum of the weights. Run by torchrun."""

import os
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tail_vrd_toys import tiny_tagger, tiny_vlm, toy_labels  # noqa: E402

from hf_labels.trainers.tail_vrd import make_trainer  # noqa: E402

torch.set_num_threads(1)
labels = toy_labels(8)
for kind, make in (("chat", tiny_vlm), ("tagger", tiny_tagger)):
    model, processor = make(labels)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    trainer = make_trainer(
        labels,
        model,
        processor,
        kind,
        output_dir=f"{sys.argv[1]}/{kind}",
        confidence_weights=True,
        use_cpu=True,
        disable_tqdm=True,
        max_steps=2,
        max_grad_norm=0.0,
        optim="sgd",
        learning_rate=0.1,
        warmup_steps=0,
        train_sampling_strategy="sequential",
        per_device_train_batch_size=8 // int(os.environ.get("WORLD_SIZE", 1)),
    )
    trainer.train()
    if int(os.environ.get("RANK", 0)) == 0:
        weights = trainer.accelerator.unwrap_model(trainer.model).parameters()
        print(f"weights {float(sum(part.detach().double().abs().sum() for part in weights)):.6f}", flush=True)
