"""Started by torchrun: a Mix-LN model under the stock `Trainer` on two processes; the first writes what it got."""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from hf_labels.models.layer_diagnostics import GradientNormCallback
from hf_labels.models.mix_ln import MixLNConfig, MixLNForCausalLM

folder = Path(sys.argv[1])
torch.manual_seed(0)
config = MixLNConfig.from_pretrained(folder / "start")
model = MixLNForCausalLM.from_pretrained(folder / "start", config=config)
arguments = TrainingArguments(
    output_dir=str(folder / "out"),
    max_steps=3,
    per_device_train_batch_size=4,
    learning_rate=1e-2,
    logging_steps=1,
    save_strategy="no",
    use_cpu=True,
    disable_tqdm=True,
    seed=3,
)
callback = GradientNormCallback()
trainer = Trainer(model, arguments, train_dataset=Dataset.load_from_disk(str(folder / "rows")), callbacks=[callback])
assert trainer.args.world_size == 2
trainer.train()
if trainer.is_world_process_zero():
    trainer.save_model(str(folder / "end"))
    (folder / "norms.json").write_text(json.dumps(callback.history))
trainer.accelerator.wait_for_everyone()
trainer.end()
