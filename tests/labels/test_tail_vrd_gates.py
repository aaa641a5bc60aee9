"""Gates, alignment, scores and costs of document labels."""

import json
import math

import numpy as np
import pytest

from hf_labels.labels.tail_vrd import DocumentField, DocumentSchema
from hf_labels.labels.tail_vrd_align import align_document, align_value, read_tags, tag_names
from hf_labels.labels.tail_vrd_cost import CostModel
from hf_labels.labels.tail_vrd_gates import CrossCheck, GroundedText, LabelGates, apply_gates, sum_check
from hf_labels.labels.tail_vrd_scores import extraction_scores

SCHEMA = DocumentSchema.from_dict(
    {
        "vendor": {},
        "date": {"type": "date", "nullable": True},
        "total": {"type": "amount", "keywords": ["total"]},
        "items": {"type": "list", "nullable": True, "fields": {"name": {}, "price": {"type": "amount"}}},
    }
)
TEXT = "ACME Coffee Bar 17.03.2024 Tea 3,50 Bagel 9,00 Tip 12,50 TOTAL 12,50 EUR"
ITEMS = [{"name": "Tea", "price": "3.50"}, {"name": "Bagel", "price": "9.00"}]
GOOD = {"vendor": "ACME Coffee Bar", "date": "2024-03-17", "total": "12.50", "items": ITEMS}


def test_good_answers_pass_and_values_are_never_changed():
    gated = apply_gates([GOOD, GOOD], SCHEMA, LabelGates(checks=(sum_check(),)), TEXT)
    assert set(gated.status.values()) == {"ok"} and gated.kept == SCHEMA.names and gated.values == GOOD
    assert set(gated.confidence.values()) == {1.0}


def test_samples_must_agree_and_one_sample_switches_this_off():
    other = GOOD | {"vendor": "Acme Coffee Bar.", "total": "99.00", "date": None}
    gated = apply_gates([GOOD, other], SCHEMA, LabelGates(), TEXT)
    assert gated.status["vendor"] == "ok" and gated.status["total"] == gated.status["date"] == "inconsistent"
    assert gated.confidence["total"] == 0.5 and gated.kept == ("vendor", "items")
    assert apply_gates([other], SCHEMA, LabelGates()).status["total"] == "ok"
    kind = apply_gates([GOOD, GOOD, other], SCHEMA, LabelGates(min_share=0.6), TEXT)
    assert kind.status["total"] == "ok" and kind.confidence["total"] == pytest.approx(2 / 3)
    lost = apply_gates([GOOD], SCHEMA, LabelGates(), TEXT, asked=2)  # the second could not be read
    assert set(lost.status.values()) == {"inconsistent"} and lost.confidence["total"] == 0.5


def test_values_must_stand_in_the_text():
    wrong = {
        "vendor": "Blue Door",
        "date": "2023-03-17",
        "total": "13.50",
        "items": [{"name": "Pizza", "price": None}],
    }
    gated = apply_gates([wrong], SCHEMA, LabelGates(), TEXT)
    assert set(gated.status.values()) == {"ungrounded"} and gated.kept == () and gated.values == wrong
    slip = GOOD | {"vendor": "ACME Cofee Bar"}
    assert apply_gates([slip], SCHEMA, LabelGates(), TEXT).status["vendor"] == "ok"
    assert apply_gates([wrong], SCHEMA, LabelGates(), None).status["vendor"] == "ok"  # nothing to look in
    free = DocumentField("kind", grounded=False)
    assert GroundedText(TEXT).holds("anything", free) and not GroundedText(TEXT).holds("anything", DocumentField("k"))


def test_checks_between_fields():
    gates = LabelGates(checks=(sum_check(), CrossCheck("never applies", ("date",), lambda values: None)))
    gated = apply_gates([GOOD | {"total": "12.49"}], SCHEMA, gates)
    assert gated.status["total"] == "ok"  # within one cent
    gated = apply_gates([GOOD | {"total": "12.40"}], SCHEMA, gates)
    assert gated.status["total"] == gated.status["items"] == "inconsistent" and gated.status["vendor"] == "ok"
    assert gated.failed_checks == ("sum of items = total",)
    for missing in (GOOD | {"total": None}, GOOD | {"items": None}, GOOD | {"items": [{"name": "x", "price": None}]}):
        assert sum_check().test(missing) is None


def test_null_is_a_label_only_where_a_field_may_be_absent():
    nothing = GOOD | {"date": None, "vendor": None}
    gated = apply_gates([nothing], SCHEMA, LabelGates(), TEXT)
    assert gated.status["date"] == gated.status["vendor"] == "null" and gated.kept == ("date", "total", "items")
    assert apply_gates([nothing], SCHEMA, LabelGates.off(), TEXT).kept == SCHEMA.names


def test_gates_that_are_off_keep_everything():
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = {
            name: None if rng.random() < 0.3 else f"{rng.integers(99)}.00" for name in ("vendor", "date", "total")
        }
        other = {name: "x" for name in values}
        gated = apply_gates([values | {"items": None}, other], SCHEMA, LabelGates.off(), "text")
        assert gated.kept == SCHEMA.names and gated.values == values | {"items": None}


def test_bad_gates_are_named():
    with pytest.raises(ValueError, match="`agreement`.*1.5"):
        LabelGates(agreement=1.5)
    with pytest.raises(ValueError, match="no sample"):
        apply_gates([], SCHEMA, LabelGates())


def test_alignment_finds_exact_parts_formats_keywords_and_slips():
    words = TEXT.split()
    assert align_value("ACME Coffee Bar", words, SCHEMA["vendor"]) == (0, 3)
    assert align_value("ACME Cofee Bar", words, SCHEMA["vendor"]) == (0, 3)
    assert align_value("2024-03-17", words, SCHEMA["date"]) == (3, 4)
    place = align_value("12.50", words, SCHEMA["total"])
    assert words[place[0] - 1] == "TOTAL"  # not the tip
    assert words[align_value("12.50", words, DocumentField("x", "amount"))[0] - 1] == "Tip"  # the first one
    assert align_value("Blue Door", words, SCHEMA["vendor"]) is align_value(None, words, SCHEMA["vendor"]) is None
    date = ["am", "17.", "März", "2024", "um"]
    assert align_value("2024-03-17", date, SCHEMA["date"]) == (1, 4)


def test_alignment_finds_random_exact_substrings():
    rng = np.random.default_rng(1)
    words = [f"w{i}{rng.integers(1000)}" for i in range(40)]
    for _ in range(30):
        start, size = int(rng.integers(35)), int(rng.integers(1, 5))
        value = " ".join(words[start : start + size])
        assert align_value(value, words, DocumentField("x")) == (start, start + size)


def test_tags_go_there_and_back():
    words = TEXT.split()
    tags, lost = align_document(GOOD | {"vendor": "Nobody"}, words, SCHEMA)
    assert lost == ["vendor"] and set(tags) <= set(tag_names(SCHEMA)) and "items" not in " ".join(tag_names(SCHEMA))
    tags, lost = align_document(GOOD, words, SCHEMA)
    assert read_tags(tags, words, SCHEMA) == GOOD | {"items": None} and not lost
    same = align_document({"vendor": "Tea", "total": "Tea"}, ["Tea", "Tea"], SCHEMA)[0]
    assert same == ["B-vendor", "B-total"]  # a word has one tag


def test_the_surest_span_wins_and_an_inside_tag_may_begin():
    tags = ["I-vendor", "O", "B-vendor", "I-vendor", "B-vendor"]
    assert read_tags(tags, list("abcde"), SCHEMA)["vendor"] == "a"
    assert read_tags(tags, list("abcde"), SCHEMA, [0.1, 1, 0.9, 0.7, 0.7])["vendor"] == "c d"
    assert read_tags([], [], SCHEMA) == SCHEMA.empty()


def test_scores_on_fields_nulls_and_structures():
    gold = [GOOD, GOOD | {"date": None}]
    perfect = extraction_scores([GOOD, GOOD | {"date": None}], gold, SCHEMA)
    assert perfect["anls"] == perfect["anls_star"] == perfect["exact_match"] == 1.0
    assert perfect["null_precision"] == perfect["null_recall"] == 1.0
    guess = [GOOD | {"total": "12,5", "vendor": None}, None]
    found = extraction_scores(guess, gold, SCHEMA)
    assert found["per_field"]["total"]["exact_match"] == 0.5  # 12,5 and 12.50 are the same amount
    assert found["per_field"]["date"] == {"exact_match": 1.0, "anls": 1.0}
    assert found["null_precision"] == 1 / 5 and found["null_recall"] == 1.0
    assert found["per_field"]["vendor"]["anls"] == 0.0 and found["n"] == 2
    several = extraction_scores([{"vendor": "ACME"}], [{"vendor": ["Acme", "ACME Bar"]}], SCHEMA.subset(["vendor"]))
    assert several["anls"] == several["anls_star"] == several["exact_match"] == 1.0
    assert several["null_precision"] is several["null_recall"] is None
    with pytest.raises(ValueError, match="1 predictions for 2"):
        extraction_scores([GOOD], gold, SCHEMA)
    with pytest.raises(ValueError, match="no document"):
        extraction_scores([], [], SCHEMA)


def test_break_even_is_where_the_two_totals_meet():
    cost = CostModel(0.01, labelled=1000, samples=2, training=5.0, student_per_document=0.0015)
    assert cost.labels == 20.0 and cost.break_even == pytest.approx(25 / 0.0085)
    many = cost.break_even
    assert cost.total(1) + (many - 1) * 0.0015 == pytest.approx(many * 0.01)
    assert cost.saving(100) < 0 < cost.saving(100_000) < 0.85
    assert CostModel(0.01, 10, student_per_document=0.02).break_even == math.inf
    assert CostModel(0.0, 0).break_even == 0.0
    table = CostModel.of_hardware(
        3.6, training_seconds=1000, student_seconds=0.5, teacher_per_document=0.01, labelled=10, teacher_seconds=2.5
    ).table()
    assert table["training, USD"] == 1.0 and table["student, USD per 1000 documents"] == 0.5
    assert table["times as fast as the teacher"] == 5.0 and json.dumps(table)
    with pytest.raises(ValueError, match="`training`.*-1"):
        CostModel(0.01, 1, training=-1)
