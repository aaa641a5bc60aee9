"""Latent label shift on the loopback Hub: the classifier of classes, and the trainer with the tool beside it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from checks import check, log, main
from datasets import Dataset
from huggingface_hub import HfApi, ModelCard
from transformers import ViTConfig, ViTForImageClassification

from hf_labels.hub_cards import mixture_plot, validate_card
from hf_labels.labels.latent_label_shift import LatentLabelShift
from hf_labels.models.latent_label_shift import LLSForClassification
from hf_labels.trainers.latent_label_shift import LatentLabelShiftTrainer, LatentLabelShiftTrainingArguments

SHARED = Path(os.environ["LOOPBACK_SHARED"])
PIXELS = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8)
FILES = {"latent_label_shift.json", "latent_label_shift.safetensors"}
MIXTURES = np.array([[0.9, 0.5, 0.1], [0.1, 0.5, 0.9]])
api = HfApi()


def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**sizes, num_hidden_layers=1, num_attention_heads=2, num_labels=3))


def data(rows: int = 60) -> Dataset:
    rng = np.random.default_rng(0)
    domains = np.arange(rows) % 3
    labels = rng.random(rows) < MIXTURES[1, domains]
    pixels = rng.normal(size=(rows, 1, 8, 8)).astype("float32") + 2 * labels[:, None, None, None]
    return Dataset.from_dict({"pixel_values": pixels.tolist(), "domain": domains.tolist()})


@check
def the_classifier_is_pushed_with_tool_card_and_picture():
    table = np.array([[0.8, 0.1], [0.1, 0.8], [0.1, 0.1]])
    lls = LatentLabelShift(2).fit_matrix(table @ MIXTURES, counts=[500, 500, 500])
    model = LLSForClassification.from_discriminator(vit(), lls, class_names=["cat", "dog | x"])
    plot = mixture_plot(lls.class_prior, Path("mixtures.png"), class_names=["cat", "dog | x"])
    model.push_to_hub("tester/classes", plots=[plot], base_model="tester/base")
    assert log("validate_yaml")
    files = set(api.list_repo_files("tester/classes"))
    assert FILES | {"README.md", "config.json", "model.safetensors", "mixtures.png"} <= files
    card = ModelCard.load("tester/classes", ignore_metadata_errors=False)
    assert validate_card(str(card), slug="latent_label_shift") == []
    assert "2207.13179" in str(card) and "mixtures.png" in str(card) and "condition number" in str(card)
    assert card.data.pipeline_tag == "image-classification"
    with torch.no_grad():
        np.save(SHARED / "lls.npy", model(PIXELS, domain=torch.tensor([0, 1, 2, -1])).logits.numpy())


@check
def a_trainer_pushes_the_discriminator_and_the_tool():
    arguments = LatentLabelShiftTrainingArguments(
        "run", num_train_epochs=2, use_cpu=True, push_to_hub=True, hub_model_id="tester/domains", save_strategy="no"
    )
    trainer = LatentLabelShiftTrainer(vit(), arguments, train_dataset=data())
    trainer.train()
    trainer.find_classes(2, 4, check="warn")
    trainer.push_to_hub()
    assert FILES | {"README.md", "model.safetensors"} <= set(api.list_repo_files("tester/domains"))
    assert "2207.13179" in str(ModelCard.load("tester/domains", ignore_metadata_errors=False))
    np.save(SHARED / "lls_prior.npy", trainer.lls.class_prior)


@check
def a_card_that_is_there_stays():
    vit().push_to_hub("tester/other")
    api.upload_file(path_or_fileobj=b"# Mine\n", path_in_repo="README.md", repo_id="tester/other")
    lls = LatentLabelShift(2).fit_matrix(np.eye(2) @ MIXTURES)
    LLSForClassification.from_discriminator(vit(), lls).push_to_hub("tester/other")
    assert Path(api.hf_hub_download("tester/other", "README.md")).read_text() == "# Mine\n"


if __name__ == "__main__":
    main()
