"""Columns, metrics, card and errors of `LabelTrainer`."""

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from torch import nn
from toy_trainers import PlainTrainer, ToyTrainer
from transformers import BertForSequenceClassification

import toys
from hf_labels.data.memory import SampleMemory
from hf_labels.hub_cards import validate_card
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
from hf_labels.trainers.card import changed_arguments
from hf_labels.trainers.state import checkpoints, find_checkpoint, load_method_state, save_method_state


def make(folder, trainer=PlainTrainer, train=None, evaluation=None, model=None, extra=None, **options):
    args = LabelTrainingArguments(**toys.quick(folder, **options))
    train = toys.text_dataset(12) if train is None else train
    return trainer(model or toys.tiny_bert(), args, train_dataset=train, eval_dataset=evaluation, **(extra or {}))


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def test_extra_columns_arrive_and_metrics_appear(tmp_path):
    seen = []

    class Watching(PlainTrainer):
        _extra_columns = ("index", "annotator_labels")

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            seen.append({name: tuple(value.shape) for name, value in inputs.items()})
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    train = toys.text_dataset(8, annotator_labels=[[0, -1]] * 8, unused=[1.0] * 8)
    trainer = make(tmp_path, Watching, train, toys.text_dataset(6, seed=3), extra={"compute_metrics": accuracy})
    trainer.train()
    assert seen[0]["annotator_labels"] == (4, 2) and seen[0]["index"] == (4,) and "unused" not in seen[0]
    metrics = trainer.evaluate()
    assert {"eval_loss", "eval_accuracy", "eval_doubled"} <= set(metrics)
    assert metrics["eval_doubled"] == pytest.approx(2 * metrics["eval_loss"], rel=1e-5)
    logits = trainer.predict(toys.text_dataset(6, seed=3)).predictions
    expected = nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(toys.text_dataset(6, seed=3)["labels"][:])
    ).item()
    assert len(logits) == 6 and metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)  # batches of 4 and 2 rows


def test_forward_arguments_named_like_labels_are_no_labels(tmp_path):
    class TwoLabels(BertForSequenceClassification):
        def forward(self, input_ids=None, attention_mask=None, labels=None, annotator_labels=None, **kwargs):
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)

    trainer = make(tmp_path, LabelTrainer, evaluation=toys.text_dataset(4), model=TwoLabels(toys.bert_config()))
    assert trainer.label_names == ["labels"] and "eval_loss" in trainer.evaluate()


def test_lazy_transform_keeps_the_columns_that_it_reads(tmp_path):
    def encode(rows):
        return {"input_ids": [[int(t) for t in text.split()] for text in rows["text"]], "labels": rows["labels"]}

    plain = Dataset.from_dict({"text": ["2 3 4", "3 9 9"] * 4, "labels": [0, 1] * 4}).with_transform(encode)
    trainer = make(tmp_path, LabelTrainer, train=plain, evaluation=plain)
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])


def test_card_is_written_with_results_and_changed_arguments(tmp_path):
    trainer = make(tmp_path / "my-model", evaluation=toys.text_dataset(6), weight_decay=0.01)
    trainer.train()
    trainer.evaluate()
    trainer.create_model_card(model_name="my-model", tags=["toy"], dataset="someone/toys")
    text = (tmp_path / "my-model" / "README.md").read_text()
    assert validate_card(text) == [] or all("paper" in problem for problem in validate_card(text))
    for part in ("weight_decay", "someone/toys", "toy", "news", "text-classification"):
        assert part in text, part
    assert str(tmp_path) not in text
    assert changed_arguments(trainer.args)["weight_decay"] == 0.01
    assert "output_dir" not in changed_arguments(trainer.args)


def test_card_of_somebody_else_stays_and_training_goes_on(tmp_path, caplog):
    trainer = make(tmp_path / "mine")
    (tmp_path / "mine").mkdir(exist_ok=True)
    (tmp_path / "mine" / "README.md").write_text("# My own words\n")
    trainer.create_model_card(model_name="mine")
    assert (tmp_path / "mine" / "README.md").read_text() == "# My own words\n"
    assert "No model card was written" in caplog.text and "README.md" in caplog.text


def test_trainer_of_another_package_gets_the_general_card(tmp_path):
    class TheirTrainer(ToyTrainer):
        _slug = "their_method"

        def card_facts(self, finetuned_from=None):
            return {"extra": {"written by": "somebody else"}}

    make(tmp_path / "theirs", TheirTrainer).create_model_card(model_name="theirs")
    card = (tmp_path / "theirs" / "README.md").read_text()
    assert "their_method" not in card and "somebody else" in card and "of its author" in card


def test_empty_one_class_and_different_label_spaces(tmp_path):
    with pytest.raises(ValueError, match="training data set .*is empty"):
        make(tmp_path, train=toys.text_dataset(12).select([])).train()
    with pytest.raises(ValueError, match="evaluation data set .*is empty"):
        make(tmp_path, evaluation=toys.text_dataset(6).select([])).train()
    one = toys.text_dataset(12).filter(lambda row: row["labels"] == 1)
    with pytest.raises(ValueError, match="labels.*one class|labels.*only"):
        make(tmp_path, ToyTrainer, train=one).train()

    class OneClassIsFine(ToyTrainer):
        _min_classes = 1

    make(tmp_path / "fine", OneClassIsFine, train=one).train()
    swapped = toys.text_dataset(6).cast_column("labels", ClassLabel(names=["sport", "news", "music"]))
    with pytest.raises(ValueError, match="labels.*(sport|news)"):
        make(tmp_path / "b", ToyTrainer, evaluation={"first": swapped}).train()


def test_missing_and_wrong_columns_are_named(tmp_path):
    with pytest.raises(KeyError, match="Column `labels` is missing"):
        make(tmp_path, ToyTrainer, train=toys.text_dataset(6).rename_column("labels", "gold")).train()

    class NeedsBags(PlainTrainer):
        _required_columns = ("bag_id",)

    with pytest.raises(KeyError, match="Column `bag_id` is missing"):
        make(tmp_path, NeedsBags).train()
    wide = toys.text_dataset(12, num_labels=5)
    with pytest.raises(ValueError, match="labels"):
        make(tmp_path, ToyTrainer, train=wide).train()  # the model has 3 classes
    with pytest.raises(ValueError, match="`index`.*taken"):
        make(tmp_path).add_stream("index", toys.text_dataset(4))


def test_bad_terms_are_refused(tmp_path):
    trainer = make(tmp_path)
    with pytest.raises(ValueError, match="cannot be called `loss`"):
        trainer.log_terms(loss=1.0)
    with pytest.raises(ValueError, match="one number"):
        trainer.log_terms(parts=torch.zeros(2))


# Folders and checkpoints


def test_folder_of_another_model_is_refused(tmp_path):
    make(tmp_path, save_strategy="epoch").train()
    make(tmp_path).train()  # the same model: fine
    with pytest.raises(FileExistsError, match="another model.*labels is.*overwrite_output_dir=True"):
        make(tmp_path, model=toys.tiny_bert(4), train=toys.text_dataset(12, num_labels=4)).train()
    with pytest.raises(FileExistsError, match="class is BertForSequenceClassification"):
        make(tmp_path, LabelTrainer, model=toys.tiny_token_bert()).train()
    make(tmp_path, model=toys.tiny_bert(4), overwrite_output_dir=True).train()
    with pytest.raises(ValueError, match="holds another model"):
        make(tmp_path, model=toys.tiny_bert(4)).train(resume_from_checkpoint=True)
    assert not (tmp_path / "config.json").exists()


def test_no_checkpoint_and_cut_off_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        make(tmp_path / "none").train(resume_from_checkpoint=True)
    trainer = make(tmp_path, save_strategy="steps", save_steps=1)
    trainer.train()
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text('{"global_')  # cut off while it was written
    assert find_checkpoint(tmp_path, True).endswith("checkpoint-2")
    with pytest.raises(FileNotFoundError, match="not a complete checkpoint"):
        make(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_method_state_that_does_not_fit(tmp_path):
    train = toys.text_dataset(12)
    trainer = make(tmp_path, ToyTrainer, train, save_strategy="steps", save_steps=1, max_steps=2)
    trainer.train()
    with pytest.raises(ValueError, match=r"`memory.values` is float32 of shape \(12, 3\) there and .*\(14, 3\) here"):
        make(tmp_path, ToyTrainer, toys.text_dataset(14)).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="this trainer has none"):
        make(tmp_path, PlainTrainer, train).train(resume_from_checkpoint=True)
    copy = tmp_path / "copy" / "checkpoint-2"
    shutil.copytree(tmp_path / "checkpoint-2", copy)
    state = copy / "method_state.safetensors"
    state.write_bytes(state.read_bytes()[:50])
    with pytest.raises(ValueError, match="damaged"):
        make(tmp_path, ToyTrainer, train).train(resume_from_checkpoint=str(copy))
    state.unlink()
    with pytest.raises(FileNotFoundError, match="has no method_state.safetensors"):
        make(tmp_path, ToyTrainer, train).train(resume_from_checkpoint=str(copy))


def test_method_state_files(tmp_path):
    tied = nn.Linear(2, 2)
    module = nn.ModuleDict({"a": tied, "b": tied, "memory": SampleMemory(3, dtype=torch.int64)})
    save_method_state(module, tmp_path)
    other = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "memory": SampleMemory(3, dtype=torch.int64)})
    load_method_state(other, tmp_path)
    toys.assert_same(toys.weights(module), toys.weights(other))
    with pytest.raises(ValueError, match="lacks `c.counts`"):
        load_method_state(nn.ModuleDict({"a": tied, "b": tied, "c": SampleMemory(3)}), tmp_path)
    with pytest.raises(ValueError, match="has `b.bias`"):
        load_method_state(nn.ModuleDict({"a": tied, "memory": SampleMemory(3, dtype=torch.int64)}), tmp_path)
    with pytest.raises(ValueError, match="int64"):
        load_method_state(nn.ModuleDict({"a": tied, "b": tied, "memory": SampleMemory(3)}), tmp_path)


def test_best_model_comes_with_its_method_state(tmp_path):
    scores = iter([3.0, 2.0, 1.0])  # the first step is the best
    trainer = make(
        tmp_path,
        ToyTrainer,
        extra={"compute_metrics": lambda prediction: {"score": next(scores)}},
        evaluation=toys.text_dataset(6, seed=2),
        save_strategy="steps",
        save_steps=1,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best.endswith("checkpoint-1") and trainer.state.global_step == 3
    from safetensors.torch import load_file

    toys.assert_same(load_file(f"{best}/method_state.safetensors"), toys.weights(trainer.method_state))
    assert json.loads((tmp_path / "checkpoint-1" / "trainer_state.json").read_text())["global_step"] == 1
