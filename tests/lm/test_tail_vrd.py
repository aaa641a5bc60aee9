"""Labelling of documents with a scripted teacher: prompts, samples, gates, bad documents, budgets, caches, files."""

import json
import re

import pytest
from datasets import Dataset, Features, Image, Value
from tail_vrd_toys import SCHEMA, knowing, receipts, toy_labels

from hf_labels.labels.tail_vrd import DocumentSchema
from hf_labels.labels.tail_vrd_files import LabelingError, TAILLabels
from hf_labels.labels.tail_vrd_gates import LabelGates
from hf_labels.lm import Budget, ScriptedLM, UnsupportedCapability
from hf_labels.lm.tail_vrd import TAILLabeler

TOTAL = DocumentSchema.from_dict({"total": {"type": "amount"}})


def label(lm, data, samples=1, schema=SCHEMA, **options):
    return TAILLabeler(lm, schema, **options).label(data, samples, text_column="text")


def always(answer, **options):
    return ScriptedLM([(lambda request: True, answer)], progress=False, **options)


def test_truth_comes_through_in_the_form_of_the_student():
    data = receipts(5)
    labels = label(knowing(data), data)
    for values, truth in zip(labels.values, map(json.loads, data["truth"][:]), strict=True):
        assert values == {name: truth[name] for name in SCHEMA.names}
    assert labels.dataset["teacher"][:] == ["knowing"] * 5 and labels.dataset["index"][:] == list(range(5))
    assert labels.dataset[0]["field_status"] == dict.fromkeys(SCHEMA.names, "ok")
    assert labels.dataset[0]["image"].size == (96, 64) and labels.report["labelled"] == 5
    assert labels.evaluate([json.loads(one) for one in data["truth"][:]])["anls"] == 1.0
    assert labels.evaluate({3: json.loads(data[3]["truth"])})["n"] == 1
    with pytest.raises(ValueError, match="in `gold`"):
        labels.evaluate({99: {}})


def test_the_teacher_gets_the_students_instruction_image_and_text():
    data = receipts(1)
    lm = knowing(data)
    labeler = TAILLabeler(lm, SCHEMA, task="expense audit", instructions="Tips count.", seed=5)
    labeler.label(data, 2, text_column="text")
    asked = lm.log[0]
    assert SCHEMA.instruction("expense audit") in asked.text and "Tips count." in asked.text
    assert data[0]["text"] in asked.text and len(asked.images) == 1
    assert [one.seed for one in lm.log] == [5, 6] and all(one.temperature == 0.3 for one in lm.log)
    lm = knowing(data)
    label(lm, data)
    assert lm.log[0].temperature == 0 and lm.log[0].seed is None
    assert "ISO 8601" not in TAILLabeler(lm, SCHEMA, formats=False).request(text="x").text


def test_samples_that_disagree_lose_the_field_and_one_sample_keeps_it():
    data = receipts(4)

    def unsure(values, request):
        return values | ({"total": "1.00"} if request.seed == 1 else {})

    labels = label(knowing(data, unsure), data, samples=2)
    assert all(set(values) == {"vendor", "date"} for values in labels.values)
    assert labels.report["status"]["total"] == {"inconsistent": 4}
    assert labels.dataset["confidence"][0] == {"vendor": 1.0, "date": 1.0, "total": 0.5}
    assert all("total" in values for values in label(knowing(data, unsure), data).values)


def test_invented_values_are_not_grounded_and_a_warning_says_when_nothing_is(caplog):
    data = receipts(3)

    def invents(values, request):
        return values | {"vendor": "Somebody Else Ltd"}

    labels = label(knowing(data, invents), data)
    assert labels.report["status"]["vendor"] == {"ungrounded": 3} and "vendor" not in labels.values[0]
    lm = always({"total": 3})
    labels = TAILLabeler(lm, TOTAL).label(data)
    assert "nothing is grounded" in caplog.text and labels.values == [{"total": "3.00"}] * 3


def test_with_gates_off_the_rows_are_the_teachers_answers_verbatim():
    data = receipts(3)
    answer = {"total": "12,5 Euro", "date": None, "vendor": " ?? "}
    labels = label(always(answer), data, gates=LabelGates.off(), normalize=False)
    assert labels.values == [answer] * 3
    assert labels.dataset["target_json"][0] == '{"vendor":" ?? ","date":null,"total":"12,5 Euro"}'
    labels = label(always(answer), data, gates=LabelGates.off())
    assert labels.values == [{"vendor": "??", "date": None, "total": "12.50"}] * 3


def test_ambiguous_dates_stay_raw_with_a_flag_and_wrong_types_become_null():
    data = receipts(2)
    labels = label(always({"vendor": "x", "date": "03/04/2024", "total": "abc"}), data, gates=LabelGates.off())
    assert labels.values[0] == {"vendor": "x", "date": "03/04/2024", "total": None}
    assert labels.dataset["flags"][0] == ["date: ambiguous_date", "total: unreadable_amount"]
    assert labels.report["flags"] == {"ambiguous_date": 2, "unreadable_amount": 2}


def test_unreadable_images_are_skipped_with_their_reason():
    good = receipts(2)
    stored = good.cast_column("image", Image(decode=False))["image"][:]
    stored.insert(1, {"bytes": b"no image", "path": None})
    stored.append({"bytes": None, "path": "nowhere.png"})
    data = Dataset.from_dict({"image": stored}, features=Features({"image": Image(decode=False)}))
    lm = always({"total": 3})
    labels = TAILLabeler(lm, TOTAL).label(data)
    assert labels.dataset["index"][:] == [0, 2] and len(lm.log) == 2
    assert labels.report["unreadable"] == 2 and [item["row"] for item in labels.report["skipped"]] == [1, 3]
    assert "nowhere.png" in labels.report["skipped"][1]["reason"]
    listed = TAILLabeler(always({"total": 3}), TOTAL).label([good[0]["image"], good[1]["image"]])
    assert len(listed) == 2


def test_prose_is_asked_for_again_twice_and_then_left_out():
    data = receipts(3)
    bad = data[1]["text"]
    lm = always(lambda request: "I am not sure." if bad in request.text else '{"total":"1.00"}')
    labels = label(lm, data, schema=TOTAL, gates=LabelGates.off())
    assert labels.dataset["index"][:] == [0, 2] and len(lm.log) == 3 + 2
    assert labels.report["invalid"] == 1 and labels.report["repairs"] == 2
    assert "no JSON" in labels.report["skipped"][0]["reason"]


def test_nothing_usable_names_the_most_frequent_reasons():
    with pytest.raises(LabelingError, match=r"None of 3 documents.*invalid: .*no JSON.*\(3\)"):
        label(always("prose"), receipts(3))
    with pytest.raises(LabelingError, match="empty: no field passed"):
        label(always(dict.fromkeys(SCHEMA.names)), receipts(2))


@pytest.mark.parametrize(
    ("documents", "options", "error", "message"),
    [
        ([], {}, ValueError, "no document"),
        (["x.png"], {"samples": 0}, ValueError, "`samples`"),
        (Dataset.from_dict({"a": ["x"]}), {}, KeyError, "`image`"),
        (Dataset.from_dict({"a": ["x"]}), {"image_column": None}, ValueError, "nothing to read"),
        (["x.png"], {"image_column": None}, ValueError, "A list holds images"),
        (
            Dataset.from_dict({"t": ["x"], "flags": ["y"]}),
            {"image_column": None, "text_column": "t"},
            ValueError,
            "'flags' already",
        ),
    ],
)
def test_bad_documents_are_explained(documents, options, error, message):
    with pytest.raises(error, match=message):
        TAILLabeler(always({}), TOTAL).label(documents, **options)


def test_a_teacher_without_eyes_is_refused_before_any_call():
    lm = always({"total": 1})
    lm.capabilities = frozenset({"generate", "json_mode"})
    with pytest.raises(UnsupportedCapability, match="cannot vision"):
        TAILLabeler(lm, TOTAL).label(receipts(1))
    assert not lm.log
    labeler = TAILLabeler(lm, TOTAL, gates=LabelGates.off())
    assert len(labeler.label(receipts(1), image_column=None, text_column="text")) == 1


def test_a_budget_stops_and_the_cache_resumes_without_asking_again(tmp_path):
    data = receipts(5)
    first = knowing(data, budget=Budget(max_calls=4), cache_dir=tmp_path, batch_size=2)
    labels = label(first, data, samples=1)
    assert labels.dataset["index"][:] == [0, 1, 2, 3] and labels.report["not_asked"] == 1
    second = knowing(data, cache_dir=tmp_path, batch_size=2)
    labels = label(second, data)
    assert len(labels) == 5 and len(second.log) == 1
    assert labels.report["usage"]["cached_calls"] == 4 and labels.report["usage"]["calls"] == 1
    third = knowing(data, cache_dir=tmp_path)
    label(third, data)
    assert not third.log


def test_another_image_or_instruction_is_another_question(tmp_path):
    one, two = receipts(1, seed=0), receipts(1, seed=1)
    lm = always({"total": 1}, cache_dir=tmp_path)
    for data, task in ((one, ""), (two, ""), (one, "audit"), (one, "")):
        TAILLabeler(lm, TOTAL, task=task).label(data)
    assert len(lm.log) == 3


def test_an_answer_half_of_the_samples_of_which_is_missing_is_asked_again(tmp_path):
    data = receipts(3)
    lm = knowing(data, budget=Budget(max_calls=3), cache_dir=tmp_path, batch_size=1)
    labels = label(lm, data, samples=2)
    assert labels.dataset["index"][:] == [0] and labels.report["not_asked"] == 2


def test_order_and_batches_do_not_matter():
    data = receipts(6)

    def spoil(values, request):
        return values | ({"total": None} if re.search("[02468],", request.text) else {})

    want = label(knowing(data, spoil, batch_size=1), data).dataset["target_json"][:]
    turned = data.select(range(5, -1, -1))
    got = label(knowing(turned, spoil, batch_size=4), turned)
    assert dict(zip(got.dataset["index"][:], got.dataset["target_json"][:], strict=True)) == dict(enumerate(want))


def test_labels_survive_files(tmp_path):
    labels = toy_labels(3, task="audit")
    labels.save(tmp_path / "labels")
    again = TAILLabels.load(tmp_path / "labels")
    assert again.schema == labels.schema and again.report == labels.report and again.task == "audit"
    assert again.values == labels.values and again.dataset.features == labels.dataset.features
    with pytest.raises(FileNotFoundError, match=r"holds no tail\.json"):
        TAILLabels.load(tmp_path)
    assert labels.dataset.features["target_json"] == Value("string")
