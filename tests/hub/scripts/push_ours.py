"""What hf_labels makes, pushed to the loopback Hub: trainers, CrossTune, metrics, label data sets with their card.

The loopback Hub is a protocol stand-in written by this project: these checks prove the client path only. What is
pushed here is loaded by `load_ours.py` in a fresh process with an empty cache.
"""

from pathlib import Path

import datasets
import runs
import tiny
import torch
from checks import WORK, check, faults, log, main, raises
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError
from safetensors import safe_open

from hf_labels.hub_cards import LabelColumn, render_card, render_dataset_card, validate_card
from hf_labels.metrics import MODULES, calibration_scores, path_of
from hf_labels.models import CrossTuneForSequenceClassification

api = HfApi()
DESCRIPTIONS = {"praise": "a very great film", "blame": "a poor plot", "acting": "the acting"}


@check
def crosstune_pushes_the_head_and_not_the_backbone():
    tiny.encoder(seed=5).push_to_hub("tester/backbone")
    tiny.tokenizer().push_to_hub("tester/backbone")
    pinned = api.model_info("tester/backbone").sha
    model = CrossTuneForSequenceClassification.from_backbone("tester/backbone", DESCRIPTIONS, num_heads=2)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in (model.query.weight, model.query.bias, model.key.weight):
            weight.add_(torch.randn_like(weight) * 0.3)
    model.push_to_hub("tester/crosstune", tags=["hf_labels"])
    assert model.config.backbone_revision == pinned
    weights = api.hf_hub_download("tester/crosstune", "model.safetensors")
    with safe_open(weights, "pt") as file:
        names = set(file.keys())
    assert names == {"query.weight", "query.bias", "key.weight", "key.bias", "label_vectors"}
    tiny.remember("crosstune", model.predict(tiny.TEXTS, top_k=None))
    # The backbone's main branch moves on; the head must keep standing on the commit that it was trained on.
    tiny.encoder(seed=6).push_to_hub("tester/backbone")
    assert api.model_info("tester/backbone").sha != pinned


@check
def crosstune_without_its_backbone_is_pushed_too():
    tiny.encoder(seed=7).push_to_hub("tester/vanishing")
    tiny.tokenizer().push_to_hub("tester/vanishing")
    model = CrossTuneForSequenceClassification.from_backbone("tester/vanishing", DESCRIPTIONS, num_heads=2)
    model.push_to_hub("tester/orphan")
    features = model.encoder.encode(tiny.TEXTS)
    tiny.remember("orphan", {"features": features.tolist(), "probs": model.predict([], top_k=None, features=features)})
    api.delete_repo("tester/vanishing")


@check
def rendered_card_is_accepted_and_comes_back_word_for_word():
    card = render_card(
        "crosstune",
        model_id="tester/crosstune",
        base_model="tester/backbone",
        datasets=["tester/reviews"],
        language="en",
        labels=DESCRIPTIONS,
        training={"learning_rate": 1e-3, "hub_token": "hf_test"},
    )
    card.push_to_hub("tester/crosstune")
    assert log("validate_yaml")
    back = ModelCard.load("tester/crosstune", ignore_metadata_errors=False)
    assert back.text == card.text and validate_card(str(back), slug="crosstune") == []
    assert {"hf_labels", "crosstune"} <= set(api.model_info("tester/crosstune").tags)
    assert "hf_test" not in str(back)


@check
def metric_folders_become_spaces():
    for name in MODULES:
        api.create_repo(f"tester/{name}", repo_type="space", space_sdk="gradio")
        api.upload_folder(
            repo_id=f"tester/{name}", repo_type="space", folder_path=path_of(name), ignore_patterns="__*"
        )
        files = set(api.list_repo_files(f"tester/{name}", repo_type="space"))
        assert {f"{name}.py", "README.md", "requirements.txt", "app.py"} <= files, name
        info = api.space_info(f"tester/{name}")
        assert info.sdk == "gradio" and info.card_data.sdk == "gradio", name
    probs, labels = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]], [0, 1, 0]
    tiny.remember("calibration", {"probs": probs, "labels": labels, "scores": calibration_scores(probs, labels)})


@check
def label_data_set_goes_up_with_its_card():
    columns = {"text": tiny.TEXTS, "soft_labels": [[0.25, 0.75]] * 6}
    kinds = {"text": datasets.Value("string"), "soft_labels": datasets.List(datasets.Value("float32"), length=2)}
    data = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    data.push_to_hub("tester/labelled")
    card = render_dataset_card(
        "tester/labelled",
        tool="a function of this check",
        columns=[LabelColumn("text", "text"), LabelColumn("soft_labels", "soft", names=tiny.NAMES)],
        label_assumptions="None is claimed.",
        limits="Six rows.",
    )
    card.push_to_hub("tester/labelled", repo_type="dataset")
    assert "hf_labels" in api.dataset_info("tester/labelled").tags
    tiny.remember("labelled", columns)


@check
def label_trainer_pushes_model_and_its_own_card():
    run = runs.plain_run(WORK / "plain", max_steps=3)
    run.train()
    run.evaluate()
    run.push_to_hub(dataset_tags="tester/reviews")
    card = ModelCard.load("tester/plain")
    assert validate_card(str(card)) == [] and "hf_labels" in card.data.tags
    assert {result.metric_type for result in card.data.eval_results} == {"loss"}
    assert card.data.datasets == ["tester/reviews"]
    assert not [path for path in api.list_repo_files("tester/plain") if "checkpoint" in path]
    tiny.remember("plain", tiny.logits_of(run.model, run.processing_class))


@check
def soft_label_trainer_pushes_a_checkpoint_that_can_be_continued():
    whole = runs.counting_run(WORK / "whole", steps=6, save_strategy="no")
    whole.train()
    tiny.remember("counted", tiny.logits_of(whole.model, whole.processing_class))
    tiny.remember("counted_total", whole.method_state.total.item())
    live = {"push_to_hub": True, "hub_strategy": "checkpoint", "save_strategy": "steps", "save_steps": 3}
    half = runs.counting_run(WORK / "counted", steps=3, **live)
    half.train()
    half.push_to_hub()
    files = api.list_repo_files("tester/counted")
    assert {"last-checkpoint/method_state.safetensors", "last-checkpoint/optimizer.pt"} <= set(files)
    assert "soft_labels" in ModelCard.load("tester/counted").data.tags


@check
def crowd_trainer_pushes_a_stock_model_without_its_second_head():
    live = {"push_to_hub": True, "hub_strategy": "every_save", "save_strategy": "steps", "save_steps": 1}
    run = runs.crowd_run(WORK / "crowd", **live)
    run.train()
    run.push_to_hub()
    with safe_open(api.hf_hub_download("tester/crowd", "model.safetensors"), "pt") as file:
        assert not [name for name in file.keys() if "soft_classifier" in name]  # noqa: SIM118
    card = ModelCard.load("tester/crowd")
    assert validate_card(str(card), slug="crowd_soft_labels") == [] and "multi_task" in card.text
    tiny.remember("crowd", tiny.logits_of(run.model, run.processing_class))


@check
def token_given_to_our_trainers_does_not_reach_the_pushed_files():
    run = runs.plain_run(WORK / "quiet", hub_token="hf_test", push_to_hub=True)
    run.push_to_hub()
    pushed = {path: Path(api.hf_hub_download("tester/quiet", path)) for path in api.list_repo_files("tester/quiet")}
    assert "training_args.bin" in pushed and "README.md" in pushed
    assert [path for path, file in pushed.items() if b"hf_test" in file.read_bytes()] == []


@check
def failed_push_of_our_trainers_says_what_to_do():
    run = runs.plain_run(WORK / "refused")
    faults({"route": "commit", "status": 403})
    error = raises(HfHubHTTPError, run.push_to_hub)
    assert "no permission" in error.__notes__[0] and "Nothing was committed" in error.__notes__[0]
    assert api.list_repo_files("tester/refused") == [".gitattributes"]
    assert (WORK / "refused" / "model.safetensors").is_file()


if __name__ == "__main__":
    main()
