"""Policy gradients against enumeration, projections against their definition."""

import itertools

import pytest
import torch

from hf_labels.losses.unsupervised_prompt_learning import (
    expected_loss,
    label_loss,
    project_simplex,
    variance_reduced_gradient,
)
from hf_labels.models.unsupervised_prompt_learning import PromptDistribution


def draw(seed, m=3, n=5, size=6):
    g = torch.Generator().manual_seed(seed)
    probs = torch.rand((m, n), generator=g, dtype=torch.float64).softmax(1)
    indices = torch.multinomial(probs, size, replacement=True, generator=g).T
    return probs, indices, torch.rand(size, generator=g, dtype=torch.float64)


def toy(seed, m=2, n=3):
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn((m, n), generator=g, dtype=torch.float64)
    return logits, torch.rand((n,) * m, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_forms_are_related_as_the_docstring_says(seed):
    probs, indices, losses = draw(seed)
    forms = {f: variance_reduced_gradient(probs, indices, losses, f) for f in ("score", "reference", "paper")}
    slow = torch.zeros_like(probs)  # the released code: +1/p for the selected entry, -1/p of its own for each other
    for tokens, loss in zip(indices, losses, strict=True):
        for i, token in enumerate(tokens):
            signs = -torch.ones(5, dtype=torch.float64)
            signs[token] = 1
            slow[i] += (loss - losses.mean()) / 5 * signs / probs[i]
    assert torch.allclose(forms["reference"], slow, atol=1e-12)
    assert torch.allclose(forms["reference"], 2 * forms["score"], atol=1e-12)
    difference = forms["paper"] - forms["reference"]
    assert torch.allclose(difference, difference[:, :1].expand_as(difference), atol=1e-12)
    one, two = (project_simplex(draw(seed)[0] - 0.01 * forms[f]) for f in ("paper", "reference"))
    assert torch.allclose(one, two, atol=1e-12)


def test_logits_form_is_the_autograd_of_the_surrogate():
    probs, indices, losses = draw(7)
    logits = probs.log().requires_grad_()
    log_p = logits.log_softmax(1).expand(6, 3, 5).gather(2, indices.unsqueeze(2)).sum((1, 2))
    ((losses - losses.mean()) * log_p).sum().div(5).backward()
    assert torch.allclose(variance_reduced_gradient(probs, indices, losses), logits.grad, atol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_enumerated_objective_and_gradient_are_those_of_a_slow_loop(seed):
    logits, table = toy(seed, m=3)
    logits.requires_grad_()
    value = expected_loss(logits, table)
    probs = logits.softmax(1)
    slow = sum(
        table[z] * probs[0, z[0]] * probs[1, z[1]] * probs[2, z[2]] for z in itertools.product(range(3), repeat=3)
    )
    assert torch.allclose(value, slow)
    assert torch.allclose(torch.autograd.grad(value, logits)[0], torch.autograd.grad(slow, logits)[0])
    with pytest.raises(ValueError, match="loss_table"):
        expected_loss(logits, table[0])


@pytest.mark.parametrize(("seed", "size"), [(0, 2), (1, 5)])
def test_estimator_is_unbiased(seed, size):
    """Mean of 20 000 estimates within 4 standard errors of the enumerated gradient: the 1/(S-1) factor is right."""
    logits, table = toy(seed)
    logits.requires_grad_()
    expected_loss(logits, table).backward()
    exact, probs = logits.grad, logits.detach().softmax(1)
    g, draws = torch.Generator().manual_seed(seed), 20_000
    indices = torch.multinomial(probs, draws * size, replacement=True, generator=g).T.view(draws, size, 2)
    losses = table[indices[..., 0], indices[..., 1]]
    found = torch.stack([variance_reduced_gradient(probs, i, x) for i, x in zip(indices, losses, strict=True)])
    error = found.std(0) / draws**0.5
    assert ((found.mean(0) - exact).abs() < 4 * error).all()
    assert ((size - 1) / size * found.mean(0) - exact).abs().max() > 4 * error.max()  # 1/S would be seen


def test_equal_losses_give_no_gradient():
    probs, indices, _ = draw(0)
    for form in ("logits", "score", "reference", "paper"):
        assert variance_reduced_gradient(probs, indices, torch.full((6,), 0.7), form).abs().max() < 1e-12


def test_token_of_probability_zero_gives_no_nan():
    probs = torch.tensor([[0.0, 0.4, 0.6]], dtype=torch.float64)
    indices, losses = torch.tensor([[1], [2]]), torch.tensor([0.1, 0.9])
    for form in ("logits", "score", "reference", "paper"):
        assert torch.isfinite(variance_reduced_gradient(probs, indices, losses, form)).all()


def test_bad_arguments_of_the_gradient_are_named():
    probs, indices, losses = draw(0)
    with pytest.raises(ValueError, match="at least 2 sampled prompts"):
        variance_reduced_gradient(probs, indices[:1], losses[:1])
    with pytest.raises(ValueError, match="`form`"):
        variance_reduced_gradient(probs, indices, losses, "adam")
    with pytest.raises(ValueError, match=r"\(S, m\)"):
        variance_reduced_gradient(probs, indices[:, :2], losses)


@pytest.mark.parametrize("seed", range(3))
def test_projection_is_the_nearest_point(seed):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn((4, 7), generator=g, dtype=torch.float64)
    found = project_simplex(x)
    assert (found.sum(1) - 1).abs().max() < 1e-12 and (found >= 0).all()
    assert torch.allclose(project_simplex(found), found, atol=1e-12)  # idempotent, identity on the simplex
    others = torch.rand((2000, 1, 7), generator=g, dtype=torch.float64).softmax(2)
    assert ((others - x).norm(dim=2) >= (found - x).norm(dim=1) - 1e-12).all()
    assert torch.allclose(project_simplex(x + 5), found, atol=1e-12)  # row constants do not count


def test_projection_raises_rows_that_the_released_code_leaves_low():
    x = torch.tensor([[0.1, 0.1, -0.3]], dtype=torch.float64)
    assert project_simplex(x, "bisection").sum() < 0.5 and abs(project_simplex(x).sum() - 1) < 1e-12
    for bad, message in ((x[0], "shape"), (torch.full((1, 2), torch.nan), "finite")):
        with pytest.raises(ValueError, match=message):
            project_simplex(bad)
    with pytest.raises(ValueError, match="'sort'"):
        project_simplex(x, "newton")


def test_label_loss_falls_as_the_true_label_rises():
    logs = torch.tensor([[[-0.1, -2.4]], [[-2.4, -0.1]]], dtype=torch.float64)  # two prompts, one text
    for kind in ("ce", "hinge"):
        good, bad = label_loss(logs, torch.tensor([0]), kind)
        assert good < bad
    assert label_loss(logs, torch.tensor([0]), "hinge").tolist() == pytest.approx([0.0, 3.3])
    assert label_loss(logs, torch.tensor([0])).tolist() == pytest.approx([0.1, 2.4])
    with pytest.raises(ValueError, match="'hinge'"):
        label_loss(logs, torch.tensor([0]), "mse")


@pytest.mark.parametrize("param", ["logits", "simplex"])
@pytest.mark.parametrize("seed", [0, 1])
def test_separable_losses_lead_to_the_best_prompt(param, seed):
    cost = torch.ones((3, 6), dtype=torch.float64)
    cost[torch.arange(3), torch.tensor([seed, 3, 5])] = 0.0
    distribution, g = PromptDistribution(3, 6, param), torch.Generator().manual_seed(seed)
    form, rate = ("logits", 1.0) if param == "logits" else ("reference", 0.003)
    for _ in range(400):
        indices = distribution.sample(8, g)
        losses = cost[torch.arange(3), indices].sum(1)
        with torch.no_grad():
            distribution.theta -= rate * variance_reduced_gradient(distribution.probs(), indices, losses, form)
        distribution.project_()
        assert (distribution.probs().sum(1) - 1).abs().max() < 1e-12
    assert distribution.mode().tolist() == cost.argmin(1).tolist()


def test_distribution_starts_uniform_and_knows_its_probabilities():
    for param in ("logits", "simplex"):
        distribution = PromptDistribution(2, 4, param)
        assert torch.allclose(distribution.probs(), torch.full((2, 4), 0.25, dtype=torch.float64))
        assert distribution.log_prob(torch.tensor([[0, 3]])).item() == pytest.approx(-2 * torch.log(torch.tensor(4.0)))
        assert distribution.entropy() == pytest.approx(1.3862943611)
        again = PromptDistribution(2, 4, param)
        again.load_state_dict(distribution.state_dict())
    empty = PromptDistribution(0, 0)
    assert empty.sample(3).shape == (3, 0) and empty.mode().tolist() == [] and empty.entropy() == 0
    with pytest.raises(ValueError, match="vocabulary"):
        PromptDistribution(2, 0)
    with pytest.raises(ValueError, match="'simplex'"):
        PromptDistribution(2, 3, "softmax")
