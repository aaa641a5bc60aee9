"""Exact Jacobi decoding is greedy decoding, token for token, in every setting."""

import functools

import pytest
import torch
from tiny_decoders import FAMILIES, decoder, padded_prompts, vision_decoder
from transformers import DynamicCache

from hf_labels.generation import jacobi_generate

NEW = 14
AR = {"max_new_tokens": NEW, "do_sample": False}


def greedy(model, ids, mask, **options):
    return model.generate(ids, attention_mask=mask, **{**AR, **options})


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("eos", [None, [5, 6]])
def test_equals_greedy_generate_with_left_padding(family, eos):
    model = decoder(family)
    ids, mask = padded_prompts()
    want = greedy(model, ids, mask, eos_token_id=eos)
    for block_size, options in ((1, {}), (4, {}), (4, {"use_cache": False}), (8, {"fuse_prefill": False}), (64, {})):
        options = {**options, "block_size": block_size}
        got = greedy(model, ids, mask, eos_token_id=eos, custom_generate=jacobi_generate, **options)
        assert torch.equal(got, want), options
        direct = jacobi_generate(model, ids, attention_mask=mask, max_new_tokens=NEW, eos_token_id=eos, **options)
        assert torch.equal(direct, want), options


@pytest.mark.parametrize("init", ["prompt", "last", "zero", 3, torch.arange(17), lambda tokens, n: tokens[:, :n]])
def test_any_guess_gives_the_same_tokens(init):
    model = decoder(seed=1)
    ids, mask = padded_prompts(1)
    want = greedy(model, ids, mask, eos_token_id=None)
    for block_size in (4, 7):
        got = greedy(
            model, ids, mask, eos_token_id=None, custom_generate=jacobi_generate, block_size=block_size, init=init
        )
        assert torch.equal(got, want)


def test_eos_inside_a_block_ends_rows_at_their_own_place():
    model = decoder(seed=2)
    ids, mask = padded_prompts(2, rows=4)
    free = greedy(model, ids, mask, eos_token_id=None)[:, ids.shape[1] :]
    eos = int(free[0, 3])  # so that at least row 0 ends inside the first block
    want = greedy(model, ids, mask, eos_token_id=eos)
    for block_size in (3, 6, 40):
        got = greedy(model, ids, mask, eos_token_id=eos, custom_generate=jacobi_generate, block_size=block_size)
        assert torch.equal(got, want)
    assert (want[0, ids.shape[1] + 4 :] == 0).all() and (want[:, ids.shape[1] :] == eos).any(dim=1).sum() >= 1


@pytest.mark.parametrize("options", [{}, {"fuse_prefill": False}, {"use_cache": False}])
def test_image_text_model_sees_the_image_once(options):
    model, inputs = vision_decoder()
    want = model.generate(**inputs, **AR)
    other = model.generate(**{**inputs, "pixel_values": inputs["pixel_values"].flip(0)}, **AR)
    assert not torch.equal(want, other)  # the image matters
    seen = []
    hook = model.model.vision_tower.register_forward_hook(lambda *_: seen.append(1))
    out = model.generate(
        **inputs, **AR, custom_generate=jacobi_generate, block_size=5, return_jacobi_stats=True, **options
    )
    hook.remove()
    assert torch.equal(out.sequences, want)
    assert len(seen) == 1  # `generate` encodes images once, for the path without cache too
    direct = jacobi_generate(model, **inputs, max_new_tokens=NEW, block_size=5, **options)
    assert torch.equal(direct, want)
    assert not any((block == 16).any() for block in [trace[0] for trace in out.stats.iterates])  # no image guesses


@pytest.mark.parametrize("family", ["llama", "gemma3-sliding"])
def test_passes_and_prefix_property(family):
    model = decoder(family, seed=3)
    ids, mask = padded_prompts(3)
    want = greedy(model, ids, mask, eos_token_id=None)[:, ids.shape[1] :]
    call = functools.partial(jacobi_generate, return_jacobi_stats=True, block_size=NEW)
    stats = greedy(model, ids, mask, eos_token_id=None, custom_generate=call).stats
    trace = stats.iterates[0]
    assert stats.forward_passes == stats.iterations[0] <= NEW
    for j in range(len(trace)):  # after j passes the first j tokens are those of AR
        assert torch.equal(trace[j][:, :j], want[:, :j])
    known = greedy(model, ids, mask, eos_token_id=None, custom_generate=call, fuse_prefill=False).stats
    assert known.iterations[0] <= NEW and known.forward_passes == known.iterations[0] + 1 <= NEW + 1
    for j, block in enumerate(known.iterates[0]):  # with the first token known one more is
        assert torch.equal(block[:, : j + 1], want[:, : j + 1])
    assert stats.row_iterations[0] == [
        max(j for j in range(len(trace)) if j == 0 or not torch.equal(trace[j][row], trace[j - 1][row]))
        for row in range(3)
    ]


def test_one_token_blocks_are_autoregressive():
    model = decoder()
    ids, mask = padded_prompts()
    stats = jacobi_generate(
        model, ids, attention_mask=mask, block_size=1, max_new_tokens=6, eos_token_id=None, return_jacobi_stats=True
    ).stats
    assert stats.forward_passes == 6 and stats.iterations == [1] * 6


def test_late_exit_is_exact_and_early_exit_runs_sigma_passes():
    model = decoder(seed=4)
    ids, mask = padded_prompts(4)
    options = {"attention_mask": mask, "block_size": 7, "max_new_tokens": NEW, "eos_token_id": None, "init": 3}
    exact = jacobi_generate(model, ids, **options)
    for sigma in (7, 9):
        assert torch.equal(jacobi_generate(model, ids, max_jacobi_iter=sigma, **options), exact)
    assert torch.equal(jacobi_generate(model, ids, exit_tolerance=0, **options), exact)
    out = jacobi_generate(model, ids, max_jacobi_iter=2, return_jacobi_stats=True, **options)
    assert out.stats.iterations == [2, 2] and out.stats.forward_passes == 4
    loose = jacobi_generate(model, ids, exit_tolerance=7, return_jacobi_stats=True, **options)
    assert loose.stats.iterations == [1, 1]
    # the second block goes on from the tokens that were put out, not from stale keys
    full = torch.cat([mask, torch.ones(3, 7, dtype=mask.dtype)], dim=1)
    options |= {"attention_mask": full, "max_new_tokens": 7}
    again = jacobi_generate(model, out.sequences[:, :-7], max_jacobi_iter=2, **options)
    assert torch.equal(again, out.sequences)


@pytest.mark.parametrize("family", ["llama", "gemma2-sliding"])
@pytest.mark.parametrize("sigma", [None, 2])
def test_cache_is_never_stale(family, sigma):
    """What is left in the cache is what a fresh forward over the same tokens puts there."""
    model = decoder(family, seed=5)
    ids, mask = padded_prompts(5)
    cache = DynamicCache(config=model.config)
    out = greedy(
        model,
        ids,
        mask,
        eos_token_id=None,
        past_key_values=cache,
        custom_generate=jacobi_generate,
        block_size=5,
        max_jacobi_iter=sigma,
    )
    length = cache.get_seq_length()
    assert length < out.shape[1] and (sigma or length == out.shape[1] - 1)
    fresh = DynamicCache(config=model.config)
    kept = torch.cat([mask, torch.ones(3, NEW, dtype=mask.dtype)], dim=1)[:, :length]
    positions = (kept.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        model(out[:, :length], attention_mask=kept, position_ids=positions, past_key_values=fresh)
    for layer, other in zip(cache.layers, fresh.layers, strict=True):
        real = kept[:, -layer.keys.shape[2] :].bool()[:, None, :, None]
        last = other.keys[:, :, -layer.keys.shape[2] :]
        torch.testing.assert_close(layer.keys * real, last * real, atol=1e-4, rtol=0)


def test_goes_on_from_a_cache():
    model = decoder()
    ids = padded_prompts()[0][:1]
    cache = DynamicCache(config=model.config)
    first = model.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None, past_key_values=cache)
    want = model.generate(ids, max_new_tokens=13, do_sample=False, eos_token_id=None)
    options = {"do_sample": False, "eos_token_id": None, "custom_generate": jacobi_generate, "block_size": 4}
    assert torch.equal(model.generate(first, max_new_tokens=8, past_key_values=cache, **options), want)


def test_a_model_that_ignores_the_block_needs_two_passes():
    model = decoder(seed=6)
    ids = padded_prompts(6)[0][:1]
    want = jacobi_generate(model, ids, block_size=8, max_new_tokens=8, eos_token_id=None)[:, ids.shape[1] :]

    class Fixed(type(model)):
        def forward(self, input_ids, logits_to_keep=0, **kwargs):
            out = super().forward(input_ids, logits_to_keep=logits_to_keep, **kwargs)
            tokens = torch.cat([want, want[:, :1]], dim=1)[:, -out.logits.shape[1] :]
            out.logits = torch.nn.functional.one_hot(tokens, 17).float()
            return out

    model.__class__ = Fixed
    out = jacobi_generate(model, ids, block_size=8, eos_token_id=None, return_jacobi_stats=True, init=4)
    assert torch.equal(out.sequences[:, ids.shape[1] :], want) and out.stats.forward_passes == 2
