"""MCL models pushed to the loopback Hub: by the trainer (the discriminator alone) and by the model (each part)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from checks import check, log, main
from datasets import Dataset
from huggingface_hub import HfApi, ModelCard, hf_hub_download
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hf_labels.hub_cards import validate_card
from hf_labels.models.mcl_electra import MCLElectraForPreTraining
from hf_labels.models.mcl_electra_config import MCLElectraConfig
from hf_labels.trainers.mcl_electra import MCLElectraTrainer, MCLElectraTrainingArguments

SIZES = {"embedding_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
SIZES |= {"max_position_embeddings": 24}
IDS = torch.arange(5, 17).view(2, 6)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(20))]
api = HfApi()


def made() -> tuple[MCLElectraForPreTraining, PreTrainedTokenizerFast]:
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    torch.manual_seed(0)
    parts = {**SIZES, "hidden_size": 8}, {**SIZES, "hidden_size": 16}
    return MCLElectraForPreTraining(MCLElectraConfig.for_tokenizer(tokenizer, *parts)), tokenizer


def remember(name: str, hidden: torch.Tensor) -> None:
    path = Path(os.environ["LOOPBACK_SHARED"]) / f"{name}.json"
    path.write_text(json.dumps({"ids": IDS.tolist(), "hidden": hidden.tolist()}))


@check
def the_trainer_pushes_a_stock_encoder_with_its_card():
    model, tokenizer = made()
    rows = Dataset.from_dict({"input_ids": [[2, *range(5, 13), 3]] * 8})
    arguments = MCLElectraTrainingArguments(
        "mcl-run", max_steps=2, use_cpu=True, push_to_hub=True, hub_model_id="tester/mcl", save_steps=1
    )
    trainer = MCLElectraTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.push_to_hub()
    files = set(api.list_repo_files("tester/mcl"))
    assert {"config.json", "model.safetensors", "README.md", "tokenizer.json"} <= files
    assert not any("optimizer" in name or "training_args" in name for name in files), files
    assert "mcl" not in Path(hf_hub_download("tester/mcl", "config.json")).read_text()
    assert log("validate_yaml")
    back = ModelCard.load("tester/mcl", ignore_metadata_errors=False)
    assert validate_card(str(back), slug="mcl_electra") == [] and "2305.03981" in str(back)
    with torch.no_grad():
        remember("mcl", model.eval().discriminator.electra(IDS)[0])


@check
def each_part_is_pushed_when_asked():
    model, _ = made()
    for part in ("discriminator", "generator", "both"):
        model.push_to_hub(f"tester/mcl-{part}", part=part)
    model.eval()
    with torch.no_grad():
        remember("mcl-discriminator", model.discriminator.electra(IDS)[0])
        remember("mcl-generator", model.generator(IDS).logits)
        remember("mcl-both", model(IDS).logits)


if __name__ == "__main__":
    main()
