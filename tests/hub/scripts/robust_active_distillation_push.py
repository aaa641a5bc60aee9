"""RAD on the loopback Hub: the bought labels with their log as a data set, and the student as an ordinary model."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from checks import check, log, main
from huggingface_hub import HfApi, ModelCard

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import toys
from hf_labels.hub_cards import validate_card
from hf_labels.trainers.robust_active_distillation import ActiveDistillation
from hf_labels.trainers.soft_labels import SoftLabelTrainingArguments

SHARED = Path(os.environ["LOOPBACK_SHARED"])
api = HfApi()


def teacher(rows):
    return np.eye(3)[[(tokens[0] - 2) % 3 for tokens in rows["input_ids"]]] * 0.7 + 0.1


def made() -> ActiveDistillation:
    args = SoftLabelTrainingArguments(
        "rad", max_steps=2, use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no"
    )
    args.hub_model_id = "tester/rad"
    loop = ActiveDistillation(
        lambda: toys.tiny_bert(dropout=0.0),
        teacher,
        toys.text_dataset(9),
        toys.text_dataset(30, seed=5),
        output_dir="rad",
        budget=5,
        rounds=2,
        teacher_error=0.1,
        args=args,
    )
    loop.run()
    return loop


LOOP = made()


@check
def bought_labels_are_pushed_with_their_log():
    LOOP.push_to_hub("tester/rad-labels")
    files = set(api.list_repo_files("tester/rad-labels", repo_type="dataset"))
    assert {"README.md", "soft_label_store.json", "queries/query_log.parquet"} <= files
    ids = LOOP.query_log["index"][:]
    found = LOOP.soft_labels().decode(LOOP.soft_labels().lookup(ids))
    kept = {"ids": ids, "odds": LOOP.query_log["inclusion"][:], "labels": found.tolist()}
    (SHARED / "rad.json").write_text(json.dumps(kept))


@check
def the_student_is_pushed_with_its_card():
    LOOP.trainer.push_to_hub()
    assert log("validate_yaml")
    card = ModelCard.load("tester/rad", ignore_metadata_errors=False)
    assert validate_card(str(card), slug="robust_active_distillation") == [] and "2210.01213" in str(card)
    ids = torch.tensor([[2, 5, 6]])
    with torch.no_grad():
        logits = LOOP.trainer.model.eval()(input_ids=ids.to(LOOP.trainer.model.device)).logits
    torch.save({"ids": ids, "logits": logits.cpu()}, SHARED / "rad.pt")


if __name__ == "__main__":
    main()
