"""Loads, in a fresh process with an empty cache, what `hello_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from checks import WORK, check, main, raises

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import hello_toys as toys  # noqa: E402

from hf_labels.data.soft_label_store import SoftLabelStore  # noqa: E402
from hf_labels.models.hello import LabelProjector  # noqa: E402
from hf_labels.models.hello_adapter import load_projector  # noqa: E402


def compare(model: Any) -> None:
    kept = json.loads((Path(os.environ["LOOPBACK_SHARED"]) / "hello.json").read_text())
    with torch.no_grad():
        logits = model.eval()(toys.pixels()).logits
    torch.testing.assert_close(logits, torch.tensor(kept), atol=1e-5, rtol=0)


@check
def adapter_and_clip_come_from_the_hub():
    compare(load_projector("tester/hello-projector", class_names=toys.NAMES))
    compare(LabelProjector.from_pretrained("tester/hello-projector"))


@check
def loading_code_of_the_card_runs():
    from huggingface_hub import ModelCard
    from transformers import CLIPImageProcessor

    from hf_labels.hub_cards import method_text

    CLIPImageProcessor(size={"height": 8, "width": 8}, crop_size={"height": 8, "width": 8}).push_to_hub(
        "tester/hello-clip"
    )
    code = method_text("hello").loading_code("tester/hello-projector")
    assert code in ModelCard.load("tester/hello-projector").text
    names: dict[str, Any] = {}
    exec(compile(code, "loading", "exec"), names)
    compare(names["model"])


@check
def another_clip_is_refused():
    toys.save_clip(WORK / "other", seed=3)
    error = raises(ValueError, load_projector, "tester/hello-projector", clip=str(WORK / "other"))
    assert "head does not fit the adapter" in str(error) and "tester/hello-clip" in str(error)


@check
def a_clip_that_moved_on_is_read_at_the_old_commit():
    toys.tiny_clip(seed=4).push_to_hub("tester/hello-clip")
    compare(load_projector("tester/hello-projector"))
    error = raises(ValueError, load_projector, "tester/hello-projector", clip="tester/hello-clip")
    assert "sha256" in str(error)


@check
def store_and_images_go_together():
    from datasets import load_dataset

    from hf_labels.data.hello_views import DistilledCollator
    from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments

    store = SoftLabelStore.from_pretrained("tester/hello-labels")
    place = store.info.projector
    assert place is not None and place["repo_id"] == "tester/hello-projector" and len(place["revision"]) == 40
    store.attach(load_projector(place["repo_id"], revision=place["revision"]))
    data = load_dataset("tester/hello-images", split="train")
    args = SoftLabelTrainingArguments(
        output_dir=str(WORK / "student"), use_cpu=True, disable_tqdm=True, num_train_epochs=1, soft_loss="mse"
    )
    trainer = SoftLabelTrainer(toys.teacher(7), args, DistilledCollator(8), train_dataset=data, label_source=store)
    assert trainer.train().training_loss > 0


if __name__ == "__main__":
    main()
