"""The student: all keys always, three kinds, files, adapters, the card, evaluation."""

import json

import pytest
import torch
from tail_vrd_toys import SCHEMA, receipts, tiny_donut, tiny_tagger, tiny_vlm, toy_labels

from hf_labels.hub_cards import ResultRow, validate_card
from hf_labels.labels.tail_vrd import DocumentSchema
from hf_labels.labels.tail_vrd_align import align_document, tag_names
from hf_labels.labels.tail_vrd_cost import CostModel
from hf_labels.models.tail_vrd import DocumentStudent, evaluate_extraction, kind_of

MAKERS = {"chat": tiny_vlm, "donut": tiny_donut, "tagger": tiny_tagger}


@pytest.fixture(scope="module")
def labels():
    return toy_labels(4)


def student(kind, labels, **options):
    return DocumentStudent(*MAKERS[kind](labels), SCHEMA, max_new_tokens=12, **options)


@pytest.mark.parametrize("kind", MAKERS)
def test_untrained_students_give_every_key_and_come_back_from_files(kind, labels, tmp_path):
    one = student(kind, labels, task="audit", facts={"training_seconds": 1.5})
    assert one.kind == kind
    found = one.extract_many(labels.dataset, batch_size=3)
    assert all(list(values) == list(SCHEMA.names) for values in found) and sum(one.answers.values()) == 4
    assert one.extract_many(labels.dataset, batch_size=1) == found
    one.save_pretrained(tmp_path)
    again = DocumentStudent.from_pretrained(tmp_path)
    assert (again.schema, again.task, again.kind, again.facts) == (SCHEMA, "audit", kind, one.facts)
    assert again.extract_many(labels.dataset) == found
    assert (tmp_path / "instruction.txt").read_text() == SCHEMA.instruction("audit") + "\n"
    weights, other = one.model.state_dict(), again.model.state_dict()
    assert weights.keys() == other.keys() and all(torch.equal(weights[key], other[key]) for key in weights)


def says(one, text, monkeypatch):
    """The student writes this answer."""
    ids = one.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def generate(**inputs):
        start = inputs["input_ids"] if "input_ids" in inputs else inputs["decoder_input_ids"]
        return torch.cat([start, torch.tensor([ids] * len(start))], 1)

    monkeypatch.setattr(one.model, "generate", generate)


@pytest.mark.parametrize("kind", ["chat", "donut"])
def test_what_is_written_is_read_repaired_or_null(kind, labels, monkeypatch):
    one, image = student(kind, labels), labels.dataset[0]["image"]
    says(one, '{"vendor":"ACME","date":"2024-03-17","total":"12.50"}<eos>', monkeypatch)
    assert one.extract(image) == {"vendor": "ACME", "date": "2024-03-17", "total": "12.50"}
    assert one.answers == {"ok": 1, "repaired": 0, "failed": 0}
    says(one, '{"vendor":"ACME","date":"2024-0', monkeypatch)
    assert one.extract(image) == {"vendor": "ACME", "date": None, "total": None} and one.answers["repaired"] == 1
    says(one, "No idea", monkeypatch)
    assert one.extract(image) == SCHEMA.empty() and one.answers["failed"] == 1


def test_pages_are_merged(labels, monkeypatch):
    one, page = student("chat", labels), labels.dataset[0]["image"]
    pages = iter(['{"vendor":"A","total":null}', '{"vendor":"B","total":"2.00"}'])
    monkeypatch.setattr(one, "extract_many", lambda rows: [SCHEMA.normalize(json.loads(next(pages)))[0] for _ in rows])
    assert one.extract_pages([page, {"image": page}]) == {"vendor": "A", "date": None, "total": "2.00"}


def test_a_tagger_that_tags_right_reads_right(labels, monkeypatch):
    one, data = student("tagger", labels), labels.dataset
    tags = {name: number for number, name in enumerate(tag_names(SCHEMA))}

    def forward(**inputs):
        logits = torch.zeros(*inputs["input_ids"].shape, len(tags))
        for number in range(len(logits)):
            encoded = one.processor(data[number]["words"], is_split_into_words=True)
            right = align_document(json.loads(data[number]["target_json"]), data[number]["words"], SCHEMA)[0]
            for place, word in enumerate(encoded.word_ids()):
                logits[number, place, tags[right[word]]] = 9.0
        return type("Out", (), {"logits": logits})()

    monkeypatch.setattr(one.model, "forward", forward)
    assert one.extract_many(data) == labels.values
    assert one.extract(text=data[0]["text"]) == labels.values[0]
    assert list(one.extract(text="")) == list(SCHEMA.names)


def test_what_a_student_cannot_read_is_named(labels):
    with pytest.raises(ValueError, match="Document 0 has no `image`"):
        student("chat", labels).extract(text="x")
    with pytest.raises(ValueError, match="Document 0 has neither `words`"):
        student("tagger", labels).extract(labels.dataset[0]["image"])
    other = DocumentSchema.from_dict({"a": {}})
    with pytest.raises(ValueError, match="tag_names"):
        DocumentStudent(*tiny_tagger(labels), other)
    with pytest.raises(ValueError, match="chat, donut, tagger"):
        DocumentStudent(*tiny_vlm(labels), SCHEMA, kind="x")


def test_other_folders_are_refused(labels, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no student\.json"):
        DocumentStudent.from_pretrained(tmp_path)


@pytest.mark.parametrize("named", [True, False])
def test_adapters_are_saved_alone_or_merged_into_a_base_without_a_name(named, labels, tmp_path):
    from peft import get_peft_model

    from hf_labels.models.tail_vrd_small import small_vlm  # noqa: F401  (the base is made by it)
    from hf_labels.trainers.tail_vrd import lora_config

    model, processor = tiny_vlm(labels)
    if named:
        model.save_pretrained(tmp_path / "base")
        model = type(model).from_pretrained(tmp_path / "base")
    config = lora_config(model, r=2)
    assert config.target_modules and not any("vision" in name for name in config.target_modules)
    adapted = get_peft_model(model, config)
    for name, part in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(part, std=0.5)
    one = DocumentStudent(adapted.eval(), processor, SCHEMA, max_new_tokens=6)
    batch = processor(text=["<image>a"], images=[[labels.dataset[0]["image"]]], return_tensors="pt")
    with torch.no_grad():
        want = one.model(**batch).logits
    one.save_pretrained(tmp_path / "student")
    assert (tmp_path / "student" / "adapter_config.json").exists() == named
    again = DocumentStudent.from_pretrained(tmp_path / "student")
    with torch.no_grad():
        torch.testing.assert_close(one.model(**batch).logits, want, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(again.model.eval()(**batch).logits, want, atol=1e-4, rtol=1e-4)


def test_the_card_has_the_costs_the_fields_and_the_teacher(labels, tmp_path):
    facts = {"labels": labels.report, "training": {"learning_rate": 0.001}}
    one = student("chat", labels, facts=facts)
    cost = CostModel(0.01, labelled=4, training=1.0, student_per_document=0.002)
    rows = [ResultRow("receipts", "test", "anls", 0.5)]
    one.save_card(tmp_path, "me/student", cost=cost, results=rows)
    text = (tmp_path / "README.md").read_text()
    assert validate_card(text, tmp_path, slug="tail_vrd") == []
    for part in ("break-even, documents", "`130`", "knowing", "`vendor`", "2411.14957", "anls", "learning_rate"):
        assert part in text, part


class Fixed:
    schema = SCHEMA

    def __init__(self, answers):
        self.answers = answers

    def extract_many(self, rows):
        return self.answers


def test_evaluation_reads_the_truth_and_names_what_is_missing():
    data = receipts(3)
    right = [json.loads(text) for text in data["truth"][:]]
    found = evaluate_extraction(Fixed(right), data)
    assert found["anls"] == found["exact_match"] == 1.0 and found["seconds_per_document"] >= 0
    assert evaluate_extraction(Fixed([None] * 3), data, metric="anls") == 0.0
    with pytest.raises(KeyError, match="`gold` is missing"):
        evaluate_extraction(Fixed(right), data, truth_column="gold")
    with pytest.raises(KeyError, match="no metric 'x'"):
        evaluate_extraction(Fixed(right), data, metric="x")
    with pytest.raises(ValueError, match="no document"):
        evaluate_extraction(Fixed([]), [])


def test_kinds_are_told_by_the_model(labels):
    from transformers import LayoutLMv3Config

    assert {kind: kind_of(make(labels)[0]) for kind, make in MAKERS.items()} == {kind: kind for kind in MAKERS}
    assert kind_of(LayoutLMv3Config()) == "tagger"
