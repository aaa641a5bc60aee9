"""The loss of response distillation: against transformers' own, a plain loop, and where its gradient is zero."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hf_labels.losses.tail_vrd import response_loss


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 7, 11, generator=g, dtype=torch.float64)
    labels = torch.randint(0, 11, (3, 7), generator=g)
    labels[:, :3] = -100
    return logits, labels, torch.rand(3, 7, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("shift", [True, False])
def test_equals_a_plain_loop(shift):
    logits, labels, weights = batch()
    total, count = 0.0, 0
    for b in range(3):
        for t in range(7):
            place = t - 1 if shift else t
            if labels[b, t] != -100 and place >= 0:
                total -= float(weights[b, t] * torch.log_softmax(logits[b, place].float(), -1)[labels[b, t]])
                count += 1
    assert float(response_loss(logits, labels, weights, shift=shift)) == pytest.approx(total / count, rel=1e-6)
    assert float(response_loss(logits, labels, weights, 40, shift=shift)) == pytest.approx(total / 40, rel=1e-6)


def test_equals_the_loss_of_transformers_without_weights():
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=11, **settings))
    _, labels, _ = batch()
    ids = labels.clamp(min=0)
    out = model(input_ids=ids, labels=labels)
    assert response_loss(out.logits, labels).item() == pytest.approx(out.loss.item(), rel=1e-6)
    ones = torch.ones(labels.shape)
    assert response_loss(out.logits, labels, ones).item() == pytest.approx(out.loss.item(), rel=1e-6)


def test_prompt_and_ignored_fields_have_no_gradient():
    logits, labels, weights = batch()
    weights[1] = 0
    logits.requires_grad_(True)
    response_loss(logits, labels, weights).backward()
    assert torch.equal(logits.grad[:, :2], torch.zeros(3, 2, 11, dtype=torch.float64))
    assert not logits.grad[1].any() and logits.grad[0, 2:6].any()


def test_nothing_labelled_is_zero_and_shapes_are_named():
    logits, labels, weights = batch()
    logits.requires_grad_(True)
    loss = response_loss(logits, torch.full_like(labels, -100))
    loss.backward()
    assert loss.item() == 0
    with pytest.raises(ValueError, match=r"\(3, 7, 11\), \(3, 6\)"):
        response_loss(logits, labels[:, 1:])
    with pytest.raises(ValueError, match=r"\(3, 6\)"):
        response_loss(logits, labels, weights[:, 1:])
