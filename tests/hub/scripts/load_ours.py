"""Loads, in a fresh process with an empty cache, what `push_ours.py` has pushed.

The loopback Hub is a protocol stand-in written by this project: these checks prove the client path only.
"""

from pathlib import Path

import evaluate
import runs
import tiny
import torch
from checks import WORK, check, log, main, raises
from datasets import load_dataset
from huggingface_hub import HfApi, snapshot_download
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from hf_labels.hub import explain_hub_error
from hf_labels.metrics import MODULES
from hf_labels.models import CrossTuneForSequenceClassification

api = HfApi()


@check
def crosstune_from_the_hub_predicts_the_same():
    model = CrossTuneForSequenceClassification.from_pretrained("tester/crosstune")
    assert model.predict(tiny.TEXTS, top_k=None) == tiny.recall("crosstune")
    assert log(path="tester/backbone"), "the backbone must have come from the Hub as well"


@check
def crosstune_stands_on_the_commit_that_it_was_trained_on():
    model = AutoModelForSequenceClassification.from_pretrained("tester/crosstune")
    assert type(model) is CrossTuneForSequenceClassification
    assert model.config.backbone_revision != api.model_info("tester/backbone").sha
    assert model.predict(tiny.TEXTS, top_k=None) == tiny.recall("crosstune")
    moved = CrossTuneForSequenceClassification.from_pretrained("tester/crosstune", backbone="tester/backbone")
    assert moved.predict(tiny.TEXTS, top_k=None) != tiny.recall("crosstune")


@check
def crosstune_works_in_a_stock_pipeline():
    found = pipeline("text-classification", model="tester/crosstune", top_k=None)(tiny.TEXTS)
    for row, wanted in zip(found, tiny.recall("crosstune"), strict=True):
        assert [item["label"] for item in row] == [item["label"] for item in wanted]
        assert all(abs(a["score"] - b["score"]) < 1e-5 for a, b in zip(row, wanted, strict=True))


@check
def missing_backbone_is_named_with_the_repair():
    error = raises(OSError, CrossTuneForSequenceClassification.from_pretrained, "tester/orphan")
    assert "tester/vanishing" in str(error) and "backbone=" in str(error)
    text = explain_hub_error(error)
    assert text and "`tester/vanishing` was not found" in text
    kept = tiny.recall("orphan")
    head = CrossTuneForSequenceClassification.from_pretrained("tester/orphan", load_backbone=False)
    assert head.predict([], top_k=None, features=torch.tensor(kept["features"])) == kept["probs"]


@check
def metrics_load_from_a_downloaded_space_and_by_repo_id():
    kept = tiny.recall("calibration")
    for name in MODULES:
        folder = snapshot_download(f"tester/{name}", repo_type="space", local_dir=WORK / "spaces" / name)
        assert evaluate.load(str(Path(folder) / f"{name}.py")).info.description, name
    for place in (str(WORK / "spaces" / "calibration"), "tester/calibration"):
        scores = evaluate.load(place).compute(predictions=kept["probs"], references=kept["labels"])
        assert scores == kept["scores"], place


@check
def label_data_set_comes_back_with_its_card():
    data = load_dataset("tester/labelled", split="train")
    wanted = tiny.recall("labelled")
    assert {name: data[name][:] for name in wanted} == wanted and data.features["soft_labels"].length == 2


@check
def model_of_label_trainer_loads_with_stock_classes():
    words = AutoTokenizer.from_pretrained("tester/plain")
    model = AutoModelForSequenceClassification.from_pretrained("tester/plain")
    assert tiny.logits_of(model, words) == tiny.recall("plain")
    assert model.config.problem_type in (None, "single_label_classification")


@check
def model_of_crowd_trainer_is_a_stock_model():
    words = AutoTokenizer.from_pretrained("tester/crowd")
    model, info = AutoModelForSequenceClassification.from_pretrained("tester/crowd", output_loading_info=True)
    assert not info["unexpected_keys"] and not info["missing_keys"]
    assert tiny.logits_of(model, words) == tiny.recall("crowd")


@check
def run_continues_from_the_checkpoint_on_the_hub_as_if_never_interrupted():
    folder = Path(snapshot_download("tester/counted", allow_patterns="last-checkpoint/*")) / "last-checkpoint"
    run = runs.counting_run(WORK / "continued", steps=6, save_strategy="no")
    run.train(resume_from_checkpoint=str(folder))
    assert run.state.global_step == 6
    assert tiny.logits_of(run.model, run.processing_class) == tiny.recall("counted")
    assert run.method_state.total.item() == tiny.recall("counted_total")


if __name__ == "__main__":
    main()
