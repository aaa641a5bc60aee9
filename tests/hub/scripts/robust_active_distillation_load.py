"""Loads, in a fresh process with an empty cache, what `robust_active_distillation_push.py` has pushed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from checks import check, main

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def labels_and_log_come_back():
    from datasets import load_dataset

    from hf_labels.data import SoftLabelStore

    kept = json.loads((SHARED / "rad.json").read_text())
    store = SoftLabelStore.from_pretrained("tester/rad-labels")
    assert len(store) == 10 and store.info.extra["queries"]["strategy"] == "rad"
    torch.testing.assert_close(store.decode(store.lookup(kept["ids"])), torch.tensor(kept["labels"]))
    log = load_dataset("tester/rad-labels", data_files="queries/query_log.parquet", split="train")
    assert log["index"][:] == kept["ids"] and log["inclusion"][:] == kept["odds"]


@check
def the_student_is_a_stock_model():
    from transformers import AutoModelForSequenceClassification

    kept = torch.load(SHARED / "rad.pt")
    model = AutoModelForSequenceClassification.from_pretrained("tester/rad").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=kept["ids"]).logits, kept["logits"])


if __name__ == "__main__":
    main()
