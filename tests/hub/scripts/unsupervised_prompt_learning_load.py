"""Loads, in a fresh process with an empty cache, what `unsupervised_prompt_learning_push.py` has pushed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from checks import check, main

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_classifier_predicts_the_same():
    from hf_labels.lm import ScriptedLM
    from hf_labels.models.unsupervised_prompt_learning import PromptClassifier

    kept = json.loads((SHARED / "prompt.json").read_text())
    lm = ScriptedLM(scores=lambda r, labels: [float(r.text.count("bad")), float(r.text.count("good"))], progress=False)
    found = PromptClassifier.from_pretrained("tester/prompt", lm)
    assert found.prompt == kept["prompt"]
    np.testing.assert_allclose(found.predict_proba(kept["texts"]), kept["probs"])


@check
def the_corpus_is_a_data_set():
    from datasets import load_dataset

    rows = load_dataset("tester/pseudo", split="train")
    assert rows.features["labels"].names == ["negative", "positive"] and len(rows) == 12
    assert {"text", "confidence", "round", "source"} <= set(rows.column_names)


if __name__ == "__main__":
    main()
