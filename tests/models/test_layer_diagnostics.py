"""Gradient norms by depth, angular distance and layer removal, against slow versions written out here."""

import math

import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.trainer_callback import TrainerControl, TrainerState

from hf_labels.models.layer_diagnostics import (
    GradientNormCallback,
    angular_distance,
    block_influence,
    find_layers,
    gradient_norms,
    last_over_first,
    layer_angles,
    layer_drop_report,
    layer_states,
    plot_gradient_norms,
)

TINY = dict(
    vocab_size=23,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=4,
    num_attention_heads=2,
    max_position_embeddings=32,
    initializer_range=0.3,
)


def llama(**settings):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**TINY, **settings})).eval()


def tokens(rows=2, length=6, seed=0):
    return torch.randint(0, 23, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_layers_are_found_in_any_family_and_behind_wrappers():
    model = llama()
    assert find_layers(model) is model.model.layers
    assert find_layers(torch.nn.ModuleDict({"inner": model}).inner) is model.model.layers
    bert = BertModel(BertConfig(**{k: v for k, v in TINY.items() if k != "initializer_range"}))
    assert find_layers(bert) is bert.encoder.layer

    class Wrapper(torch.nn.Module):  # as DistributedDataParallel
        def __init__(self, module):
            super().__init__()
            self.module = module

    assert find_layers(Wrapper(model)) is model.model.layers
    with pytest.raises(ValueError, match="no config"):
        find_layers(torch.nn.Linear(2, 2))
    model.config.num_hidden_layers = 9
    with pytest.raises(ValueError, match="9 layers"):
        find_layers(model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradient_norms_are_the_norm_of_all_gradients_of_a_layer(dtype):
    model, ids = llama().to(dtype), tokens()
    assert gradient_norms(model) == [0.0] * 4
    model(ids, labels=ids).loss.backward()
    want = []
    for layer in model.model.layers:
        want.append(torch.cat([p.grad.double().flatten() for p in layer.parameters()]).pow(2).sum().sqrt().item())
    assert gradient_norms(model) == pytest.approx(want, rel=1e-6 if dtype == torch.float64 else 1e-5)
    model.model.layers[1].requires_grad_(False)
    for parameter in model.model.layers[1].parameters():
        parameter.grad = None
    assert gradient_norms(model) == pytest.approx([want[0], 0.0, *want[2:]], rel=1e-5)


def test_ratio_of_last_and_first():
    assert last_over_first([2.0, 7.0, 1.0]) == 0.5
    assert math.isnan(last_over_first([0.0, 1.0]))


def test_angular_distance_of_known_angles():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 3.0], [-2.0, 0.0], [5.0, 5.0], [4.0, 4.0]], dtype=torch.float64)
    torch.testing.assert_close(angular_distance(x, y), torch.tensor([0.5, 1.0, 0.25, 0.0], dtype=torch.float64))
    torch.testing.assert_close(block_influence(x, y)[:2], torch.tensor([1.0, 2.0], dtype=torch.float64))


def test_angular_distance_at_the_edges():
    zero, one = torch.zeros(1, 3), torch.ones(1, 3)
    assert angular_distance(zero, one).item() == pytest.approx(1 / 3)  # cosine 0.5
    noisy = torch.randn(1000, 7)  # a cosine a little above one must not become NaN
    assert angular_distance(noisy, noisy).max() < 1e-3 and angular_distance(noisy, -noisy).min() > 0.999
    half = angular_distance(noisy.half(), noisy.half() * 2)
    assert half.dtype == torch.float32 and half.max() < 1e-2
    assert angular_distance(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    with pytest.raises(ValueError, match="one shape"):
        angular_distance(torch.ones(2, 3), torch.ones(2, 4))


def test_layer_states_are_inputs_and_outputs_before_the_last_norm():
    model, ids = llama(), tokens()
    states, output = layer_states(model, input_ids=ids)
    assert not any(layer._forward_hooks for layer in model.model.layers)
    recorded = model(ids, output_hidden_states=True).hidden_states
    assert len(states) == 5
    assert all(torch.equal(a, b) for a, b in zip(states[:-1], recorded[:-1], strict=True))
    assert torch.equal(model.model.norm(states[-1]), recorded[-1])
    assert torch.equal(model.lm_head(recorded[-1]), output.logits)


def test_layer_angles_are_means_over_real_tokens():
    model = llama().train()
    ids, mask = tokens(2, 6), torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    got = layer_angles(model, [{"input_ids": ids, "attention_mask": mask}, {"input_ids": tokens(1, 4, seed=2)}])
    assert model.training
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64)
    for row, length, source in ((0, 6, ids), (1, 3, ids), (0, 4, tokens(1, 4, seed=2))):
        states, _ = layer_states(model, input_ids=source[row : row + 1, :length])
        for i in range(4):
            a, b = states[i].detach().double(), states[i + 1].detach().double()
            cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)
            sums[i] += (cosine.arccos() / math.pi).sum()
    assert got == pytest.approx((sums / 13).tolist(), abs=1e-5)
    with pytest.raises(ValueError, match="no token"):
        layer_angles(model, [])


def test_layer_drop_is_a_model_without_the_layer_and_is_undone():
    model, ids = llama(), tokens()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def loss(m):
        assert [layer.self_attn.layer_idx for layer in m.model.layers] == list(range(m.config.num_hidden_layers))
        m.generate(ids, max_new_tokens=2, do_sample=False)  # the cache has as many layers as the model
        return m(ids, labels=ids).loss.item()

    report = layer_drop_report(model, loss)
    assert report.baseline == loss(model) and len(report.values) == 4
    for left_out in range(4):
        small = llama(num_hidden_layers=3)
        kept = [i for i in range(4) if i != left_out]
        state = {k: v for k, v in before.items() if ".layers." not in k}
        for place, i in enumerate(kept):
            state |= {k.replace(f".layers.{i}.", f".layers.{place}."): v for k, v in before.items() if f".{i}." in k}
        small.load_state_dict(state)
        assert report.values[left_out] == pytest.approx(small(ids, labels=ids).loss.item(), rel=1e-6)
    assert report.changes == tuple(value - report.baseline for value in report.values)
    assert model.state_dict().keys() == before.keys() and model.config.num_hidden_layers == 4


def test_layer_drop_keeps_layer_types_and_recovers_from_errors():
    types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    settings = dict(use_sliding_window=True, sliding_window=3, layer_types=types, num_key_value_heads=2)
    model = Qwen2ForCausalLM(Qwen2Config(**TINY, **settings)).eval()
    seen = []

    def look(m):
        seen.append(list(m.config.layer_types))
        if len(seen) == 3:
            raise KeyError("stop")
        return m(tokens()).logits.sum().item()

    with pytest.raises(KeyError):
        layer_drop_report(model, look)
    assert seen == [types, types[1:], [types[0], *types[2:]]]
    assert model.config.layer_types == types and len(model.model.layers) == model.config.num_hidden_layers == 4
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="at least two"):
        layer_drop_report(llama(num_hidden_layers=1), look)


def step(callback, model, number, every=2):
    """What `Trainer` does around one optimizer step that may be logged."""
    state = TrainerState(global_step=number - 1, logging_steps=every)
    callback.on_pre_optimizer_step(None, state, TrainerControl(), model=model)
    state.global_step = number
    state.log_history.append({"loss": 1.0, "step": number})
    logs = {"loss": 1.0}
    callback.on_log(None, state, TrainerControl(), logs=logs)
    return logs, state.log_history[-1]


def test_callback_measures_when_the_trainer_logs():
    model, ids = llama(), tokens()
    model(ids, labels=ids).loss.backward()
    callback = GradientNormCallback()
    for number in (1, 2, 3, 4):
        logs, history = step(callback, model, number)
        measured = number != 3
        assert ("grad_norm/layer_3" in logs) == ("grad_norm/layer_3" in history) == measured
    assert [entry["step"] for entry in callback.history] == [1, 2, 4]
    assert callback.history[0]["norms"] == gradient_norms(model)
    assert logs["grad_norm/last_over_first"] == last_over_first(gradient_norms(model))
    evaluation = {"eval_loss": 1.0}
    callback.on_log(None, TrainerState(global_step=4), TrainerControl(), logs=evaluation)
    assert evaluation == {"eval_loss": 1.0}
    every = GradientNormCallback(every_steps=3)
    for number in (1, 2, 3, 4, 5, 6):
        step(every, model, number)
    assert [entry["step"] for entry in every.history] == [1, 3, 6]
    with pytest.raises(ValueError, match="every_steps"):
        GradientNormCallback(every_steps=0)


def test_plots_are_written(tmp_path):
    from PIL import Image

    callback = GradientNormCallback()
    callback.history = [{"step": s, "norms": [1.0, 0.0, 0.1 * s]} for s in (1, 5)]
    callback.plot(tmp_path / "a.png")
    callback.plot(tmp_path / "b.png", steps=[1])
    one, both = Image.open(tmp_path / "b.png"), Image.open(tmp_path / "a.png")
    assert both.size == one.size and both.tobytes() != one.tobytes()
    assert len(set(both.convert("L").tobytes())) > 10
    with pytest.raises(ValueError, match="no gradient norms"):
        plot_gradient_norms({}, tmp_path / "c.png")
