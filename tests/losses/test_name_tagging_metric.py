"""Multi-similarity loss against a loop, its limits and invariances; entities read out of tagged words."""

import math

import pytest
import torch

from hf_labels.losses.contrastive import cosine_matrix, log_one_plus_sum_exp, same_label
from hf_labels.losses.name_tagging_metric import MultiSimilarityLoss, multi_similarity_loss, pool_entities


def by_loop(features, labels, known=None, a=2.0, b=5.0, aw=8.0, bw=6.0, threshold=0.5, margin=0.1, exclude=False):
    unit = [row / row.norm() for row in features]
    size, total = len(unit), 0.0
    for i in range(size):
        cosines = [float(unit[i] @ unit[j]) for j in range(size)]
        own = [j for j in range(size) if labels[j] == labels[i] and not (exclude and i == j)]
        others = [j for j in range(size) if labels[j] != labels[i]]
        negatives = [j for j in others if own and cosines[j] + margin > min(cosines[p] for p in own)]
        best = max((cosines[q] for q in others), default=math.inf)
        positives = [p for p in own if cosines[p] - margin < best]
        pull = sum(
            math.exp(-a * (cosines[p] - threshold) + (aw * float(known[i, p]) if known is not None else 0))
            for p in positives
        )
        push = sum(
            math.exp(b * (cosines[q] - threshold) - (bw * float(known[i, q]) if known is not None else 0))
            for q in negatives
        )
        total += math.log(1 + pull) / a + math.log(1 + push) / b
    return total / size


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_loop(exclude, weighted):
    generator = torch.Generator().manual_seed(0)
    for size in (2, 5, 12):
        features = torch.randn(size, 4, generator=generator, dtype=torch.float64)
        labels = torch.randint(0, 3, (size,), generator=generator)
        known = torch.rand(size, size, generator=generator, dtype=torch.float64) * 2 - 1 if weighted else None
        got = multi_similarity_loss(features, labels, known, exclude_self=exclude).loss
        assert float(got) == pytest.approx(by_loop(features, labels, known, exclude=exclude), abs=1e-10)


def test_invariances_and_limits():
    features, labels = torch.randn(9, 5, dtype=torch.float64), torch.arange(9) % 3
    loss = multi_similarity_loss(features, labels).loss
    scaled = features * torch.rand(9, 1, dtype=torch.float64) * 9 + 0 * features
    torch.testing.assert_close(multi_similarity_loss(scaled, labels).loss, loss)
    order = torch.randperm(9)
    torch.testing.assert_close(multi_similarity_loss(features[order], labels[order]).loss, loss)
    torch.testing.assert_close(multi_similarity_loss(features, labels, torch.zeros(9, 9)).loss, loss)
    one = torch.zeros(9, dtype=torch.int64)
    same = torch.ones(9, 5, dtype=torch.float64)
    assert multi_similarity_loss(features, one).loss > multi_similarity_loss(same, one).loss
    assert MultiSimilarityLoss(alpha=2.0)(features, labels) == loss


@pytest.mark.parametrize("size", [0, 1])
def test_too_few_entities_give_zero_with_a_gradient(size):
    features = torch.randn(size, 4, requires_grad=True)
    found = multi_similarity_loss(features, torch.zeros(size, dtype=torch.int64))
    found.loss.backward()
    assert found.loss == 0 and (features.grad == 0).all()


def test_a_vector_of_zeros_gives_no_nan():
    features = torch.randn(4, 3)
    features[1] = 0
    features.requires_grad_()
    multi_similarity_loss(features, torch.tensor([0, 0, 1, 1])).loss.backward()
    assert torch.isfinite(features.grad).all()


def test_gradient_is_right_away_from_ties():
    features = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert torch.autograd.gradcheck(lambda x: multi_similarity_loss(x, labels).loss, features)


def test_bad_shapes_are_named():
    features, labels = torch.randn(4, 3), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"labels \(n,\), got \(4, 3\), \(3,\)"):
        multi_similarity_loss(features, labels[:3])
    with pytest.raises(ValueError, match=r"\(4, 4\) without NaN, got \(3, 4\)"):
        multi_similarity_loss(features, labels, torch.zeros(3, 4))
    with pytest.raises(ValueError, match="without NaN"):
        multi_similarity_loss(features, labels, torch.full((4, 4), float("nan")))


def test_pairs_kit():
    rows = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]], dtype=torch.float16)
    assert cosine_matrix(rows).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert same_label(torch.tensor([1, 2]), torch.tensor([2, 1, 2])).tolist() == [[0, 1, 0], [1, 0, 1]]
    values = torch.tensor([[0.0, 1.0], [5.0, 5.0]])
    got = log_one_plus_sum_exp(values, torch.tensor([[True, True], [False, False]]))
    torch.testing.assert_close(got, torch.tensor([math.log(2 + math.e), 0.0]))


def test_entities_are_means_over_their_words():
    features = torch.arange(14, dtype=torch.float64).view(1, 7, 2)
    labels = torch.tensor([[-100, 1, -100, 2, 0, 3, 4]])
    found = pool_entities(features, labels)
    assert found.features.tolist() == [[4, 5], [11, 12]] and found.labels.tolist() == [1, 3]
    assert found.ids.tolist() == [-1, -1] and not found.is_pseudo.any()


def test_stray_continuations_and_row_ends_break_entities():
    labels = torch.tensor([[0, 2, 1, 2], [2, 2, 0, 2]])
    pseudo = torch.tensor([[2, 0, 0, 0], [0, 0, 1, 0]])
    found = pool_entities(torch.ones(2, 4, 1) * torch.arange(4.0)[:, None], labels, pseudo)
    assert found.features.flatten().tolist() == [2.5, 2.0]
    assert found.is_pseudo.tolist() == [False, True] and found.labels.tolist() == [1, 0]


def test_words_without_an_id_are_passed_over():
    labels = torch.tensor([[1, 1, 2, 2]])
    ids = torch.tensor([[7, -1, -1, 7]])
    found = pool_entities(torch.tensor([[[1.0], [10.0], [100.0], [3.0]]]), labels, entity_ids=ids)
    assert found.features.tolist() == [[2.0]] and found.ids.tolist() == [7]


def test_nothing_there():
    found = pool_entities(torch.randn(2, 3, 4), torch.full((2, 3), -100))
    assert found.features.shape == (0, 4)
    assert pool_entities(torch.randn(1, 3, 4), torch.zeros(1, 3, dtype=torch.int64)).labels.shape == (0,)
