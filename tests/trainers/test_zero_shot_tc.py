"""The entailment trainer: texts or pairs, seen labels only, scores of all labels, what is saved, what is refused."""

import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline
from zero_shot_toys import HYPOTHESES, NAMES, NLI, nli_model, pair_encoder, pairs, texts, tiny_tokenizer

from hf_labels.data.zero_shot_tc import build_zero_shot_task, entailment_pairs
from hf_labels.labels.columns import MissingColumnError
from hf_labels.labels.zero_shot_tc import entailment_probs
from hf_labels.metrics.functional import zero_shot_accuracy, zero_shot_f1
from hf_labels.models.zero_shot_tc import HypothesisZeroShotPipeline
from hf_labels.trainers.zero_shot_tc import EntailmentTrainer, EntailmentTrainingArguments


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path / "cache"))


def make(folder, model=None, train=None, dev=None, hypotheses=HYPOTHESES, **settings):
    options = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "save_strategy": "no", "seen_labels": "v0"}
    args = EntailmentTrainingArguments(str(folder), **(options | settings))
    return EntailmentTrainer(
        nli_model(spread=0.2) if model is None else model,
        args,
        train_dataset=texts() if train is None else train,
        eval_dataset=dev,
        processing_class=tiny_tokenizer(),
        hypotheses=hypotheses,
    )


def several():
    cells = [["acne"], ["insomnia", "migraine"], [], ["migraine"], ["acne", "insomnia"], []]
    return texts(6).remove_columns("labels").add_column("labels", cells)


def test_defaults_are_those_of_the_paper():
    args = EntailmentTrainingArguments("x")
    assert (args.learning_rate, args.weight_decay, args.per_device_train_batch_size) == (2e-5, 0.01, 32)
    assert (args.num_train_epochs, args.max_length, args.negatives) == (3.0, 128, 0)


def test_texts_become_the_pairs_of_seen_labels(tmp_path):
    trainer = make(tmp_path)
    want = entailment_pairs(texts(), HYPOTHESES, ["acne", "migraine"])
    got = trainer.train_dataset
    assert trainer.seen_labels == ("acne", "migraine")
    assert [got[name][:] for name in ("premise", "hypothesis", "labels")] == [
        want[name][:] for name in ("premise", "hypothesis", "labels")
    ]
    assert got["input_ids"][3] == tiny_tokenizer()(want["premise"][3], want["hypothesis"][3])["input_ids"]
    few = make(tmp_path, negatives=1, seen_labels="all").train_dataset
    assert few["labels"][:] == entailment_pairs(texts(), HYPOTHESES, negatives=1, seed=42)["labels"][:]
    cut = make(tmp_path, max_length=12).train_dataset
    assert max(map(len, cut["input_ids"])) == 12
    hypothesis = tiny_tokenizer()(want["hypothesis"][0])["input_ids"][1:]
    assert cut["input_ids"][0][-len(hypothesis) :] == hypothesis  # the text is cut, never the hypothesis


def test_one_step_is_plain_cross_entropy(tmp_path):
    trainer, model = make(tmp_path, train=pairs(8)), nli_model(spread=0.2)
    batch = next(iter(trainer.get_train_dataloader()))
    logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    want = cross_entropy(logits, batch["labels"])  # -1 in the data is ignored
    assert (batch["labels"] == -100).sum() == 1
    torch.testing.assert_close(trainer.compute_loss(trainer.model.eval(), batch), want)


def test_training_learns_seen_labels_and_scores_both_groups(tmp_path):
    trainer = make(tmp_path, nli_model(NLI, spread=0.2), dev=texts(), num_train_epochs=25, learning_rate=1e-2)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_seen_accuracy"] > 0.99 > before["eval_seen_accuracy"]
    assert after["eval_loss"] != before["eval_loss"] and after["eval_n_unseen"] == 3
    pipe = HypothesisZeroShotPipeline(model=trainer.model, tokenizer=tiny_tokenizer())
    found = [row["label"] for row in pipe(texts()["text"][:])]  # settings come from the config
    gold = [NAMES[label] for label in texts()["labels"][:]]
    want = zero_shot_accuracy(found, gold, ["acne", "migraine"])
    assert {key: after[f"eval_{key}"] for key in want} == pytest.approx(want)


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_scores_of_evaluation_are_those_of_the_metric(tmp_path, strategy):
    model = nli_model()
    trainer = make(
        tmp_path, model, dev=texts(), train_sampling_strategy=strategy, decision="two_phase", seen_margin=0.3
    )
    pipe = HypothesisZeroShotPipeline(model=model, tokenizer=tiny_tokenizer())
    found = pipe(texts()["text"][:], decision="two_phase", seen_margin=0.3)
    gold = [NAMES[label] for label in texts()["labels"][:]]
    want = zero_shot_accuracy([row["label"] for row in found], gold, ["acne", "migraine"])
    for scores in (trainer.evaluate(), trainer.evaluate(texts()), trainer.evaluate({"x": texts()})):
        prefix = "eval_x_" if "eval_x_accuracy" in scores else "eval_"
        assert {key: scores[prefix + key] for key in want} == pytest.approx(want)
    output = trainer.predict(texts())
    assert output.metrics["test_harmonic_mean"] == pytest.approx(want["harmonic_mean"])
    other = trainer.evaluate(pairs(8))  # no texts: only the pairs are scored
    entailed = entailment_probs(trainer.predict(pairs(8)).predictions, 0) > 0.5
    labels = np.array(pairs(8)["labels"][:])
    right = (entailed == (labels == 0))[labels >= 0].mean()
    assert other["eval_pair_accuracy"] == pytest.approx(right) and "eval_seen_accuracy" not in other


def test_several_labels_per_text_and_a_none_label(tmp_path):
    trainer = make(tmp_path, nli_model(), several(), several(), none_label="other", decision="two_phase")
    assert trainer.plan.rule.multi_label and len(trainer.train_dataset) == 4 * 4  # two texts have no seen label
    scores = trainer.evaluate()
    pipe = HypothesisZeroShotPipeline(model=trainer.model, tokenizer=tiny_tokenizer())
    found = [row["label"] for row in pipe(several()["text"][:])]
    want = zero_shot_f1(found, several()["labels"][:], ["acne", "migraine"], NAMES, "other")
    assert {key: scores[f"eval_{key}"] for key in want} == pytest.approx(want)


def test_a_none_label_of_the_data_trains_nothing_and_is_scored(tmp_path):
    data = (
        texts(6).remove_columns("labels").add_column("labels", ["acne", "other", "migraine", "acne", "other", "acne"])
    )
    named = data.cast_column("labels", ClassLabel(names=["acne", "migraine", "other"]))
    trainer = make(tmp_path, train=named, dev=named, none_label="other", hypotheses=None, seen_labels="all")
    assert trainer.plan.labels == ("acne", "migraine") and trainer.plan.rule.reject
    assert len(trainer.train_dataset) == 4 * 2 and trainer.evaluate()["eval_n_unseen"] == 2
    assert make(tmp_path, train=data, none_label="other").evaluate(data)["eval_n_unseen"] == 2


def test_saved_model_holds_hypotheses_and_rule(tmp_path):
    trainer = make(tmp_path, decision="two_phase", seen_margin=0.05, none_label="none", max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "final"))
    saved = json.loads((tmp_path / "final" / "config.json").read_text())["zero_shot"]
    assert saved["hypotheses"] == HYPOTHESES and saved["seen_labels"] == ["acne", "migraine"]
    assert (saved["decision"], saved["seen_margin"], saved["none_label"]) == ("two_phase", 0.05, "none")
    pipe = pipeline("hypothesis-zero-shot", model=str(tmp_path / "final"))
    assert pipe.plan() == trainer.plan
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "acne, migraine" in card and "it was insomnia ." in card and "zero-shot-classification" in card


def test_a_head_without_names_gets_them_and_labels_without_hypotheses_the_template(tmp_path):
    model = nli_model(("LABEL_0", "LABEL_1"))
    model.config.label2id = None
    trainer = make(tmp_path, model, hypotheses=None, seen_labels="acne;insomnia")
    assert model.config.label2id == {"entailment": 0, "not_entailment": 1}
    assert trainer.hypotheses == {name: [f"This example is {name}."] for name in NAMES}
    assert trainer.seen_labels == ("acne", "insomnia")
    model = nli_model()
    model.config.label2id = None  # as `from_pretrained(..., id2label=...)` leaves it
    make(tmp_path, model)
    assert model.config.label2id == {"entailment": 0, "not_entailment": 1}


def test_a_frozen_pair_encoder_is_trained_on_vectors(tmp_path):
    model = pair_encoder(tmp_path)
    trainer = make(tmp_path / "out", model, dev=texts(), num_train_epochs=60, learning_rate=5e-2)
    assert {"premise_features", "hypothesis_features"} <= set(trainer.train_dataset.column_names)
    before = {name: p.clone() for name, p in model.named_parameters()}
    first = trainer.evaluate(trainer.train_dataset)["eval_loss"]
    trainer.train()
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} == {"head.weight", "head.bias"}
    after = trainer.evaluate()
    assert trainer.evaluate(trainer.train_dataset)["eval_loss"] < first / 3
    pipe = HypothesisZeroShotPipeline(model=model.eval(), tokenizer=tiny_tokenizer())  # on tokens, not on vectors
    found = [row["label"] for row in pipe(texts()["text"][:])]
    assert np.mean([a == NAMES[b] for a, b in zip(found, texts()["labels"][:], strict=True)]) == pytest.approx(
        after["eval_accuracy"]
    )


def test_an_unfrozen_pair_encoder_moves_whole(tmp_path):
    model = pair_encoder(tmp_path, freeze_encoder=False)
    trainer = make(tmp_path / "out", model, max_steps=2, learning_rate=1e-2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    trainer.train()
    still = {n for n, p in model.named_parameters() if torch.equal(p, before[n])}
    assert still == {n for n in before if n.startswith("encoder.pooler")}  # vectors are means over tokens


def test_a_task_is_trained_and_scored_as_it_is_built(tmp_path):
    task = build_zero_shot_task(texts(40), hypotheses=HYPOTHESES, seed=1)
    train, test = (part.rename_column("label_names", "labels") for part in (task.train, task.test))
    one = make(tmp_path, train=train, dev=test, hypotheses=task.hypotheses, seen_labels=";".join(task.seen))
    two = make(tmp_path, train=task.pairs(), dev=test, hypotheses=task.hypotheses)
    assert one.train_dataset["input_ids"][:] == two.train_dataset["input_ids"][:]
    assert one.evaluate()["eval_n_seen"] == sum(row[0] in task.seen for row in task.test["label_names"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aspect": "weather"}, "emotion, situation, topic"),
        ({"decision": "three"}, "single_phase, two_phase"),
        ({"negatives": -1}, "`negatives` must be at least 0"),
        ({"max_length": 2}, "`max_length` must be at least 8"),
        ({"seen_margin": 2.0}, r"`seen_margin` must be in \[0, 1\]"),
        ({"seen_threshold": -1.0}, "`seen_threshold`"),
        ({"seen_labels": "acne;flu"}, "'flu', which is not a label: acne, insomnia, migraine"),
        ({"seen_labels": " ; "}, "is not a label"),
        ({"none_label": "acne"}, "also a candidate"),
    ],
)
def test_bad_settings_are_named(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **settings)


def test_other_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="processing_class=tokenizer"):
        EntailmentTrainer(nli_model(), EntailmentTrainingArguments(str(tmp_path)), train_dataset=texts())
    with pytest.raises(ValueError, match=r"No class of the model is called entailment.*'yes': 0, 'no': 1"):
        make(tmp_path, nli_model(("yes", "no")))
    with pytest.raises(ValueError, match="transformers model, got Linear"):
        make(tmp_path, torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="'flu' at row 1"):
        make(tmp_path, train=Dataset.from_dict({"text": ["a", "b"], "labels": ["acne", "flu"]}))
    with pytest.raises(MissingColumnError, match="`premise` is missing"):
        make(tmp_path, train=texts().rename_column("text", "review"))
    with pytest.raises(ValueError, match="no room for text beside the hypothesis 'the skin of the face was oily'"):
        make(tmp_path, max_length=10)
    with pytest.raises(ValueError, match="dataloader_drop_last=False"):
        make(tmp_path, dev=texts(), dataloader_drop_last=True, per_device_eval_batch_size=7).evaluate()


def test_from_the_command_line_hypotheses_come_from_the_label_names(tmp_path):
    from hf_labels.cli.arguments import RunArguments
    from hf_labels.trainers.zero_shot_tc import cli_setup
    from tiny_text import save_backbone

    run = RunArguments(
        "data", save_backbone(tmp_path), label_names=NAMES, label_descriptions={"acne": "oily skin"}, max_length=32
    )
    args = EntailmentTrainingArguments(str(tmp_path / "out"), use_cpu=True, aspect="emotion", seen_labels="v0")
    trainer = cli_setup(run, args, {"train": texts(), "eval": texts()})
    assert trainer.hypotheses["acne"] == ["This person feels acne.", "This person expresses oily skin."]
    assert trainer.hypotheses["migraine"] == ["This person feels migraine."] and args.max_length == 32
    assert trainer.model.config.label2id == {"entailment": 0, "not_entailment": 1}
    assert "eval_seen_accuracy" in trainer.evaluate()
    nli_model(NLI).save_pretrained(tmp_path / "nli")
    tiny_tokenizer().save_pretrained(tmp_path / "nli")
    run.model = str(tmp_path / "nli")
    kept = cli_setup(run, args, {"train": texts(), "eval": None}).model
    assert kept.config.id2label == dict(enumerate(NLI))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "nli")
    assert torch.equal(kept.classifier.weight, loaded.classifier.weight)
    assert AutoTokenizer.from_pretrained(tmp_path / "nli").sep_token == "[SEP]"
