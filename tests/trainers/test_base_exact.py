"""Resume equals an uninterrupted run; accumulation and precision change nothing they should not."""

import numpy as np
import pytest
import torch
from toy_trainers import PlainTrainer, ToyTrainer

import toys
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments


def noisy(rows):
    """A lazy transform that draws from global generators, as image augmentations do."""
    rows["view_noise"] = [float(np.random.rand() + torch.rand(())) for _ in rows["index"]]
    return rows


def toy_run(folder, resume=None, steps=11, **options):
    """3 epochs of 5 batches (the last one short), accumulation 2: optimizer steps of 2, 2 and 1 batches."""
    train = toys.text_dataset(18, index=list(range(18))).with_transform(noisy)
    unlabeled = toys.text_dataset(14, seed=5).remove_columns("labels")
    arguments = {
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 4,
        "max_steps": steps,
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "logging_steps": 1,
        "overwrite_output_dir": True,
    } | options
    args = LabelTrainingArguments(**toys.quick(folder, **arguments))
    trainer = ToyTrainer(
        toys.tiny_bert(dropout=0.2),
        args,
        train_dataset=train,
        eval_dataset=toys.text_dataset(6, seed=2),
        unlabeled_dataset=unlabeled,
        ratio=0.75,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return toy_run(folder), folder


@pytest.mark.parametrize("step", [1, 3, 8])  # in the middle of an epoch, at its end, in the third
def test_resume_equals_an_uninterrupted_run(whole_run, tmp_path, step):
    whole, folder = whole_run
    part = toy_run(tmp_path, resume=str(folder / f"checkpoint-{step}"), save_strategy="no")
    toys.assert_same(toys.weights(whole.model), toys.weights(part.model))
    toys.assert_same(toys.weights(whole.method_state), toys.weights(part.method_state))
    one, two = whole.optimizer.state_dict()["state"], part.optimizer.state_dict()["state"]
    for key in one:
        toys.assert_same({k: torch.as_tensor(v) for k, v in one[key].items()}, two[key])
    batches = len(part.seen)
    assert part.seen == whole.seen[-batches:] and part.seen_unlabeled == whole.seen_unlabeled[-batches:]
    assert part.seen_noise == whole.seen_noise[-batches:]
    keys = ("loss", "ce", "pull", "consistency", "eval_loss", "eval_ce")
    logs = [{k: entry[k] for k in keys if k in entry} for entry in whole.state.log_history]
    again = [{k: entry[k] for k in keys if k in entry} for entry in part.state.log_history]
    assert again == logs


def test_streams_cover_their_data_and_one_epoch_is_the_primary(whole_run):
    whole, _ = whole_run
    assert [len(batch) for batch in whole.seen[:5]] == [4, 4, 4, 4, 2]
    for epoch in range(3):
        assert sorted(sum(whole.seen[5 * epoch : 5 * epoch + 5], [])) == list(range(18))
    assert len(whole.seen_unlabeled) == len(whole.seen)  # one batch for each batch
    assert [len(batch) for batch in whole.seen_unlabeled[:5]] == [3, 3, 3, 3, 2]  # 0.75 x 4 rows of 14
    turns = [sum(whole.seen_unlabeled[5 * i : 5 * i + 5], []) for i in range(3)]
    assert all(sorted(turn) == list(range(14)) for turn in turns) and turns[0] != turns[1]
    noise = sum(whole.seen_noise, [])
    assert len(set(noise)) == len(noise)  # views differ between rows and epochs


def test_random_views_do_not_depend_on_workers(whole_run, tmp_path):
    whole, _ = whole_run
    part = toy_run(tmp_path, steps=5, save_strategy="no", eval_strategy="no", dataloader_num_workers=2)
    assert part.seen_noise == whole.seen_noise[: len(part.seen_noise)]
    assert part.seen_unlabeled == whole.seen_unlabeled[: len(part.seen_unlabeled)]


def test_evaluation_does_not_change_training(whole_run, tmp_path):
    whole, _ = whole_run
    silent = toy_run(tmp_path, eval_strategy="no", save_strategy="no")
    toys.assert_same(toys.weights(whole.model), toys.weights(silent.model))


def test_teacher_follows_its_formula_and_is_not_saved_with_the_model(whole_run, tmp_path):
    from safetensors.torch import load_file

    whole, folder = whole_run
    teacher = toys.weights(toys.tiny_bert(dropout=0.2))
    for step in range(1, 12):
        student = load_file(folder / f"checkpoint-{step}" / "model.safetensors")
        decay = min(0.9, 1 - 1 / (step + 1))
        teacher = {name: decay * value + (1 - decay) * student[name] for name, value in teacher.items()}
        saved = load_file(folder / f"checkpoint-{step}" / "method_state.safetensors")
        found = {n.removeprefix("teacher.model."): v for n, v in saved.items() if n.startswith("teacher.")}
        toys.assert_same(teacher, found, atol=1e-6)
    optimized = {id(p) for group in whole.optimizer.param_groups for p in group["params"]}
    assert not any(id(p) in optimized for p in whole.method_state.parameters())
    assert all(p.grad is None and not p.requires_grad for p in whole.method_state["teacher"].parameters())
    whole.save_model(str(tmp_path))
    assert set(load_file(tmp_path / "model.safetensors")) == set(toys.weights(whole.model))
    assert not (tmp_path / "method_state.safetensors").exists()


def plain_run(folder, size, accumulation, trainer=PlainTrainer, model=None, **options):
    args = LabelTrainingArguments(
        **toys.quick(
            folder,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            train_sampling_strategy="sequential",
            logging_steps=1,
            overwrite_output_dir=True,
            optim="sgd",
            learning_rate=0.5,
            max_grad_norm=0.0,
            **options,
        )
    )
    made = trainer(model or toys.tiny_bert(dropout=0.0), args, train_dataset=toys.text_dataset(24))
    made.train()
    return made


@pytest.mark.parametrize("trainer", [PlainTrainer, LabelTrainer])
def test_accumulation_of_4_times_2_equals_8(tmp_path, trainer):
    one = plain_run(tmp_path / "a", 8, 1, trainer)
    two = plain_run(tmp_path / "b", 2, 4, trainer)
    toys.assert_same(toys.weights(one.model), toys.weights(two.model), atol=1e-6)
    for a, b in zip(one.state.log_history[:-1], two.state.log_history[:-1], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        if trainer is PlainTrainer:
            assert a["doubled"] == pytest.approx(2 * a["loss"], rel=1e-5)
            assert b["doubled"] == pytest.approx(2 * b["loss"], rel=1e-5)
            assert (a["rows"], b["rows"]) == (8, 2)


def test_base_loss_is_that_of_trainer(tmp_path):
    from transformers import Trainer

    one = plain_run(tmp_path / "a", 4, 1, LabelTrainer, toys.tiny_bert(seed=4, dropout=0.0))
    two = plain_run(tmp_path / "b", 4, 1, Trainer, toys.tiny_bert(seed=4, dropout=0.0))
    toys.assert_same(toys.weights(one.model), toys.weights(two.model), atol=1e-6)


def test_terms_decompose_the_logged_loss_with_a_short_last_step(whole_run):
    whole, _ = whole_run
    logs = [entry for entry in whole.state.log_history if "loss" in entry]
    assert len(logs) == 11
    for entry in logs:
        total = entry["ce"] + 0.1 * entry["pull"] + 0.5 * entry["consistency"]
        assert entry["loss"] == pytest.approx(total, rel=1e-5)
    evaluations = [entry for entry in whole.state.log_history if "eval_loss" in entry]
    assert [entry["eval_ce"] for entry in evaluations] == pytest.approx(
        [e["eval_loss"] for e in evaluations], abs=1e-6
    )
    assert len({entry["eval_loss"] for entry in evaluations}) == 4  # steps 3, 6, 9 and the end


def test_terms_between_logs_weigh_updates_as_the_loss_does(tmp_path):
    """An epoch of 2, 2 and 1 batches: the last batch is a whole update, and counts as one."""
    args = LabelTrainingArguments(**toys.quick(tmp_path, gradient_accumulation_steps=2, logging_steps=3))
    trainer = PlainTrainer(toys.tiny_bert(), args, train_dataset=toys.text_dataset(20))
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["step"] == 3 and log["doubled"] == pytest.approx(2 * log["loss"], rel=1e-6)


def test_bf16_autocast_trains_the_student_and_runs_the_teacher(tmp_path):
    trainer = toy_run(tmp_path, steps=3, bf16=True, save_strategy="no", eval_strategy="no")
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert all(np.isfinite(entry["consistency"]) for entry in logs)
    teacher = trainer.method_state["teacher"]
    batch = {"input_ids": torch.tensor([[2, 11, 12]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    inside = []
    handle = teacher.model.classifier.register_forward_hook(lambda m, i, o: inside.append(o.dtype))
    assert teacher(**batch).logits.dtype == torch.float32
    handle.remove()
    assert inside == [torch.bfloat16]


def test_adapters_share_their_base_with_the_teacher_and_resume(tmp_path):
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    def run(folder, resume=None):
        config = LoraConfig(
            task_type="SEQ_CLS", r=2, target_modules=["query", "value"], modules_to_save=["classifier"]
        )
        model = get_peft_model(toys.tiny_bert(), config)
        args = LabelTrainingArguments(**toys.quick(folder, save_strategy="steps", save_steps=1, num_train_epochs=2))
        data = toys.text_dataset(8)
        trainer = ToyTrainer(model, args, train_dataset=data, unlabeled_dataset=data.remove_columns("labels"))
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run(tmp_path / "whole")
    saved = load_file(tmp_path / "whole" / "checkpoint-1" / "method_state.safetensors")
    averaged = [name for name in saved if name.startswith("teacher.")]
    trainable = [name for name, p in whole.model.named_parameters() if p.requires_grad]
    assert len(averaged) == len(trainable) > 0  # the frozen base is not stored again
    part = run(tmp_path / "part", resume=str(tmp_path / "whole" / "checkpoint-3"))
    toys.assert_same(toys.weights(whole.model), toys.weights(part.model))
    toys.assert_same(toys.weights(whole.method_state), toys.weights(part.method_state))


def test_model_init_and_training_twice(tmp_path):
    args = LabelTrainingArguments(**toys.quick(tmp_path, max_steps=2, bf16=True))
    data = toys.text_dataset(8)
    unlabeled = data.remove_columns("labels")
    trainer = ToyTrainer(
        None, args, train_dataset=data, model_init=lambda: toys.tiny_bert(), unlabeled_dataset=unlabeled
    )
    trainer.train()
    first = toys.weights(trainer.model)
    trainer.train()  # a new model, a new teacher
    toys.assert_same(first, toys.weights(trainer.model))


def test_streamed_training_data(tmp_path):
    args = LabelTrainingArguments(**toys.quick(tmp_path, max_steps=5, gradient_accumulation_steps=2))
    stream = toys.text_dataset(16).to_iterable_dataset()
    trainer = PlainTrainer(toys.tiny_bert(), args, train_dataset=stream)
    trainer.add_stream("more", toys.text_dataset(8))
    trainer.train()
    assert trainer.state.global_step == 5
