"""The distribution over prompts, and the classifier's files."""

import json

import numpy as np
import pytest
import torch

from hf_labels.lm import ScriptedLM
from hf_labels.models.unsupervised_prompt_learning import PromptClassifier, PromptDistribution


def scorer(model_id="scorer"):
    return ScriptedLM(
        scores=lambda r, labels: [1.0 * r.text.count("bad"), 1.0 * r.text.count("good") + r.text.count("plus")],
        progress=False,
        model_id=model_id,
    )


def made(**options):
    settings = {"vocabulary": ["plus", "dust"], "prompt_ids": [0, 1], "demo_texts": ["good day", "bad day"]}
    settings |= {"demo_labels": [1, 0], "k_demo": 2, "theta": np.ones((2, 2))}
    return PromptClassifier(
        scorer(), ("bad", "good"), (" bad", " good"), "{prompt} {demos} T: {text}\nL:", **settings | options
    )


@pytest.mark.parametrize("param", ["logits", "simplex"])
def test_draws_and_log_probabilities_agree(param):
    torch.manual_seed(0)
    found = PromptDistribution(3, 4, param)
    with torch.no_grad():
        found.theta.add_(torch.rand(3, 4) if param == "logits" else 0)
    draws = found.sample(20_000, torch.Generator().manual_seed(1))
    shares = torch.stack([torch.bincount(column, minlength=4) for column in draws.T]) / 20_000
    torch.testing.assert_close(shares.double(), found.probs(), atol=0.02, rtol=0)
    one = torch.tensor([[0, 1, 2]])
    want = found.probs()[torch.arange(3), one[0]].log().sum()
    torch.testing.assert_close(found.log_prob(one)[0].detach(), want)


def test_the_empty_prompt_and_bad_shapes():
    none = PromptDistribution(0, 0)
    assert none.sample(3).shape == (3, 0) and none.mode().shape == (0,) and none.entropy() == 0
    with pytest.raises(ValueError, match="at least 1 candidate"):
        PromptDistribution(2, 0)
    with pytest.raises(ValueError, match="got 'other'"):
        PromptDistribution(2, 3, "other")


def test_projection_puts_rows_back():
    found = PromptDistribution(2, 3, "simplex")
    with torch.no_grad():
        found.theta.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.2, 0.2, 0.2]]))
    found.project_()
    torch.testing.assert_close(found.probs().sum(1), torch.ones(2, dtype=torch.float64))
    assert found.probs()[0].tolist() == [1, 0, 0]


def test_prediction_uses_prompt_and_demonstrations():
    found = made()
    question = found.questions(["good night"])[0]
    assert question.prompt == "plus dust" and {text for text, _ in question.demos} == {"good day", "bad day"}
    assert found("good night")[0]["label"] == "good" and found.prompt_tokens == ["plus", "dust"]
    assert found.predict_proba([]).shape == (0, 2)
    with pytest.raises(TypeError, match="list of texts"):
        found.predict_proba("good")


def test_saved_classifier_predicts_the_same(tmp_path):
    found = made(log_history=[{"loss": 1.0}], settings={"seed": 3})
    found.save_pretrained(tmp_path)
    again = PromptClassifier.from_pretrained(tmp_path, scorer())
    np.testing.assert_array_equal(again.predict_proba(["good", "bad"]), found.predict_proba(["good", "bad"]))
    np.testing.assert_array_equal(again.theta, found.theta)
    assert again.labels == ("bad", "good") and again.log_history == [{"loss": 1.0}]
    text = (tmp_path / "prompt_classifier.json").read_text()
    assert json.loads(text)["hf_labels"] == "unsupervised_prompt_learning" and str(tmp_path) not in text


def test_loading_tells_what_is_wrong(tmp_path, caplog):
    with pytest.raises(FileNotFoundError, match=r"no prompt_classifier\.json"):
        PromptClassifier.from_pretrained(tmp_path)
    made().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`lm`"):
        PromptClassifier.from_pretrained(tmp_path)
    PromptClassifier.from_pretrained(tmp_path, scorer("another"))
    assert "was learned for scorer, not for another" in caplog.text
    (tmp_path / "prompt_classifier.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="not written by a prompt classifier"):
        PromptClassifier.from_pretrained(tmp_path, scorer())


def test_a_loaded_classifier_has_no_corpus_to_push():
    with pytest.raises(ValueError, match="has no corpus"):
        made().push_pseudo_labels("me/pseudo")
