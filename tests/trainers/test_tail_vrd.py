"""Distillation of the three kinds of students: learns, accumulates, resumes, weighs, adapts."""

import json

import pytest
import torch
from tail_vrd_toys import tiny_donut, tiny_tagger, tiny_vlm, toy_labels

from hf_labels.labels.tail_vrd_gates import LabelGates
from hf_labels.models.tail_vrd import evaluate_extraction
from hf_labels.trainers.tail_vrd import distill, lora_config, make_trainer, prepare_student

MAKERS = {"chat": tiny_vlm, "donut": tiny_donut, "tagger": tiny_tagger}
QUIET = {"use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "max_grad_norm": 0.0}


@pytest.fixture(scope="module")
def labels():
    return toy_labels(8)


def trainer(kind, labels, folder, **options):
    model, processor = MAKERS[kind](labels)
    model.config.update({name: 0.0 for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")})
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    settings = {**QUIET, "per_device_train_batch_size": 4, "learning_rate": 1e-2, **options}
    return make_trainer(labels, model, processor, kind, output_dir=str(folder), **settings)


def weights(model):
    return {name: part.detach().clone() for name, part in model.named_parameters()}


def assert_close(one, two, atol):
    assert one.keys() == two.keys()
    far = {name: float((one[name] - two[name]).abs().max()) for name in one}
    assert max(far.values()) <= atol, max(far, key=far.get)


def test_a_tagger_is_not_taught_that_fields_without_a_label_are_absent(labels, tmp_path):
    made = trainer("tagger", labels, tmp_path)
    row = labels.dataset[0]
    values = json.loads(row["target_json"])
    gated = row | {"target_json": json.dumps({name: values[name] for name in values if name != "date"})}
    batch = made.data_collator([gated])
    made.compute_loss(made.model, batch).backward()
    slope = made.model.classifier.weight.grad.abs().sum(1)
    dated = [i for tag, i in made.data_collator.tags.items() if tag.endswith("-date")]
    assert slope[dated].max() == 0 and slope[[i for i in range(len(slope)) if i not in dated]].min() > 0


@pytest.mark.parametrize("kind", MAKERS)
def test_students_learn_and_every_parameter_that_counts_moves(kind, labels, tmp_path):
    made = trainer(kind, labels, tmp_path, max_steps=25)
    before = weights(made.model)
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert float(losses[-1]) < 0.6 * float(losses[0])
    after = weights(made.model)
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert all("pooler" in name or "post_layernorm" in name or "lm_head.bias" in name for name in still), still


@pytest.mark.parametrize(("kind", "weighted"), [("chat", False), ("chat", True), ("donut", True), ("tagger", False)])
def test_four_small_batches_equal_a_large_one(kind, weighted, labels, tmp_path):
    options = {"max_steps": 2, "confidence_weights": weighted, "optim": "sgd", "learning_rate": 0.1}
    options["train_sampling_strategy"] = "sequential"
    whole = trainer(kind, labels, tmp_path / "a", per_device_train_batch_size=8, **options)
    whole.train()
    parts = trainer(
        kind, labels, tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **options
    )
    parts.train()
    assert_close(weights(whole.model), weights(parts.model), 1e-4)


def test_resumed_training_equals_an_uninterrupted_one(labels, tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    straight = trainer("chat", labels, tmp_path / "a", **options)
    straight.train()
    again = trainer("chat", labels, tmp_path / "b", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert_close(weights(straight.model), weights(again.model), 1e-6)


def test_bfloat16_autocast_stays_near(labels, tmp_path):
    losses = []
    for name, half in (("a", False), ("b", True)):
        made = trainer("chat", labels, tmp_path / name, max_steps=1, bf16=half, confidence_weights=True)
        made.train()
        losses.append(float(made.state.log_history[0]["loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02) and losses[0] != losses[1]


def test_weights_of_one_change_nothing_and_lower_ones_do(labels, tmp_path):
    losses = {}
    for name, weighted, sure in (("plain", False, 1.0), ("ones", True, 1.0), ("half", True, 0.5)):
        rows = labels.dataset.map(lambda row, sure=sure: {"confidence": {key: sure for key in row["confidence"]}})
        changed = type(labels)(rows, labels.schema, labels.report)
        made = trainer("chat", changed, tmp_path / name, max_steps=1, confidence_weights=weighted)
        made.train()
        losses[name] = float(made.state.log_history[0]["loss"])
    assert losses["ones"] == pytest.approx(losses["plain"], rel=1e-4)
    assert 0.5 * losses["plain"] < losses["half"] < 0.95 * losses["plain"]  # brackets and names still count whole


def test_an_adapter_moves_and_the_base_does_not(labels, tmp_path):
    model, processor = tiny_vlm(labels)
    base = {name: part.clone() for name, part in model.named_parameters()}
    made = make_trainer(
        labels,
        model,
        processor,
        "chat",
        output_dir=str(tmp_path),
        peft_config=lora_config(model, r=2, dropout=0.0),
        max_steps=2,
        **QUIET,
    )
    start = weights(made.model)
    made.train()
    moved = {name for name, part in made.model.named_parameters() if not torch.equal(part, start[name])}
    assert moved and all("lora_" in name for name in moved) and not any("vision" in name for name in moved)
    inner = {name: part for name, part in made.model.get_base_model().named_parameters() if "lora_" not in name}
    for name, part in inner.items():
        assert torch.equal(part, base[name.replace(".base_layer", "")])


def test_distil_gives_a_student_that_repeats_what_it_was_taught(labels, tmp_path):
    model, tokenizer = tiny_tagger(labels)
    student = distill(
        labels,
        model,
        processor=tokenizer,
        output_dir=str(tmp_path),
        num_train_epochs=40,
        learning_rate=1e-2,
        per_device_train_batch_size=4,
        **QUIET,
    )
    assert evaluate_extraction(student, labels.dataset, metric="anls") > 0.9
    facts = student.facts
    assert facts["teacher"] == "knowing" and facts["labels"]["labelled"] == 8 and facts["training_seconds"] > 0
    assert facts["training"]["learning_rate"] == 1e-2 and facts["truncated"] == 0 and facts["lost"] == {}


def test_gated_labels_of_different_fields_are_one_batch(tmp_path):
    def empty(values, request):
        return values | {"total": None} if "TTC" in request.text else values

    from tail_vrd_toys import SCHEMA, knowing, receipts

    from hf_labels.lm.tail_vrd import TAILLabeler

    data = receipts(8)
    labels = TAILLabeler(knowing(data, empty), SCHEMA, gates=LabelGates()).label(data, text_column="text")
    assert len({frozenset(values) for values in labels.values}) == 2
    made = trainer("chat", labels, tmp_path, max_steps=1, per_device_train_batch_size=8)
    made.train()
    assert float(made.state.log_history[0]["loss"]) > 0


def test_students_by_name_and_what_is_missing(labels, tmp_path):
    model, processor = tiny_vlm(labels)
    with pytest.raises(ValueError, match="needs its `processor`"):
        distill(labels, model)
    with pytest.raises(OSError, match="(?s)'nowhere/nothing' cannot be loaded.*local folder"):
        distill(labels, "nowhere/nothing")
    empty = type(labels)(labels.dataset.select([]), labels.schema, {})
    with pytest.raises(ValueError, match="no labelled document"):
        distill(empty, model, processor=processor)
    model.save_pretrained(tmp_path / "vlm")
    processor.save_pretrained(tmp_path / "vlm")
    loaded, reader, kind = prepare_student(str(tmp_path / "vlm"), labels.schema)
    assert kind == "chat" and type(loaded) is type(model) and reader.chat_template == processor.chat_template
    tagger, tokenizer = tiny_tagger(labels)
    tagger.bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    loaded, _, kind = prepare_student(str(tmp_path / "bert"), labels.schema, kind="tagger")
    assert kind == "tagger" and loaded.config.num_labels == 7
