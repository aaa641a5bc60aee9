"""The detector: every judge with every prompt, votes and probabilities, budgets and caches, bad input."""

import datasets
import numpy as np
import pytest

from hf_labels.lm import Budget, ScriptedLM
from hf_labels.lm.llm_label_errors import LabelErrorDetector, named_label

TEXTS = ["good film", "bad film", "good food", "bad food", "odd"]
LABELS = [1, 0, 0, 0, 1]
PROMPTS = ["Review: {text}", ("{text} ({source})", "It is {}.")]


def rows():
    features = {"text": datasets.Value("string"), "source": datasets.Value("string")}
    features["label"] = datasets.ClassLabel(names=["bad", "good"])
    columns = {"text": TEXTS, "source": ["web"] * 5, "label": LABELS}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def scorer(**options):
    """Gives probabilities: sure of the word that the prompt holds."""

    def scores(request, labels):
        return [2.0 if any(w in request.text and w in label for w in ("good", "bad")) else 0.0 for label in labels]

    return ScriptedLM(scores=scores, model_id="scorer", progress=False, **options)


def writer(**options):
    answer = [("good", "Good."), ("bad", "I would say: bad"), ("odd", "no idea")]
    return ScriptedLM(answer, model_id="writer", progress=False, **options)


def test_probabilities_and_votes_of_all_judges_and_prompts():
    one, two = scorer(), writer()
    detector = LabelErrorDetector([one, two], PROMPTS, ["bad", "good"])
    report = detector.report(rows(), "label")
    assert report.probs.shape == (2, 2, 5, 2)
    sure = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(report.probs[0, :, 0], [[1 - sure, sure]] * 2)
    assert one.log[5].text == "good film (web)"
    assert report.votes.tolist()[:2] == [[1, 1, 1, -1], [0, 0, 0, -1]]  # "It is bad." is not what the writer says
    assert np.isnan(report.probs[1, 0, 4]).all() and report.probs[0, 0, 4].tolist() == [0.5, 0.5]
    assert report.worklist().tolist() == [2, 4] and report.judges == ["scorer", "writer"]
    assert report.predicted.tolist() == [1, 0, 1, 0, 0]


def test_judgements_may_come_from_elsewhere():
    detector = LabelErrorDetector([scorer()], ["{text}"], ["bad", "good"])
    report = detector.report(rows(), "label", probs=np.full((1, 5, 2), 2.0), renormalize=True)
    assert (report.q == 0.5).all() and not detector.judges[0].log


def test_verbalizers_stand_for_the_labels():
    seen = []
    judge = ScriptedLM(scores=lambda request, labels: seen.append(labels) or [0.0, 1.0], progress=False)
    LabelErrorDetector([judge], ["{text}"], ["bad", "good"], verbalizers=[" no", " yes"]).judge(rows())
    assert list(seen[0]) == [" no", " yes"]


def test_a_budget_that_ends_leaves_rows_unjudged_and_the_next_run_pays_for_the_rest_only(tmp_path, caplog):
    cut = scorer(budget=Budget(max_calls=3), cache_dir=tmp_path, batch_size=1)
    first = LabelErrorDetector([cut], ["{text}"], ["bad", "good"]).report(rows(), "label")
    assert first.judged.sum() == 3 and "larger budget" in caplog.text
    again = scorer(cache_dir=tmp_path, batch_size=1)
    second = LabelErrorDetector([again], ["{text}"], ["bad", "good"]).report(rows(), "label")
    assert second.judged.all() and len(again.log) == 2
    np.testing.assert_array_equal(first.q[first.judged], second.q[first.judged])


@pytest.mark.parametrize(
    ("text", "vote"),
    [("yes", 1), (" Yes.\nBecause", 1), ("The answer is no", 0), ("yes or no", None), ("", None), ("yesterday", None)],
)
def test_written_answers(text, vote):
    assert named_label(text, ["no", "yes"]) == vote


def test_a_label_inside_a_longer_one_does_not_count():
    words = ["consistent", "not consistent"]
    assert named_label("It is not consistent here", words) == 1
    assert named_label("It is consistent here", words) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], ["{text}"], ["a", "b"]), "one judge and one prompt"),
        (([scorer()], [], ["a", "b"]), "one judge and one prompt"),
        (([scorer()], ["{text}"], ["a"]), "at least two labels"),
        (([scorer()], ["{text}"], ["a", "b"], ["x"]), "1 verbalizers for 2 labels"),
        (([scorer()], [("{text}", "label")], ["a", "b"]), "got 'label'"),
    ],
)
def test_bad_detectors_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        LabelErrorDetector(*arguments)


def test_bad_data_is_named():
    detector = LabelErrorDetector([scorer()], PROMPTS, ["bad", "good"])
    with pytest.raises(KeyError, match="source"):
        detector.judge(rows().remove_columns("source"))
    with pytest.raises(ValueError, match="empty"):
        detector.judge(rows().select([]))
    with pytest.raises(KeyError, match="label_column"):
        detector.report(rows(), "labels")
    other = LabelErrorDetector([scorer()], PROMPTS, ["good", "bad"])
    with pytest.raises(ValueError, match=r"the classes \['bad', 'good'\], the detector \['good', 'bad'\]"):
        other.report(rows(), "label")
