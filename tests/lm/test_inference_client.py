"""InferenceClientLM against a loopback OpenAI-compatible server, with the real client."""

import json
import math
import time

import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError

from hf_labels.lm import (
    BlackBoxLM,
    Budget,
    BudgetExceeded,
    InferenceClientLM,
    ItemError,
    MalformedAnswer,
    Message,
    Request,
    UnsupportedCapability,
    label_dataset,
)

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture
def make(server):
    """A client of the loopback server whose waits are recorded, not slept."""

    def build(**options):
        waits = []
        lm = InferenceClientLM("some/model", base_url=server.url, sleep=waits.append, **options)
        lm.waits = waits
        return lm

    return build


def test_a_request_arrives_whole_and_the_answer_comes_back(make, server, answer_of):
    server.answer = lambda body, number: answer_of(
        "hello", {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    )
    lm = make(price_per_1k=(1.0, 10.0))
    request = Request(
        (Message("system", "be kind"), Message("user", "hi")),
        max_new_tokens=5,
        temperature=0.5,
        top_p=0.9,
        stop=("\n",),
        seed=3,
        metadata={"secret": "never sent"},
    )
    answer = lm.generate([request])[0]
    assert answer.texts == ("hello",) and answer.finish_reasons == ("stop",)
    assert answer.usage.to_dict() == {
        "prompt_tokens": 7,
        "completion_tokens": 2,
        "calls": 1,
        "cached_calls": 0,
        "cost_usd": pytest.approx(7 / 1000 + 20 / 1000),
    }
    body = server.bodies[0]
    assert server.paths == ["/v1/chat/completions"]
    assert body["messages"] == [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    wanted = {"model": "some/model", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "seed": 3}
    assert {name: body[name] for name in wanted} == wanted
    assert "never sent" not in json.dumps(body)


@pytest.mark.parametrize("batch_size", [1, 7])
def test_order_is_kept_and_requests_run_at_once(make, server, answer_of, batch_size):
    def answer(body, number):
        time.sleep(0.002 * (10 - int(body["messages"][0]["content"])))
        return answer_of("reply " + body["messages"][0]["content"])

    server.answer = answer
    texts = make(batch_size=batch_size).generate_text([str(i) for i in range(10)])
    assert texts == [f"reply {i}" for i in range(10)]
    assert (server.most_running > 1) == (batch_size > 1) and server.most_running <= batch_size


def test_rate_limit_is_retried_after_what_the_server_says(make, server, answer_of):
    replies = {1: (429, {"error": "slow down"}, {"Retry-After": "7"}), 2: (429, {"error": "slow"}, {})}
    server.answer = lambda body, number: replies.get(number, answer_of("ok"))
    lm = make(backoff=2.0)
    assert lm.generate_text(["x"]) == ["ok"]
    assert len(server.bodies) == 3
    assert lm.waits[0] == 7 and 0.5 * 4 <= lm.waits[1] <= 4
    assert lm.usage.calls == 1


def test_a_retry_date_is_understood_and_hours_are_not_waited(make, server, answer_of):
    import datetime
    import email.utils

    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=90)
    replies = {1: (503, {}, {"Retry-After": email.utils.format_datetime(soon, usegmt=True)})}
    server.answer = lambda body, number: replies.get(number, (429, {}, {"Retry-After": "86400"}))
    lm = make()
    with pytest.raises(HfHubHTTPError, match="429"):
        lm.generate(["x"])
    assert len(server.bodies) == 2 and len(lm.waits) == 1 and 80 < lm.waits[0] <= 90


@pytest.mark.parametrize("status", [408, 409, 425, 500, 502, 503])
def test_transient_statuses_are_retried(make, server, answer_of, status):
    server.answer = lambda body, number: (status, {"error": "later"}, {}) if number < 3 else answer_of("ok")
    lm = make(backoff=1.0, backoff_max=1.5)
    assert lm.generate_text(["x"]) == ["ok"]
    assert len(lm.waits) == 2 and 0.5 <= lm.waits[0] <= 1 and 0.75 <= lm.waits[1] <= 1.5


def test_the_offline_mode_of_the_hub_is_not_retried(make, server, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    lm = make()
    with pytest.raises(ConnectionError, match="offline mode"):
        lm.generate(["x"])
    assert lm.waits == [] and server.bodies == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_lasting_statuses_are_not_retried(make, server, status):
    server.answer = lambda body, number: (status, {"error": "no"}, {})
    lm = make()
    with pytest.raises(HfHubHTTPError) as caught:
        lm.generate(["x"])
    assert caught.value.response.status_code == status
    assert len(server.bodies) == 1 and lm.waits == []


def test_after_the_last_retry_the_error_comes_out_or_is_returned(make, server, answer_of):
    server.answer = lambda body, n: (500, {}, {}) if body["messages"][0]["content"] == "bad" else answer_of("ok")
    lm = make(max_retries=2)
    with pytest.raises(HfHubHTTPError, match="500"):
        lm.generate(["bad"])
    assert len(server.bodies) == 3
    lm.on_error = "return"
    answers = lm.generate(["good", "bad", "good too"])
    assert [a.text for a in answers] == ["ok", "", "ok"]
    assert answers[1].texts == () and "500" in answers[1].error and answers[1].finish_reasons == ("error",)


def test_timeout_and_reset_are_retried(make, server, answer_of):
    server.answer = lambda body, number: {1: "hang", 2: "reset"}.get(number) or answer_of("ok")
    lm = make(timeout=0.3)
    assert lm.generate_text(["x"]) == ["ok"]
    assert len(server.bodies) == 3 and len(lm.waits) == 2


@pytest.mark.parametrize(
    "body",
    [b"{'not json", b"", b"\xff\xfe", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"index": 0}]}', b"null"],
)
def test_an_unreadable_body_is_retried_and_then_named(make, server, answer_of, body):
    server.answer = lambda _, number: (200, body, {}) if number < 3 else answer_of("ok")
    assert make().generate_text(["x"]) == ["ok"] and len(server.bodies) == 3
    server.answer = lambda *_: (200, body, {})
    with pytest.raises(MalformedAnswer, match="server's answer"):
        make(max_retries=1).generate(["x"])
    assert len(server.bodies) == 5


def test_without_usage_tokens_are_counted_here(make, server, answer_of, tokenizer):
    server.answer = lambda *_: answer_of("three words here")
    assert make().generate(["two words"])[0].usage.to_dict() == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "calls": 1,
        "cached_calls": 0,
        "cost_usd": 0.0,
    }
    usage = make(tokenizer=tokenizer).generate(["two words"])[0].usage
    assert usage.prompt_tokens == len(tokenizer("two words", add_special_tokens=False).input_ids) > 2


def test_finish_reasons_and_null_content(make, server, answer_of):
    server.answer = lambda body, _: {
        "a": answer_of("cut", finish="length"),
        "b": answer_of(None, finish="content_filter"),
        "c": answer_of("end", finish="eos_token"),
    }[body["messages"][0]["content"]]
    answers = make().generate(["a", "b", "c"])
    assert [(a.text, a.finish_reasons[0]) for a in answers] == [("cut", "length"), ("", "error"), ("end", "stop")]


def test_n_answers_also_from_a_server_that_gives_one_at_a_time(make, server, answer_of):
    server.answer = lambda body, number: answer_of(f"t{body.get('seed')}")
    lm = make()
    answer = lm.generate([Request("x", temperature=1.0, n=3, seed=10)])[0]
    assert answer.texts == ("t10", "t11", "t12") and answer.usage.calls == lm.usage.calls == 3
    server.answer = lambda body, number: answer_of(["a", "b", "c"][: body.get("n", 1)])
    assert make().generate([Request("x", temperature=1.0, n=3, seed=10)])[0].texts == ("a", "b", "c")


# ---- scoring -------------------------------------------------------------------------------------


def logprobs_of(answer_of, listed):
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in listed]
    body = answer_of(listed[0][0])
    body["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return body


def test_scores_come_from_the_first_token(make, server, answer_of):
    server.answer = lambda body, _: logprobs_of(answer_of, [("A", -0.5), (" B", -1.5), ("x", -4.0)])
    lm = make()
    scores = lm.score_labels(["q", "r"], ["B", "A", "C"])
    assert scores.logprobs.tolist() == [[-1.5, -0.5, -4.0]] * 2
    assert scores.truncated.tolist() == [[False, False, True]] * 2
    p = np.exp([-1.5, -0.5, -4.0])
    assert scores.probs()[0] == pytest.approx(p / p.sum())
    body = server.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)


def test_labels_that_share_their_first_token_are_refused(make, server, answer_of, tokenizer):
    server.answer = lambda body, _: logprobs_of(answer_of, [("pos", -0.5), ("x", -4.0)])
    with pytest.raises(ValueError, match="'positive', 'possible'.*'pos'.*verbalize"):
        make().score_labels(["q"], ["positive", "possible", "no"])
    calls = len(server.bodies)
    ids = [tokenizer(label, add_special_tokens=False).input_ids[0] for label in ("positive", "possible")]
    assert ids[0] == ids[1], "the test needs labels that share a token"
    with pytest.raises(ValueError, match="'positive' and 'possible' begin with the same token"):
        make(tokenizer=tokenizer).score_labels(["q"], ["positive", "possible"])
    with pytest.raises(ValueError, match="white space"):
        make().score_labels(["q"], ["A", " A"])
    assert len(server.bodies) == calls, "these are refused before any call"


def test_a_shorter_token_that_begins_two_labels_is_only_a_bound(make, server, answer_of):
    server.answer = lambda body, _: logprobs_of(answer_of, [("positive", -0.1), ("po", -3.0), ("x", -9.0)])
    scores = make().score_labels(["q"], ["positive", "politics"])
    assert scores.logprobs.tolist() == [[-0.1, -3.0]] and scores.truncated.tolist() == [[False, True]]


@pytest.mark.parametrize("logprobs", [None, {}, {"content": []}, {"content": None}])
def test_a_server_without_logprobs_is_named(make, server, answer_of, logprobs):
    body = answer_of("A")
    body["choices"][0]["logprobs"] = logprobs
    server.answer = lambda *_: body
    lm = make(on_error="return")
    with pytest.raises(UnsupportedCapability, match="gives no log-probabilities"):
        lm.score_labels(["q"], ["A", "B"])
    assert len(server.bodies) == 1 and lm.waits == []


def test_truncated_scores_survive_the_cache(make, server, answer_of, tmp_path):
    server.answer = lambda body, _: logprobs_of(answer_of, [("A", -0.5), ("x", -4.0)])
    lm = make(cache_dir=tmp_path)
    first = lm.score_labels(["q"], ["A", "B"])
    assert lm.score_labels(["q"], ["A", "B"]) == first and len(server.bodies) == 1
    assert first.truncated.tolist() == [[False, True]]


# ---- JSON ----------------------------------------------------------------------------------------


def test_json_mode_sends_the_schema_as_response_format(make, server, answer_of):
    server.answer = lambda *_: answer_of('{"a": 3, "extra": 1}')
    result = make().generate_json(["give"], SCHEMA)[0]
    assert result.value == {"a": 3} and len(server.bodies) == 1
    assert SCHEMA["properties"] == server.bodies[0]["response_format"]["value"]["properties"]
    assert server.bodies[0]["messages"][0]["content"] == "give"


@pytest.mark.parametrize("status", [400, 422])
def test_a_server_without_json_mode_gets_the_schema_in_words(make, server, answer_of, status):
    server.answer = lambda body, _: (
        (status, {"error": "response_format is not supported"}, {})
        if "response_format" in body
        else answer_of('{"a": 3}')
    )
    lm = make(batch_size=1)
    assert [r.value for r in lm.generate_json(["one", "two"], SCHEMA)] == [{"a": 3}] * 2
    assert ["response_format" in body for body in server.bodies] == [True, False, False], "the refusal is remembered"
    assert json.dumps(SCHEMA) in server.bodies[1]["messages"][0]["content"]
    server.answer = lambda *_: (status, {"error": "bad request"}, {})
    fresh = make()
    with pytest.raises(HfHubHTTPError):
        fresh.generate_json(["one"], SCHEMA)
    assert fresh._schema_refused is False, "a request that is bad by itself says nothing about JSON mode"


def test_malformed_json_is_repaired_by_a_second_question(make, server, answer_of):
    server.answer = lambda body, number: answer_of('{"a": "x"' if number == 1 else '{"a": 5}')
    result = make().generate_json(["give"], SCHEMA)[0]
    assert result.value == {"a": 5} and result.repairs == 1 and len(server.bodies) == 2
    turns = server.bodies[1]["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[1]["content"] == '{"a": "x"' and "cut off" in turns[2]["content"]


# ---- credentials, images, configuration ----------------------------------------------------------


def test_the_hub_token_stays_away_from_other_servers(make, server, answer_of, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_user")
    lm = make()
    lm.generate(["x"])
    assert "hf_of_the_user" not in json.dumps(server.headers[0])
    InferenceClientLM("m", token="hf_given", base_url=server.url).generate(["x"])
    assert {k.lower(): v for k, v in server.headers[1].items()}["authorization"] == "Bearer hf_given"


def test_a_config_holds_no_secret_and_makes_the_client_again(make, server, tmp_path):
    import pickle

    url = server.url.replace("http://", "http://user:pass@") + "?key=abc"
    lm = InferenceClientLM("m", token="hf_given", base_url=url, budget=Budget(max_calls=3), cache_dir=tmp_path)
    config = lm.get_config()
    text = json.dumps(config)
    assert not any(secret in text for secret in ("hf_given", "user:pass", "abc"))
    again = BlackBoxLM.from_config(json.loads(text), token="hf_other")
    assert (
        isinstance(again, InferenceClientLM) and again.get_config() == config and again.budget == Budget(max_calls=3)
    )
    copied = pickle.loads(pickle.dumps(lm))
    assert copied._token is None and copied.get_config() == config


def test_images_are_sent_as_data_urls(make, server, answer_of, tmp_path):
    import base64

    data = b"\x89PNG....."
    (tmp_path / "i.png").write_bytes(data)
    parts = [
        {"type": "text", "text": "what?"},
        {"type": "image", "image": tmp_path / "i.png"},
        {"type": "image", "image": "https://example.org/i.png"},
    ]
    make().generate([Request((Message("user", parts),))])
    sent = server.bodies[0]["messages"][0]["content"]
    assert sent[0] == {"type": "text", "text": "what?"}
    assert sent[1]["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(data).decode()
    assert sent[2]["image_url"]["url"] == "https://example.org/i.png"
    with pytest.raises(ItemError, match="Request 1: .*gone.png"):
        make().generate(["a", Request((Message("user", [{"type": "image", "image": "gone.png"}]),))])


def test_budget_stops_between_batches_and_keeps_what_was_answered(make, server, answer_of):
    server.answer = lambda body, _: answer_of("r" + body["messages"][0]["content"])
    lm = make(batch_size=4, budget=Budget(max_calls=6))
    with pytest.raises(BudgetExceeded, match="max_calls") as caught:
        lm.generate([str(i) for i in range(10)])
    assert [r and r.text for r in caught.value.partial] == [f"r{i}" for i in range(6)] + [None] * 4
    assert len(server.bodies) == 6


def test_a_dataset_is_labelled_over_the_network(make, server, answer_of, tmp_path):
    import datasets

    server.answer = lambda body, _: answer_of(" sports" if "ball" in body["messages"][0]["content"] else "??")
    ds = datasets.Dataset.from_dict({"text": ["a ball", "a law"]})
    out = label_dataset(make(), ds, lambda row: row["text"], str.strip, labels=["sports", "politics"])
    assert out["llm_label"][:] == [0, -1] and out["llm_raw"][:] == [" sports", "??"]
    assert out["llm_error"][0] is None and "'??' is not among" in out["llm_error"][1]


def test_an_interrupt_keeps_what_came_in(make, server, answer_of, tmp_path, monkeypatch):
    """Ctrl-C in the second batch: the first one is on disk, the second run asks only the rest."""
    from hf_labels.lm import runner

    server.answer = lambda body, _: answer_of("r" + body["messages"][0]["content"])
    real = runner._do_batch
    batches = []

    def interrupted(*args):
        if batches:
            raise KeyboardInterrupt
        batches.append(1)
        real(*args)

    monkeypatch.setattr(runner, "_do_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(batch_size=4, cache_dir=tmp_path).generate([str(i) for i in range(10)])
    monkeypatch.setattr(runner, "_do_batch", real)
    seen = len(server.bodies)
    assert seen == 4
    lm = make(batch_size=4, cache_dir=tmp_path)
    assert lm.generate_text([str(i) for i in range(10)]) == [f"r{i}" for i in range(10)]
    assert len(server.bodies) == 10 and lm.usage.cached_calls == 4
    assert math.isclose(lm.usage.cost_usd, 0.0)
