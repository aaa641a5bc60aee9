"""Mix-LN models: exactness against stock models, initialisation, the Hugging Face contract."""

import json
import math
import os

import fresh
import pytest
import torch
from mix_ln_toys import FAMILIES, PLACEMENTS, TINY, same_weights, stock, tiny, tokens
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from hf_labels.models.mix_ln import (
    MixLNConfig,
    MixLNForCausalLM,
    MixLNForSequenceClassification,
    MixLNModel,
    apply_mix_ln,
)

# --- Exactness


def test_without_post_layers_it_is_stock_llama_bit_for_bit():
    ours, theirs = tiny(num_post_layers=0), stock()
    ours.load_state_dict(theirs.state_dict())
    ids = tokens()
    a, b = ours(ids, labels=ids), theirs(ids, labels=ids)
    assert torch.equal(a.logits, b.logits) and torch.equal(a.loss, b.loss)
    a.loss.backward()
    b.loss.backward()
    for (name, mine), his in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, his.grad), name


def test_same_seed_gives_the_same_projections_for_every_placement():
    """Runs that differ only in the placement start from the same weights: what a paired comparison needs."""
    pre = dict(tiny(seed=5, norm_type="pre").named_parameters())
    for settings in ({"num_post_layers": 3}, {"norm_type": "post"}, {"norm_type": "pre_post", "num_post_layers": 1}):
        for name, weight in tiny(seed=5, **settings).named_parameters():
            name = name.replace("post_feedforward_layernorm", "input_layernorm")
            assert torch.equal(weight, pre[name]), name


def rms_norm(x, weight, eps=1e-6):
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


@pytest.mark.parametrize("norm_type, scale", [("post", 1.0), ("deepnorm", 8**0.25), ("sandwich", 1.0)])
def test_layer_follows_its_equations(norm_type, scale):
    """Against the formulas written out, float64, with norm weights that are not one."""
    model = tiny(norm_type=norm_type).double()
    layer = model.model.layers[1]
    for name, parameter in layer.named_parameters():
        if "layernorm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 2.0)
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    positions = torch.arange(6)[None]
    rotary = model.model.rotary_emb(x, positions)
    mask = torch.full((6, 6), -math.inf, dtype=torch.float64).triu(1)[None, None]

    def attend(h):
        return layer.self_attn(h, position_embeddings=rotary, attention_mask=mask)[0]

    after, last = layer.post_attention_layernorm.weight, layer.post_feedforward_layernorm.weight
    if norm_type == "sandwich":
        h = x + rms_norm(attend(rms_norm(x, layer.input_layernorm.weight)), after)
        want = h + rms_norm(layer.mlp(rms_norm(h, layer.pre_feedforward_layernorm.weight)), last)
    else:
        h = rms_norm(scale * x + attend(x), after)
        want = rms_norm(scale * h + layer.mlp(h), last)
    got = layer(x, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
    torch.testing.assert_close(got, want, atol=2e-6, rtol=0)  # the norm of transformers computes in float32


def test_parameter_count_is_the_same_for_every_number_of_post_layers():
    counts = {tiny(num_post_layers=k).num_parameters() for k in range(5)}
    counts |= {tiny(norm_type="deepnorm").num_parameters(), stock().num_parameters()}
    assert len(counts) == 1
    assert tiny(norm_type="sandwich").num_parameters() == counts.pop() + 4 * 2 * 16


def test_which_layers_are_post():
    def placed(**settings):
        return [layer.placement for layer in tiny(**settings).model.layers]

    assert placed() == ["post", "pre", "pre", "pre"]  # 0.25 of 4
    assert placed(post_ln_fraction=0.5) == ["post", "post", "pre", "pre"]
    assert placed(norm_type="pre_post", num_post_layers=1) == ["pre", "pre", "pre", "post"]
    assert placed(norm_type="pre") == ["pre"] * 4 and placed(norm_type="post") == ["post"] * 4
    layer = tiny().model.layers[0]
    assert not hasattr(layer, "input_layernorm") and hasattr(layer, "post_feedforward_layernorm")


@pytest.mark.parametrize("layers, fraction, number", [(12, 0.25, 3), (24, 0.25, 6), (7, 0.25, 1), (100, 0.29, 29)])
def test_fraction_is_rounded_down(layers, fraction, number):
    assert MixLNConfig(num_hidden_layers=layers, post_ln_fraction=fraction).num_post_layers == number


def test_post_layer_gives_tokens_of_unit_rms():
    states = tiny(num_post_layers=2)(tokens(), output_hidden_states=True).hidden_states
    for layer in (1, 2):
        rms = states[layer].pow(2).mean(-1).sqrt()
        torch.testing.assert_close(rms, torch.ones_like(rms), atol=1e-4, rtol=0)
    assert (states[3].pow(2).mean(-1).sqrt() - 1).abs().max() > 0.01  # a Pre-LN layer does not


def test_last_norm_is_kept_when_all_layers_are_post():
    model = tiny(norm_type="post")
    with torch.no_grad():
        before = model(tokens()).logits
        model.model.norm.weight.mul_(2)
        torch.testing.assert_close(model(tokens()).logits, 2 * before)


# --- Initialisation


def test_embedding_init():
    wide = dict(vocab_size=3000, hidden_size=64)
    for std, want in ((0.6325, 0.6325), (None, 0.3)):
        weight = tiny(**wide, embedding_init_std=std).model.embed_tokens.weight
        assert abs(weight[1:].std().item() / want - 1) < 0.02  # 192 000 draws: 0.2 % standard error
        assert not weight[0].any()  # padding


@pytest.mark.parametrize("norm_type, k", [("deepnorm", None), ("pre", 0), ("mix", 2)])
def test_projection_init(norm_type, k):
    settings = dict(hidden_size=128, intermediate_size=320, num_key_value_heads=4, num_post_layers=k)
    model = tiny(**settings, norm_type=norm_type, scaled_output_init=norm_type != "deepnorm")
    layer = model.model.layers[0]
    beta = (8 * 4) ** -0.25
    square, gated = math.sqrt(2 / 256), math.sqrt(2 / 448)
    if norm_type == "deepnorm":
        want = {"q": square, "k": square, "v": beta * square, "o": beta * square}
        want |= {"gate": beta * gated, "up": beta * gated, "down": beta * gated}
    else:
        want = dict.fromkeys(("q", "k", "v", "gate", "up"), 0.3) | dict.fromkeys(("o", "down"), 0.3 / math.sqrt(8))
    for name, std in want.items():
        module = getattr(layer.self_attn if name in "qkvo" else layer.mlp, f"{name}_proj")
        assert abs(module.weight.std().item() / std - 1) < 0.03, name


# --- The Hugging Face contract


@pytest.mark.parametrize("norm_type, k", PLACEMENTS)
def test_left_padding_changes_nothing(norm_type, k):
    model, ids = tiny(norm_type=norm_type, num_post_layers=k), tokens(1, 7)
    padded = torch.cat([torch.zeros(1, 4, dtype=torch.long), ids], 1)
    mask = (torch.arange(11) >= 4).long()[None]
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        got = model(padded, attention_mask=mask, position_ids=positions).logits[:, 4:]
        torch.testing.assert_close(got, model(ids).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm_type, k", PLACEMENTS)
def test_cached_generation_is_argmax_of_full_forward(norm_type, k):
    model, ids = tiny(norm_type=norm_type, num_post_layers=k), tokens(2, 6)
    got = model.generate(ids, max_new_tokens=6, do_sample=False)
    want = ids
    with torch.no_grad():
        for _ in range(6):
            want = torch.cat([want, model(want, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(got, want)


@pytest.mark.parametrize("norm_type, k", PLACEMENTS)
def test_gradient_checkpointing_and_eager_attention_change_nothing(norm_type, k):
    model, ids = tiny(norm_type=norm_type, num_post_layers=k).train(), tokens()
    assert model.config._attn_implementation == "sdpa"

    def run():
        model.zero_grad()
        output = model(ids, labels=ids, use_cache=False)
        output.loss.backward()
        return output.loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters()}

    loss, grads = run()
    model.set_attn_implementation("eager")
    eager_loss, eager_grads = run()
    torch.testing.assert_close(eager_loss, loss, atol=1e-6, rtol=1e-6)
    model.set_attn_implementation("sdpa")
    calls = []
    model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    model.activation_checkpointing_enable()
    checkpointed_loss, checkpointed_grads = run()
    assert len(calls) == 2  # the layer ran again in the backward pass
    assert torch.equal(checkpointed_loss, loss)
    for name, grad in grads.items():
        torch.testing.assert_close(checkpointed_grads[name], grad, atol=1e-7, rtol=1e-6)
        torch.testing.assert_close(eager_grads[name], grad, atol=1e-5, rtol=1e-4)


def test_hidden_states_and_attentions_are_recorded():
    model = tiny(num_post_layers=2)
    output = model(tokens(), output_hidden_states=True)
    assert len(output.hidden_states) == 5
    assert torch.equal(output.hidden_states[0], model.model.embed_tokens(tokens()))
    model.set_attn_implementation("eager")
    attentions = model(tokens(), output_attentions=True).attentions
    assert len(attentions) == 4 and attentions[0].shape == (3, 4, 9, 9)
    torch.testing.assert_close(attentions[0].sum(-1), torch.ones(3, 4, 9))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains(dtype):
    model, ids = tiny(num_post_layers=2).train(), tokens()
    full = model(ids, labels=ids).loss
    with torch.autocast("cpu", dtype=dtype):
        loss = model(ids, labels=ids).loss
    loss.backward()
    assert abs(loss.item() - full.item()) < 0.05 * full.item()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_norm_does_not_overflow_in_half_precision():
    """Squares of 300 are beyond float16 (65504): the norm must compute in float32."""
    norm = tiny(norm_type="post").half().model.layers[0].post_feedforward_layernorm
    out = norm(torch.full((1, 2, 16), 300.0, dtype=torch.float16))
    torch.testing.assert_close(out, torch.ones_like(out))


def test_empty_batch_is_as_in_transformers():
    """Stock models of transformers 5 refuse it in the attention, and so do these."""
    for model in (tiny(), stock()):
        for shape in ((0, 5), (2, 0)):
            with pytest.raises(RuntimeError, match="0 elements"):
                model(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("norm_type, k", PLACEMENTS)
def test_save_and_load(tmp_path, norm_type, k):
    model = tiny(norm_type=norm_type, num_post_layers=k)
    model.save_pretrained(tmp_path)
    for load in (MixLNForCausalLM, AutoModelForCausalLM):
        again = load.from_pretrained(tmp_path)
        assert type(again) is MixLNForCausalLM
        same_weights(again, model)
        assert torch.equal(again(tokens()).logits, model(tokens()).logits)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "hfl-mix-ln" and config["norm_type"] == norm_type
    assert config["num_post_layers"] == model.config.num_post_layers and config["post_ln_fraction"] is None
    base = MixLNModel.from_pretrained(tmp_path)
    assert torch.equal(base(tokens()).last_hidden_state, model.model(tokens()).last_hidden_state)


def test_classifier_trains_and_loads(tmp_path):
    torch.manual_seed(0)
    model = MixLNForSequenceClassification(MixLNConfig(**TINY, num_labels=3))
    assert type(model.model) is MixLNModel and model.model.layers[0].placement == "post"
    model(tokens(), labels=torch.tensor([0, 1, 2])).loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval().save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is MixLNForSequenceClassification
    assert torch.equal(again(tokens()).logits, model(tokens()).logits)


FRESH = """
import json, sys, torch
folder = sys.argv[1]
from transformers import AutoModelForCausalLM
sys.modules["hf_labels"] = None  # as if it were not installed
remote = AutoModelForCausalLM.from_pretrained(folder + "/code", trust_remote_code=True)
del sys.modules["hf_labels"]
ids = torch.load(folder + "/ids.pt")
seen = {"remote": remote(ids).logits.tolist(), "remote_module": type(remote).__module__}
import hf_labels.models.mix_ln
for name in ("llama", "mistral", "qwen2", "qwen3"):
    model = AutoModelForCausalLM.from_pretrained(f"{folder}/{name}")
    seen[name] = [type(model).__name__, model(ids).logits.tolist()]
print(json.dumps(seen))
"""


def test_fresh_process_loads_all_families_and_code_from_the_hub(tmp_path, monkeypatch):
    """One new process: Auto classes on what `apply_mix_ln` saved; and a checkpoint that carries its code."""
    models = {family: apply_mix_ln(stock(family), 0.5) for family in FAMILIES}
    for family, model in models.items():
        model.save_pretrained(tmp_path / family)
    monkeypatch.setattr(MixLNConfig, "_auto_class", None)
    monkeypatch.setattr(MixLNForCausalLM, "_auto_class", None)
    MixLNConfig.register_for_auto_class()
    MixLNForCausalLM.register_for_auto_class("AutoModelForCausalLM")
    models["llama"].save_pretrained(tmp_path / "code")
    torch.save(tokens(), tmp_path / "ids.pt")
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = fresh.run(["-c", FRESH, tmp_path], env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["remote_module"].startswith("transformers_modules.")
    torch.testing.assert_close(torch.tensor(seen["remote"]), models["llama"](tokens()).logits)
    for family, model in models.items():
        name, logits = seen[family]
        assert name == FAMILIES[family][2].__name__
        torch.testing.assert_close(torch.tensor(logits), model(tokens()).logits)
