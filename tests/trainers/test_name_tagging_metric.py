"""Entity metric trainer: limits, columns, both stages, transfer, the loss of a whole update, what is saved."""

import json

import numpy as np
import pytest
import torch
from name_tagging_toys import LENGTH, tagged, tagger

import toys
from hf_labels.labels.name_tagging_metric import event_similarity
from hf_labels.losses.name_tagging_metric import multi_similarity_loss, pool_entities
from hf_labels.models.heads import head_inputs
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
from hf_labels.trainers.name_tagging_metric import (
    EntityMetricTrainer,
    EntityMetricTrainingArguments,
    pseudo_source_tags,
    transfer_encoder,
)


def made(folder, data=None, model=None, given=None, **options):
    args = EntityMetricTrainingArguments(**toys.quick(folder, **options))
    return EntityMetricTrainer(
        tagger() if model is None else model, args, train_dataset=tagged() if data is None else data, **(given or {})
    )


def trained(folder, **options):
    trainer = made(folder, **options)
    trainer.train()
    return toys.weights(trainer.model)


def test_weight_zero_is_plain_token_classification(tmp_path):
    ours = trained(tmp_path / "a", metric_weight=0.0, seed=1)
    plain = LabelTrainer(
        tagger(),
        LabelTrainingArguments(**toys.quick(tmp_path / "b", seed=1)),
        train_dataset=tagged(pseudo=False).remove_columns("entity_ids"),
    )
    plain.train()
    toys.assert_same(ours, toys.weights(plain.model), atol=1e-6)


def test_similarity_of_zeros_is_no_similarity_and_another_one_counts(tmp_path):
    runs = {}
    for name, matrix in (("none", None), ("zeros", np.zeros((3, 3))), ("some", np.eye(3))):
        given = {} if matrix is None else {"similarity": matrix}
        runs[name] = trained(tmp_path / name, stage="grouping", given=given)
    toys.assert_same(runs["none"], runs["zeros"], atol=1e-6)
    assert any((runs["none"][key] != runs["some"][key]).any() for key in runs["none"])


def test_loss_is_that_of_the_formula(tmp_path):
    trainer = made(tmp_path, metric_weight=0.7)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    with head_inputs(trainer.model) as seen:
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    entities = pool_entities(seen.features, batch["labels"], batch["pseudo_tags"])
    metric = multi_similarity_loss(entities.features, entities.is_pseudo.long()).loss
    ce = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    torch.testing.assert_close(trainer.compute_loss(trainer.model, batch), ce + 0.7 * metric)


def test_clusters_replace_tags_and_leave_out_their_strangers(tmp_path):
    trainer = made(tmp_path, stage="grouping", given={"clusters": [0, 1, -1]})
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    entities = pool_entities(torch.ones(6, LENGTH, 1), batch["labels"], entity_ids=batch["entity_ids"])
    kept, labels = trainer._keep(entities)
    assert (labels[kept] == entities.ids[kept]).all() and not kept[entities.ids == 2].any()
    assert trainer.count_items(batch)["entities"] == kept.sum()


def test_padded_normalisation_divides_by_all_positions(tmp_path):
    data = tagged().map(lambda row, i: {"labels": [-100] * 4 + row["labels"][4:]}, with_indices=True)
    losses = {}
    for kind in ("words", "padded"):
        trainer = made(tmp_path / kind, data, metric_weight=0.0, ce_normalization=kind)
        batch = trainer.data_collator([data[i] for i in range(4)])
        losses[kind] = float(trainer.compute_loss(trainer.model, batch))
    assert losses["padded"] == pytest.approx(losses["words"] / 2, rel=1e-5)


def test_evaluation_reports_entities_and_is_plain(tmp_path):
    trainer = made(tmp_path, num_train_epochs=30, learning_rate=1e-2)
    trainer.train()
    found = trainer.evaluate(tagged(12, seed=3))
    assert found["eval_f1"] > 0.5 and {"eval_precision", "eval_recall", "eval_macro_f1"} <= set(found)
    assert "eval_metric" not in found


def test_a_source_tagger_marks_what_it_sees_outside_gold_words():
    data = tagged(pseudo=False).map(lambda row: {"labels": [tag if tag in (1, 2) else 0 for tag in row["labels"]]})
    model = tagger()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 0, 0, 5, 0]))  # sees B-dog everywhere
    model.train()
    found = pseudo_source_tags(model, data, batch_size=5)
    assert model.training
    for row in found:
        assert row["pseudo_tags"] == [int(tag == 0) for tag in row["labels"]]
    assert found["labels"][:] == data["labels"][:]
    again = pseudo_source_tags(model, found)
    assert again["pseudo_tags"][:] == found["pseudo_tags"][:]


def test_nothing_to_discriminate_is_said_and_training_goes_on(tmp_path, caplog):
    model = tagger()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([5.0, 0, 0, 0, 0]))
    found = pseudo_source_tags(model, tagged(pseudo=False))
    assert "sees no entity outside the gold ones" in caplog.text
    made(tmp_path, found).train()
    assert "plain token classification" in caplog.text


def test_transfer_keeps_the_encoder_and_makes_a_fresh_head():
    source = tagger()
    target = transfer_encoder(source, ["O", "B-ore", "I-ore"])
    assert target.num_labels == 3 and target.config.id2label[1] == "B-ore" and source.num_labels == 5
    assert target.classifier.weight.shape[0] == 3
    own, theirs = (toys.weights(model.bert) for model in (source, target))
    toys.assert_same(own, theirs)
    with pytest.raises(ValueError, match="got 'I-ore' and 'B-ore'"):
        transfer_encoder(source, ["O", "I-ore", "B-ore"])


def test_facts_are_saved_with_the_model(tmp_path):
    trainer = made(tmp_path)
    trainer.save_model(str(tmp_path / "saved"))
    facts = json.loads((tmp_path / "saved" / "entity_metric.json").read_text())
    assert facts["stage"] == "discrimination" and facts["metric_weight"] == 0.1 and facts["ms_beta"] == 5.0
    tags = [tag for row in tagged()["pseudo_tags"] for tag in row]
    assert facts["pseudo_entities"] == tags.count(1) == facts["pseudo_words"]


def test_defaults_follow_the_stage(tmp_path):
    grouping = EntityMetricTrainingArguments(str(tmp_path), stage="grouping")
    assert (grouping.metric_weight, grouping.ms_alpha, grouping.ms_beta) == (1.2, 4.0, 3.0)
    own = EntityMetricTrainingArguments(str(tmp_path), stage="grouping", ms_alpha=1.0, metric_weight=0.0)
    assert (own.metric_weight, own.ms_alpha) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage": "third"}, "grouping or discrimination, got 'third'"),
        ({"metric_weight": -1.0}, "0 or more, got -1.0"),
        ({"ms_beta": 0.0}, "`ms_beta` must be above 0"),
        ({"ce_normalization": "none"}, "words or padded"),
    ],
)
def test_bad_settings_are_named(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        EntityMetricTrainingArguments(str(tmp_path), **options)


def test_bad_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match="Tag 0 must be 'O', got 'news'"):
        made(tmp_path, model=toys.tiny_token_bert(3))
    with pytest.raises(ValueError, match=r"square matrix of finite numbers, got \(2, 3\)"):
        made(tmp_path, given={"similarity": np.zeros((2, 3))})
    with pytest.raises(TypeError, match="EntityMetricTrainingArguments, got LabelTrainingArguments"):
        EntityMetricTrainer(tagger(), LabelTrainingArguments(str(tmp_path)))
    bare = tagged().remove_columns("entity_ids")
    similarity = event_similarity([np.ones((1, 2))] * 3)
    with pytest.raises(KeyError, match="entity_ids"):
        made(tmp_path, bare, stage="grouping", given={"similarity": similarity}).train()
