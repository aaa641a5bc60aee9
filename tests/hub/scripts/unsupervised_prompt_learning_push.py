"""Unsupervised prompt learning on the loopback Hub: the classifier with its card, the pseudo-labelled corpus."""

from __future__ import annotations

import json
import os
from pathlib import Path

from checks import check, log, main
from huggingface_hub import DatasetCard, HfApi, ModelCard

from hf_labels.hub_cards import validate_card
from hf_labels.lm import ScriptedLM
from hf_labels.lm.unsupervised_prompt_learning import UnsupervisedPromptLearner, UnsupervisedPromptLearningArguments

SHARED = Path(os.environ["LOOPBACK_SHARED"])
TEXTS = [f"{kind} review {i}" for i in range(6) for kind in ("good", "bad")]
api = HfApi()


def fitted():
    lm = ScriptedLM(scores=lambda r, labels: [float(r.text.count("bad")), float(r.text.count("good"))], progress=False)
    args = UnsupervisedPromptLearningArguments(
        prompt_length=2, sample_size=2, batch_size=4, max_steps=2, k_demo=2, top_k=4
    )
    form = "{prompt} {demos} Review: {text} Label:"
    learner = UnsupervisedPromptLearner(lm, ["negative", "positive"], form, args, vocabulary=["some", "words"])
    return learner.fit(TEXTS)


CLASSIFIER = fitted()


@check
def the_classifier_is_pushed_with_its_card():
    CLASSIFIER.push_to_hub("tester/prompt")
    assert log("validate_yaml")
    files = set(api.list_repo_files("tester/prompt"))
    assert {"README.md", "prompt_classifier.json", "prompt_distribution.safetensors"} <= files
    card = str(ModelCard.load("tester/prompt", ignore_metadata_errors=False))
    assert validate_card(card, slug="unsupervised_prompt_learning") == [] and "2410.03124" in card
    kept = {"texts": TEXTS, "probs": CLASSIFIER.predict_proba(TEXTS).tolist(), "prompt": CLASSIFIER.prompt}
    (SHARED / "prompt.json").write_text(json.dumps(kept))


@check
def the_corpus_is_pushed_and_says_who_labelled_it():
    CLASSIFIER.push_pseudo_labels("tester/pseudo")
    card = str(DatasetCard.load("tester/pseudo", ignore_metadata_errors=False))
    assert "2410.03124" in card and "machine-generated" in card


if __name__ == "__main__":
    main()
