"""Bags as rows, the trainer's objectives, rounds that resume, bad input."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from hf_labels.data.llp_bp import BagCollator, bag_dataset
from hf_labels.labels.llp_bp import bag_proportions
from hf_labels.models.llp_bp import AutoModelWithBagHead, BagHeadConfig
from hf_labels.trainers.llp_bp import LLPBootstrapper, LLPTrainer, LLPTrainingArguments, predict_instances


def toy(bags=16, size=8, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=bags * size)
    x = rng.normal(size=(bags * size, 3)) + 2.5 * y[:, None]
    bag = np.arange(bags * size) // size
    return Dataset.from_dict({"features": x.tolist(), "bag_id": bag.tolist()}), y, bag


def new(**settings):
    torch.manual_seed(0)
    return AutoModelWithBagHead(BagHeadConfig(num_features=3, hidden_sizes=[16, 8], **settings))


def args(folder, **settings):
    given = {"num_train_epochs": 30, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "save_strategy": "no"}
    given |= {"use_cpu": True, "disable_tqdm": True, "report_to": "none", **settings}
    return LLPTrainingArguments(str(folder), **given)


def accuracy(model, data, y):
    return ((predict_instances(model, data)[0] > 0.5) == y).mean()


def test_a_row_is_a_bag_and_ragged_bags_are_one_batch():
    data = Dataset.from_dict({"features": [[float(i)] for i in range(6)]})
    bags = bag_dataset(data, ["b", "a", None, "b", "b", "a"], {"a": 1, "b": 2}, [0, 1, 0, 1, 0.5, 1])
    assert bags["index"][:] == [[1, 5], [0, 3, 4]] and bags["proportion"][:] == [0.5, pytest.approx(2 / 3)]
    batch = BagCollator()([bags[0], bags[1]])
    assert batch["features"][:, 0].tolist() == [1, 5, 0, 3, 4] and batch["bag"].tolist() == [0, 0, 1, 1, 1]
    assert batch["target"].tolist() == [1, 1, 0, 1, 0.5]
    texts = Dataset.from_dict({"input_ids": [[5], [6, 7]], "attention_mask": [[1], [1, 1]]})
    padded = BagCollator()([bag_dataset(texts, [0, 0], [1])[0]])
    assert padded["input_ids"].tolist() == [[5, 0], [6, 7]] and padded["attention_mask"].tolist() == [[1, 0], [1, 1]]
    bare = BagCollator()([bag_dataset(texts.remove_columns("attention_mask"), [0, 0], [1])[0]])
    assert bare["attention_mask"].tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize(
    "settings", [{"objective": "proportion"}, {}, {"objective": "proportion", "consistency_weight": 0.5}]
)
def test_every_objective_learns_the_instances(settings, tmp_path):
    data, y, bag = toy()
    targets = y if settings.get("objective") != "proportion" else None
    bags = bag_dataset(data, bag, np.bincount(bag, weights=y), targets)
    made = LLPTrainer(new(dropout=0.1), args(tmp_path, **settings), train_dataset=bags, eval_dataset=bags)
    made.train()
    assert accuracy(made.model, data, y) > 0.9
    assert (made.method_state is not None) == ("consistency_weight" in settings)
    found = made.evaluate()
    assert np.isfinite(found["eval_loss"]) and 0 <= found["eval_bag_proportion_error"] < 0.25


def test_the_loss_is_that_of_the_paper(tmp_path):
    from hf_labels.losses.llp_bp import aggregate_embedding_loss

    data, y, bag = toy(4, 3)
    made = LLPTrainer(
        new(), args(tmp_path, bag_weight=0.3), train_dataset=bag_dataset(data, bag, np.bincount(bag, weights=y), y)
    )
    batch = made.data_collator([made.train_dataset[i] for i in range(4)])
    made.model.eval()
    out = made.model(features=batch["features"], bag=batch["bag"], num_bags=4)
    probs = out.logits.softmax(-1)[:, 1]
    want = aggregate_embedding_loss(probs, batch["target"], out.bag_logits.sigmoid(), batch["proportion"], 0.3)
    assert torch.allclose(made.compute_loss(made.model, batch), want, atol=1e-5)


def test_rounds_find_the_labels_and_go_on_where_they_stopped(tmp_path):
    data, y, bag = toy()
    counts = {b: float(y[bag == b].sum()) for b in range(16)}
    calls = []

    def make():
        calls.append(1)
        return new()

    options = {"lambda_s": 1.0, "length_scale": "median"}
    first = LLPBootstrapper(make, args(tmp_path), rounds=1, **options).fit(data, "bag_id", counts)
    assert accuracy(first, data, y) > 0.95 and len(calls) == 1
    boot = LLPBootstrapper(make, args(tmp_path), rounds=2, **options)
    model = boot.fit(data, "bag_id", counts)
    assert len(calls) == 2 and len(boot.result.history) == 2  # the first round was kept
    assert accuracy(model, data, y) > 0.95
    again = LLPBootstrapper(make, args(tmp_path), rounds=2, **options).fit(data, "bag_id", counts)
    assert len(calls) == 2
    np.testing.assert_allclose(predict_instances(again, data)[0], predict_instances(model, data)[0], atol=1e-6)
    boot.save_pretrained(tmp_path / "final")
    kept = json.loads((tmp_path / "final" / "llp_config.json").read_text())
    assert kept["lambda_s"] == 1.0 and len(kept["history"]) == 2
    with pytest.raises(ValueError, match="learning_rate"):
        LLPBootstrapper(make, args(tmp_path, learning_rate=0.5), rounds=2, **options).fit(data, "bag_id", counts)


def test_a_round_that_was_cut_off_goes_on_from_its_checkpoint(tmp_path):
    data, y, bag = toy()
    counts = np.bincount(bag, weights=y)
    settings = {"save_strategy": "steps", "save_steps": 4, "num_train_epochs": 3}
    options = {"rounds": 1, "lambda_s": 1.0, "length_scale": "median"}

    class Cut(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            raise KeyboardInterrupt

    starts = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            starts.append(state.global_step)

    with pytest.raises(KeyboardInterrupt):
        LLPBootstrapper(new, args(tmp_path, **settings), callbacks=[Cut()], **options).fit(data, "bag_id", counts)
    boot = LLPBootstrapper(new, args(tmp_path, **settings), callbacks=[Watch()], **options)
    resumed = boot.fit(data, "bag_id", counts)
    assert starts == [4]
    whole = LLPBootstrapper(new, args(tmp_path / "whole", **settings), **options).fit(data, "bag_id", counts)
    np.testing.assert_allclose(predict_instances(resumed, data)[0], predict_instances(whole, data)[0], atol=1e-5)


def test_images_are_read_when_their_bag_is_asked_for(tmp_path):
    from transformers import ResNetConfig, ResNetModel

    asked = []

    def pixels(rows):
        asked.append(len(rows["number"]))
        return {"pixel_values": [np.full((3, 8, 8), n, dtype=np.float32) for n in rows["number"]]}

    stored = Dataset.from_dict({"number": list(range(12)), "bag_id": [i // 4 for i in range(12)]})
    data = stored.with_transform(pixels)
    bags = bag_dataset(data, stored["bag_id"][:], [1, 2, 3], np.arange(12) % 2)
    asked.clear()
    batch = BagCollator()([bags[2], bags[0]])
    assert asked == [4, 4]  # and no other
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [8, 9, 10, 11, 0, 1, 2, 3]
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")

    def learner():
        torch.manual_seed(0)
        return AutoModelWithBagHead.from_backbone(ResNetModel(config))

    vectors = predict_instances(learner(), data, batch_size=5)[1]
    assert vectors.shape == (12, 8)
    boot = LLPBootstrapper(learner, args(tmp_path, num_train_epochs=1), rounds=2, k=3, lambda_s=1.0)
    model = boot.fit(data, bag_counts=[1, 2, 3], embeddings=vectors)
    assert predict_instances(model, data)[0].shape == (12,)


def test_soft_targets_and_proportions_are_taken_too(tmp_path):
    data, y, bag = toy(8)
    shares = {b: float(y[bag == b].mean()) for b in range(8)}
    assert bag_proportions(bag, shares) == {b: float(y[bag == b].sum()) for b in range(8)}
    boot = LLPBootstrapper(new, args(tmp_path), rounds=1, soft_targets=True, lambda_s=1.0, length_scale="median")
    assert accuracy(boot.fit(data, "bag_id", proportions=shares), data, y) > 0.9


def test_texts_are_encoded_once_for_the_first_graph(tmp_path, monkeypatch):
    from tiny_text import TEXTS, save_backbone

    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))
    folder = save_backbone(tmp_path / "encoder")
    texts = [TEXTS[2 * (i % 2)][0] for i in range(16)]
    tokens = [[5 + i % 2, 7] + [8] * (i % 3) for i in range(16)]
    data = Dataset.from_dict({"body": texts, "input_ids": tokens, "bag_id": [i // 4 for i in range(16)]})

    def learner():
        torch.manual_seed(0)
        return AutoModelWithBagHead.from_backbone(str(folder))

    settings = {"rounds": 1, "text_encoder": str(folder), "text_column": "body", "k": 3, "lambda_s": 1.0}
    boot = LLPBootstrapper(learner, args(tmp_path / "out", num_train_epochs=1), **settings)
    model = boot.fit(data, bag_counts=[2, 2, 2, 2])
    assert predict_instances(model, data)[0].shape == (16,)
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    assert boot.settings()["text_encoder"] == str(folder)
    other = LLPBootstrapper(learner, args(tmp_path / "b"), rounds=1, text_encoder=str(folder))
    with pytest.raises(KeyError, match="text"):
        other.fit(data, bag_counts=[2, 2, 2, 2])
    with pytest.raises(ValueError, match="`text_encoder` for texts"):
        LLPBootstrapper(learner, args(tmp_path / "c"), rounds=1).fit(data, bag_counts=[2, 2, 2, 2])


def test_bad_input_is_named(tmp_path):
    data, y, bag = toy(4)
    with pytest.raises(KeyError, match="features"):
        bag_dataset(data.remove_columns("features"), bag, np.bincount(bag, weights=y))
    with pytest.raises(ValueError, match="no count"):
        bag_dataset(data, bag, {0: 1})
    boot = LLPBootstrapper(new, args(tmp_path))
    with pytest.raises(KeyError, match="group"):
        boot.fit(data, "group", {})
    with pytest.raises(ValueError, match="exactly one"):
        boot.fit(data, "bag_id")
    with pytest.raises(ValueError, match="embeddings"):
        boot.fit(data.remove_columns("features").add_column("input_ids", [[1]] * 32), "bag_id", np.ones(4))
    for settings, match in (({"objective": "x"}, "objective"), ({"bag_weight": -1.0}, "bag_weight")):
        with pytest.raises(ValueError, match=match):
            args(tmp_path, **settings)
    with pytest.raises(ValueError, match="rounds"):
        LLPBootstrapper(new, args(tmp_path), rounds=0)
    made = LLPTrainer(new(), args(tmp_path), train_dataset=bag_dataset(data, bag, np.bincount(bag, weights=y)))
    with pytest.raises(ValueError, match="no `target`"):
        made.train()
