"""Label maps, calibrated soft labels, and students of both, pushed to the loopback Hub with their cards."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from checks import check, log, main
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForImageClassification, ResNetConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import soft_view_toys as toys

from hf_labels.data.ferkd import FerKDCalibrator
from hf_labels.hub_cards import validate_card
from hf_labels.models.relabel import LabelMapAnnotator
from hf_labels.trainers.ferkd import FerKDTrainer, FerKDTrainingArguments
from hf_labels.trainers.relabel import ReLabelTrainer, ReLabelTrainingArguments

api = HfApi()
SHARED = Path(os.environ["LOOPBACK_SHARED"])
DATA = toys.pictures(12)
OPTIONS = {"use_cpu": True, "max_steps": 2, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}


def keep(name: str, model: torch.nn.Module) -> None:
    pixels = torch.linspace(0, 1, 128).view(2, 1, 8, 8)
    with torch.no_grad():
        torch.save({"pixels": pixels, "logits": model.eval()(pixels).logits}, SHARED / f"{name}.pt")


def card_is_true(repo: str, slug: str, paper: str) -> None:
    assert log("validate_yaml")
    card = ModelCard.load(repo, ignore_metadata_errors=False)
    assert validate_card(str(card), slug=slug) == [] and paper in str(card)
    assert card.data.pipeline_tag == "image-classification"
    assert {"hf_labels", slug} <= set(api.model_info(repo).tags)


@check
def label_maps_are_pushed():
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic", "num_channels": 1}
    names = dict(enumerate(toys.NAMES))
    teacher = AutoModelForImageClassification.from_config(ResNetConfig(**sizes, id2label=names))
    teacher.push_to_hub("tester/annotator")
    maps = LabelMapAnnotator.from_pretrained("tester/annotator").annotate(
        DATA, k=2, size=16, teacher="tester/annotator", source={"id": "tester/pictures"}
    )
    maps.push_to_hub("tester/label-maps")
    torch.save(maps.decode(maps.lookup(DATA["index"][:])), SHARED / "map_labels.pt")
    files = set(api.list_repo_files("tester/label-maps", repo_type="dataset"))
    assert {"README.md", "soft_label_store.json"} <= files and any(name.endswith(".parquet") for name in files)


@check
def student_of_label_maps_is_pushed():
    args = ReLabelTrainingArguments("relabel", crop_size=8, hub_model_id="tester/relabel", **OPTIONS)
    trainer = ReLabelTrainer(toys.vit(), args, train_dataset=DATA, label_maps=toys.map_store(DATA))
    trainer.train()
    trainer.push_to_hub()
    keep("relabel", trainer.model)
    card_is_true("tester/relabel", "relabel", "2101.05022")


@check
def calibrated_soft_labels_are_pushed():
    calibrator = FerKDCalibrator(quantiles=(0.1, 0.5, 0.9))
    smaller = calibrator.apply(toys.view_store(DATA))
    smaller.push_to_hub("tester/views-ferkd")
    torch.save(smaller.decode(smaller.reader.take(range(len(smaller)))), SHARED / "view_labels.pt")


@check
def student_of_calibrated_labels_is_pushed():
    args = FerKDTrainingArguments("ferkd", views_per_example=3, hub_model_id="tester/ferkd", **OPTIONS)
    trainer = FerKDTrainer(toys.vit(), args, train_dataset=DATA, soft_label_store=toys.view_store(DATA))
    trainer.train()
    trainer.push_to_hub()
    keep("ferkd", trainer.model)
    card_is_true("tester/ferkd", "ferkd", "2312.17473")


if __name__ == "__main__":
    main()
