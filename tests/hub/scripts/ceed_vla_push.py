"""Pushes Jacobi decoding to the loopback Hub: alone, and into the repository of a distilled model with its card."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from checks import WORK, check, main
from datasets import Dataset
from huggingface_hub import HfApi, ModelCard

from hf_labels.generation import collect_jacobi_trajectories, jacobi, push_custom_generate
from hf_labels.hub_cards import validate_card
from hf_labels.trainers.ceed_vla import ConsistencyDistillationTrainer, ConsistencyDistillationTrainingArguments

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tiny_decoders import decoder, padded_prompts  # noqa: E402

IDS, MASK = padded_prompts()
api = HfApi()


@check
def recipe_is_pushed_alone():
    push_custom_generate("tester/jacobi")
    files = set(api.list_repo_files("tester/jacobi"))
    assert {"README.md", "custom_generate/generate.py", "custom_generate/requirements.txt"} <= files
    got = api.hf_hub_download("tester/jacobi", "custom_generate/generate.py")
    assert Path(got).read_bytes() == Path(jacobi.__file__).read_bytes()
    assert "custom_generate" in api.model_info("tester/jacobi").tags


@check
def distilled_model_is_pushed_and_gets_the_recipe():
    model = decoder()
    prompts = Dataset.from_dict({"input_ids": [[3, 4, 5 + i] for i in range(8)]})
    data = collect_jacobi_trajectories(model, prompts, block_size=5, drop_repeats=None, progress=False)
    args = ConsistencyDistillationTrainingArguments(
        str(WORK / "out"),
        max_label_distance=float("inf"),
        max_steps=1,
        learning_rate=1e-3,
        hub_model_id="tester/distilled",
        use_cpu=True,
        report_to="none",
    )
    trainer = ConsistencyDistillationTrainer(model, args, train_dataset=data)
    trainer.train()
    trainer.push_to_hub()
    card = ModelCard.load("tester/distilled", ignore_metadata_errors=False)
    assert validate_card(str(card), slug="ceed_vla") == [] and "2506.13725" in str(card)
    push_custom_generate("tester/distilled")
    after = ModelCard.load("tester/distilled", ignore_metadata_errors=False)
    assert "custom_generate" in after.data.tags and set(card.data.tags) <= set(after.data.tags)
    assert after.text.startswith(card.text.rstrip()) and "## Jacobi decoding" in after.text
    model.eval()
    options = {"attention_mask": MASK, "max_new_tokens": 9, "do_sample": False}
    want = model.generate(IDS, **options)
    kept = {"ids": IDS.tolist(), "mask": MASK.tolist(), "want": want.tolist()}
    (Path(os.environ["LOOPBACK_SHARED"]) / "ceed_vla.json").write_text(json.dumps(kept))
    assert torch.equal(model.generate(IDS, **options, custom_generate=jacobi.jacobi_generate, block_size=4), want)


if __name__ == "__main__":
    main()
