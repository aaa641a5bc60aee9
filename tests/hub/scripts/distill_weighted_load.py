"""Loads, in a fresh process with an empty cache, what `distill_weighted_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from checks import check, main
from huggingface_hub import hf_hub_download
from transformers import AutoModelForImageClassification

KEPT = Path(os.environ["LOOPBACK_SHARED"]) / "student.pt"


@check
def the_student_loads_without_hf_labels():
    assert not any(name.split(".")[0] == "hf_labels" for name in sys.modules)
    sys.modules["hf_labels"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        kept = torch.load(KEPT)
        model = AutoModelForImageClassification.from_pretrained("tester/student").eval()
        assert type(model).__module__.startswith("transformers.") and model.config.id2label[2] == "both"
        with torch.no_grad():
            torch.testing.assert_close(model(kept["pixels"]).logits, kept["logits"])
    finally:
        del sys.modules["hf_labels"]


@check
def its_sources_load_at_the_commits_that_are_named():
    from hf_labels.data.distill_weighted import Source

    facts = json.loads(Path(hf_hub_download("tester/student", "distill_sources.json")).read_text())
    assert abs(sum(source["weight"] for source in facts["sources"]) - 1) < 1e-9
    for source in facts["sources"]:
        assert Source.from_pretrained(source["id"], source["revision"]).revision == source["revision"]


@check
def the_mixture_comes_back():
    from hf_labels.data import SoftLabelStore

    kept = torch.load(KEPT)
    store = SoftLabelStore.from_pretrained("tester/mixed-labels")
    torch.testing.assert_close(store.decode(store.lookup(kept["ids"].numpy())), kept["soft"], rtol=0, atol=0)
    assert store.info.extra["distill_sources"]["sources"][0]["id"] == "tester/source-a"


if __name__ == "__main__":
    main()
