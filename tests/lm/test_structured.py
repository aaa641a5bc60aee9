"""JSON answers: extraction, the schema subset, repair."""

import enum
import json

import pydantic
import pytest

from hf_labels.lm import (
    BlackBoxLM,
    Budget,
    BudgetExceeded,
    Message,
    Request,
    Response,
    ScriptedLM,
    extract_json,
)
from hf_labels.lm.schema import KEYWORDS, Misfit, check_schema, fit
from hf_labels.lm.structured import MAX_REASON, repair_request, with_instruction

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["sports", "politics"]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "minItems": 1, "maxItems": 2},
    },
    "required": ["label"],
}
GOOD = {"label": "sports", "score": 0.5, "tags": ["a"]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure!\n```json\n{"a": [1, {"b": "}"}]}\n```\nBye {', {"a": [1, {"b": "}"}]}),
        ('[1, "]", "\\"]"] and [2]', [1, "]", '"]']),
        ('{"a": "\\\\"} {"b": 1}', {"a": "\\"}),
        ('{"ü": "\\u00fc 漢"}', {"ü": "ü 漢"}),
    ],
)
def test_extraction(text, value):
    assert extract_json(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no json", "no JSON"),
        ("", "no JSON"),
        ('{"a": 1', "cut off"),
        ('{"a": "x}', "cut off"),
        ('{"a": [1}', "do not match"),
        ("{'a': 1}", "property name"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "Infinity is not JSON"),
        ('{"a": __import__("os")}', "Expecting value"),
    ],
)
def test_what_cannot_be_extracted_says_why(text, reason):
    with pytest.raises(ValueError, match=reason):
        extract_json(text)


def test_deep_nesting_is_an_error_and_not_a_crash():
    lm = ScriptedLM(default="[" * 100_000 + "]" * 100_000)
    assert lm.generate_json(["x"], {"type": "array"}, max_repairs=0)[0].error


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"label": "art"}, r"\$\.label must be one of"),
        ({"label": None}, r"\$\.label"),
        ({"score": 1.5}, r"\$\.score must be at most 1"),
        ({"score": -0.1}, r"\$\.score must be at least 0"),
        ({"score": "0.5"}, r"\$\.score must be of type number"),
        ({"score": True}, r"\$\.score must be of type number"),
        ({"tags": []}, r"\$\.tags must have at least 1"),
        ({"tags": ["a", "b", "c"]}, r"\$\.tags must have at most 2"),
        ({"tags": ["a", "abcde"]}, r"\$\.tags\[1\] must have at most 4 characters"),
        ({"tags": "a"}, r"\$\.tags must be of type array"),
    ],
)
def test_misfits_name_the_place(change, where):
    assert fit(GOOD, SCHEMA) == GOOD
    with pytest.raises(Misfit, match=where):
        fit({**GOOD, **change}, SCHEMA)


def test_required_keys_and_extra_keys():
    with pytest.raises(Misfit, match="lacks the required key 'label'"):
        fit({"score": 0.5}, SCHEMA)
    value = {**GOOD, "extra": 1}
    assert fit(value, SCHEMA) == GOOD and "extra" in value, "the input is left as it is"
    assert fit(value, {**SCHEMA, "additionalProperties": True}) == value
    assert fit(value, {**SCHEMA, "additionalProperties": {"type": "integer"}}) == value
    with pytest.raises(Misfit, match=r"\$\.extra"):
        fit(value, {**SCHEMA, "additionalProperties": {"type": "string"}})
    assert fit({"a": 1}, {"type": "object"}) == {"a": 1}
    assert fit({"a": 1}, {"type": "object", "additionalProperties": False}) == {}


def test_types():
    assert fit(3.0, {"type": "integer"}) == 3 and isinstance(fit(3.0, {"type": "integer"}), int)
    assert fit(3, {"type": ["integer", "null"]}) == 3 and fit(None, {"type": ["integer", "null"]}) is None
    assert fit(True, {"enum": [True]}) is True
    for value, kind in ((3.5, "integer"), (True, "integer"), ("x", "null"), ([], "object"), (1, "boolean")):
        with pytest.raises(Misfit):
            fit(value, {"type": kind})
    with pytest.raises(Misfit):
        fit(True, {"enum": [1]})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "patternProperties": {}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}},
        {"type": "array", "items": {"oneOf": []}},
        {"type": "thing"},
        {"type": "object", "properties": []},
        {"type": "array", "minItems": -1},
        {"type": "object", "properties": {"a": {"minimum": "0"}}},
        {"enum": "abc", "type": "object"},
        {"type": "object", "required": "a"},
        {"type": "object", "additionalProperties": 3},
    ],
)
def test_unknown_keywords_and_broken_schemas_are_refused_before_any_call(schema):
    lm = ScriptedLM(default="{}")
    with pytest.raises(ValueError, match="schema"):
        lm.generate_json(["x"], schema)
    assert lm.attempts == 0


def test_every_keyword_is_supported_and_others_are_named():
    check_schema(SCHEMA | {"additionalProperties": False})
    with pytest.raises(ValueError, match=r"properties.a` uses 'format'"):
        check_schema({"properties": {"a": {"format": "date"}}})
    assert len(KEYWORDS) == 11
    with pytest.raises(ValueError, match="object or an array"):
        ScriptedLM(default="{}").generate_json(["x"], {"type": "string"})
    with pytest.raises(TypeError, match="pydantic"):
        ScriptedLM(default="{}").generate_json(["x"], "object")


@pytest.mark.parametrize("max_repairs", [0, 1, 2, 5])
def test_at_most_max_repairs_more_calls(max_repairs):
    lm = ScriptedLM(default='{"label": "art"}')
    result = lm.generate_json(["x"], SCHEMA, max_repairs=max_repairs)[0]
    assert len(lm.log) == 1 + max_repairs == 1 + result.repairs
    assert result.value is None and "one of" in result.error and result.raw == '{"label": "art"}'
    assert result.usage == lm.usage


def test_only_what_is_bad_is_repaired_and_order_is_kept():
    rules = [
        ("cannot be used", '{"label": "politics"}'),
        ("bad", '{"label": "art"}'),
        ("(sports)", r'{"label": "\1"}'),
    ]
    lm = ScriptedLM(rules, batch_size=2)
    results = lm.generate_json(["sports 1", "bad 2", "sports 3", "bad 4"], SCHEMA)
    assert [r.value["label"] for r in results] == ["sports", "politics", "sports", "politics"]
    assert [r.repairs for r in results] == [0, 1, 0, 1] and len(lm.log) == 6
    repair = lm.log[-1]
    assert [m.role for m in repair.messages] == ["user", "assistant", "user"]
    assert repair.messages[1].text == '{"label": "art"}' and "$.label must be one of" in repair.messages[2].text


def test_the_repair_request_is_short():
    request = Request("q", schema=SCHEMA)
    repair = repair_request(request, "x" * 100_000, "y" * 10_000)
    assert "y" * MAX_REASON in repair.messages[2].text and "y" * (MAX_REASON + 1) not in repair.messages[2].text
    assert len(repair.messages[1].text) < 9000
    assert repair_request(request, "", "empty").messages[1].text


def test_pydantic_models():
    class Color(enum.Enum):
        red = "red"

    class Answer(pydantic.BaseModel):
        color: Color
        size: int = pydantic.Field(ge=1)

    lm = ScriptedLM([("cannot be used", {"color": "red", "size": 2})], default={"color": "blue", "size": 0, "x": 1})
    result = lm.generate_json(["q"], Answer)[0]
    assert result.value == Answer(color="red", size=2) and result.repairs == 1
    assert json.loads(json.dumps(result.to_dict()))["value"] == {"color": "red", "size": 2}


def test_a_model_without_json_mode_gets_the_schema_in_words():
    class Plain(BlackBoxLM):
        capabilities = frozenset({"generate"})

        def _generate(self, requests):
            self.seen = requests
            return [Response(('{"label": "sports"}',)) for _ in requests]

    lm = Plain(model_id="plain")
    assert lm.generate_json(["q"], SCHEMA)[0].value == {"label": "sports"}
    assert lm.seen[0].text.startswith("q\n") and json.dumps(SCHEMA) in lm.seen[0].text
    image = {"type": "image", "image": b"x"}
    request = Request(
        (Message("system", "s"), Message("user", [image]), Message("assistant", "{")), schema={"type": "array"}
    )
    asked = with_instruction(request)
    assert asked.images == [b"x"] and '{"type": "array"}' in asked.messages[1].text and asked.messages[2].text == "{"


def test_failed_requests_and_budget():
    lm = ScriptedLM([("good", GOOD)], on_error="return")
    results = lm.generate_json(["good", "bad"], SCHEMA)
    assert results[0].value == GOOD and results[1].value is None and "NoRule" in results[1].error
    assert len(lm.log) == 1, "a failed request is not repaired"
    lm = ScriptedLM([("good", GOOD)], default="{}", budget=Budget(max_calls=3), batch_size=1)
    with pytest.raises(BudgetExceeded) as caught:
        lm.generate_json(["good", "bad", "good 2", "bad 2"], SCHEMA)
    assert [r and r.value for r in caught.value.partial] == [GOOD, None, GOOD, None]
    assert caught.value.partial[1].error and caught.value.partial[3] is None
    lm = ScriptedLM([("good", GOOD)], default="{}", budget=Budget(max_calls=3), batch_size=1)
    with pytest.raises(BudgetExceeded) as caught:
        lm.generate_json(["good", "bad"], SCHEMA)
    assert caught.value.partial[0].value == GOOD and "lacks" in caught.value.partial[1].error


def test_only_one_answer_each():
    with pytest.raises(ValueError, match="n=1"):
        ScriptedLM(default="{}").generate_json([Request("a", n=2)], SCHEMA)
    with pytest.raises(ValueError, match="max_repairs"):
        ScriptedLM(default="{}").generate_json(["a"], SCHEMA, max_repairs=-1)


def test_a_second_call_repeats_neither_answers_nor_repairs(tmp_path):
    rules = [("cannot be used", GOOD), ("q", "not json")]
    first = ScriptedLM(rules, cache_dir=tmp_path)
    assert first.generate_json(["q1", "q2"], SCHEMA)[1].value == GOOD and len(first.log) == 4
    again = ScriptedLM(rules, cache_dir=tmp_path)
    assert again.generate_json(["q1", "q2"], SCHEMA)[1].value == GOOD and again.attempts == 0
    assert again.usage.cached_calls == 4
