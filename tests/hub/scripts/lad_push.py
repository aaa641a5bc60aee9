"""LAD on the loopback Hub: the student as an ordinary model, the teacher with the settings of its label channel."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from checks import check, log, main
from datasets import Dataset
from huggingface_hub import HfApi, ModelCard
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from hf_labels.hub_cards import validate_card
from hf_labels.losses.lad import LabelNoiser
from hf_labels.models.lad import add_input_channel, strip_input_channel
from hf_labels.trainers.lad import CWDDistillTrainer, LADTrainingArguments

PIXELS = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
SIZES = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
api = HfApi()


def made(seed: int) -> SegformerForSemanticSegmentation:
    torch.manual_seed(seed)
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=3, **SIZES))


def remember(name: str, logits: torch.Tensor) -> None:
    path = Path(os.environ["LOOPBACK_SHARED"]) / f"{name}.json"
    path.write_text(json.dumps({"pixels": PIXELS.tolist(), "logits": logits.tolist()}))


@check
def a_student_with_a_zero_channel_is_pushed_without_it():
    rng = np.random.default_rng(0)
    rows = {
        "pixel_values": rng.normal(size=(4, 3, 32, 32)).astype("float32").tolist(),
        "labels": rng.integers(0, 3, (4, 32, 32)).tolist(),
    }
    teacher = add_input_channel(made(1), noiser=LabelNoiser(3))
    student = add_input_channel(made(0))
    arguments = LADTrainingArguments(
        "lad-run", max_steps=1, use_cpu=True, push_to_hub=True, hub_model_id="tester/lad", save_strategy="no"
    )
    trainer = CWDDistillTrainer(student, arguments, teacher=teacher, train_dataset=Dataset.from_dict(rows))
    trainer.train()
    strip_input_channel(trainer.bare_model)
    trainer.push_to_hub()
    assert {"config.json", "model.safetensors", "README.md"} <= set(api.list_repo_files("tester/lad"))
    assert log("validate_yaml")
    back = ModelCard.load("tester/lad", ignore_metadata_errors=False)
    assert validate_card(str(back), slug="lad") == [] and "2407.13254" in str(back)
    assert back.data.pipeline_tag == "image-segmentation"
    with torch.no_grad():
        remember("lad", trainer.bare_model.eval()(PIXELS).logits)


@check
def a_teacher_is_pushed_with_its_label_channel():
    teacher = add_input_channel(made(2), noiser=LabelNoiser(3, gain=100.0)).eval()
    teacher.push_to_hub("tester/lad-teacher")
    with torch.no_grad():
        remember("lad_teacher", teacher(torch.cat([PIXELS, PIXELS[:, :1]], 1)).logits)


if __name__ == "__main__":
    main()
