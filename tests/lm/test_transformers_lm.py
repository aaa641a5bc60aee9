"""TransformersLM on tiny models, against plain loops without padding or batching."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from hf_labels.lm import BlackBoxLM, ItemError, Message, Request, TransformersLM, UnsupportedCapability

PROMPTS = [
    "the film was good",
    "a",
    "nothing happens twice in a long review of a short film",
    "sports or politics",
    "the food was bad",
    "maybe",
    "yes and no and yes and no",
    "weather",
]
WORDS = ["positive", " negative", "no"]
LETTERS = ["A", "B", "C", "D"]


def ids_of(lm, prompt):
    messages = [{"role": "user", "content": prompt}]
    text = lm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return lm.tokenizer(text, add_special_tokens=False).input_ids


@torch.no_grad()
def oracle(lm, ids, label):
    """log p of each label token, one token at a time, one sequence, no padding."""
    ids, found = list(ids), []
    for token in lm.tokenizer(label, add_special_tokens=False).input_ids:
        logits = lm.model.eval()(torch.tensor([ids])).logits[0, -1].double()
        found.append(float(torch.log_softmax(logits, -1)[token]))
        ids.append(token)
    return found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("labels", [WORDS, LETTERS])
def test_scores_equal_a_token_by_token_loop_without_padding(tiny_lm, seed, labels):
    lm = tiny_lm(seed)
    scores = lm.score_labels(PROMPTS, labels)
    for i, prompt in enumerate(PROMPTS):
        for c, label in enumerate(labels):
            want = oracle(lm, ids_of(lm, prompt), label)
            assert scores.token_logprobs[i][c] == pytest.approx(want, abs=2e-4)
            assert scores.logprobs[i, c] == pytest.approx(sum(want), abs=5e-4)
    assert np.abs(np.log(scores.probs().sum(1))).max() < 1e-12
    assert torch.logsumexp(torch.tensor(scores.log_probs()), 1).abs().max() < 1e-12


def test_one_token_fast_path_equals_slow_path(tiny_lm):
    from hf_labels.lm.local_scoring import label_logprobs

    lm = tiny_lm()
    prompts = [ids_of(lm, prompt) for prompt in PROMPTS]
    labels = [lm.tokenizer(label, add_special_tokens=False).input_ids for label in LETTERS]
    assert all(len(label) == 1 for label in labels)
    with torch.no_grad():
        fast, slow = (
            np.array(label_logprobs(lm.model.eval(), prompts, labels, batch_size=3, pad_id=0, fast=fast))
            for fast in (True, False)
        )
    assert fast.shape == (len(PROMPTS), 4, 1)
    assert np.abs(fast - slow).max() < 1e-4


def test_batch_size_and_order_change_nothing(tiny_lm):
    requests = [Request(prompt, max_new_tokens=10) for prompt in PROMPTS]
    requests += [Request(p, max_new_tokens=6, temperature=1.0, seed=s) for s, p in enumerate(PROMPTS[:3])]
    one, seven = tiny_lm(batch_size=1), tiny_lm(batch_size=7)
    texts = [answer.texts for answer in one.generate(requests)]
    assert [answer.texts for answer in seven.generate(requests)] == texts
    assert [answer.texts for answer in seven.generate(requests[::-1])] == texts[::-1]
    a, b = (lm.score_labels(PROMPTS, WORDS).logprobs for lm in (one, seven))
    assert np.abs(a - b).max() < 1e-4
    permuted = seven.score_labels(PROMPTS[::-1], [WORDS[2], WORDS[0], WORDS[1]]).logprobs
    assert np.abs(permuted - a[::-1][:, [2, 0, 1]]).max() < 1e-4


def test_greedy_text_equals_a_plain_argmax_loop(tiny_lm):
    lm = tiny_lm()
    for prompt in PROMPTS[:3]:
        ids = ids_of(lm, prompt)
        new = []
        with torch.no_grad():
            for _ in range(8):
                new.append(int(lm.model(torch.tensor([ids + new])).logits[0, -1].argmax()))
        answer = lm.generate([Request(prompt, max_new_tokens=8)])[0]
        assert answer.text == lm.tokenizer.decode(new, skip_special_tokens=True)
        assert answer.finish_reasons == ("length",)
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), 8)


def test_stop_strings_end_the_text_before_them(tiny_lm):
    lm = tiny_lm()
    whole = lm.generate([Request(PROMPTS[0], max_new_tokens=12)])[0].text
    stop = whole[5:7]
    cut = lm.generate([Request(PROMPTS[0], max_new_tokens=12, stop=(stop,))])[0]
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reasons == ("stop",)
    assert cut.usage.completion_tokens < 12
    batch = lm.generate([Request(p, max_new_tokens=12, stop=(stop,)) for p in PROMPTS])
    assert batch[0].text == cut.text and batch[0].usage == cut.usage


def test_the_sampling_defaults_of_a_checkpoint_do_not_leak(tiny_lm, capfd):
    requests = [Request("a", max_new_tokens=6), Request("a", max_new_tokens=6, temperature=1.0, seed=0)]
    plain, other = tiny_lm(), tiny_lm()
    own = other.model.generation_config
    own.do_sample, own.temperature, own.top_p, own.top_k, own.num_beams = True, 0.01, 0.1, 1, 3
    assert [a.texts for a in other.generate(requests)] == [a.texts for a in plain.generate(requests)]
    assert own.do_sample is True and own.temperature == 0.01, "the model's settings are left as they are"
    assert "generation flags" not in capfd.readouterr().err


def test_end_of_sequence_is_a_stop(tiny_lm):
    lm = tiny_lm()
    with torch.no_grad():
        first = int(lm.model.eval()(torch.tensor([ids_of(lm, PROMPTS[0])])).logits[0, -1].argmax())
    lm.model.generation_config.eos_token_id = [1, first]
    answer = lm.generate([Request(PROMPTS[0], max_new_tokens=9)])[0]
    assert (answer.text, answer.finish_reasons, answer.usage.completion_tokens) == ("", ("stop",), 1)


def test_sampling_follows_the_seed_and_n(tiny_lm):
    lm = tiny_lm(price_per_1k=(1.0, 2.0))
    request = Request("a", max_new_tokens=6, temperature=1.0, n=3, seed=5)
    first = lm.generate([request])[0]
    other = lm.generate([dataclasses.replace(request, messages=Request("b").messages)])[0]
    assert other.texts != first.texts
    torch.manual_seed(77)
    state = torch.get_rng_state()
    assert lm.generate([request])[0].texts == first.texts and len(set(first.texts)) == 3
    assert torch.equal(torch.get_rng_state(), state), "a seeded request must leave the global generator alone"
    assert lm.generate([dataclasses.replace(request, seed=6)])[0].texts != first.texts
    free = Request("a", max_new_tokens=6, temperature=1.0)
    assert len({answer.text for answer in lm.generate([free, free, free])}) > 1
    usage = first.usage
    assert usage.cost_usd == pytest.approx(usage.prompt_tokens / 1000 + 2 * usage.completion_tokens / 1000)
    greedy = lm.generate([Request("a", max_new_tokens=4, n=2)])[0]
    assert len(greedy.texts) == 2 and greedy.texts[0] == greedy.texts[1]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.5, 0.6)])
def test_draws_follow_the_softmax(tiny_lm, temperature, top_p):
    """2000 first tokens against the exact distribution: chi-square over the tokens expected at least 5 times."""
    from scipy.stats import chi2

    lm = tiny_lm(batch_size=500)
    lm.model.lm_head.weight.data *= 0.3  # spread the probability
    with torch.no_grad():
        logits = lm.model.eval()(torch.tensor([ids_of(lm, "a")])).logits[0, -1].double() / temperature
    p = torch.softmax(logits, -1)
    order = p.argsort(descending=True)
    kept = order[: int((p[order].cumsum(0) < top_p).sum()) + 1] if top_p < 1 else order
    q = torch.zeros_like(p)
    q[kept] = p[kept] / p[kept].sum()
    count = 2000
    seen = torch.zeros_like(p)
    generated = lm.model.generate
    lm.model.generate = lambda **options: _count(generated(**options), seen)
    lm.generate([Request("a", max_new_tokens=1, temperature=temperature, top_p=top_p, n=count, seed=1)])
    assert seen.sum() == count and seen[q == 0].sum() == 0
    big = q * count >= 5
    expected = torch.cat([q[big], q[~big].sum()[None]]) * count
    observed = torch.cat([seen[big], seen[~big].sum()[None]])
    used = expected > 0
    statistic = float(((observed - expected)[used] ** 2 / expected[used]).sum())
    assert int(big.sum()) > 5 and statistic < chi2.ppf(0.999, int(used.sum()) - 1)


def _count(output, seen):
    for token in output[:, -1].tolist():
        seen[token] += 1
    return output


def test_without_a_template_contents_are_joined_by_newlines(tiny_lm):
    bare, off = tiny_lm(template=False), tiny_lm(chat=False)
    request = Request((Message("system", "be brief"), Message("user", "the film was")), max_new_tokens=5)
    ids = bare.tokenizer("be brief\nthe film was").input_ids
    want = oracle(bare, ids, "good")
    for lm in (bare, off):
        assert lm.score_labels([request], ["good"]).token_logprobs[0][0] == pytest.approx(want, abs=2e-4)
    assert not np.allclose(tiny_lm().score_labels([request], ["good"]).logprobs[0, 0], sum(want), atol=1e-2)


def test_a_begun_answer_is_continued(tiny_lm):
    lm = tiny_lm()
    request = Request((Message("user", "the film"), Message("assistant", "It was")))
    text = "<|im_start|>user\nthe film<|im_end|>\n<|im_start|>assistant\nIt was"
    want = oracle(lm, lm.tokenizer(text, add_special_tokens=False).input_ids, " good")
    assert lm.score_labels([request], [" good"]).token_logprobs[0][0] == pytest.approx(want, abs=2e-4)


def test_nan_logits_name_the_item(tiny_lm):
    lm = tiny_lm(batch_size=8)
    bad = lm.tokenizer(" weather", add_special_tokens=False).input_ids[-1]
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[bad] = math.nan
    prompts = ["good", "bad", "the weather"]
    with pytest.raises(ItemError, match=r"Request 2: .*NaN"):
        lm.score_labels(prompts, LETTERS)
    with pytest.raises(ItemError, match=r"Request 2: .*NaN"):
        lm.score_labels(prompts, WORDS)
    with pytest.raises(ItemError, match=r"Request 2: .*NaN"):
        lm.generate([Request(p, max_new_tokens=3) for p in prompts])
    lm.on_error = "return"
    answers = lm.generate([Request(p, max_new_tokens=3) for p in prompts])
    assert [bool(a.error) for a in answers] == [False, False, True]
    assert answers[2].texts == () and "Request 2" in answers[2].error
    scores = lm.score_labels(prompts, WORDS)
    assert np.isnan(scores.logprobs[2]).all() and np.isfinite(scores.logprobs[:2]).all()
    assert scores.predictions()[2] == -1 and "NaN" in scores.errors[2]


def test_a_prompt_that_is_too_long_is_refused_or_loses_its_oldest_user_content(tiny_lm):
    lm = tiny_lm(positions=48)
    long = "old " * 60
    request = Request(
        (Message("user", long), Message("assistant", "ok"), Message("user", "the film was")), max_new_tokens=5
    )
    length = len(lm.tokenizer(lm._rendered(request)[0], add_special_tokens=False).input_ids)
    with pytest.raises(ItemError, match=rf"Request 1: .*{length} tokens.*47.*truncate=True"):
        lm.generate([Request("a", max_new_tokens=3), request])
    with pytest.raises(ItemError, match=rf"Request 1: .*{length} tokens.*48"):
        lm.score_labels(["a", request], LETTERS)
    lm.truncate = True
    shorter, ids = lm._encoded(request, 0, new_tokens=5)
    assert len(ids) <= 48 - 5 and len(ids) > 48 - 5 - 4
    assert shorter.messages[2].text == "the film was" and shorter.messages[1].text == "ok"
    assert long.endswith(shorter.messages[0].text) and 0 < len(shorter.messages[0].text) < len(long)
    answer = lm.generate([request])[0]
    assert answer.usage.prompt_tokens == len(ids)
    assert lm.score_labels([request], LETTERS).logprobs.shape == (1, 4)
    hopeless = Request((Message("system", long), Message("user", "hi")))
    with pytest.raises(ItemError, match=r"Request 0: .*48"):
        lm.score_labels([hopeless], LETTERS)


def test_new_tokens_never_leave_the_context(tiny_lm):
    lm = tiny_lm(positions=32)
    long, short = "film film film film film film", "a"
    room = 32 - len(ids_of(lm, long))
    answers = lm.generate([Request(p, max_new_tokens=25) for p in (long, short)])
    assert answers[0].usage.completion_tokens == room < 25 - 1
    assert answers[1].text == lm.generate([Request(short, max_new_tokens=25)])[0].text


def test_labels_are_checked_before_any_call(tiny_lm, monkeypatch):
    lm = tiny_lm()
    monkeypatch.setattr(lm.model, "forward", lambda *a, **k: pytest.fail("the model was called"))
    with pytest.raises(ValueError, match="empty"):
        lm.score_labels(["a"], [])
    with pytest.raises(ValueError, match="'yes' more than once"):
        lm.score_labels(["a"], ["yes", "yes"])
    monkeypatch.setattr(lm, "_ids_of", lambda label: [] if label == "\u200b" else [5])
    with pytest.raises(ValueError, match=r"'\\u200b' tokenises to nothing"):
        lm.score_labels(["a"], ["yes", "\u200b"])
    image = {"type": "image", "image": b"x"}
    with pytest.raises(UnsupportedCapability, match="TransformersLM cannot vision; use"):
        lm.generate(["text", Request((Message("user", [image]),))])
    with pytest.raises(UnsupportedCapability, match="cannot embed; use `EmbeddingLM`"):
        lm.embed(["a"])


def test_training_mode_is_restored_and_dropout_is_off(tiny_lm):
    lm = tiny_lm()
    model = lm.model.train()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    assert np.array_equal(*(lm.score_labels(PROMPTS, WORDS).logprobs for _ in range(2)))
    assert model.training and all(p.grad is None for p in model.parameters())


def test_a_model_without_a_name_needs_one_for_the_cache(tiny_lm, tmp_path):
    with pytest.raises(ValueError, match="give `model_id`"):
        tiny_lm(cache_dir=tmp_path)
    lm = tiny_lm(cache_dir=tmp_path, model_id="tiny")
    first = lm.score_labels(PROMPTS, WORDS)
    calls = lm.usage.calls
    lm.model.forward = lambda *a, **k: pytest.fail("the model was called")
    again = lm.score_labels(PROMPTS, WORDS)
    assert np.array_equal(again.logprobs, first.logprobs) and lm.usage.calls == calls == len(PROMPTS)
    assert lm.usage.cached_calls == len(PROMPTS)


def test_saved_and_loaded_by_config(tiny_lm, tmp_path):
    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "m")
    lm.tokenizer.save_pretrained(tmp_path / "m")
    loaded = TransformersLM.from_pretrained(str(tmp_path / "m"), batch_size=3, truncate=True)
    again = BlackBoxLM.from_config(loaded.get_config())
    assert isinstance(again, TransformersLM) and again.get_config() == loaded.get_config()
    assert (again.batch_size, again.truncate) == (3, True)
    want = lm.score_labels(PROMPTS, WORDS).logprobs
    assert np.abs(again.score_labels(PROMPTS, WORDS).logprobs - want).max() < 1e-4
    given = TransformersLM.from_config(loaded.get_config(), model=lm.model, tokenizer=lm.tokenizer)
    assert given.model is lm.model
