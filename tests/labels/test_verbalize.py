"""Label names, descriptions, templates and hypotheses as one object."""

import doctest
import logging

import pytest
from datasets import ClassLabel, Dataset, Features

from hf_labels.labels import verbalize
from hf_labels.labels.verbalize import LabelSpace

SPACE = LabelSpace.from_descriptions({"acne": "pimples on the face", "insomnia": "no sleep"})


def test_the_example_in_the_docstring_runs():
    result = doctest.testmod(verbalize)
    assert result.attempted >= 4 and result.failed == 0


def test_order_is_the_class_id():
    assert SPACE.label2id == {"acne": 0, "insomnia": 1} and SPACE.id2label == {0: "acne", 1: "insomnia"}
    assert SPACE.texts() == ["pimples on the face", "no sleep"] and len(SPACE) == 2
    assert SPACE.encode(["insomnia", "acne"]) == [1, 0] and SPACE.id_of("insomnia") == 1


def test_names_describe_themselves():
    space = LabelSpace.from_names([" sport ", "politics"])
    assert space.names == ("sport", "politics") and space.texts() == ["sport", "politics"]
    assert space.with_descriptions({"sport": "games"}).texts() == ["games", "politics"]


def test_hypotheses():
    made = SPACE.hypotheses(["It is {}.", "About {}?"])
    assert made["acne"] == ["It is acne.", "It is pimples on the face.", "About acne?", "About pimples on the face?"]
    assert SPACE.hypotheses("It is {}.", definitions=False) == {
        "acne": ["It is acne."],
        "insomnia": ["It is insomnia."],
    }
    assert SPACE.hypotheses()["insomnia"][0] == "This example is insomnia."
    odd = LabelSpace.from_names(["{0}", "a{b}"])  # braces in a name are text, not format fields
    assert odd.hypotheses("x {}")["{0}"] == ["x {0}"] and odd.prompts("x {}") == ["x {0}", "x a{b}"]
    double = LabelSpace(("sport",), {"sport": "sport"})
    assert double.hypotheses("{}") == {"sport": ["sport"]}


@pytest.mark.parametrize("template", ["no slot", "{} and {}", "{0}", ""])
def test_bad_template(template):
    with pytest.raises(ValueError, match="exactly one `{}`"):
        SPACE.hypotheses(template)
    with pytest.raises(ValueError, match="exactly one `{}`"):
        LabelSpace.from_names(["a"], [template])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LabelSpace(()), ValueError, "`names` is empty"),
        (lambda: LabelSpace.from_names(["a", " "]), ValueError, "empty name at position 1"),
        (lambda: LabelSpace.from_names(["a", "b", "a "]), ValueError, "'a' twice, at positions 0 and 2"),
        (lambda: LabelSpace.from_names("sport"), TypeError, "must be a list of names, got the text 'sport'"),
        (lambda: LabelSpace.from_names(["a", 3]), TypeError, "must be text, got 3 at position 1. Write it as '3'"),
        (lambda: LabelSpace(("a",), {"b": "x"}), ValueError, "describes 'b', which is not a label"),
        (lambda: LabelSpace(("sport",), {"sports": "x"}), ValueError, "Did you mean 'sport'"),
        (lambda: LabelSpace(("a",), {"a": " "}), ValueError, "`descriptions` of 'a' is empty"),
        (lambda: LabelSpace(("a",), ["x"]), TypeError, "must be a dict name -> text, got list"),
        (lambda: LabelSpace.from_descriptions(["a"]), TypeError, "must be a dict name -> text"),
        (lambda: LabelSpace.from_descriptions({"": ""}), ValueError, "empty name at position 0"),
        (lambda: SPACE.encode(["acne", "akne"]), ValueError, "'akne' at row 1 is not a label.*Did you mean 'acne'"),
        (lambda: SPACE.id_of("x"), KeyError, "'x' is not a label"),
        (lambda: LabelSpace(("a",), {}, ()), ValueError, "`templates` is empty"),
    ],
)
def test_bad_spaces(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_missing_and_equal_descriptions_are_reported(caplog):
    with caplog.at_level(logging.WARNING):
        space = LabelSpace.from_descriptions({"a": "Same  text", "b": "same text", "c": "", "d": None})
    assert space.texts() == ["Same  text", "same text", "c", "d"] and space.indistinct() == [("a", "b")]
    assert "No description of c, d" in caplog.text and "a and b have one description" in caplog.text


def test_from_dataset():
    coded = Dataset.from_dict({"labels": [1]}, features=Features({"labels": ClassLabel(names=["no", "yes"])}))
    assert LabelSpace.from_dataset(coded).names == ("no", "yes")
    texts = Dataset.from_dict({"y": ["sport", "arts", "sport"]})
    space = LabelSpace.from_dataset(texts, "y", {"sport": "games", "arts": "paintings"})
    assert space.names == ("arts", "sport") and space.texts() == ["paintings", "games"]
    assert LabelSpace.from_dataset(Dataset.from_dict({"labels": [2, 0]})).names == ("0", "2")
    with pytest.raises(
        ValueError, match="label 'arts', which `label_descriptions` lacks; it has: art, sport. Did you"
    ):
        LabelSpace.from_dataset(texts, "y", {"art": "paintings", "sport": "games"})
    with pytest.raises(ValueError, match="describes 'tech', which is not a label"):
        LabelSpace.from_dataset(texts, "y", {"arts": "x", "sport": "y", "tech": "z"})
    with pytest.raises(KeyError, match="Column `labels` is missing; the data set has: y"):
        LabelSpace.from_dataset(texts)


def test_json_round_trip():
    space = LabelSpace(("ä", 'b"\n'), {"ä": "ü {x}"}, ("a {}", "b {}"))
    assert LabelSpace.from_json(space.to_json()) == space and LabelSpace.from_dict(space.to_dict()) == space
    assert hash(LabelSpace.from_json(space.to_json())) == hash(space)
    for bad, message in [("{", "No JSON"), ("[]", "JSON object, got list"), ('{"labels": []}', "got labels")]:
        with pytest.raises(ValueError, match=message):
            LabelSpace.from_json(bad)


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        SPACE.names = ("x",)
