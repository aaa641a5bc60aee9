"""TnT-LLM on the loopback Hub: the taxonomy with its history, picture and card; the classifier's head."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from checks import check, log, main
from datasets import ClassLabel, Dataset
from huggingface_hub import DatasetCard, HfApi

from hf_labels.labels.tnt_llm import Taxonomy
from hf_labels.models.tnt_llm import TaxonomyClassifier

SHARED = Path(os.environ["LOOPBACK_SHARED"])
api = HfApi()
TAXONOMY = Taxonomy.from_names({"Skin": "About skin.", "Sugar": "About sugar."}, "what is it about?")


def vectors(texts):
    return np.array([[len(text), text.count("s"), text.count("u"), 1.0] for text in texts])


@check
def the_taxonomy_is_pushed_with_picture_and_card():
    history = ({"step": 0, "kind": "generate", "rating": None, "accepted": True},)
    Taxonomy(TAXONOMY.labels, TAXONOMY.use_case, history).push_to_hub("tester/taxonomy")
    files = set(api.list_repo_files("tester/taxonomy", repo_type="dataset"))
    assert {"README.md", "taxonomy.json", "labels.parquet", "taxonomy.png"} <= files
    assert log("validate_yaml")
    card = str(DatasetCard.load("tester/taxonomy", ignore_metadata_errors=False))
    assert "2403.12173" in card and "taxonomy.png" in card


@check
def the_classifier_is_pushed():
    rows = [(f"skin {'s' * i}", 0) for i in range(12)] + [(f"sugar {'u' * i}", 1) for i in range(12)]
    data = Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})
    data = data.cast_column("label", ClassLabel(names=["Skin", "Sugar", "Other"]))
    model = TaxonomyClassifier.train_on(data, vectors, taxonomy=TAXONOMY)
    model.push_to_hub("tester/taxonomy-classifier")
    texts = ["skin ss", "sugar uu"]
    np.savez(SHARED / "tnt.npz", features=vectors(texts), scores=[one["score"] for one in model.predict(texts)])


if __name__ == "__main__":
    main()
