"""Hypotheses of labels: patterns, definitions from WordNet, a user or a language model, and templates."""

import logging

import pytest

from hf_labels.data.offline_wordnet import Synset
from hf_labels.data.zero_shot_tc_hypotheses import (
    ASPECTS,
    EMOTION,
    SITUATION,
    TOPIC,
    Aspect,
    complete_hypotheses,
    find_aspect,
    wordnet_hypotheses,
)
from hf_labels.labels.zero_shot_tc import alternate_labels
from hf_labels.lm.scripted import ScriptedLM

GLOSSES = {
    ("society", "noun"): "an extended social group",
    ("culture", "noun"): 'a particular society; "early Mayan culture"',
    ("joy", "noun"): "the emotion of great happiness",
    ("sad", "adj"): "feeling sorrow",
    ("sadness", "noun"): "(psychology) a state of gloom; (rare) seriousness; another clause",
    ("love", "noun"): f"a strong positive emotion; {'very ' * 30}long",
}


class Glosses:
    """Stands where [`WordNet`] stands: the first meaning of a few words."""

    def synsets(self, word, pos):
        found = [(one, GLOSSES[word, one]) for one in pos if (word, one) in GLOSSES]
        return [Synset(one, 0, "noun.state", (word,), gloss, ()) for one, gloss in found]


def test_names_and_definitions_in_the_patterns_of_the_aspect():
    found = wordnet_hypotheses(["Society & Culture"], wordnet=Glosses())
    assert found == {
        "Society & Culture": [
            "It is related with society or culture.",
            "This text describes something about an extended social group or a particular society.",
        ]
    }
    found = wordnet_hypotheses(["joy", "sadness"], "emotion", wordnet=Glosses())
    assert found["joy"] == ["This person feels joyful.", "This person expresses the emotion of great happiness."]
    assert found["sadness"] == ["This person feels sad.", "This person expresses a state of gloom."]  # no remarks


def test_long_definitions_are_cut_at_a_clause():
    found = wordnet_hypotheses(["love"], "emotion", wordnet=Glosses(), use="definitions")
    assert found == {"love": ["This person expresses a strong positive emotion."]}


def test_own_words_and_definitions_come_first():
    found = wordnet_hypotheses(
        ["happy", "joy"], wordnet=Glosses(), words={"happy": ["joy", "sad"]}, definitions={"joy": "bliss"}
    )
    both = "This text describes something about the emotion of great happiness or feeling sorrow."
    assert found["happy"] == ["It is related with joy or sad.", both]
    assert found["joy"] == ["It is related with joy.", "This text describes something about bliss."]


@pytest.mark.parametrize(("use", "places"), [("both", [0, 1]), ("names", [0]), ("definitions", [1])])
def test_names_or_definitions_alone(use, places):
    whole = wordnet_hypotheses(["joy"], wordnet=Glosses())["joy"]
    assert wordnet_hypotheses(["joy"], wordnet=Glosses(), use=use)["joy"] == [whole[i] for i in places]


def test_what_wordnet_lacks_is_told_or_asked(caplog):
    with caplog.at_level(logging.WARNING, logger="hf_labels"):
        found = wordnet_hypotheses(["joy", "zumba"], wordnet=Glosses(), use="definitions")
    assert found["zumba"] == ["It is related with zumba."] and "no word of zumba" in caplog.text
    caplog.clear()
    model = ScriptedLM([("Define `zumba`", "\n A fitness dance. \nMore text"), ("`x`", "word " * 99)])
    found = wordnet_hypotheses(["joy", "zumba"], wordnet=Glosses(), lm=model)
    assert found["zumba"][1] == "This text describes something about A fitness dance."
    assert len(model.log) == 1 and not caplog.records
    long = wordnet_hypotheses(["x"], wordnet=False, lm=model, use="definitions")["x"][0]
    assert long.count("word") == 24
    silent = wordnet_hypotheses(["zumba"], wordnet=False)
    assert silent == {"zumba": ["It is related with zumba."]} and not caplog.records


def test_the_benchmark_has_its_labels_halves_and_rules():
    assert [len(aspect.labels) for aspect in (TOPIC, EMOTION, SITUATION)] == [10, 9, 11]
    assert alternate_labels(EMOTION.labels) == ("sadness", "anger", "fear", "shame", "love")
    assert set(alternate_labels(SITUATION.labels)) == {
        *("search", "infra", "water", "med", "crimeviolence", "regimechange")
    }
    assert (TOPIC.none_label, EMOTION.none_label, SITUATION.none_label) == (None, "noemo", "out-of-domain")
    assert (TOPIC.seen_margin, EMOTION.seen_margin, SITUATION.seen_threshold, SITUATION.threshold) == (
        *(0.1, 0.05, 0.6, 0.5),
    )
    assert SITUATION.multi_label and not TOPIC.multi_label and not EMOTION.multi_label
    own = Aspect("genre", "It is {}.", "It is about {}.")
    assert find_aspect(own) is own and find_aspect("topic") is ASPECTS["topic"]
    assert wordnet_hypotheses(["joy"], own, wordnet=False) == {"joy": ["It is joy."]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": []}, "at least one"),
        ({"labels": ["a", "a"]}, "'a' twice"),
        ({"aspect": "weather"}, "topic, emotion, situation"),
        ({"use": "all"}, "'both', 'names' or 'definitions'"),
        ({"words": {"b": ["x"]}}, "`words` names 'b'"),
        ({"definitions": {"b": "x"}}, "`definitions` names 'b'"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        wordnet_hypotheses(**{"labels": ["a"], "wordnet": False, **options})


def test_a_label_without_hypothesis_gets_the_template():
    found = complete_hypotheses(["a", "b", "c"], {"b": "one sentence", "c": []}, "It is {}.")
    assert found == {"a": ["It is a."], "b": ["one sentence"], "c": ["It is c."]}
    for arguments, message in (
        (([], None, "It is {}."), "`candidate_labels` is empty"),
        ((["a", "a"], None, "It is {}."), "twice"),
        ((["a"], None, "It is."), "exactly one"),
        ((["a"], {"b": ["x"]}, "It is {}."), "'b', which is not a label: a"),
        ((["a"], {"a": ["x", " "]}, "It is {}."), "hypothesis of 'a' is empty"),
        ((["a"], {"a": [3]}, "It is {}."), "no text"),
    ):
        with pytest.raises(ValueError, match=message):
            complete_hypotheses(*arguments)
