"""What every backend gets from the base class: retries, budget, errors, usage, configuration, progress."""

import json

import numpy as np
import pytest

from hf_labels.lm import (
    BlackBoxLM,
    Budget,
    BudgetExceeded,
    ItemError,
    Message,
    RateLimit,
    Request,
    ScriptedLM,
    UnsupportedCapability,
)

ECHO = [(r"(?s)(.*)", r"\1")]
PROMPTS = [f"p{i % 9} {'w ' * (i % 4)}" for i in range(14)]


def scores(request, labels):
    return [-float(len(request.text) + len(label)) for label in labels]


def test_two_failures_take_exactly_three_attempts():
    waits = []
    lm = ScriptedLM(ECHO, fail_first=2, backoff=1.0, backoff_max=30.0, sleep=waits.append)
    assert lm.generate_text(["a"]) == ["a"] and lm.attempts == 3
    assert 0.5 <= waits[0] <= 1.0 and 1.0 <= waits[1] <= 2.0


def test_more_failures_than_retries_raise():
    lm = ScriptedLM(ECHO, fail_first=3, max_retries=2, sleep=lambda s: None)
    with pytest.raises(RateLimit, match="scripted failure 3"):
        lm.generate(["a"])
    assert lm.attempts == 3


def test_waits_grow_up_to_the_limit():
    waits = []
    lm = ScriptedLM(ECHO, fail_first=7, max_retries=7, backoff=1.0, backoff_max=4.0, sleep=waits.append)
    lm.generate(["a"])
    assert all(0.5 * full <= wait <= full for wait, full in zip(waits, [1, 2, 4, 4, 4, 4, 4], strict=True))


def test_a_wait_ends_when_the_call_is_stopped():
    import threading

    from hf_labels.lm.retry import Retry

    class Stop(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            self.set()  # Ctrl-C in the wait
            return True

    tries, waits = [], []

    def fail():
        tries.append(1)
        raise RateLimit("slow", retry_after=60.0)

    with pytest.raises(RateLimit):
        Retry().call(fail, Stop())
    assert waits == [60.0] and len(tries) == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_order_and_batch_size_change_nothing(seed):
    made = [
        ScriptedLM(
            ECHO, scores, seed, batch_size=size, labels=["p1 ", "p2 ", "p5 w "], noise_rate=0.4, malformed_rate=0.3
        )
        for size in (1, 7)
    ]
    order = np.random.default_rng(seed).permutation(len(PROMPTS))
    a, b = (lm.generate_text(PROMPTS) for lm in made)
    assert a == b and made[1].generate_text([PROMPTS[i] for i in order]) == [a[i] for i in order]
    p, q = (lm.score_labels(PROMPTS, ["x", "yyy"]).logprobs for lm in made)
    assert np.array_equal(p, q)
    assert np.array_equal(made[0].score_labels([PROMPTS[i] for i in order], ["x", "yyy"]).logprobs, p[order])


def test_permuting_labels_permutes_columns():
    lm = ScriptedLM(scores=scores)
    a = lm.score_labels(PROMPTS, ["x", "yyy", "zz"]).probs()
    b = lm.score_labels(PROMPTS, ["zz", "x", "yyy"]).probs()
    assert np.array_equal(b, a[:, [2, 0, 1]])


def test_empty_input_makes_no_call():
    lm = ScriptedLM(ECHO, scores, fail_first=1)
    assert lm.generate([]) == [] and lm.generate_text([]) == [] and lm.generate_json([], {"type": "object"}) == []
    assert lm.score_labels([], ["a", "b"]).probs().shape == (0, 2)
    assert lm.score_labels([], ["a", "b"], normalize="pmi", prior_prompt="N/A").logprobs.shape == (0, 2)
    assert lm.attempts == 0


def test_a_missing_capability_is_named_before_any_call():
    lm = ScriptedLM(ECHO)
    with pytest.raises(UnsupportedCapability, match="ScriptedLM cannot score; use"):
        lm.score_labels(["a"], ["b"])
    with pytest.raises(UnsupportedCapability, match="ScriptedLM cannot embed; use `EmbeddingLM`"):
        lm.embed(["a"])
    with pytest.raises(UnsupportedCapability, match="BlackBoxLM cannot generate"):
        BlackBoxLM(model_id="m").generate(["a"])
    assert lm.attempts == 0


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_budget_of_calls_keeps_partial_results(batch_size):
    lm = ScriptedLM(ECHO, scores, batch_size=batch_size, budget=Budget(max_calls=5))
    prompts = [f"q{i}" for i in range(8)]
    with pytest.raises(BudgetExceeded, match="5 of 8 requests are answered") as caught:
        lm.generate(prompts)
    assert [r and r.text for r in caught.value.partial] == prompts[:5] + [None] * 3
    assert lm.usage.calls == 5
    with pytest.raises(BudgetExceeded) as caught:
        lm.generate_text(prompts)
    assert caught.value.partial == [None] * 8
    lm.reset_usage()
    with pytest.raises(BudgetExceeded) as caught:
        lm.score_labels(prompts, ["a", "bb"])
    partial = caught.value.partial
    assert np.isfinite(partial.logprobs[:5]).all() and np.isnan(partial.logprobs[5:]).all()
    assert partial.errors[4] is None and partial.errors[5] and partial.predictions().tolist() == [0] * 5 + [-1] * 3


def test_budget_that_is_just_enough_and_budget_of_tokens_and_money():
    assert len(ScriptedLM(ECHO, budget=Budget(max_calls=3)).generate(["a", "b", "c"])) == 3
    lm = ScriptedLM(ECHO, batch_size=1, budget=Budget(max_tokens=6))
    with pytest.raises(BudgetExceeded, match="max_tokens"):
        lm.generate([f"q{i} w" for i in range(8)])
    assert lm.usage.prompt_tokens + lm.usage.completion_tokens == 8, "checked before each batch, known after it"
    lm = ScriptedLM(ECHO, batch_size=2, price_per_1k=(500.0, 0.0), budget=Budget(max_cost_usd=1.0))
    with pytest.raises(BudgetExceeded, match="max_cost_usd"):
        lm.generate(["a", "b", "c", "d", "e"])
    assert lm.usage.calls == 2


def test_cached_answers_come_in_spite_of_an_empty_budget(tmp_path):
    ScriptedLM(ECHO, cache_dir=tmp_path).generate(["a", "b"])
    lm = ScriptedLM(ECHO, cache_dir=tmp_path, budget=Budget(max_calls=0))
    assert lm.generate_text(["a", "b"]) == ["a", "b"]
    with pytest.raises(BudgetExceeded) as caught:
        lm.generate(["a", "c", "b"])
    assert [r and r.text for r in caught.value.partial] == ["a", None, "b"]


def test_cost_adds_up():
    lm = ScriptedLM(ECHO, scores, price_per_1k=(2.0, 10.0))
    answers = lm.generate(PROMPTS)
    assert sum(a.usage for a in answers) == lm.usage
    u = lm.usage
    assert u.cost_usd == pytest.approx(u.prompt_tokens * 2 / 1000 + u.completion_tokens * 10 / 1000) and u.cost_usd > 0
    before = lm.usage
    lm.score_labels(["one two three", "four"], ["a"])
    assert lm.usage.cost_usd - before.cost_usd == pytest.approx(4 * 2 / 1000)
    assert lm.usage.calls - before.calls == 2
    lm.reset_usage()
    assert lm.usage.calls == 0


def test_errors_are_raised_or_returned():
    rules = [("good", "ok")]
    prompts = ["good 1", "bad", "good 2"]
    with pytest.raises(ScriptedLM.NoRule, match="no rule fits 'bad'"):
        ScriptedLM(rules).generate(prompts)
    answers = ScriptedLM(rules, on_error="return").generate(prompts)
    assert [a.text for a in answers] == ["ok", "", "ok"] and answers[1].texts == () and "NoRule" in answers[1].error

    def strict(request, labels):
        if request.text == "bad":
            raise ItemError(0, "not this one")
        return [0.0, -1.0]

    lm = ScriptedLM(scores=strict, batch_size=1)
    with pytest.raises(ItemError, match="Request 1: not this one"):
        lm.score_labels(prompts, ["a", "b"])
    lm.on_error = "return"
    found = lm.score_labels(prompts, ["a", "b"])
    assert found.predictions().tolist() == [0, -1, 0] and "not this one" in found.errors[1]


def test_calibration_and_pmi_through_the_model():
    def prior_or_text(request, labels):
        return [[-2.0, -1.0], [-0.5]] if request.text == "N/A" else [[-1.0, -1.0], [-3.0]]

    lm = ScriptedLM(scores=prior_or_text)
    labels = ["ab", "c"]
    pmi = lm.score_labels(["t"], labels, normalize="pmi", prior_prompt="N/A")
    assert pmi.logprobs.tolist() == [[-2.0 + 3.0, -3.0 + 0.5]]
    each = lm.score_labels(["t", "u"], labels, normalize="pmi", prior_prompt=["N/A", "t"])
    assert each.logprobs.tolist() == [[1.0, -2.5], [0.0, 0.0]]
    assert lm.score_labels(["t"], labels, normalize="mean").logprobs.tolist() == [[-1.0, -3.0]]
    assert lm.score_labels(["t"], labels, normalize="per_char").logprobs.tolist() == [[-1.0, -3.0]]
    p_cf = lm.score_labels(["N/A"], labels).probs()[0]
    plain, q = lm.score_labels(["t"], labels).probs(), lm.score_labels(["t"], labels, calibrate=p_cf).probs()
    assert q == pytest.approx((plain / p_cf) / (plain / p_cf).sum())
    for wrong in ({"normalize": "pmi"}, {"prior_prompt": "N/A"}, {"normalize": "other"}, {"calibrate": [1.0, 0.0]}):
        with pytest.raises(ValueError):
            lm.score_labels(["t"], labels, **wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"max_retries": -1},
        {"backoff": -1},
        {"timeout": 0},
        {"price_per_1k": (1.0,)},
        {"price_per_1k": (-1.0, 0.0)},
        {"on_error": "ignore"},
        {"noise_rate": 1.5},
        {"noise_rate": 0.5},
        {"fail_first": -1},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError):
        ScriptedLM(ECHO, **options)


def test_a_single_prompt_instead_of_a_list_is_refused():
    lm = ScriptedLM(ECHO, scores)
    for call in (lm.generate, lm.generate_text, lambda p: lm.score_labels(p, ["a"])):
        with pytest.raises(TypeError, match="list of prompts"):
            call("hello")
    with pytest.raises(TypeError, match="`labels` must be a list"):
        lm.score_labels(["a"], "yes")


def test_config_round_trip(tmp_path):
    lm = ScriptedLM(
        [("a", r"\g<0>!")],
        {"x": -1.0},
        seed=4,
        labels=["x", "y"],
        noise_rate=0.25,
        batch_size=3,
        budget=Budget(max_calls=9),
        cache_dir=tmp_path,
        price_per_1k=(1.0, 2.0),
        on_error="return",
    )
    config = json.loads(json.dumps(lm.get_config()))
    again = BlackBoxLM.from_config(config)
    assert isinstance(again, ScriptedLM) and again.get_config() == lm.get_config()
    assert again.generate_text(["a"]) == lm.generate_text(["a"])
    assert lm.usage.cached_calls == 1, "the same rules share answers"
    assert BlackBoxLM.from_config(config, batch_size=5).batch_size == 5
    with pytest.raises(ValueError, match="must be one of"):
        BlackBoxLM.from_config({"type": "Oracle"})
    with pytest.raises(ValueError, match="config is of a ScriptedLM"):
        from hf_labels.lm import EmbeddingLM

        EmbeddingLM.from_config(config)


def test_a_backend_with_a_wrong_number_of_answers_is_caught():
    class Broken(BlackBoxLM):
        capabilities = frozenset({"generate"})

        def _generate(self, requests):
            return []

    with pytest.raises(RuntimeError, match="0 answers to 1 requests"):
        Broken(model_id="b").generate(["a"])


def test_progress_is_shown_when_asked(capsys):
    ScriptedLM(ECHO, progress=True).generate(["a", "b"])
    assert "generate (scripted): 100%" in capsys.readouterr().err
    ScriptedLM(ECHO).generate(["a", "b"])
    assert capsys.readouterr().err == ""


def test_images_need_vision():
    request = Request((Message("user", [{"type": "image", "image": b"x"}]),))
    assert ScriptedLM(default="seen").generate_text([request]) == ["seen"]
    lm = ScriptedLM(default="seen")
    lm.capabilities = frozenset({"generate"})
    with pytest.raises(UnsupportedCapability, match="cannot vision"):
        lm.generate([request])
    assert lm.attempts == 0
