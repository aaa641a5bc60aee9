"""The learner with a scripted scorer: planted tokens, reliable set, rounds, budgets, resumption, bad input."""

import numpy as np
import pytest
from datasets import Dataset

from hf_labels.labels.unsupervised_prompt_learning import ReliableSetEmpty
from hf_labels.lm import Budget, BudgetExceeded, ScriptedLM
from hf_labels.lm.unsupervised_prompt_learning import UnsupervisedPromptLearner, UnsupervisedPromptLearningArguments

VOCABULARY = ["noise", "magic", "static", "wind", "dust"]
TEXTS = [f"{kind} review {i}" for i in range(12) for kind in ("good", "bad", "odd good", "odd bad")]


def scores(request, labels):
    """Right on plain texts, unsure on odd ones; each `magic` in the prompt sharpens the right label."""
    body = request.text.rsplit("Review:", 1)
    side = 1 if "good" in body[-1] else 0
    row = [0.0, 0.0]
    row[side] = (0.3 if "odd" in body[-1] else 1.0) + 1.5 * body[0].count("magic")
    return row


def scorer(**options):
    return ScriptedLM(scores=scores, progress=False, **{"model_id": "scorer", **options})


def learner(lm=None, callbacks=(), vocabulary=VOCABULARY, labels=("negative", "positive"), template=None, **settings):
    base = {"prompt_length": 2, "sample_size": 6, "batch_size": 6, "max_steps": 25, "learning_rate": 0.5, "seed": 0}
    base |= {"k_demo": 2, "top_k": 4}
    args = UnsupervisedPromptLearningArguments(**base | settings)
    form = template or "{prompt} {demos} Review: {text} Label:"
    return UnsupervisedPromptLearner(
        scorer() if lm is None else lm, list(labels), form, args, vocabulary=vocabulary, callbacks=callbacks
    )


def test_the_planted_token_is_found_and_the_corpus_labelled():
    found = learner().fit(TEXTS)
    assert found.prompt_tokens == ["magic", "magic"] and found.prompt == "magic magic"
    labels = np.array(found.pseudo_labels["labels"][:])
    assert (labels == [1, 0, 1, 0] * 12).all()
    losses = [entry["loss"] for entry in found.log_history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) and found.log_history[-1]["entropy"] < np.log(5)
    assert found(["a good one"])[0]["label"] == "positive"
    hits = [entry["cache_hit_rate"] for entry in found.log_history]
    assert np.mean(hits[-5:]) > np.mean(hits[:5])


def test_reliable_labels_come_first_and_stay():
    found = learner(max_steps=6, relabel_every=2).fit(TEXTS)
    rows = found.pseudo_labels
    first = [i for i, r in enumerate(rows["round"][:]) if r == 0]
    assert len(first) == 8 and all("odd" not in TEXTS[i] for i in first)
    assert all(rows["source"][i] == "zero-shot" for i in first)
    assert set(rows["round"][:]) > {0, 1} and min(rows["round"][:]) >= -1


@pytest.mark.parametrize("batch", [1, 7])
def test_same_seed_same_result_for_any_batch_of_the_model(batch):
    one = learner(scorer(batch_size=batch), max_steps=5).fit(TEXTS)
    two = learner(scorer(batch_size=3), max_steps=5).fit(TEXTS)
    assert one.prompt == two.prompt and one.pseudo_labels.to_dict() == two.pseudo_labels.to_dict()
    np.testing.assert_array_equal(one.theta, two.theta)


def test_no_prompt_is_the_classifier_with_demonstrations_alone():
    found = learner(prompt_length=0).fit(TEXTS)
    assert found.prompt == "" and found.prompt_ids == [] and found.log_history == []
    bare = learner(prompt_length=0, k_demo=0).fit(TEXTS)
    want = scorer().score_labels([f"Review: {text} Label:" for text in TEXTS], bare.label_words).probs()
    np.testing.assert_allclose(bare.predict_proba(TEXTS), want)


def test_simplex_form_and_hinge_learn_too():
    found = learner(param="simplex", learning_rate=0.02, loss="hinge", margin=4.0, max_steps=40).fit(TEXTS)
    assert "magic" in found.prompt_tokens
    np.testing.assert_allclose(np.asarray(found.theta).sum(1), 1, atol=1e-12)


def test_an_interrupted_run_goes_on_without_asking_twice(tmp_path):
    class Cut(ScriptedLM):
        def _score(self, prompts, labels):
            if self.attempts >= 20:
                raise KeyboardInterrupt
            return super()._score(prompts, labels)

    straight = scorer(batch_size=4)
    want = learner(straight, max_steps=6).fit(TEXTS)
    cut = Cut(scores=scores, progress=False, model_id="scorer", batch_size=4)
    with pytest.raises(KeyboardInterrupt):
        learner(cut, max_steps=6, output_dir=str(tmp_path)).fit(TEXTS)
    rest = scorer(batch_size=4)
    found = learner(rest, max_steps=6, output_dir=str(tmp_path)).fit(TEXTS)
    assert found.prompt == want.prompt and found.pseudo_labels.to_dict() == want.pseudo_labels.to_dict()
    asked = [request.text for request in (*cut.log, *rest.log)]
    assert len(asked) == len(set(asked)) == len({request.text for request in straight.log})


def test_a_budget_that_ends_gives_what_was_learned(caplog):
    found = learner(scorer(budget=Budget(max_calls=120))).fit(TEXTS)
    assert found.stopped_early and "Training ends early" in caplog.text and len(found.pseudo_labels) == 48
    part = learner(scorer(budget=Budget(max_calls=20), batch_size=1)).fit(TEXTS)
    assert part.stopped_early and part.pseudo_labels["labels"][:].count(-1) == 28
    with pytest.raises(BudgetExceeded):
        learner(scorer(budget=Budget(max_calls=0))).fit(TEXTS)


def test_callbacks_hear_the_events_and_can_stop():
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        heard: list[str] = []

        def on_train_begin(self, args, state, control, **kwargs):
            self.heard.append("begin")

        def on_log(self, args, state, control, logs=None, **kwargs):
            self.heard.append(f"log {logs['step']}")

        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 2
            return control

        def on_train_end(self, args, state, control, **kwargs):
            self.heard.append("end")

    stop = Stop()
    learner(callbacks=[stop]).fit(TEXTS)
    assert stop.heard == ["begin", "log 1", "log 2", "end"]


def test_classes_that_are_never_seen_are_named_and_training_goes_on(caplog):
    found = learner(labels=("negative", "positive", "mixed"), lm=ScriptedLM(scores=three, progress=False)).fit(TEXTS)
    assert "No text is labelled as: mixed" in caplog.text and len(found.pseudo_labels) == 48


def three(request, labels):
    return [*scores(request, labels), -5.0]


def test_an_empty_reliable_set_says_how_near_it_was():
    with pytest.raises(ReliableSetEmpty, match=r"`confidence_threshold`=0.99 or more; the highest is 0\.7311"):
        learner(selection="threshold", confidence_threshold=0.99).fit(TEXTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["one"]}, "at least two classes"),
        ({"labels": ["a", "a"]}, "a"),
        ({"vocabulary": []}, "`vocabulary` is empty"),
        ({"vocabulary": ["a", "a"]}, "got 'a' at 1"),
        ({"sample_size": 1}, "`sample_size` must be an integer of at least 2"),
        ({"param": "other"}, "`param` must be"),
        ({"confidence_threshold": 2.0}, "in \\[0, 1\\]"),
        ({"dev_share": 1.0}, "`dev_share`"),
        ({"learning_rate": 0.0}, "must be positive"),
        ({"template": "{text}"}, "no `{prompt}`"),
        ({"template": "{prompt} {text}"}, "no `{demos}`"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        learner(**change)


def test_bad_corpora_are_named():
    with pytest.raises(ValueError, match="corpus is empty"):
        learner().fit([])
    with pytest.raises(TypeError, match="not a single text"):
        learner().fit("one text")
    with pytest.raises(ValueError, match="row 1"):
        learner().fit(Dataset.from_dict({"text": ["a", " "]}))
    with pytest.raises(ValueError, match=r"`k_demo`=40 is larger than the"):
        learner(k_demo=40).fit(TEXTS)
    with pytest.raises(ValueError, match="vocabulary is empty: no segment"):
        learner(vocabulary=None, min_frequency=999).fit(TEXTS)
    bad = ScriptedLM(scores=lambda request, labels: [float("nan"), 0.0], progress=False)
    with pytest.raises(ValueError, match=r"No finite score for text 0 \('good review 0'\)"):
        learner(bad).fit(TEXTS)
