"""A label projector on the loopback Hub: CLIP, the adapter alone, distilled images, and the store that names it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from checks import WORK, check, log, main
from huggingface_hub import HfApi, ModelCard

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import hello_toys as toys  # noqa: E402

from hf_labels.data.hello import distill_images  # noqa: E402
from hf_labels.data.soft_label_store import SoftLabelStore  # noqa: E402
from hf_labels.hub_cards import validate_card  # noqa: E402
from hf_labels.models.hello import LabelProjector  # noqa: E402
from hf_labels.trainers.hello import ProjectorTrainer, ProjectorTrainingArguments  # noqa: E402

api = HfApi()
CLIP = "tester/hello-clip"


@check
def clip_is_there():
    toys.tiny_clip().push_to_hub(CLIP)
    toys.tokenizer().push_to_hub(CLIP)
    base = LabelProjector.from_clip(CLIP, toys.NAMES)
    assert base.config.clip_id == CLIP and len(base.config.clip_revision) == 40


@check
def trainer_pushes_the_adapter_alone_with_its_card():
    projector = toys.adapted(LabelProjector.from_clip(CLIP, toys.NAMES), noise=0.2)
    args = ProjectorTrainingArguments(
        output_dir=str(WORK / "out"),
        use_cpu=True,
        disable_tqdm=True,
        num_train_epochs=1,
        per_device_train_batch_size=6,
        hub_model_id="tester/hello-projector",
    )
    data = toys.images(12).map(lambda row, i: {"pixel_values": toys.pixels(12)[i].tolist()}, with_indices=True)
    data = data.remove_columns("image")
    trainer = ProjectorTrainer(projector, args, train_dataset=data, eval_dataset=data, teachers=[toys.teacher()])
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub(dataset="tester/pictures")
    files = {f.path: f.size for f in api.list_repo_tree("tester/hello-projector")}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= set(files)
    assert not {"model.safetensors", "config.json", "head.safetensors"} & set(files)
    assert files["adapter_model.safetensors"] < 4 * 301 + 2000
    with torch.no_grad():
        logits = trainer.model.eval()(toys.pixels()).logits
    (Path(os.environ["LOOPBACK_SHARED"]) / "hello.json").write_text(json.dumps(logits.tolist()))


@check
def the_card_is_ours_and_names_clip():
    card = ModelCard.load("tester/hello-projector", ignore_metadata_errors=False)
    assert validate_card(str(card), slug="hello") == []
    assert "2408.08201" in str(card) and "PEFT" not in card.text and card.data.base_model == CLIP
    assert {"hf_labels", "hello"} <= set(api.model_info("tester/hello-projector").tags)
    assert "teacher_kl" in str(card)


@check
def a_bare_adapter_can_be_pushed_too():
    toys.adapted(LabelProjector.from_clip(CLIP, toys.NAMES), noise=0.2).push_to_hub("tester/hello-bare")
    assert log("commit")
    told = json.loads(Path(api.hf_hub_download("tester/hello-bare", "adapter_config.json")).read_text())
    assert told["base_model_name_or_path"] == CLIP and told["projector"]["class_names"] == toys.NAMES


@check
def images_and_store_are_pushed():
    images = distill_images(toys.images(), lambda b: b["pixel_values"].mean((-1, -2)), ipc=1, factor=2, size=8)
    images.push_to_hub("tester/hello-images")
    commit = api.model_info("tester/hello-projector").sha
    store = SoftLabelStore.from_projector(
        "tester/hello-projector", 3, revision=commit, id2label=dict(enumerate(toys.NAMES))
    )
    store.push_to_hub("tester/hello-labels")


if __name__ == "__main__":
    main()
