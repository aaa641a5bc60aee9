import math

import pytest
import torch

from hf_labels.losses.crosstune import (
    agree,
    agree_confident,
    crosstune_loss,
    head_log_probs,
    masked_max,
    masked_mean,
    scale_features,
    top_k,
)


def _random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _slow_probs(queries, keys, heads):
    """Average of explicit softmaxes, number by number."""
    batch, width = queries.shape
    d = width // heads
    out = torch.zeros(batch, len(keys), dtype=torch.float64)
    for b in range(batch):
        for j in range(heads):
            part = slice(j * d, (j + 1) * d)
            scores = [math.exp(float(queries[b, part] @ key[part]) / math.sqrt(d)) for key in keys]
            out[b] += torch.tensor([s / sum(scores) for s in scores]) / heads
    return out


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_probabilities_equal_the_slow_average_of_softmaxes(heads, seed):
    queries, keys = _random(5, 6, seed=seed), _random(4, 6, seed=seed + 10)
    log_probs = head_log_probs(queries, keys, heads)
    assert torch.allclose(log_probs.exp(), _slow_probs(queries, keys, heads), atol=1e-12)
    assert torch.allclose(log_probs.exp().sum(1), torch.ones(5, dtype=torch.float64), atol=1e-12)


def test_one_head_is_a_softmax_of_scaled_bilinear_scores():
    queries, keys = _random(3, 8), _random(5, 8, seed=1)
    want = torch.softmax(queries @ keys.T / math.sqrt(8), dim=1)
    assert torch.allclose(head_log_probs(queries, keys, 1).exp(), want, atol=1e-12)


def test_permuting_labels_permutes_probabilities():
    queries, keys = _random(3, 8), _random(5, 8, seed=1)
    order = torch.tensor([4, 2, 0, 1, 3])
    assert torch.allclose(head_log_probs(queries, keys[order], 4), head_log_probs(queries, keys, 4)[:, order])


def test_identical_label_vectors_give_one_half():
    keys = _random(1, 8).expand(2, 8)
    assert torch.allclose(head_log_probs(_random(3, 8, seed=2), keys, 2).exp(), torch.full((3, 2), 0.5).double())


def test_huge_scores_stay_finite_where_the_plain_logarithm_is_minus_infinity():
    queries, keys = 200 * _random(3, 8), 200 * _random(4, 8, seed=1)
    log_probs = head_log_probs(queries, keys, 2)
    assert torch.isinf(log_probs.exp().log()).any(), "the case is too tame to show anything"
    assert log_probs.isfinite().all()


def test_low_precision_is_computed_in_float32():
    queries, keys = _random(3, 8), _random(4, 8, seed=1)
    low = head_log_probs(queries.bfloat16(), keys.bfloat16(), 2)
    assert low.dtype == torch.float32
    assert torch.allclose(low.double(), head_log_probs(queries, keys, 2), atol=0.1)


def test_heads_that_do_not_divide_name_both_numbers():
    with pytest.raises(ValueError, match="num_heads=5 and hidden_size=8.*1, 2, 4, 8"):
        head_log_probs(_random(2, 8), _random(3, 8), 5)
    with pytest.raises(ValueError, match="must share D"):
        head_log_probs(_random(2, 8), _random(3, 6), 2)


def test_padding_never_changes_the_label_vector():
    hidden, mask = _random(2, 3, 4), torch.tensor([[1, 1, 1], [1, 1, 0]])
    padded = torch.cat([hidden, torch.full((2, 2, 4), 1e6, dtype=torch.float64)], 1)
    wide = torch.cat([mask, torch.zeros(2, 2, dtype=mask.dtype)], 1)
    for reduce in (masked_max, masked_mean):
        assert torch.equal(reduce(padded, wide), reduce(hidden, mask))
    assert torch.equal(masked_max(hidden, mask)[1], hidden[1, :2].max(0).values)
    assert torch.allclose(masked_mean(hidden, mask)[1], hidden[1, :2].mean(0))


def test_description_without_a_real_token_is_refused():
    with pytest.raises(ValueError, match="no real token in row 1"):
        masked_max(_random(2, 3, 4), torch.tensor([[1, 0, 0], [0, 0, 0]]))
    with pytest.raises(ValueError, match="disagree"):
        masked_max(_random(2, 3, 4), torch.ones(2, 4))


def test_scaled_features_have_mean_square_one_and_keep_direction():
    rows = _random(4, 9)
    scaled = scale_features(rows)
    assert torch.allclose(scaled.pow(2).mean(1), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(torch.cosine_similarity(rows, scaled), torch.ones(4, dtype=torch.float64))
    assert torch.equal(scale_features(torch.zeros(1, 4)), torch.zeros(1, 4))


def test_loss_is_the_mean_negative_log_mean_exp():
    queries, keys, labels = _random(4, 8), _random(3, 8, seed=1), torch.tensor([0, 2, 1, 2])
    per_head = head_log_probs(queries, keys, 4, average=False)
    want = -torch.stack([per_head[:, i, label].exp().mean().log() for i, label in enumerate(labels)]).mean()
    assert torch.allclose(crosstune_loss(head_log_probs(queries, keys, 4), labels), want, atol=1e-12)


def test_ignored_rows_and_weights():
    log_probs = torch.log_softmax(_random(4, 3), 1)
    labels = torch.tensor([0, -100, 2, 1])
    want = -(log_probs[0, 0] + 0.5 * log_probs[2, 2] + 2 * log_probs[3, 1]) / 3
    got = crosstune_loss(log_probs, labels, torch.tensor([1.0, 9.0, 0.5, 2.0]))
    assert torch.allclose(got, want)
    assert torch.allclose(crosstune_loss(log_probs, labels, reduction="sum"), 3 * crosstune_loss(log_probs, labels))


def test_no_labelled_row_gives_zero_with_a_gradient_path():
    log_probs = torch.log_softmax(_random(2, 3), 1).requires_grad_()
    loss = crosstune_loss(log_probs, torch.tensor([-100, -100]))
    loss.backward()
    assert loss == 0 and torch.equal(log_probs.grad, torch.zeros(2, 3, dtype=torch.float64))


def test_label_outside_the_classes_is_named():
    log_probs = torch.log_softmax(_random(3, 3), 1)
    with pytest.raises(ValueError, match=r"\[0, 3\), got 3 at row 1.*-100"):
        crosstune_loss(log_probs, torch.tensor([0, 3, 1]))
    with pytest.raises(ValueError, match="got -1 at row 0"):
        crosstune_loss(log_probs, torch.tensor([-1, 0, 1]))
    with pytest.raises(ValueError, match="sample_weight"):
        crosstune_loss(log_probs, torch.tensor([0, 0, 1]), torch.ones(2))
    with pytest.raises(ValueError, match="disagree"):
        crosstune_loss(log_probs, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="reduction"):
        crosstune_loss(log_probs, torch.tensor([0, 0, 1]), reduction="none")


def test_gradients_are_right():
    weight = _random(8, 8, seed=3).requires_grad_()
    texts, labels = _random(3, 8), torch.tensor([0, 1, 1])
    keys = _random(2, 8, seed=1)
    assert torch.autograd.gradcheck(lambda w: crosstune_loss(head_log_probs(texts @ w, keys, 2), labels), (weight,))


def test_filters():
    probs = torch.tensor([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1], [0.5, 0.5], [0.7, 0.3], [0.2, 0.8]])
    intended = torch.tensor([0, 0, 0, 0, 0, 1])
    assert agree(probs, intended).tolist() == [0, 2, 3, 4, 5]  # the tie of row 3 goes to class 0
    assert agree_confident(probs, intended, 0.7).tolist() == [0, 2, 4, 5]
    assert top_k(probs, intended, 2).tolist() == [0, 2, 5]  # rows 0 and 4 tie: the lower one stays
    assert top_k(probs, intended, 0).tolist() == []
    assert top_k(probs, intended, 9, min_prob=0.75).tolist() == [2, 5]
    nothing = agree(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert nothing.tolist() == [] and nothing.dtype == torch.long


def test_filters_refuse_what_cannot_be():
    probs, intended = torch.tensor([[0.7, 0.3]]), torch.tensor([0])
    with pytest.raises(ValueError, match="min_prob"):
        agree_confident(probs, intended, 1.1)
    with pytest.raises(ValueError, match="`k`"):
        top_k(probs, intended, -1)
    with pytest.raises(ValueError, match=r"\[0, 2\)"):
        agree(probs, torch.tensor([2]))
    with pytest.raises(ValueError, match="disagree"):
        agree(probs, torch.tensor([0, 1]))
