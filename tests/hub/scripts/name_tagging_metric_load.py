"""Loads, in a fresh process with an empty cache, what `name_tagging_metric_push.py` has pushed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from checks import check, main
from transformers import AutoModelForTokenClassification, pipeline

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_tagger_is_a_stock_model():
    assert not any(name.split(".")[0] == "hf_labels" for name in sys.modules)
    kept = torch.load(SHARED / "names.pt")
    model = AutoModelForTokenClassification.from_pretrained("tester/names").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=kept["ids"]).logits, kept["logits"])


@check
def the_pipeline_tags_text():
    tag = pipeline("token-classification", model="tester/names", aggregation_strategy="simple")
    assert all(found["entity_group"] in ("cat", "dog") for found in tag("w5 w9 w13 w17"))


if __name__ == "__main__":
    main()
