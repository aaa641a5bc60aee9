import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from torch.nn import functional as F

import toys
from hf_labels.losses.soft_targets import SoftTargets
from hf_labels.trainers.soft_labels import SoftLabelTrainer, SoftLabelTrainingArguments
from hf_labels.trainers.teachers import FrozenTeacher

SGD = {"optim": "sgd", "learning_rate": 0.5, "max_grad_norm": 0.0, "train_sampling_strategy": "sequential"}


def make(folder, model, train, evaluation=None, trainer=SoftLabelTrainer, extra=None, **options):
    args = SoftLabelTrainingArguments(
        **toys.quick(folder, **{"logging_steps": 1, "overwrite_output_dir": True} | options)
    )
    return trainer(model, args, train_dataset=train, eval_dataset=evaluation, **(extra or {}))


def soft_data(rows=8, num_labels=3, **columns):
    return toys.text_dataset(rows, num_labels, soft_labels=toys.soft_rows(rows, num_labels), **columns)


def one_step(model, loss_of, dataset, columns):
    """Weights after one SGD step on the whole data set, written out."""
    model.train()
    inputs = {name: torch.tensor(dataset[name][:]) for name in columns}
    loss_of(model(**inputs).logits).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.5 * parameter.grad
    return toys.weights(model)


TEXT = ("input_ids", "attention_mask")


def test_trains_soft_cross_entropy_and_not_binary_losses(tmp_path):
    data = soft_data()
    soft = torch.tensor(data["soft_labels"][:])
    expected = one_step(toys.tiny_bert(dropout=0.0), lambda z: -(soft * z.log_softmax(-1)).sum(-1).mean(), data, TEXT)
    binary = one_step(toys.tiny_bert(dropout=0.0), lambda z: F.binary_cross_entropy_with_logits(z, soft), data, TEXT)
    model = toys.tiny_bert(dropout=0.0)
    trainer = make(tmp_path, model, data, max_steps=1, per_device_train_batch_size=8, **SGD)
    trainer.train()
    toys.assert_same(expected, toys.weights(model), atol=1e-6)
    assert (binary["classifier.weight"] - model.classifier.weight).abs().max() > 1e-3
    assert model.config.problem_type is None
    trainer.save_model(str(tmp_path / "saved"))
    assert '"problem_type": "multi' not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.parametrize("loss", ["ce", "kl"])
def test_weights_temperature_and_hard_labels(tmp_path, loss):
    data = soft_data().map(lambda row, i: {"labels": -1 if i == 2 else row["labels"]}, with_indices=True)
    soft, hard = torch.tensor(data["soft_labels"][:]), torch.tensor(data["labels"][:])

    def formula(z):
        rows = -(soft * (z / 2).log_softmax(-1)).sum(-1)
        rows = rows - torch.special.entr(soft).sum(-1) if loss == "kl" else rows
        kept = hard >= 0
        return 0.7 * 4 * rows.mean() + 0.3 * F.cross_entropy(z[kept], hard[kept])

    expected = one_step(toys.tiny_bert(dropout=0.0), formula, data, TEXT)
    model = toys.tiny_bert(dropout=0.0)
    value = formula(model.eval()(**{n: torch.tensor(data[n][:]) for n in TEXT}).logits).item()
    trainer = make(
        tmp_path,
        model,
        data,
        max_steps=1,
        per_device_train_batch_size=8,
        soft_loss=loss,
        temperature=2.0,
        scale_by_temperature=True,
        soft_label_weight=0.7,
        hard_label_weight=0.3,
        **SGD,
    )
    trainer.train()
    toys.assert_same(expected, toys.weights(model), atol=1e-6)
    log = trainer.state.log_history[0]
    assert log["loss"] == pytest.approx(value, rel=1e-5)
    assert log["loss"] == pytest.approx(0.7 * log["soft"] + 0.3 * log["hard"], rel=1e-5)


def token_data(rows=8):
    """Texts of different length; some tokens are not labelled."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 7, size=rows)
    soft = [
        [[0.0] * 3 if rng.random() < 0.3 and t else rng.dirichlet([1, 1, 1]).tolist() for t in range(n)]
        for n in lengths
    ]
    return Dataset.from_dict(
        {
            "input_ids": [rng.integers(2, toys.VOCAB, size=n).tolist() for n in lengths],
            "attention_mask": [[1] * int(n) for n in lengths],
            "soft_labels": soft,
            "labels": [[int(rng.integers(-1, 3)) for _ in range(n)] for n in lengths],
        }
    )


@pytest.mark.parametrize("kind", ["sequence", "token", "image", "sparse"])
def test_accumulation_of_4_times_2_equals_8_for_every_task(tmp_path, kind):
    options = {"hard_label_weight": 0.5, "max_steps": 2, **SGD}
    if kind == "token":  # batches hold different numbers of labelled tokens: still the mean over all of them
        data, model, extra = token_data(16), toys.tiny_token_bert, {"processing_class": toys.tiny_tokenizer()}
    elif kind == "image":
        data, model, extra = toys.image_dataset(16, soft_labels=toys.soft_rows(16)), toys.tiny_vit, {}
    else:
        data, model, extra = soft_data(16), lambda: toys.tiny_bert(dropout=0.0), {}
        data = data.map(lambda row, i: {"labels": -1 if i in (0, 1, 5) else row["labels"]}, with_indices=True)
    if kind == "sparse":
        values, ids = torch.tensor(data["soft_labels"][:]).topk(2)
        data = data.remove_columns("soft_labels")
        data = data.add_column("soft_label_ids", ids.tolist()).add_column("soft_label_values", values.tolist())
    one = make(tmp_path / "a", model(), data, per_device_train_batch_size=8, extra=extra, **options)
    two = make(
        tmp_path / "b",
        model(),
        data,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        extra=extra,
        **options,
    )
    before = toys.weights(one.model)
    one.train()
    two.train()
    toys.assert_same(toys.weights(one.model), toys.weights(two.model), atol=1e-6)
    for name, parameter in one.model.named_parameters():
        used = parameter.requires_grad and "key.bias" not in name  # a constant on all keys changes no attention
        assert not used or not torch.equal(parameter, before[name]), name
    for key in ("loss", "soft", "hard"):
        assert one.state.log_history[0][key] == pytest.approx(two.state.log_history[0][key], rel=1e-5)


def test_token_loss_is_the_mean_over_labelled_tokens(tmp_path):
    data = token_data(4)
    trainer = make(tmp_path, toys.tiny_token_bert(), data, data, extra={"processing_class": toys.tiny_tokenizer()})
    total, count = 0.0, 0
    for row in data:
        logits = trainer.model.eval()(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        for z, q in zip(logits, torch.tensor(row["soft_labels"]), strict=True):
            if q.sum() > 0:
                total, count = total - (q * z.log_softmax(-1)).sum().item(), count + 1
    assert trainer.evaluate()["eval_loss"] == pytest.approx(total / count, rel=1e-5)


def test_sample_weight_scales_rows(tmp_path):
    data = soft_data(8).add_column("sample_weight", [0.0] * 4 + [2.0] * 4)
    soft = torch.tensor(data["soft_labels"][:])
    expected = one_step(
        toys.tiny_bert(dropout=0.0), lambda z: -2 * (soft * z.log_softmax(-1)).sum(-1)[4:].sum() / 8, data, TEXT
    )
    model = toys.tiny_bert(dropout=0.0)
    make(tmp_path, model, data, max_steps=1, per_device_train_batch_size=8, **SGD).train()
    toys.assert_same(expected, toys.weights(model), atol=1e-6)


def test_evaluation_uses_the_same_loss_or_plain_cross_entropy(tmp_path):
    received = []

    def metrics(prediction):
        received.append(np.asarray(prediction.label_ids))
        return {"rows": len(prediction.predictions)}

    both = soft_data(8)
    model = toys.tiny_bert(dropout=0.0)
    trainer = make(tmp_path, model, both, both, extra={"compute_metrics": metrics}, temperature=2.0)
    logits = torch.tensor(trainer.predict(both).predictions)
    soft, hard = torch.tensor(both["soft_labels"][:]), torch.tensor(both["labels"][:])
    same = -(soft * (logits / 2).log_softmax(-1)).sum(-1).mean().item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(same, rel=1e-5)
    assert received[-1].tolist() == hard.tolist()  # hard labels first
    only_soft = trainer.evaluate(both.remove_columns("labels"))
    assert only_soft["eval_loss"] == pytest.approx(same, rel=1e-5) and only_soft["eval_rows"] == 8
    np.testing.assert_allclose(received[-1], soft)
    only_hard = trainer.evaluate(both.remove_columns("soft_labels"))
    assert only_hard["eval_loss"] == pytest.approx(F.cross_entropy(logits, hard).item(), rel=1e-5)
    assert received[-1].tolist() == hard.tolist() and trainer.label_names == ["labels"]
    assert "test_loss" not in trainer.predict(both.remove_columns(["labels", "soft_labels"])).metrics


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_label_source_teaches_and_gets_no_gradient(tmp_path, loss):
    data, teacher, model = (
        toys.text_dataset(8),
        toys.tiny_bert(seed=7, dropout=0.3).train(),
        toys.tiny_bert(dropout=0.0),
    )
    before = toys.weights(teacher)
    inputs = {name: torch.tensor(data[name][:]) for name in TEXT}
    target = FrozenTeacher(teacher)(**inputs).logits

    def formula(z):
        if loss == "mse":
            return (z - target).square().mean()
        return F.kl_div((z / 3).log_softmax(-1), (target / 3).softmax(-1), reduction="batchmean")

    expected = one_step(toys.tiny_bert(dropout=0.0), formula, data, TEXT)
    extra = {"label_source": teacher}
    trainer = make(
        tmp_path,
        model,
        data,
        data,
        extra=extra,
        max_steps=1,
        per_device_train_batch_size=8,
        soft_loss=loss,
        temperature=3.0,
        save_strategy="steps",
        save_steps=1,
        **SGD,
    )
    trainer.train()
    toys.assert_same(expected, toys.weights(model), atol=1e-6)
    toys.assert_same(before, toys.weights(teacher))
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    from safetensors.torch import load_file

    assert set(load_file(tmp_path / "checkpoint-1" / "model.safetensors")) == set(toys.weights(model))
    plain = F.cross_entropy(torch.tensor(trainer.predict(data).predictions), torch.tensor(data["labels"][:]))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.item(), rel=1e-5)


def test_label_source_may_be_a_function_and_a_subclass_may_override(tmp_path):
    data = toys.text_dataset(8)

    def source(inputs):
        return F.one_hot(inputs["labels"], 3).float()

    class Kept(SoftLabelTrainer):
        def soft_targets(self, inputs):
            return SoftTargets(probs=source(inputs), mask=torch.ones(len(inputs["labels"]), dtype=torch.bool))

        def label_kinds(self):
            return {"labels": "hard"}

    hard = torch.tensor(data["labels"][:])
    expected = one_step(toys.tiny_bert(dropout=0.0), lambda z: F.cross_entropy(z, hard), data, TEXT)
    for number, (trainer, extra) in enumerate([(SoftLabelTrainer, {"label_source": source}), (Kept, {})]):
        model = toys.tiny_bert(dropout=0.0)
        folder = tmp_path / str(number)
        make(folder, model, data, None, trainer, extra, max_steps=1, per_device_train_batch_size=8, **SGD).train()
        toys.assert_same(expected, toys.weights(model), atol=1e-6)


def test_learns_peaked_targets(tmp_path):
    data = toys.text_dataset(48, soft_labels=np.zeros((48, 3)).tolist())
    peaked = np.full((48, 3), 0.05)
    peaked[np.arange(48), data["labels"][:]] = 0.9
    data = data.remove_columns("soft_labels").add_column("soft_labels", peaked.tolist()).remove_columns("labels")
    trainer = make(tmp_path, toys.tiny_bert(), data, data, num_train_epochs=12, learning_rate=1e-2, logging_steps=500)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert after < 0.6 < before  # the entropy of the targets is 0.394, that of a uniform guess 1.099


def test_bf16_autocast(tmp_path):
    trainer = make(tmp_path, toys.tiny_bert(), soft_data(8), soft_data(8), bf16=True)
    trainer.train()
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert np.isfinite(trainer.evaluate()["eval_loss"])


def test_stock_padding_collator_works_too(tmp_path):
    from transformers import DataCollatorWithPadding

    data = soft_data(8)
    model = toys.tiny_bert(dropout=0.0)
    extra = {"data_collator": DataCollatorWithPadding(toys.tiny_tokenizer())}
    trainer = make(tmp_path, model, data, data, extra=extra, max_steps=1)
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda rows: None, "Column `soft_labels` is missing"),
        (lambda rows: [[0.5, 0.1, 0.1]] + rows[1:], "soft_labels.*row 0"),
        (lambda rows: rows[:3] + [[0.0, 0.0, 0.0]] + rows[4:], "soft_labels.*row 3"),
        (lambda rows: [[1.5, -0.5, 0.0]] + rows[1:], "soft_labels.*row 0"),
        (lambda rows: [row[:2] + [0.0, row[2]] for row in rows], "soft_labels"),
    ],
)
def test_bad_soft_labels_are_refused_before_training(tmp_path, change, text):
    rows = change(toys.soft_rows(8))
    data = toys.text_dataset(8) if rows is None else toys.text_dataset(8, soft_labels=rows)
    trainer = make(tmp_path, toys.tiny_bert(), data)
    with pytest.raises((ValueError, KeyError), match=text):
        trainer.train()
    assert trainer.state.global_step == 0


def test_bad_token_labels_and_arguments(tmp_path):
    data = token_data(4)
    rows = data["soft_labels"][:]
    rows[2][0] = [0.9, 0.9, 0.0]
    bad = data.remove_columns("soft_labels").add_column("soft_labels", rows)
    with pytest.raises(ValueError, match="Row 2"):
        make(tmp_path, toys.tiny_token_bert(), bad, extra={"processing_class": toys.tiny_tokenizer()}).train()
    with pytest.raises(ValueError, match="mse.*compares logits"):
        make(tmp_path, toys.tiny_bert(), soft_data(), soft_loss="mse").train()
    with pytest.raises(TypeError, match="SoftLabelTrainingArguments"):
        from transformers import TrainingArguments

        SoftLabelTrainer(toys.tiny_bert(), TrainingArguments(**toys.quick(tmp_path)))
    for options, match in (
        ({"soft_loss": "bce"}, "soft_loss"),
        ({"temperature": 0.0}, "temperature"),
        ({"hard_label_weight": -1.0}, "hard_label_weight"),
        ({"residual": "x"}, "residual"),
    ):
        with pytest.raises(ValueError, match=match):
            SoftLabelTrainingArguments(**toys.quick(tmp_path, **options))


def test_multi_task_head_of_a_plain_module(tmp_path):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(4, 3)

        def forward(self, features):
            return {"logits": self.linear(features)}

    data = Dataset.from_dict({"features": np.random.rand(8, 4).tolist(), "soft_labels": toys.soft_rows(8)})
    trainer = make(tmp_path, Head(), data, data)
    trainer.train()
    assert np.isfinite(trainer.evaluate()["eval_loss"])
