"""The schema of documents: values in one form, JSON, the instruction, answers that were cut off."""

import json

import pytest

from hf_labels.labels.tail_vrd import DocumentField, DocumentSchema, merge_pages
from hf_labels.labels.tail_vrd_answers import close_json, read_answer
from hf_labels.labels.tail_vrd_values import amounts_in, dates_in, parse_amount, parse_date

SCHEMA = DocumentSchema.from_dict(
    {
        "vendor": {"description": "who was paid"},
        "date": {"type": "date", "nullable": True},
        "total": {"type": "amount"},
        "currency": {"type": "currency"},
        "kind": {"type": "enum", "values": ["Taxi", "Food"]},
        "items": {"type": "list", "fields": {"name": {}, "price": {"type": "amount"}}},
    }
)
RAW = {
    "items": [{"name": " Tea ", "price": "3,5"}, {"price": 2}],
    "kind": "taxi",
    "total": 12.5,
    "vendor": " ACME ",
    "date": "17. März 2024",
    "currency": "€",
}


def test_canonical_has_the_order_of_the_schema_no_spaces_and_is_idempotent():
    text = SCHEMA.canonical(RAW)
    assert text == (
        '{"vendor":"ACME","date":"2024-03-17","total":"12.50","currency":"EUR","kind":"Taxi",'
        '"items":[{"name":"Tea","price":"3.50"},{"name":null,"price":"2.00"}]}'
    )
    assert SCHEMA.canonical(json.loads(text)) == text
    assert SCHEMA.dumps({"total": "1", "vendor": "x"}) == '{"vendor":"x","total":"1"}'


def test_wrong_types_become_null_with_a_flag_and_ambiguous_dates_stay():
    values, flags = SCHEMA.normalize(
        {"vendor": ["a"], "date": "03/04/2024", "total": "abc", "kind": "Boat", "items": 3}
    )
    assert values["date"] == "03/04/2024" and values["vendor"] is values["total"] is values["kind"] is None
    assert flags == {
        "vendor": "wrong_type",
        "date": "ambiguous_date",
        "total": "unreadable_amount",
        "kind": "unknown_value",
        "items": "wrong_type",
    }
    day = DocumentField("date", "date", day_first=True)
    assert day.normalize("03/04/2024") == ("2024-04-03", None)


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("1.234,50 EUR", "1234.50"),
        ("$1,234.5", "1234.50"),
        ("1 234,56 €", "1234.56"),
        ("CHF 1'234.50", "1234.50"),
        ("-3.20", "-3.20"),
        ("3.20-", "-3.20"),
        ("(3.20)", "-3.20"),
        ("1.234.567", "1234567.00"),
        (12.5, "12.50"),
        (3, "3.00"),
        ("007", "7.00"),
        ("0.125", "0.125"),
        ("-0.00", "0.00"),
        ("1,234", None),
        ("12.5.3", None),
        ("two", None),
        ("3 for 4", None),
        (float("inf"), None),
    ],
)
def test_amounts(text, want):
    found, why = parse_amount(text)
    assert found == want and (why is None) == (want is not None)
    if want:
        assert parse_amount(want) == (want, None) or want == "0.125"


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("2024-03-17", "2024-03-17"),
        ("2024-03-17T10:00:00", "2024-03-17"),
        ("17.03.2024", "2024-03-17"),
        ("03/17/2024", "2024-03-17"),
        ("17/03/24", "2024-03-17"),
        ("4/4/2024", "2024-04-04"),
        ("March 17, 2024", "2024-03-17"),
        ("1er mars 2024", "2024-03-01"),
        ("17 de marzo de 2024", "2024-03-17"),
        ("03/04/2024", None),
        ("31.02.2024", None),
        ("17.Foo.2024", None),
        ("soon", None),
    ],
)
def test_dates(text, want):
    assert parse_date(text)[0] == want


def test_everything_that_can_be_read_in_a_text_is_found():
    assert {"12.50", "1234.50", "7.00"} <= amounts_in("Total 12,50 of 1.234,50; 7.")
    assert dates_in("am 17. März 2024, 03/04/2024") == {"2024-03-17", "2024-03-04", "2024-04-03"}


def test_instruction_names_fields_formats_task_and_null_rule():
    text = SCHEMA.instruction("expense audit")
    for part in ("expense audit", "vendor", "who was paid", "ISO 8601", "Taxi, Food", "null", '"total":"0.00"'):
        assert part in text
    plain = SCHEMA.instruction("expense audit", formats=False)
    assert "ISO" not in plain and "0.00" not in plain and "vendor" in plain
    assert "total" not in SCHEMA.subset(["vendor"]).instruction()


def test_schema_survives_files_and_is_a_json_schema(tmp_path):
    SCHEMA.save(tmp_path)
    assert DocumentSchema.load(tmp_path) == DocumentSchema.load(tmp_path / "schema.json") == SCHEMA
    from hf_labels.lm.structured import Validator

    assert Validator.of(SCHEMA.json_schema()).parse(json.dumps(RAW | {"items": None}))["total"] == 12.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no fields"),
        ([{"name": "a"}, {"name": "a"}], "two fields 'a'"),
        ({"a": {"type": "color"}}, "`type` of field 'a'"),
        ({"a": {"type": "enum"}}, "enum 'a' has no `values`"),
        ({"a": {"type": "list"}}, "only a list, has `fields`"),
        ({"a": {"kind": "x"}}, "unknown key 'kind'"),
        ({"": {}}, "needs a name"),
        ({"a": {"type": "list", "fields": {"b": {"type": "list", "fields": {"c": {}}}}}}, "one level deep"),
    ],
)
def test_bad_schemas_are_explained(fields, message):
    with pytest.raises(ValueError, match=message):
        DocumentSchema.from_dict(fields)


def test_unknown_field_names_the_known_ones():
    with pytest.raises(KeyError, match="'x'.*vendor"):
        SCHEMA.subset(["x"])


def test_every_cut_of_an_answer_gives_all_keys_and_no_wrong_value():
    text = SCHEMA.canonical(RAW)
    whole, _ = SCHEMA.normalize(json.loads(text))
    for end in range(len(text) + 1):
        values, how = read_answer(text[:end], SCHEMA)
        assert list(values) == list(SCHEMA.names)
        assert how == ("ok" if end == len(text) else how) and how in ("ok", "repaired", "failed")
        for name in ("date", "currency", "kind", "total"):
            assert values[name] in (None, whole[name]), text[:end]
    assert read_answer(text[: text.index(',"items"')], SCHEMA)[0] == whole | {"items": None}


def test_answers_that_are_no_json_are_picked_or_null():
    assert read_answer('Sure! "vendor": "ACME" and "total": 3!', SCHEMA)[0]["total"] == "3.00"
    assert read_answer('{"vendor":"ACME" "total":"3.10"}', SCHEMA)[0]["vendor"] == "ACME"
    assert read_answer("I do not know.", SCHEMA) == (SCHEMA.empty(), "failed")
    assert read_answer("[" * 5000, SCHEMA)[1] == "failed"
    assert close_json('x {"a":[1,2],"b":"}"} y') == ('{"a":[1,2],"b":"}"}', False)
    with pytest.raises(ValueError, match="no JSON object"):
        close_json("[1]")


def test_pages_give_the_first_value_that_is_there():
    pages = [{"vendor": None, "items": [{"name": "a"}]}, {"vendor": "X", "items": [{"name": "b"}], "total": "1.00"}]
    found = merge_pages(SCHEMA, pages)
    assert found["vendor"] == "X" and found["items"] == [{"name": "a"}] and found["date"] is None
    assert merge_pages(SCHEMA, pages, join_lists=True)["items"] == [{"name": "a"}, {"name": "b"}]
    assert list(merge_pages(SCHEMA, [])) == list(SCHEMA.names)
