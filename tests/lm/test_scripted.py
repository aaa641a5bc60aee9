"""The deterministic double: rules, scores and faults."""

import numpy as np
import pytest

from hf_labels.lm import ItemError, Message, Request, ScriptedLM


def test_rules_in_order():
    lm = ScriptedLM(
        [
            (r"capital of (?P<c>\w+)", r"\g<c>ville"),
            (lambda request: "long" in request.text, lambda request: f"{len(request.text)} characters"),
            (r"(\d+) plus (\d+)", lambda request, match: str(int(match[1]) + int(match[2]))),
            ("table", {"a": [1, "ü"]}),
        ],
        default="?",
    )
    texts = lm.generate_text(["capital of Peru", "a long one", "2 plus 3", "table", "long capital of X", "else"])
    assert texts == ["Peruville", "10 characters", "5", '{"a": [1, "ü"]}', "Xville", "?"]
    assert [request.text for request in lm.log][:2] == ["capital of Peru", "a long one"] and lm.attempts == 1
    assert lm.generate([Request("2 plus 3", n=3)])[0].texts == ("5", "5", "5")


def test_a_responder_answers_everything_and_sees_all_messages():
    lm = ScriptedLM(lambda request: "|".join(message.role for message in request.messages))
    request = Request((Message("system", "s"), Message("user", "u")))
    assert lm.generate_text([request]) == ["system|user"]


@pytest.mark.parametrize("rules", [[("a",)], ["ab"], [(3, "x")], [("a", "x", "y")]])
def test_a_rule_of_another_form_is_refused(rules):
    with pytest.raises(TypeError):
        ScriptedLM(rules)


def test_an_answer_of_another_type_is_refused():
    with pytest.raises(TypeError, match="got int"):
        ScriptedLM(lambda request: 3).generate(["a"])


def test_scores_of_every_form():
    assert ScriptedLM(scores={"a": -1, "b": -2}).score_labels(["q"], ["b", "a"]).logprobs.tolist() == [[-2.0, -1.0]]
    by_rule = ScriptedLM(scores=[("x", {"a": 0, "b": -5}), (".", lambda request, labels: [[-1, -1], -3])])
    scores = by_rule.score_labels(["x", "y"], ["a", "b"])
    assert scores.logprobs.tolist() == [[0.0, -5.0], [-2.0, -3.0]] and scores.token_logprobs[1] == [
        [-1.0, -1.0],
        [-3.0],
    ]
    with pytest.raises(ItemError, match="Request 1: `scores` has no 'c'"):
        ScriptedLM(scores=[("x", {"a": 0, "b": 0, "c": 0}), ("y", {"a": 0})]).score_labels(["x", "y"], ["a", "c"])
    with pytest.raises(ItemError, match="1 scores for 2 labels"):
        ScriptedLM(scores=lambda request, labels: [0.0]).score_labels(["x"], ["a", "c"])
    with pytest.raises(ScriptedLM.NoRule, match="Request 0"):
        ScriptedLM(scores=[("x", {"a": 0})]).score_labels(["q"], ["a"])


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_noise_has_its_rate_and_never_keeps_the_label(rate):
    labels = ["a", "b", "c"]
    prompts = [f"say a {i}" for i in range(2000)]
    lm = ScriptedLM([(r"say (\w)", r"\1")], {"a": 0.0, "b": -1.0, "c": -2.0}, labels=labels, noise_rate=rate)
    texts = lm.generate_text(prompts)
    flipped = [text for text in texts if text != "a"]
    assert abs(len(flipped) / 2000 - rate) < 4 * (rate * (1 - rate) / 2000) ** 0.5
    assert 0.4 < flipped.count("b") / len(flipped) < 0.6
    rows = lm.score_labels(prompts, labels).logprobs
    wrong = (rows.argmax(1) != 0).mean()
    assert abs(wrong - rate) < 4 * (rate * (1 - rate) / 2000) ** 0.5
    assert np.array_equal(np.sort(rows, 1), np.tile([-2.0, -1.0, 0.0], (2000, 1)))


def test_seeds_change_the_faults_and_nothing_else():
    def texts(seed, rate):
        lm = ScriptedLM([(".*", "a")], seed=seed, labels=["a", "b"], noise_rate=rate)
        return lm.generate_text([f"q{i}" for i in range(100)])

    assert texts(0, 0.5) == texts(0, 0.5) != texts(1, 0.5) and texts(0, 0.0) == texts(1, 0.0) == ["a"] * 100
    lm = ScriptedLM([(".*", "a")], labels=["a", "b"], noise_rate=0.5)
    drawn = [lm.generate([Request("q", temperature=1.0, seed=s)])[0].text for s in range(40)]
    assert set(drawn) == {"a", "b"}
    assert set(lm.generate([Request("q", n=40)])[0].texts) == {"a", "b"}


def test_malformed_answers_are_cut_and_repaired():
    lm = ScriptedLM([(".*", {"value": 12345})], malformed_rate=0.5)
    schema = {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"]}
    prompts = [f"q{i}" for i in range(200)]
    broken = sum(text != '{"value": 12345}' for text in lm.generate_text(prompts))
    assert 70 < broken < 130
    results = lm.generate_json(prompts, schema, max_repairs=1)
    still = [r for r in results if r.value is None]
    assert 0 < len(still) < broken and all(r.error and r.raw == '{"value"' for r in still)
    assert all(r.value == {"value": 12345} for r in lm.generate_json(prompts, schema, max_repairs=12))
