"""Negatives, head shares, names for numbers, ranks in the evaluation."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from kg_toys import graph

from hf_labels.models.kg_zero_shot_embedding import KGEmbeddingModel
from hf_labels.trainers.kg_zero_shot import (
    KGEmbeddingTrainer,
    KGEmbeddingTrainingArguments,
    NegativeSamplingCollator,
    head_shares,
    triple_dataset,
)


def trainer(folder, data=None, **settings):
    kg = graph()
    torch.manual_seed(0)
    model = KGEmbeddingModel.from_graph(kg, hidden_size=16)
    args = KGEmbeddingTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, report_to="none", **settings)
    data = kg.to_dataset() if data is None else data
    return KGEmbeddingTrainer(model, args, train_dataset=data, eval_dataset=kg.to_dataset())


def test_negatives_are_never_the_right_entity_and_cover_all_others():
    torch.manual_seed(0)
    batch = NegativeSamplingCollator(4, 300)([{"h": 0, "r": 0, "t": 3}])
    heads = batch["corrupt_head"][0]
    assert set(batch["neg"][0][heads].tolist()) == {1, 2, 3} and set(batch["neg"][0][~heads].tolist()) == {0, 1, 2}
    assert 0.4 < heads.float().mean() < 0.6
    one_sided = NegativeSamplingCollator(4, 50, shares=[1.0])([{"h": 0, "r": 0, "t": 3}])
    assert one_sided["corrupt_head"].all()


def test_heads_are_replaced_more_often_where_they_have_many_tails():
    triples = [(0, 0, t) for t in range(1, 5)] + [(h, 1, 0) for h in range(1, 4)] + [(0, 2, 1)]
    np.testing.assert_allclose(head_shares(triples, 4), [4 / 5, 1 / 4, 1 / 2, 1 / 2])


def test_training_raises_the_filtered_ranks_of_the_evaluation(tmp_path):
    made = trainer(tmp_path, num_train_epochs=100, save_strategy="no", bernoulli=True)
    before = made.evaluate()
    made.train()
    after = made.evaluate()
    assert after["eval_mrr"] > max(0.7, before["eval_mrr"]) and 0 < after["eval_hits@1"] <= after["eval_hits@10"] <= 1
    assert after["eval_loss"] < before["eval_loss"]
    again = made.model.evaluate_ranks(graph().triples, graph().triples)
    assert abs(again["mrr"] - after["eval_mrr"]) < 1e-9


def test_bad_triples_are_named(tmp_path):
    far = triple_dataset([[0, 0, 1], [0, 0, 12]])
    with pytest.raises(ValueError, match="Row 1 is the triple .*12 entities"):
        trainer(tmp_path, far)
    strange = Dataset.from_dict({"head": ["cat"], "relation": ["isa"], "tail": ["unicorn"]})
    with pytest.raises(ValueError, match="`tail` at row 0 is 'unicorn'"):
        trainer(tmp_path, strange)
    with pytest.raises(KeyError, match="relation"):
        trainer(tmp_path, strange.remove_columns("relation"))
    with pytest.raises(ValueError, match="two entities"):
        NegativeSamplingCollator(1)
