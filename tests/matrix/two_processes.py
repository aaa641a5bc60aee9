"""Started by torchrun: trains one matrix case on two processes with the global batch of the single-process run."""

import os
import sys
from pathlib import Path

import torch
from matrix_case import load_case

slug, folder = sys.argv[1], Path(sys.argv[2])
case = load_case(slug)
assert case is not None
trainer = case.make(folder / os.environ["RANK"], max_steps=2, per_device_train_batch_size=4, **case.row_wise)
assert trainer.args.world_size == 2
trainer.train()
if trainer.is_world_process_zero():
    torch.save(
        {k: v.detach().cpu() for k, v in trainer.accelerator.unwrap_model(trainer.model).state_dict().items()},
        folder / "weights.pt",
    )
trainer.accelerator.wait_for_everyone()
trainer.accelerator.end_training()
