"""Sources on the loopback Hub teach a student, which is pushed with its card and the list of its sources."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from checks import check, log, main
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import soft_view_toys as toys

from hf_labels.data.distill_weighted import SourceBank
from hf_labels.hub_cards import validate_card
from hf_labels.losses.distill_weighted import source_weights
from hf_labels.trainers.distill_weighted import WeightedDistillTrainer, WeightedDistillTrainingArguments

api = HfApi()
SHARED = Path(os.environ["LOOPBACK_SHARED"])
DATA = toys.pictures(12)
SOURCES = ("tester/source-a", "tester/source-b")
PROCESSOR = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
bank: list[SourceBank] = []


@check
def sources_come_from_the_hub_with_their_commits():
    sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic", "num_labels": 4}
    for seed, name in enumerate(SOURCES):
        torch.manual_seed(seed)
        ResNetForImageClassification(ResNetConfig(**sizes)).push_to_hub(name)
        PROCESSOR.push_to_hub(name)
    found = SourceBank(list(SOURCES))
    for name, source in found.sources.items():
        assert source.revision == api.model_info(name).sha and len(source.revision) == 40
        rows = found.answers(DATA, name)
        assert rows["features"].shape == (12, 8) and rows["probs"].shape == (12, 4)
    bank.append(found)


@check
def the_student_is_pushed_with_card_and_sources():
    labeled, unlabeled = DATA.select(range(6)), DATA.select(range(6, 12)).remove_columns("labels")
    near = bank[0].similarities(labeled, "knn")
    weights = source_weights(near, 2, fallback="uniform")
    soft = bank[0].pseudo_labels(labeled, unlabeled, weights, similarities=near, power=2)
    soft.push_to_hub("tester/mixed-labels")

    def read(batch):
        grey = ViTImageProcessorPil(size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5])
        pixels = grey(batch["image"], return_tensors="pt")["pixel_values"]
        return {"pixel_values": pixels, **{name: batch[name] for name in ("index", "labels") if name in batch}}

    args = WeightedDistillTrainingArguments(
        "student",
        use_cpu=True,
        max_steps=2,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        hub_model_id="tester/student",
    )
    trainer = WeightedDistillTrainer(
        toys.vit(),
        args,
        train_dataset=labeled.with_transform(read),
        unlabeled_dataset=unlabeled.with_transform(read),
        soft_labels=soft,
    )
    trainer.train()
    trainer.push_to_hub()
    assert log("validate_yaml")
    card = ModelCard.load("tester/student", ignore_metadata_errors=False)
    assert validate_card(str(card), slug="distill_weighted") == [] and "2304.12314" in str(card)
    assert "tester/source-b (" in str(card) and card.data.pipeline_tag == "image-classification"
    facts = json.loads(Path(hf_hub_download("tester/student", "distill_sources.json")).read_text())
    assert [source["id"] for source in facts["sources"]] == list(SOURCES) and facts["power"] == "2"
    pixels = torch.linspace(0, 1, 128).view(2, 1, 8, 8)
    with torch.no_grad():
        logits = trainer.model.eval()(pixels).logits
    ids = DATA["index"][:]
    kept = {"pixels": pixels, "logits": logits, "soft": soft.decode(soft.lookup(ids)), "ids": torch.tensor(ids)}
    torch.save(kept, SHARED / "student.pt")


if __name__ == "__main__":
    main()
