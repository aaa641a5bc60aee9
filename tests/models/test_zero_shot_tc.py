"""The zero-shot pipeline: agreement with the stock one, what it adds, what it saves, and what it refuses."""

import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, pipeline
from zero_shot_toys import HYPOTHESES, NAMES, NLI, nli_model, tiny_tokenizer

from hf_labels.data.encoders import TextEncoder
from hf_labels.labels.zero_shot_tc import DecisionRule, decide, ensemble_probs, entailment_probs
from hf_labels.models.zero_shot_tc import HypothesisZeroShotPipeline, classify_with_ensemble
from tiny_text import tiny_encoder_model

TEXTS = ["oily skin and spots", "awake in bed at night one two three", "the head hurts", "one", "bad pain in the head"]
TEMPLATE = "it was {} ."


def made(names=NLI, seed=0, **settings):
    return HypothesisZeroShotPipeline(model=nli_model(names, seed), tokenizer=tiny_tokenizer(), **settings)


def logits_of(model, hypotheses, texts=tuple(TEXTS)):
    """`(N, H, C)`, one pair at a time and without any pipeline."""
    tokenizer = tiny_tokenizer()
    with torch.no_grad():
        rows = [[model(**tokenizer(a, b, return_tensors="pt")).logits[0] for b in hypotheses] for a in texts]
    return torch.stack([torch.stack(row) for row in rows]).numpy()


FLAT = [sentence for lines in HYPOTHESES.values() for sentence in lines]
OWNER = [place for place, lines in enumerate(HYPOTHESES.values()) for _ in lines]


@pytest.mark.parametrize("names", [NLI, NLI[::-1], ("neutral", "entailment", "contradiction"), NLI[1:]])
@pytest.mark.parametrize("multi_label", [False, True])
def test_one_template_gives_the_numbers_of_the_stock_pipeline(names, multi_label):
    model = nli_model(names)
    stock = pipeline("zero-shot-classification", model=model, tokenizer=tiny_tokenizer())
    ours = HypothesisZeroShotPipeline(model=model, tokenizer=tiny_tokenizer())
    settings = {"hypothesis_template": TEMPLATE, "multi_label": multi_label}
    for labels, batch_size in ((list(NAMES), 1), ("acne, insomnia", 4), (["acne"], 4)):
        want = stock(TEXTS, labels, batch_size=batch_size, **settings)
        found = ours(TEXTS, labels, score="pipeline", batch_size=batch_size, **settings)
        for one, other in zip(want, found, strict=True):
            scores = dict(zip(one["labels"], one["scores"], strict=True))  # equal scores may change places
            assert dict(zip(other["labels"], other["scores"], strict=True)) == pytest.approx(scores, abs=1e-5)
            assert one["sequence"] == other["sequence"] and other["scores"] == sorted(other["scores"], reverse=True)
            assert multi_label or scores[other["label"]] == pytest.approx(max(scores.values()), abs=1e-5)


def test_the_pipeline_is_found_by_its_task():
    pipe = pipeline("hypothesis-zero-shot", model=nli_model(), tokenizer=tiny_tokenizer())
    assert type(pipe) is HypothesisZeroShotPipeline and pipe.entailment_id == 0


@pytest.mark.parametrize("score", ["softmax", "max"])
@pytest.mark.parametrize("aggregate", ["max", "mean"])
@pytest.mark.parametrize("decision", ["single_phase", "two_phase"])
@pytest.mark.parametrize("multi_label", [False, True])
def test_several_hypotheses_and_rules_equal_a_plain_loop(score, aggregate, decision, multi_label):
    pipe, seen = made(), ["acne", "migraine"]
    settings = {"aggregate": aggregate, "decision": decision, "multi_label": multi_label}
    found = pipe(
        TEXTS, hypotheses=HYPOTHESES, score=score, none_label="none", seen_labels=seen, batch_size=3, **settings
    )
    probs = entailment_probs(logits_of(pipe.model, FLAT), 2, score)
    want = decide(probs, OWNER, [0, 2], DecisionRule(reject=not multi_label, **settings))
    combine = np.max if aggregate == "max" else np.mean
    for row, got in enumerate(found):
        scores = dict(zip(got["labels"], got["scores"], strict=True))
        for place, name in enumerate(NAMES):
            mine = [probs[row, i] for i, owner in enumerate(OWNER) if owner == place]
            assert scores[name] == pytest.approx(combine(mine), abs=1e-5)
        assert got["scores"] == sorted(got["scores"], reverse=True)
        if multi_label:
            assert got["label"] == ([NAMES[i] for i in np.flatnonzero(want[row])] or ["none"])
        else:
            assert got["label"] == ("none" if want[row] < 0 else NAMES[want[row]])


def test_rejection_and_several_labels_without_a_none_label():
    pipe = made()
    settings = {"hypotheses": HYPOTHESES, "threshold": 1.0}
    assert pipe(TEXTS[0], **settings)["label"] in NAMES
    assert pipe(TEXTS[0], none_label="other", **settings)["label"] == "other"
    assert pipe(TEXTS[0], multi_label=True, **settings)["label"] == []
    assert pipe(TEXTS[0], multi_label=True, hypotheses=HYPOTHESES, threshold=0.0)["label"] == list(NAMES)


def test_a_higher_margin_turns_seen_labels_into_unseen_ones():
    pipe = made()
    rules = [{"decision": "two_phase", "seen_labels": ["acne", "insomnia"], "seen_margin": m} for m in (0.0, 1.0)]
    low, high = ([row["label"] for row in pipe(TEXTS, hypotheses=HYPOTHESES, threshold=0.0, **r)] for r in rules)
    assert low.count("migraine") < len(TEXTS) and set(high) == {"migraine"}


def test_texts_come_as_list_tuple_column_or_generator_and_stay_in_order():
    pipe = made(hypotheses=HYPOTHESES)
    want = pipe(TEXTS)
    column = Dataset.from_dict({"text": TEXTS})["text"]
    for batch_size in (1, 3):
        for texts in (tuple(TEXTS), column, (text for text in TEXTS)):
            found = list(pipe(texts, batch_size=batch_size))
            assert [row["sequence"] for row in found] == TEXTS
            for one, other in zip(want, found, strict=True):
                assert other["scores"] == pytest.approx(one["scores"], abs=1e-6)
    assert pipe(TEXTS[1]) == want[1]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_empty_text_gets_no_label_and_a_warning(batch_size, caplog):
    pipe = made()
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        found = pipe(["the head hurts", "  "], hypotheses=HYPOTHESES, none_label="none", batch_size=batch_size)
    assert found[1]["label"] == "none" and found[1]["scores"] == [0.0] * 3
    assert "Text 1 is empty" in caplog.text
    assert pipe("", hypotheses=HYPOTHESES, none_label="none", multi_label=True)["label"] == ["none"]
    assert pipe("", hypotheses=HYPOTHESES)["label"] is None


@pytest.mark.parametrize("batch_size", [1, 4])
def test_nan_logits_name_the_text(batch_size):
    pipe = made(hypotheses=HYPOTHESES)
    bad = tiny_tokenizer().convert_tokens_to_ids("hurts")
    with torch.no_grad():
        pipe.model.bert.embeddings.word_embeddings.weight[bad] = float("nan")
    hypotheses = {"acne": ["it was acne ."]}
    assert pipe(TEXTS[:2], hypotheses=hypotheses)[0]["label"] == "acne"
    with pytest.raises(ValueError, match="NaN or infinite logits for text 2 .'the head hurts'"):
        pipe(TEXTS, hypotheses=hypotheses, batch_size=batch_size)


def test_a_short_list_runs_the_nearest_labels_only():
    pipe = made()
    near = TextEncoder(tiny_encoder_model(), tiny_tokenizer(), max_length=16)
    hypotheses = {name: [f"it was {name} ."] for name in ("acne", "insomnia", "migraine", "obesity", "diet")}
    every = pipe(TEXTS, hypotheses=hypotheses)
    vectors = near.encode([lines[0] for lines in hypotheses.values()])
    seen = []
    forward = pipe.model.forward
    pipe.model.forward = lambda *args, **kwargs: seen.append(1) or forward(*args, **kwargs)
    found = pipe(TEXTS, hypotheses=hypotheses, prefilter=near, prefilter_k=2)
    assert len(seen) == 2 * len(TEXTS)
    for text, row, whole in zip(TEXTS, found, every, strict=True):
        vector = near.encode([text])[0]
        cosine = vectors @ vector / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vector)
        kept = {list(hypotheses)[place] for place in np.argsort(-cosine)[:2]}
        scores = dict(zip(row["labels"], row["scores"], strict=True))
        want = dict(zip(whole["labels"], whole["scores"], strict=True))
        assert {name for name, score in scores.items() if score} == kept
        assert all(scores[name] == pytest.approx(want[name], abs=1e-6) for name in kept)
    same = pipe(TEXTS, hypotheses=hypotheses, prefilter=near, prefilter_k=9)
    assert [row["label"] for row in same] == [row["label"] for row in every]


@pytest.mark.parametrize("ensemble", ["mean", "reference"])
def test_an_ensemble_decides_on_joined_probabilities(ensemble, caplog):
    pipes = [made(seed=seed) for seed in (0, 1, 2)]
    found = classify_with_ensemble(
        pipes, [*TEXTS, ""], ensemble=ensemble, hypotheses=HYPOTHESES, none_label="none", batch_size=4
    )
    probs = [entailment_probs(logits_of(pipe.model, FLAT), 2) for pipe in pipes]
    joined = ensemble_probs(probs, ensemble)
    want = decide(joined, OWNER, (), DecisionRule(reject=True))
    assert [row["label"] for row in found] == [*("none" if i < 0 else NAMES[i] for i in want), "none"]
    assert found[0]["scores"][0] == pytest.approx(joined[0].max(), abs=1e-5) and found[-1]["scores"] == [0.0] * 3
    for wrong, message in (({}, "`pipes` is empty"), ({"score": "pipeline"}, "no probabilities")):
        with pytest.raises(ValueError, match=message):
            classify_with_ensemble(pipes if wrong else [], TEXTS, candidate_labels=list(NAMES), **wrong)


def test_settings_travel_with_the_model(tmp_path):
    pipe = made()
    settings = {"hypotheses": HYPOTHESES, "none_label": "none", "seen_labels": ["acne"], "decision": "two_phase"}
    pipe.save_settings(**settings, seen_margin=0.2)
    pipe.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))  # no code to trust
    again = pipeline("hypothesis-zero-shot", model=str(tmp_path), tokenizer=AutoTokenizer.from_pretrained(tmp_path))
    want = pipe(TEXTS, **settings, seen_margin=0.2)
    assert again(TEXTS) == want and again.plan() == pipe.plan(**settings, seen_margin=0.2)
    assert again.plan(seen_margin=0.3).rule.seen_margin == 0.3
    other = again.plan(candidate_labels=["acne", "obesity"])  # new labels: what is saved of the others is left out
    assert other.labels == ("acne", "obesity") and other.seen == (0,)
    assert other.hypotheses == (*HYPOTHESES["acne"], "This example is obesity.")
    named = again.plan(hypotheses={"pain": ["it was pain ."]})
    assert (named.labels, named.seen, named.rule.seen_margin) == (("pain",), (), 0.2)
    own = pipeline("hypothesis-zero-shot", model=str(tmp_path), threshold=0.9)  # the constructor wins over the config
    assert own.plan().rule.threshold == 0.9 and own.plan(threshold=0.4).rule.threshold == 0.4
    stock = pipeline("zero-shot-classification", model=str(tmp_path))  # saved settings do not disturb it
    assert len(stock(TEXTS[0], list(NAMES))["scores"]) == 3


def test_the_class_of_entailment_can_be_told():
    told = made(("yes", "maybe", "no"), entailment_id=0)
    known = HypothesisZeroShotPipeline(model=nli_model(("entailment", "b", "c")), tokenizer=tiny_tokenizer())
    assert told(TEXTS, hypotheses=HYPOTHESES) == known(TEXTS, hypotheses=HYPOTHESES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "`candidate_labels` is empty"),
        ({"candidate_labels": []}, "`candidate_labels` is empty"),
        ({"candidate_labels": ["acne", "acne"]}, "'acne' twice"),
        ({"candidate_labels": ["acne"], "hypothesis_template": "it was acne"}, "exactly one `{}`"),
        ({"candidate_labels": ["acne"], "hypotheses": {"flu": ["x"]}}, "'flu', which is not a label: acne"),
        ({"hypotheses": {"acne": ["", "x"]}}, "hypothesis of 'acne' is empty"),
        ({"candidate_labels": ["acne"], "seen_labels": ["flu"]}, "'flu', which is not a candidate label: acne"),
        ({"candidate_labels": ["acne"], "none_label": "acne"}, "also a candidate"),
        ({"candidate_labels": ["acne"], "score": "sum"}, "softmax, max, pipeline"),
        ({"hypotheses": HYPOTHESES, "score": "pipeline"}, "one hypothesis per label"),
        ({"candidate_labels": ["acne"], "threshold": 2.0}, r"`threshold` must be in \[0, 1\]"),
        ({"candidate_labels": ["acne"], "decision": "three"}, "single_phase, two_phase"),
        ({"candidate_labels": ["acne"], "prefilter_k": 3}, "needs `prefilter`"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        made()(TEXTS, **settings)


def test_other_bad_calls_are_named():
    pipe = made()
    with pytest.raises(ValueError, match=r"None of the model's.*'yes': 0, 'no': 1"):
        made(("yes", "no"))
    with pytest.raises(ValueError, match=r"entailment_id` given: 5"):
        made(entailment_id=5)
    with pytest.raises(TypeError, match="no setting 'treshold'"):
        pipe(TEXTS, list(NAMES), treshold=0.4)
    with pytest.raises(TypeError, match="no setting 'treshold'"):
        made(treshold=0.4)
    with pytest.raises(ValueError, match="labels once"):
        pipe(TEXTS, list(NAMES), candidate_labels=list(NAMES))
    with pytest.raises(ValueError, match="no texts"):
        pipe([], list(NAMES))
