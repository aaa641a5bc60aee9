"""The interface of `jacobi_generate`: outputs, statistics, guesses, and everything it refuses."""

import pytest
import torch
from tiny_decoders import decoder, padded_prompts
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GenerationConfig,
    MambaConfig,
    MambaForCausalLM,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation import GenerateDecoderOnlyOutput

from hf_labels.generation import jacobi_generate

IDS, MASK = padded_prompts()
CALL = {"do_sample": False, "max_new_tokens": 8, "custom_generate": jacobi_generate, "block_size": 4}


@pytest.fixture(scope="module")
def model():
    return decoder()


def test_statistics_output_and_callback(model):
    blocks = []
    out = model.generate(
        IDS, attention_mask=MASK, eos_token_id=None, return_jacobi_stats=True, token_callback=blocks.append, **CALL
    )
    assert isinstance(out, GenerateDecoderOnlyOutput)
    assert torch.equal(torch.cat(blocks, dim=1), out.sequences[:, IDS.shape[1] :])
    stats = out.stats
    assert len(stats.iterations) == 2 and sum(stats.iterations) == stats.forward_passes
    assert stats.new_tokens == [8, 8, 8]
    for block, trace, changed in zip(blocks, stats.iterates, stats.row_iterations, strict=True):
        assert torch.equal(trace[-1], block) and len(trace) == max(changed) + 1
    plain = model.generate(IDS, attention_mask=MASK, eos_token_id=None, return_dict_in_generate=True, **CALL)
    assert plain.stats is None and torch.equal(plain.sequences, out.sequences)
    assert plain.past_key_values.get_seq_length() == IDS.shape[1] + 7


def test_new_tokens_count_the_first_eos(model):
    free = jacobi_generate(model, IDS, attention_mask=MASK, max_new_tokens=8, eos_token_id=None)[:, IDS.shape[1] :]
    eos = int(free[1, 2])
    stats = model.generate(IDS, attention_mask=MASK, eos_token_id=eos, return_jacobi_stats=True, **CALL).stats
    ends = [row.tolist().index(eos) + 1 if eos in row.tolist() else 8 for row in free]
    assert stats.new_tokens == ends


def test_a_direct_call_takes_the_models_own_tokens_and_one_block(model):
    got = jacobi_generate(model, IDS, attention_mask=MASK, block_size=6)
    assert torch.equal(got, model.generate(IDS, attention_mask=MASK, max_new_tokens=6, do_sample=False))
    config = GenerationConfig(max_new_tokens=5, eos_token_id=None, pad_token_id=0)
    got = jacobi_generate(model, IDS, attention_mask=MASK, generation_config=config, block_size=3)
    assert torch.equal(got, jacobi_generate(model, IDS, attention_mask=MASK, max_new_tokens=5, eos_token_id=None))


def test_guesses_come_from_the_row_itself_and_from_the_generator(model):
    def first(seed):
        generator = torch.Generator().manual_seed(seed)
        options = {"attention_mask": MASK, "block_size": 40, "return_jacobi_stats": True, "max_jacobi_iter": 1}
        return jacobi_generate(model, IDS, generator=generator, eos_token_id=None, **options).stats.iterates[0][0]

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))
    for row, guess in enumerate(first(0)):
        assert set(guess.tolist()) <= set(IDS[row][MASK[row] == 1].tolist())


def test_a_guess_for_all_tokens_is_cut_into_blocks(model):
    guess = torch.arange(3, 11)
    options = {"attention_mask": MASK, "eos_token_id": None, "max_new_tokens": 8, "block_size": 4}
    stats = jacobi_generate(model, IDS, init=guess, fuse_prefill=True, return_jacobi_stats=True, **options).stats
    assert torch.equal(stats.iterates[0][0], guess[:4].expand(3, 4))
    assert torch.equal(stats.iterates[1][0][:, 1:], guess[5:].expand(3, 3))  # its first token may be known already


def test_last_block_shrinks_to_the_room_that_is_left(model):
    out = model.generate(
        IDS, attention_mask=MASK, eos_token_id=None, return_jacobi_stats=True, **{**CALL, "block_size": 5}
    )
    assert [trace.shape[-1] for trace in out.stats.iterates] == [5, 3]


class Never(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        return torch.zeros(len(input_ids), dtype=torch.bool)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_sample": True}, "do_sample=False"),
        ({"num_beams": 2}, "num_beams=1"),
        ({"repetition_penalty": 1.5}, "RepetitionPenaltyLogitsProcessor"),
        ({"min_new_tokens": 3}, "MinNewTokens"),
        ({"stopping_criteria": StoppingCriteriaList([Never()])}, "Never"),
        ({"cache_implementation": "static"}, "StaticCache|StaticLayer|cropped"),
        ({"return_dict_in_generate": True, "output_scores": True}, "scores"),
        ({"block_size": 0}, "`block_size` must be at least 1, got 0"),
        ({"max_jacobi_iter": 0}, "`max_jacobi_iter` must be at least 1, got 0"),
        ({"exit_tolerance": -1}, "`exit_tolerance` must be at least 0"),
        ({"init": "random"}, "'random'"),
        ({"init": 17}, r"\[0, 17\), got 17"),
        ({"init": torch.zeros(2, dtype=torch.long)}, r"shape \(3, 4\)"),
        ({"init": torch.zeros(8)}, "integer token ids"),
        ({"prefill_chunk_size": 2}, "prefill_chunk_size"),
    ],
)
def test_what_is_not_greedy_or_out_of_range_is_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.generate(IDS, attention_mask=MASK, **{**CALL, **options})


def test_prompts_that_cannot_be_decoded_are_refused(model):
    right = MASK.flip(1)
    with pytest.raises(ValueError, match=r"row 1 is padded on the right.*left"):
        model.generate(IDS.flip(1), attention_mask=right, **CALL)
    with pytest.raises(ValueError, match="BOS"):
        jacobi_generate(model, torch.zeros(2, 0, dtype=torch.long), block_size=4)
    with pytest.raises(ValueError, match="max_new_tokens"):
        jacobi_generate(model, IDS, max_new_tokens=0)
    embeds = model.get_input_embeddings()(IDS).detach()
    with pytest.raises(ValueError, match="inputs_embeds"):
        model.generate(inputs_embeds=embeds, **CALL)
    cache = StaticCache(config=model.config, max_cache_len=32)
    with pytest.raises(ValueError, match="StaticCache cannot be cropped"):
        jacobi_generate(model, IDS, past_key_values=cache, block_size=4)


def test_nan_logits_are_found():
    broken = decoder(seed=1)
    with torch.no_grad():
        broken.lm_head.weight[3, 0] = float("nan")
    for fuse in (True, False):
        with pytest.raises(ValueError, match="NaN logits"):
            jacobi_generate(broken, IDS, attention_mask=MASK, block_size=4, fuse_prefill=fuse)


def test_encoder_decoder_models_are_refused():
    sizes = {"vocab_size": 17, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 32}
    sizes |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    bart = BartForConditionalGeneration(BartConfig(**sizes, forced_eos_token_id=None))
    with pytest.raises(ValueError, match="encoder-decoder"):
        bart.generate(IDS, attention_mask=MASK, **CALL)


def test_recurrent_states_need_the_path_without_cache():
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=17, hidden_size=16, num_hidden_layers=2, state_size=4, pad_token_id=0)
    mamba = MambaForCausalLM(config).eval()
    ids = IDS[:1]
    options = {**CALL, "eos_token_id": None}
    with pytest.raises(ValueError, match="use_cache=False"):
        mamba.generate(ids, **options)
    want = mamba.generate(ids, do_sample=False, max_new_tokens=8, eos_token_id=None)
    assert torch.equal(mamba.generate(ids, use_cache=False, **options), want)
