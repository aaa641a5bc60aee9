"""`CrowdLabelTrainer`: aggregation on the way in, four objectives, a second head that never leaves the training."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

import toys
from hf_labels.labels.crowd_soft_labels import aggregate_annotations
from hf_labels.losses.crowd_soft_labels import multi_task_loss, soft_label_loss
from hf_labels.models.crowd_soft_labels import SOFT_HEAD, add_soft_head
from hf_labels.trainers.crowd_soft_labels import CrowdLabelTrainer, CrowdLabelTrainingArguments, draw_labels

TEXT = ("input_ids", "attention_mask")
ONE_STEP = {
    "optim": "sgd",
    "learning_rate": 0.5,
    "max_grad_norm": 0.0,
    "max_steps": 1,
    "per_device_train_batch_size": 8,
    "train_sampling_strategy": "sequential",
}


def make(folder, data, model=None, evaluation=None, extra=None, **options):
    args = CrowdLabelTrainingArguments(**toys.quick(folder, **{"overwrite_output_dir": True} | options))
    model = toys.tiny_bert(dropout=0.0) if model is None else model
    return CrowdLabelTrainer(model, args, train_dataset=data, eval_dataset=evaluation, **(extra or {}))


def soft_data(rows=8):
    return toys.text_dataset(rows, soft_labels=toys.soft_rows(rows)).remove_columns("labels")


def crowd_data(rows=8, seed=0):
    answers = np.random.default_rng(seed).integers(0, 3, size=(rows, 4))
    answers[0, 1:] = -1
    return toys.text_dataset(rows, annotator_labels=answers.tolist()).remove_columns("labels")


def stepped(model, data, loss_of):
    """Weights after one SGD step, written out."""
    model.train()
    features = {}
    handle = model.classifier.register_forward_pre_hook(lambda module, args: features.update(x=args[0]))
    logits = model(**{name: torch.tensor(data[name][:]) for name in TEXT}).logits
    handle.remove()
    loss_of(logits, features["x"]).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.5 * parameter.grad
    return toys.weights(model)


def test_answers_are_aggregated_when_the_trainer_is_made(tmp_path):
    data, other = crowd_data(), crowd_data(6, seed=1)
    trainer = make(tmp_path, data, evaluation={"one": other}, aggregation="wawa")
    want = aggregate_annotations(data, "wawa", worker_column=None, label_column="annotator_labels", num_labels=3)
    np.testing.assert_allclose(trainer.train_dataset["soft_labels"][:], want.soft, atol=1e-6)
    assert "annotator_labels" not in trainer.train_dataset.column_names
    own = aggregate_annotations(other, "wawa", worker_column=None, label_column="annotator_labels", num_labels=3)
    np.testing.assert_allclose(trainer.eval_dataset["one"]["soft_labels"][:], own.soft, atol=1e-6)
    assert trainer.evaluate(other)["eval_loss"] == pytest.approx(trainer.evaluate()["eval_one_loss"])
    assert trainer.evaluate(toys.text_dataset(6))["eval_loss"] > 0  # true labels: plain cross-entropy


@pytest.mark.parametrize("objective", ["soft", "majority"])
def test_class_weights_and_majority_are_the_losses_of_the_paper(tmp_path, objective):
    data, weights = soft_data(), [1.0, 3.0, 0.25]
    soft = torch.tensor(data["soft_labels"][:])
    target = soft if objective == "soft" else F.one_hot(soft.argmax(-1), 3).float()
    by_class = torch.tensor(weights)
    want = stepped(
        toys.tiny_bert(dropout=0.0), data, lambda z, x: soft_label_loss(z, target, "kl", class_weights=by_class)
    )
    trainer = make(tmp_path, data, objective=objective, class_weights=weights, **ONE_STEP)
    trainer.train()
    toys.assert_same(want, toys.weights(trainer.model), atol=1e-6)


@pytest.mark.parametrize("with_labels", [True, False])
def test_two_heads_learn_what_the_loss_says(tmp_path, with_labels):
    data = soft_data()
    soft = torch.tensor(data["soft_labels"][:])
    labels = torch.tensor([2, 1, 0, 0, 1, 2, -100, 1]) if with_labels else soft.argmax(-1)
    if with_labels:
        data = data.add_column("labels", [2, 1, 0, 0, 1, 2, -1, 1])
    trainer = make(tmp_path, data, evaluation=data, objective="multi_task", logging_steps=1, **ONE_STEP)
    model = toys.tiny_bert(dropout=0.0)
    add_soft_head(model).load_state_dict(trainer.model.soft_classifier.state_dict())
    want = stepped(model, data, lambda z, x: multi_task_loss(z, model.soft_classifier(x), labels, soft))
    trainer.train()
    toys.assert_same(want, toys.weights(trainer.model), atol=1e-6)
    assert set(trainer.state.log_history[0]) >= {"soft", "hard"}
    predicted = trainer.predict(data.select_columns(list(TEXT)))
    assert predicted.predictions.shape == (8, 3)  # those of the first head alone
    assert set(trainer.evaluate()) >= {"eval_soft", "eval_hard"}


def test_the_second_head_stays_in_checkpoints_as_method_state(tmp_path):
    data = soft_data(16)
    options = {"objective": "multi_task", "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer = make(tmp_path / "run", data, **options)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    for place in (tmp_path / "saved", tmp_path / "run" / "checkpoint-1"):
        _, info = AutoModelForSequenceClassification.from_pretrained(place, output_loading_info=True)
        assert not info["unexpected_keys"] and not info["missing_keys"]
    assert (tmp_path / "run" / "checkpoint-1" / "method_state.safetensors").is_file()
    assert trainer.model.config.architectures == ["BertForSequenceClassification"]


def test_a_resumed_run_does_not_warn_of_the_second_head(tmp_path, caplog):
    import logging

    logger = logging.getLogger("transformers.trainer")
    logger.addHandler(caplog.handler)
    try:
        options = {"objective": "multi_task", "max_steps": 2, "save_strategy": "steps", "save_steps": 1}
        make(tmp_path, soft_data(16), **options).train()
        make(tmp_path, soft_data(16), **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    finally:
        logger.removeHandler(caplog.handler)
    assert "missing keys" not in caplog.text


def test_sampled_labels_follow_the_distribution_and_resume_exactly(tmp_path):
    torch.manual_seed(0)
    probs = torch.tensor([[0.2, 0.0, 0.8], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    drawn = draw_labels(probs.expand(20000, 3, 3))
    np.testing.assert_allclose(drawn.mean(0)[:2], probs[:2], atol=0.015)
    assert (drawn.sum(-1) == 1).all() and (drawn[:, 2, 0] == 1).all() and drawn[:, 0, 1].sum() == 0
    options = {"objective": "sampled", "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    straight = make(tmp_path / "a", soft_data(16), **options)
    straight.train()
    again = make(tmp_path / "a", soft_data(16), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-1"))
    toys.assert_same(toys.weights(straight.model), toys.weights(again.model), atol=1e-6)
    plain = make(tmp_path / "b", soft_data(16), **options | {"objective": "soft"})
    plain.train()
    far = (plain.model.classifier.weight - straight.model.classifier.weight).abs().max()
    assert far > 1e-5  # drawn labels are other targets
    data = soft_data(8)
    assert make(tmp_path / "c", data, evaluation=data, objective="sampled").evaluate()["eval_loss"] == pytest.approx(
        make(tmp_path / "d", data, evaluation=data).evaluate()["eval_loss"]
    )


def test_tokens_too(tmp_path):
    rng = np.random.default_rng(0)
    soft = rng.dirichlet(np.ones(3), size=(8, toys.TOKENS)).astype("float32")
    soft[:, 3:] = 0  # not labelled
    data = toys.text_dataset(8, soft_labels=soft.tolist()).remove_columns("labels")
    trainer = make(tmp_path, data, toys.tiny_token_bert(), evaluation=data, objective="multi_task", max_steps=2)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0 and SOFT_HEAD in dict(trainer.model.named_children())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"objective": "both"}, "objective.*soft, majority, sampled, multi_task.*'both'"),
        ({"aggregation": "mean"}, "aggregation.*dawid|aggregation.*ds.*'mean'"),
        ({"class_weights": [0.0, 0.0, 0.0]}, "class_weights"),
        ({"class_weights": [1.0, float("nan"), 1.0]}, "class_weights"),
        ({"class_weights": [1.0, 2.0]}, "2 values, the model has 3 classes"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, text):
    with pytest.raises(ValueError, match=text):
        make(tmp_path, soft_data(), **options)


def test_data_and_models_that_do_not_fit(tmp_path):
    from peft import LoraConfig, get_peft_model

    sparse = toys.text_dataset(8, soft_label_ids=[[0, 1]] * 8, soft_label_values=[[0.5, 0.5]] * 8)
    with pytest.raises(ValueError, match="sparse"):
        make(tmp_path, sparse, objective="majority")
    with pytest.raises(ValueError, match="label_source"):
        make(tmp_path, soft_data(), objective="sampled", extra={"label_source": toys.tiny_bert()})
    adapted = get_peft_model(toys.tiny_bert(), LoraConfig(task_type="SEQ_CLS", target_modules=["query"]))
    with pytest.raises(ValueError, match="adapters"):
        make(tmp_path, soft_data(), adapted, objective="multi_task")
    convolution = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1))
    convolution.config = toys.bert_config(3)
    with pytest.raises(ValueError, match="Conv2d"):
        add_soft_head(convolution)
