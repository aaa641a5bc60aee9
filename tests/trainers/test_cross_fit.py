"""Out-of-sample probabilities: from features, encoders and trained models; resumed by fold."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

import tiny_text
import toys
from hf_labels.labels.confident_learning import find_label_issues
from hf_labels.labels.linear_head import fit_linear_head
from hf_labels.trainers.cross_fit import _parts, cross_fit


def blobs(rows=90, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    return rng.normal(size=(rows, 4)) + 3 * np.eye(classes, 4)[labels], Dataset.from_dict({"labels": labels.tolist()})


@pytest.mark.parametrize("l2", ["auto", 30.0])
def test_every_row_is_predicted_by_a_model_that_has_not_seen_it(l2):
    features, data = blobs()
    labels, parts = np.array(data["labels"][:]), _parts(np.array(data["labels"][:]), 5, 0)
    found = cross_fit(features, data, l2=l2)
    for fold in range(5):
        head = fit_linear_head(features[parts != fold], labels[parts != fold], 3, l2)
        np.testing.assert_allclose(found[parts == fold], head.probs(features[parts == fold]))
    np.testing.assert_allclose(found.sum(1), 1)
    assert (found.argmax(1) == labels).mean() > 0.8
    counts = np.array([[((labels == k) & (parts == fold)).sum() for k in range(3)] for fold in range(5)])
    assert (counts == 6).all(), "every class is spread over the folds"
    same = cross_fit(torch.tensor(features), data, l2=l2)
    np.testing.assert_array_equal(found, same)


def test_flips_are_found_end_to_end():
    features, data = blobs(300)
    labels = np.array(data["labels"][:])
    wrong = np.random.default_rng(1).random(300) < 0.1
    noisy = Dataset.from_dict({"labels": np.where(wrong, (labels + 1) % 3, labels).tolist()})
    issues = find_label_issues(noisy, cross_fit(features, noisy))
    assert wrong[issues.is_issue].mean() > 0.6 and issues.is_issue[wrong].mean() > 0.6


def test_texts_through_a_frozen_encoder():
    data = tiny_text.text_dataset(24)
    found = cross_fit(
        tiny_text.tiny_encoder_model(), data, tokenizer=tiny_text.tiny_tokenizer(), text_column="text", folds=3
    )
    assert found.shape == (24, len(data.features["labels"].names)) and np.isfinite(found).all()
    with pytest.raises(ValueError, match="tokenizer"):
        cross_fit(tiny_text.tiny_encoder_model(), data)
    with pytest.raises(KeyError, match="`body`"):
        cross_fit(lambda texts: np.ones((len(texts), 2)), data, text_column="body")


def test_multilabel_features():
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 3)) < 0.5).astype(int)
    labels[:, 2] = 1
    data = Dataset.from_dict({"labels": labels.tolist()})
    found = cross_fit(np.c_[labels + rng.normal(0, 0.3, labels.shape)], data, folds=4)
    assert ((found[:, :2] > 0.5) == labels[:, :2]).mean() > 0.9 and (found[:, 2] == 1).all()


class Dies(Trainer):
    """Cut off in the third fold."""

    made = 0

    def train(self, *args, **kwargs):
        Dies.made += 1
        if Dies.made == 3:
            raise KeyboardInterrupt
        return super().train(*args, **kwargs)


def test_a_trained_model_resumes_by_fold(tmp_path):
    data = toys.text_dataset(24)
    args = TrainingArguments(**toys.quick(tmp_path / "cut", num_train_epochs=2, eval_strategy="epoch"))
    with pytest.raises(KeyboardInterrupt):
        cross_fit(toys.tiny_bert, data, args, folds=4, trainer_class=Dies)
    calls = []

    def counted():
        calls.append(1)
        return toys.tiny_bert()

    counted.__qualname__ = "tiny_bert"
    found = cross_fit(counted, data, args, folds=4, trainer_class=Dies)
    assert len(calls) == 2, "two folds were finished before"
    whole = TrainingArguments(**toys.quick(tmp_path / "whole", num_train_epochs=2))
    np.testing.assert_allclose(found, cross_fit(toys.tiny_bert, data, whole, folds=4), atol=1e-6)
    assert args.output_dir.endswith("cut") and args.eval_strategy == "epoch", "the caller's arguments are as before"
    with pytest.raises(ValueError, match="same settings"):
        cross_fit(toys.tiny_bert, data, args, folds=3, trainer_class=Dies)


def test_a_column_of_another_name_and_images(tmp_path):
    data = toys.image_dataset(12).rename_column("labels", "animal")
    args = TrainingArguments(**toys.quick(tmp_path))
    found = cross_fit(toys.tiny_vit, data, args, label_column="animal", folds=2)
    assert found.shape == (12, 3)
    np.testing.assert_allclose(found.sum(1), 1)


def test_a_class_of_one_row(caplog):
    features, data = blobs(31)
    labels = [*data["labels"][:30], 3]
    found = cross_fit(features, Dataset.from_dict({"labels": labels}), folds=3)
    assert "Class 3 has no other row" in caplog.text and found[30, 3] > 0.1


def test_bad_input_is_named(tmp_path):
    features, data = blobs(12)
    args = TrainingArguments(**toys.quick(tmp_path))
    for options, error, message in [
        ({"folds": 1}, ValueError, "from 2 to the number of rows"),
        ({"folds": 13}, ValueError, "from 2 to the number of rows"),
        ({"model": features[:3]}, ValueError, r"Features must be \(12, d\)"),
        ({"model": toys.tiny_bert(), "args": args}, TypeError, "new model for every fold, got BertForSequence"),
        ({"model": lambda: torch.nn.Linear(2, 2), "args": args}, TypeError, "PreTrainedModel, got Linear"),
        ({"label_column": "topic"}, KeyError, "`topic`"),
        ({"dataset": Dataset.from_dict({"labels": [0, None] * 6})}, ValueError, "no label at row 1"),
        ({"dataset": Dataset.from_dict({"labels": [0, -1] * 6})}, ValueError, "row 1"),
        ({"dataset": Dataset.from_dict({"labels": [1] * 12})}, ValueError, "class 1 only"),
    ]:
        with pytest.raises(error, match=message):
            cross_fit(**{"model": features, "dataset": data} | options)
    plain = toys.text_dataset(12)
    with pytest.raises(ValueError, match=r"gave \(6, 3\) for 6 rows of 5 classes"):
        cross_fit(toys.tiny_bert, plain, args, folds=2, num_labels=5, output_dir=tmp_path / "five")
