"""Mix-LN: loading under another placement, surgery on stock models, settings that are refused."""

import copy
import math

import pytest
import torch
from mix_ln_toys import FAMILIES, TINY, same_weights, stock, tiny, tokens
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
)

from hf_labels.models.mix_ln import (
    MixLNConfig,
    MixLNForCausalLM,
    MixLNForSequenceClassification,
    MixLNModel,
    apply_mix_ln,
)

# --- Loading what was saved with another placement


def test_pre_ln_checkpoint_is_refused_not_guessed(tmp_path):
    theirs = stock()
    theirs.save_pretrained(tmp_path)
    for load in (
        lambda: MixLNForCausalLM.from_pretrained(tmp_path),
        lambda: MixLNForCausalLM.from_pretrained(tmp_path, norm_type="post"),
        lambda: MixLNModel.from_pretrained(tmp_path, num_post_layers=3),
        lambda: AutoModelForCausalLM.from_pretrained(tmp_path, config=MixLNConfig(**TINY)),
    ):
        with pytest.raises(ValueError, match=r"layers\.0\.post_feedforward_layernorm.*allow_conversion"):
            load()
    same = MixLNForCausalLM.from_pretrained(tmp_path, num_post_layers=0)  # the placement fits: nothing to refuse
    assert torch.equal(same(tokens()).logits, theirs(tokens()).logits)


def test_conversion_moves_the_norms_and_warns(tmp_path, caplog):
    theirs = stock()
    for layer in theirs.model.layers:
        torch.nn.init.uniform_(layer.input_layernorm.weight, 0.5, 2.0)
    theirs.save_pretrained(tmp_path / "stock")
    with caplog.at_level("WARNING", logger="hf_labels"):
        model = MixLNForCausalLM.from_pretrained(tmp_path / "stock", num_post_layers=2, allow_conversion=True)
    assert "train the model" in caplog.text
    for i in range(4):
        ours = model.model.layers[i]
        norm = ours.post_feedforward_layernorm if i < 2 else ours.input_layernorm
        assert torch.equal(norm.weight, theirs.model.layers[i].input_layernorm.weight)
    same_weights(model, apply_mix_ln(stock_copy(theirs), num_post_layers=2))
    model.save_pretrained(tmp_path / "mix")  # under the new names
    again = MixLNForCausalLM.from_pretrained(tmp_path / "mix")
    assert torch.equal(again(tokens()).logits, model(tokens()).logits)
    back = MixLNForCausalLM.from_pretrained(tmp_path / "mix", norm_type="pre", allow_conversion=True)
    assert torch.equal(back(tokens()).logits, theirs(tokens()).logits)


def stock_copy(model):
    return copy.deepcopy(model)


def test_missing_norms_that_nothing_can_replace_are_refused(tmp_path):
    stock().save_pretrained(tmp_path)
    for allow in (False, True):
        with pytest.raises(ValueError, match="feedforward_layernorm"):
            MixLNForCausalLM.from_pretrained(tmp_path, norm_type="sandwich", allow_conversion=allow)


def test_stored_placement_can_be_overridden_as_a_whole(tmp_path):
    MixLNConfig(**TINY, num_post_layers=3).save_pretrained(tmp_path)
    assert MixLNConfig.from_pretrained(tmp_path).num_post_layers == 3
    assert MixLNConfig.from_pretrained(tmp_path, post_ln_fraction=0.5).num_post_layers == 2
    assert MixLNConfig.from_pretrained(tmp_path, norm_type="post").num_post_layers == 4
    assert MixLNConfig.from_pretrained(tmp_path, norm_type="pre_post", num_post_layers=1).norm_type == "pre_post"


# --- Surgery


@pytest.mark.parametrize("family", FAMILIES)
def test_apply_keeps_everything_but_the_place_of_the_norms(family):
    model = stock(family)
    frozen = model.model.embed_tokens.weight.requires_grad_(False)
    optimizer_holds = {id(p) for p in model.parameters()}
    with torch.no_grad():
        before = model(tokens()).logits
    count = model.num_parameters()
    made = apply_mix_ln(model, 0.5)
    assert type(made) is FAMILIES[family][2] and not made.training
    assert [layer.placement for layer in made.model.layers] == ["post", "post", "pre", "pre"]
    assert made.num_parameters() == count and {id(p) for p in made.parameters()} == optimizer_holds
    assert made.model.embed_tokens.weight is frozen and not frozen.requires_grad
    if made.config.tie_word_embeddings:
        assert made.lm_head.weight is frozen
    assert (made(tokens()).logits - before).abs().max() > 0.1
    undone = apply_mix_ln(stock(family), num_post_layers=0)
    assert torch.equal(undone(tokens()).logits, before)


def test_apply_equals_a_model_made_from_the_config():
    made, other = apply_mix_ln(stock(seed=3), num_post_layers=2), tiny(num_post_layers=2)
    other.load_state_dict(made.state_dict())
    assert made.config.to_diff_dict() == other.config.to_diff_dict()
    assert torch.equal(made(tokens()).logits, other(tokens()).logits)


def test_apply_carries_modes_and_takes_base_models_and_classifiers():
    torch.manual_seed(0)
    base = LlamaModel(LlamaConfig(**TINY)).train().to(torch.bfloat16)
    base.activation_checkpointing_enable()
    base.set_attn_implementation("eager")
    made = apply_mix_ln(base)
    assert type(made) is MixLNModel and made.training and made.dtype == torch.bfloat16
    assert made.is_activation_checkpointing and made.config._attn_implementation == "eager"
    classifier = LlamaForSequenceClassification(LlamaConfig(**TINY, num_labels=5))
    score = classifier.score.weight
    made = apply_mix_ln(classifier)
    assert type(made) is MixLNForSequenceClassification and made.score.weight is score
    sandwich = apply_mix_ln(stock(), norm_type="sandwich")
    assert torch.equal(sandwich.model.layers[0].pre_feedforward_layernorm.weight, torch.ones(16))
    sandwich(tokens(), labels=tokens()).loss.backward()


def test_apply_can_draw_the_weights_anew():
    made = apply_mix_ln(stock(), norm_type="deepnorm", embedding_init_std=0.6325, reset_weights=True)
    torch.manual_seed(0)
    again = apply_mix_ln(stock(), norm_type="deepnorm", reset_weights=True)
    assert made.config.embedding_init_std == 0.6325
    gain, fans = (8 * 4) ** -0.25, 16 + 24
    assert abs(again.model.layers[0].mlp.up_proj.weight.std().item() / (gain * math.sqrt(2 / fans)) - 1) < 0.2


def test_apply_refuses_what_would_not_load_again():
    gpt2 = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=11))
    with pytest.raises(TypeError, match="GPT2LMHeadModel.*LlamaForCausalLM"):
        apply_mix_ln(gpt2)
    with pytest.raises(TypeError, match="placed already"):
        apply_mix_ln(tiny())
    with pytest.raises(ValueError, match="reset_weights"):
        apply_mix_ln(stock(), embedding_init_std=0.5)
    with pytest.raises(ValueError, match="num_post_layers"):
        apply_mix_ln(stock(), num_post_layers=5)

    class MyLlama(LlamaForCausalLM):
        pass

    with pytest.raises(TypeError, match="MyLlama"):
        apply_mix_ln(MyLlama(LlamaConfig(**TINY)))


def test_apply_refuses_adapters_and_takes_them_afterwards():
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(target_modules=["q_proj"], r=2)
    wrapped = get_peft_model(stock(), settings)
    with pytest.raises(TypeError, match="adapters"):
        apply_mix_ln(wrapped)
    with pytest.raises(ValueError, match="adapters"):
        apply_mix_ln(wrapped.base_model.model)
    adapted = get_peft_model(apply_mix_ln(stock()), settings)
    adapted(input_ids=tokens(), labels=tokens()).loss.backward()
    assert all(p.grad is not None for n, p in adapted.named_parameters() if "lora_B" in n)


def test_apply_warns_for_a_trained_checkpoint(tmp_path, caplog):
    stock().save_pretrained(tmp_path)
    with caplog.at_level("WARNING", logger="hf_labels"):
        apply_mix_ln(stock())
        assert not caplog.records
        apply_mix_ln(LlamaForCausalLM.from_pretrained(tmp_path))
    assert "train it before you use it" in caplog.text


# --- Bad input


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(num_post_layers=5), r"num_post_layers.*\[0, 4\].*5"),
        (dict(num_post_layers=-1), r"num_post_layers.*-1"),
        (dict(post_ln_fraction=1.1), r"post_ln_fraction.*1\.1"),
        (dict(post_ln_fraction=-0.1), "post_ln_fraction"),
        (dict(post_ln_fraction=math.nan), "post_ln_fraction"),
        (dict(num_post_layers=3, post_ln_fraction=0.25), "disagree"),
        (dict(norm_type="mixed"), "norm_type.*mix, pre, post.*'mixed'"),
        (dict(norm_type="pre", num_post_layers=1), "norm_type.*'pre'"),
        (dict(norm_type="post", post_ln_fraction=0.5), "norm_type.*'post'"),
        (dict(embedding_init_std=-0.5), "embedding_init_std"),
        (dict(embedding_init_std=0.0), "embedding_init_std"),
        (dict(deepnorm_alpha=math.inf), "deepnorm_alpha"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        MixLNConfig(**TINY, **settings)


def test_wrong_types_are_refused():
    from huggingface_hub.errors import StrictDataclassFieldValidationError

    for settings in (dict(num_post_layers=1.5), dict(num_post_layers=True), dict(norm_type=3)):
        with pytest.raises(StrictDataclassFieldValidationError):
            MixLNConfig(**TINY, **settings)


def test_config_prints_and_compares_like_any_other():
    config = MixLNConfig(**TINY)
    assert '"num_post_layers": 1' in repr(config) and '"hidden_size": 16' in repr(config)
    assert config == MixLNConfig(**TINY) and config != MixLNConfig(**{**TINY, "vocab_size": 38})
    assert copy.deepcopy(config) == config


def test_compiles_in_one_graph():
    """`fullgraph` refuses any break; the eager backend needs no compiler."""
    model = tiny(num_post_layers=2)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        same = compiled(input_ids=tokens(), use_cache=False).logits
        assert torch.equal(same, model(input_ids=tokens(), use_cache=False).logits)


def test_number_and_fraction_may_agree_and_settings_by_hand_are_checked_by_the_model():
    config = MixLNConfig(**TINY, num_post_layers=2, post_ln_fraction=0.5)
    assert (config.num_post_layers, config.post_ln_fraction) == (2, None)
    config.num_post_layers = 9
    with pytest.raises(ValueError, match=r"\[0, 4\]"):
        MixLNForCausalLM(config)
