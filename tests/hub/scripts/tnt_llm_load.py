"""Loads, in a fresh process with an empty cache, what `tnt_llm_push.py` has pushed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from checks import check, main

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_taxonomy_comes_back_with_its_history():
    from datasets import load_dataset

    from hf_labels.labels.tnt_llm import Taxonomy

    found = Taxonomy.load("tester/taxonomy")
    assert found.names == ("Skin", "Sugar") and found.history[0]["kind"] == "generate"
    rows = load_dataset("tester/taxonomy", data_files="labels.parquet", split="train")
    assert rows["name"][:] == ["Skin", "Sugar"]


@check
def the_head_comes_back():
    from hf_labels.models.tnt_llm import TaxonomyClassifier

    kept = np.load(SHARED / "tnt.npz")
    model = TaxonomyClassifier.from_pretrained("tester/taxonomy-classifier", load_backbone=False).eval()
    assert model.config.taxonomy == {"Skin": "About skin.", "Sugar": "About sugar."}
    with torch.no_grad():
        probs = model(features=torch.from_numpy(kept["features"])).logits.softmax(-1).max(-1).values
    np.testing.assert_allclose(probs.numpy(), kept["scores"], rtol=1e-5)


if __name__ == "__main__":
    main()
