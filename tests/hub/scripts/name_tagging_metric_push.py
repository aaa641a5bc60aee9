"""Name tagging on the loopback Hub: the tagger as an ordinary model with its facts beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from checks import check, log, main
from huggingface_hub import HfApi, ModelCard

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from name_tagging_toys import tagged, tagger

import toys
from hf_labels.hub_cards import validate_card
from hf_labels.trainers.name_tagging_metric import EntityMetricTrainer, EntityMetricTrainingArguments

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_tagger_is_pushed_with_card_facts_and_tokenizer():
    args = EntityMetricTrainingArguments(
        "names", max_steps=2, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
    )
    args.hub_model_id = "tester/names"
    trainer = EntityMetricTrainer(tagger(), args, train_dataset=tagged(), processing_class=toys.tiny_tokenizer())
    trainer.train()
    trainer.push_to_hub()
    assert log("validate_yaml")
    card = ModelCard.load("tester/names", ignore_metadata_errors=False)
    assert validate_card(str(card), slug="name_tagging_metric") == [] and "2401.10472" in str(card)
    assert card.data.pipeline_tag == "token-classification"
    assert "entity_metric.json" in HfApi().list_repo_files("tester/names")
    ids = torch.tensor([[5, 9, 13, 17]])
    with torch.no_grad():
        torch.save({"ids": ids, "logits": trainer.model.eval()(input_ids=ids).logits}, SHARED / "names.pt")


if __name__ == "__main__":
    main()
