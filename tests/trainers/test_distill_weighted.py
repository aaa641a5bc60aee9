"""The student of labels and weighted sources: its loss, its second stream, what it saves, what it refuses."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from distill_weighted_toys import images, noise, soft_store, source, student
from torch.nn import functional as F

import toys
from hf_labels.data import SoftLabelStore, StoreInfo
from hf_labels.data.distill_weighted import SourceBank
from hf_labels.losses.distill_weighted import source_weights
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
from hf_labels.trainers.distill_weighted import WeightedDistillTrainer, WeightedDistillTrainingArguments

LABELED, UNLABELED = images(16), images(12, first=100, seed=1).remove_columns("labels")
STORE = soft_store([*range(16), *range(100, 112)])


TEST = images(9, seed=4)


def trainer(folder, *, data=LABELED, unlabeled=UNLABELED, store=STORE, model=None, test=TEST, **options):
    args = WeightedDistillTrainingArguments(
        **toys.quick(folder, **{"per_device_train_batch_size": 8, "max_steps": 1, "logging_steps": 1, **options})
    )
    model = student() if model is None else model
    return WeightedDistillTrainer(
        model, args, train_dataset=data, eval_dataset=test, unlabeled_dataset=unlabeled, soft_labels=store
    )


def batches(made):
    """Train, and give what reached `compute_loss`."""
    seen = []
    inner = made.compute_loss

    def spy(model, inputs, *args, **kwargs):
        seen.append(inputs)
        return inner(model, inputs, *args, **kwargs)

    made.compute_loss = spy
    made.train()
    return seen


def test_loss_is_that_of_the_paper(tmp_path):
    made = trainer(tmp_path, label_weight=0.3, distill_temperature=2.0)
    batch = batches(made)[0]
    model = student().train()
    hard = F.cross_entropy(model(batch["pixel_values"]).logits, batch["labels"])
    second = batch["distill"]
    q = STORE.decode(STORE.lookup(second["index"].numpy()))
    soft = -(q * (model(second["pixel_values"]).logits / 2).log_softmax(-1)).sum(-1).mean()
    logs = made.state.log_history[0]
    assert logs["hard"] == pytest.approx(hard.item(), abs=1e-5)
    assert logs["distill"] == pytest.approx(soft.item(), abs=1e-5)
    assert logs["loss"] == pytest.approx((0.3 * hard + 0.7 * soft).item(), abs=1e-3)


def test_label_weight_1_is_plain_training(tmp_path):
    options = {"max_steps": 3, "optim": "sgd", "learning_rate": 0.1}
    made = trainer(tmp_path / "a", label_weight=1.0, **options)
    made.train()
    args = LabelTrainingArguments(
        **toys.quick(tmp_path / "b", **{"per_device_train_batch_size": 8, "logging_steps": 1, **options})
    )
    plain = LabelTrainer(student(), args, train_dataset=LABELED)
    plain.train()
    toys.assert_same(toys.weights(made.model), toys.weights(plain.model), atol=1e-5)


def test_soft_labels_in_a_column_are_as_good_as_a_store(tmp_path):
    def with_column(data):
        rows = STORE.decode(STORE.lookup(data["index"][:])).tolist()
        return data.remove_columns("index").add_column("soft_labels", rows)

    one = trainer(tmp_path / "a", max_steps=4, label_weight=0.2)
    two = trainer(
        tmp_path / "b",
        data=with_column(LABELED),
        unlabeled=with_column(UNLABELED),
        store=None,
        max_steps=4,
        label_weight=0.2,
    )
    one.train()
    two.train()
    toys.assert_same(toys.weights(one.model), toys.weights(two.model), atol=1e-5)


@pytest.mark.parametrize(
    "include, unlabeled, want",
    [
        (True, UNLABELED, {*range(16), *range(100, 112)}),
        (False, UNLABELED, set(range(100, 112))),
        (False, None, set(range(16))),
        (True, UNLABELED.select([]), set(range(16))),
    ],
)
def test_which_rows_are_distilled(tmp_path, include, unlabeled, want):
    made = trainer(tmp_path, unlabeled=unlabeled, include_labeled=include, max_steps=8, distill_ratio=0.5)
    found = batches(made)
    rows = torch.cat([batch["distill"]["index"] for batch in found]).tolist()
    assert set(rows) == want and all(len(batch["distill"]["index"]) <= 4 for batch in found)
    assert all("labels" not in batch["distill"] and len(batch["labels"]) == 8 for batch in found)


def test_lazy_transforms_and_formats_of_both_sets(tmp_path):
    """The idiom of image training: a transform that reads the labels, which the unlabelled rows do not have."""

    def read(batch):
        pixels = torch.tensor(np.array(batch["pixel_values"])) + torch.randn(())
        return {"pixel_values": list(pixels), "index": batch["index"], "labels": batch["labels"]}

    def read_plain(batch):
        return {"pixel_values": list(torch.tensor(np.array(batch["pixel_values"]))), "index": batch["index"]}

    made = trainer(
        tmp_path, data=LABELED.with_transform(read), unlabeled=UNLABELED.with_transform(read_plain), max_steps=4
    )
    shifted = False
    for batch in batches(made):
        for row, pixels in zip(batch["distill"]["index"].tolist(), batch["distill"]["pixel_values"], strict=True):
            stored = (LABELED if row < 16 else UNLABELED).with_format("torch")
            want = stored[row if row < 16 else row - 100]["pixel_values"]
            offset = (pixels - want).mean()
            torch.testing.assert_close(pixels, want + offset)
            shifted |= row < 16 and abs(offset) > 1e-3
            assert row < 16 or abs(offset) < 1e-6
    assert shifted
    mixed = trainer(tmp_path / "mixed", data=LABELED.with_format("torch"), max_steps=2)
    assert batches(mixed)[0]["distill"]["pixel_values"].shape == (8, 1, 8, 8)


def test_batches_of_other_shapes_go_through_the_student_in_turn(tmp_path):
    """Texts of two lengths: the same loss as by hand."""
    short = toys.text_dataset(8).remove_columns("index").add_column("index", list(range(8)))
    long = Dataset.from_dict(
        {"input_ids": [[3, 4, 5, 6, 7, 8, 9, 10]] * 8, "attention_mask": [[1] * 8] * 8, "index": list(range(100, 108))}
    )
    info = StoreInfo("dense", 3, codec="float32")
    probs = torch.tensor(toys.soft_rows(16), dtype=torch.float64)
    ids = [*range(8), *range(100, 108)]
    store = SoftLabelStore.from_arrays(info, example_ids=ids, probs=probs / probs.sum(1, keepdim=True))
    made = trainer(
        tmp_path,
        data=short,
        unlabeled=long,
        store=store,
        model=toys.tiny_bert(dropout=0.0),
        include_labeled=False,
        label_weight=0.5,
        test=None,
    )
    batch = batches(made)[0]
    assert batch["input_ids"].shape[1] != batch["distill"]["input_ids"].shape[1]
    model = toys.tiny_bert(dropout=0.0).train()
    hard = F.cross_entropy(model(batch["input_ids"], batch["attention_mask"]).logits, batch["labels"])
    q = store.decode(store.lookup(batch["distill"]["index"].numpy()))
    second = model(batch["distill"]["input_ids"], batch["distill"]["attention_mask"]).logits
    want = 0.5 * hard - 0.5 * (q * second.log_softmax(-1)).sum(-1).mean()
    assert made.state.log_history[0]["loss"] == pytest.approx(want.item(), abs=1e-3)


def test_evaluation_is_plain_and_prediction_needs_no_labels(tmp_path):
    made = trainer(tmp_path)
    made.train()
    metrics = made.evaluate()
    data = images(9, seed=4).with_format("torch")[:]
    with torch.no_grad():
        logits = made.model.eval()(data["pixel_values"]).logits
    assert metrics["eval_loss"] == pytest.approx(F.cross_entropy(logits, data["labels"]).item(), abs=1e-5)
    found = made.predict(images(9, seed=4).remove_columns("labels")).predictions
    np.testing.assert_allclose(found, logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(made.predict(UNLABELED).predictions.shape, (12, 3))


@pytest.mark.parametrize("seed", [0, 1])
def test_good_sources_teach_more_than_six_labels(tmp_path, seed):
    """Weighted sources must not lose against labels alone where one of them knows the task."""
    few, many, test = images(6, seed=seed), images(90, first=500, seed=seed), images(90, first=900, seed=seed)
    unlabeled = many.remove_columns("labels")
    bank = SourceBank([source(), noise()])
    weights = source_weights(bank.similarities(few, "knn"), 4)
    store = bank.pseudo_labels(few, unlabeled, weights)
    assert weights["halves"] > weights["noise"]
    scores = []
    for weight in (1.0, 0.3):
        made = trainer(
            tmp_path / str(weight),
            data=few,
            unlabeled=unlabeled,
            store=store,
            label_weight=weight,
            max_steps=60,
            per_device_train_batch_size=6,
            distill_ratio=3.0,
            learning_rate=3e-3,
            seed=seed,
            model=student(seed),
        )
        made.train()
        logits = made.predict(test).predictions
        scores.append(float((logits.argmax(1) == test["labels"][:]).mean()))
    assert scores[1] >= scores[0] and scores[1] > 0.8


def test_the_sources_are_saved_with_the_student_and_named_on_its_card(tmp_path):
    made = trainer(tmp_path, save_strategy="steps", save_steps=1)
    made.train()
    made.save_model(str(tmp_path / "final"))
    for folder in (tmp_path / "final", tmp_path / "checkpoint-1"):
        facts = json.loads((folder / "distill_sources.json").read_text())
        assert facts["sources"][0]["id"] == "halves" and facts["power"] == "1.0"
        assert not list(folder.glob("*.part"))
    made.create_model_card(model_name="student")
    assert "halves (1)" in (tmp_path / "README.md").read_text()
    bare = trainer(tmp_path / "bare", store=soft_store([*range(16), *range(100, 112)], extra=False))
    bare.save_model(str(tmp_path / "without"))
    assert not (tmp_path / "without" / "distill_sources.json").exists()


def test_resume_continues_the_second_stream(tmp_path):
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": 2, "distill_ratio": 0.5}
    whole = [b["distill"]["index"].tolist() for b in batches(trainer(tmp_path, **options))]
    again = trainer(tmp_path, **options)
    seen = []
    inner = again.compute_loss
    again.compute_loss = lambda m, i, *a, **k: (seen.append(i["distill"]["index"].tolist()), inner(m, i, *a, **k))[1]
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert seen == whole[2:]


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"store": soft_store(list(range(16)))}, KeyError, "no soft label for example 100"),
        ({"store": None}, KeyError, "`soft_labels` is missing"),
        ({"unlabeled": UNLABELED.remove_columns("index")}, KeyError, "`index` is missing"),
        ({"model": toys.tiny_vit(num_labels=4)}, ValueError, "The store has 3 classes, the model 4"),
        ({"data": LABELED.to_iterable_dataset()}, TypeError, "`datasets.Dataset`, got IterableDataset"),
        ({"unlabeled": UNLABELED.to_iterable_dataset()}, TypeError, "`datasets.Dataset`, got IterableDataset"),
    ],
)
def test_bad_data_is_named_before_the_first_step(tmp_path, given, error, message):
    with pytest.raises(error, match=message):
        trainer(tmp_path, **given).train()


def test_soft_labels_of_another_width(tmp_path):
    wide = UNLABELED.add_column("soft_labels", [[0.25] * 4] * 12)
    with pytest.raises(ValueError, match="soft_labels.*4"):
        trainer(tmp_path, unlabeled=wide, include_labeled=False, store=None).train()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"label_weight": 1.5}, r"`label_weight` must be in \[0, 1\], got 1.5"),
        ({"label_weight": -0.1}, r"`label_weight` must be in \[0, 1\]"),
        ({"distill_temperature": 0}, "`distill_temperature` must be above 0"),
        ({"distill_ratio": -1}, "`distill_ratio` must be above 0"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        WeightedDistillTrainingArguments("out", **options)


def test_other_arguments_are_refused(tmp_path):
    with pytest.raises(TypeError, match="WeightedDistillTrainingArguments"):
        WeightedDistillTrainer(student(), LabelTrainingArguments(**toys.quick(tmp_path)))
    assert WeightedDistillTrainingArguments(**toys.quick(tmp_path)).label_weight == 0.8
