"""SLA on the loopback Hub: the model with its heads, pushed by the trainer, and the plain stock model."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from checks import check, log, main
from datasets import ClassLabel, Dataset
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from transformers import ResNetConfig

from hf_labels.hub_cards import validate_card
from hf_labels.models.sla import SLAConfig, SLAForImageClassification
from hf_labels.trainers.sla import SLATrainer, SLATrainingArguments

PIXELS = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8)
api = HfApi()


def made() -> SLAForImageClassification:
    torch.manual_seed(0)
    inner = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1])
    return SLAForImageClassification(SLAConfig.from_backbone(inner, id2label={0: "cat", 1: "dog"}, num_labels=2))


def remember(name: str, **tensors: torch.Tensor) -> None:
    found = {key: value.tolist() for key, value in tensors.items()}
    (Path(os.environ["LOOPBACK_SHARED"]) / f"{name}.json").write_text(json.dumps({"pixels": PIXELS.tolist()} | found))


@check
def the_trainer_pushes_the_model_with_its_card():
    rng = np.random.default_rng(0)
    rows = {"pixel_values": rng.normal(size=(8, 3, 8, 8)).astype("float32").tolist(), "labels": [0, 1] * 4}
    data = Dataset.from_dict(rows).cast_column("labels", ClassLabel(names=["cat", "dog"]))
    arguments = SLATrainingArguments(
        "sla-run", max_steps=1, use_cpu=True, push_to_hub=True, hub_model_id="tester/sla", save_strategy="no"
    )
    trainer = SLATrainer(made(), arguments, train_dataset=data)
    trainer.train()
    trainer.push_to_hub()
    files = set(api.list_repo_files("tester/sla"))
    assert {"config.json", "model.safetensors", "README.md"} <= files
    assert log("validate_yaml")
    back = ModelCard.load("tester/sla", ignore_metadata_errors=False)
    assert validate_card(str(back), slug="sla") == [] and "PMLR 119" in str(back)
    assert back.data.pipeline_tag == "image-classification"
    model = trainer.bare_model.eval()
    with torch.no_grad():
        remember("sla", logits=model(PIXELS).logits, aggregated=model.predict_aggregated(PIXELS))


@check
def the_plain_model_is_pushed_as_a_stock_one():
    model = made().eval()
    model.to_plain().push_to_hub("tester/sla-plain")
    assert "hfl" not in Path(hf_hub_download("tester/sla-plain", "config.json")).read_text()
    with torch.no_grad():
        remember("sla_plain", logits=model(PIXELS).logits)


if __name__ == "__main__":
    main()
