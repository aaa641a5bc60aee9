"""Tag order, pseudo tags, similarity of entities by events, embeddings of events, number of clusters."""

import numpy as np
import pytest

from hf_labels.labels.name_tagging_metric import (
    check_tag_names,
    choose_clusters,
    concat_event,
    event_sentence,
    event_similarity,
    pseudo_tags,
)

RNG = np.random.default_rng(0)
EVENTS = [RNG.normal(size=(count, 5)) for count in (3, 0, 1, 4)]


def by_loop(events, agg):
    out = np.zeros((len(events), len(events)))
    for i, one in enumerate(events):
        for j, two in enumerate(events):
            if len(one) and len(two):
                a, b = (one.mean(0, keepdims=True), two.mean(0, keepdims=True)) if agg == "centraldist" else (one, two)
                pairs = [float(u @ v / np.linalg.norm(u) / np.linalg.norm(v)) for u in a for v in b]
                out[i, j] = {"max": max, "min": min, "mean": np.mean, "centraldist": max}[agg](pairs)
    return out


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("agg", ["max", "min", "mean", "centraldist"])
def test_similarity_of_events_equals_the_loop(agg, chunk):
    found = event_similarity(EVENTS, agg, chunk)
    assert np.allclose(found, by_loop(EVENTS, agg), atol=1e-6)
    assert np.allclose(found, found.T) and (abs(found) <= 1).all()


def test_aggregations_are_in_order_and_no_events_are_zeros():
    high, middle, low = (event_similarity(EVENTS, agg) for agg in ("max", "mean", "min"))
    assert (high >= middle - 1e-6).all() and (middle >= low - 1e-6).all()
    assert (event_similarity([np.zeros((0, 3)), np.zeros((0, 3))]) == 0).all()


def test_gold_words_are_never_pseudo():
    gold, seen = [3, 0, 0, -100, 0], ["B-X", "B-X", "I-X", "B-X", "O"]
    assert pseudo_tags(gold, seen) == [0, 1, 2, 0, 0]
    assert pseudo_tags(gold, [1, 3, 4, 1, 0]) == [0, 1, 2, 0, 0]
    with pytest.raises(ValueError, match="5 gold tags and 1"):
        pseudo_tags(gold, ["O"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "must be 'O', got 'no tags'"),
        (["B-X", "I-X"], "must be 'O', got 'B-X'"),
        (["O", "B-X", "B-Y", "I-X", "I-Y"], "got 'B-X' and 'B-Y'"),
        (["O", "B-X"], "got 'B-X' and 'nothing'"),
    ],
)
def test_tags_out_of_order_are_named(names, message):
    with pytest.raises(ValueError, match=message):
        check_tag_names(names)


TABLE = {name: RNG.normal(size=4) for name in ("a", "b", "run: runs", "stop: stops")}
INNER = {"identifier": "stop: stops", "args": {"Theme": ["a"], "Cause": ["b"]}, "self_role": None}


def test_concatenated_events():
    event = {"identifier": "run: runs", "args": {"Theme": ["a", "b"], "AtLoc": ["b"]}, "self_role": ["Theme", 1]}
    mine = np.ones(4)
    found = concat_event(event, TABLE, self_embedding=mine).reshape(5, 4)
    assert np.allclose(found[0], TABLE["run: runs"]) and np.allclose(found[1], (TABLE["a"] + mine) / 2)
    assert (found[[2, 3]] == 0).all() and np.allclose(found[4], TABLE["b"])  # AtLoc is a site
    drawn = [concat_event(event, TABLE, missing=np.random.default_rng(1)) for _ in range(2)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0].reshape(5, 4)[2] != 0).all()


def test_nested_events_are_brought_down_to_one_vector():
    event = {"identifier": "run: runs", "args": {"Theme": ["Nested_Event-e1"]}, "self_role": ["Theme", 3]}
    inner = concat_event(INNER, TABLE)
    found = concat_event(event, TABLE, nested={"e1": INNER}).reshape(5, 4)
    assert np.allclose(found[1], inner.reshape(4, 5).mean(1))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"Theme": ["Nested_Event-e2"]}, "no nested event 'e2'"),
        ({"Theme": ["Nested_Event-e1"]}, "contain each other: e1 -> e1"),
        ({"Theme": ["c"]}, "no embedding of 'c'"),
        ({"Colour": ["a"]}, "unknown role 'Colour'"),
    ],
)
def test_unknown_parts_of_events_are_named(args, message):
    event = {"identifier": "run: runs", "args": args, "self_role": None}
    nested = {"e1": INNER | {"args": {"Theme": ["Nested_Event-e1"]}}}
    with pytest.raises(ValueError, match=message):
        concat_event(event, TABLE, nested=nested)


def test_events_in_words():
    event = {"trigger": "binds", "args": {"Theme": ["p53", "mdm2"], "Cause": ["akt"]}, "self_role": ["Theme", 0]}
    template = "<Cause> <Trigger> <Theme> at <Site>."
    assert event_sentence(template, event) == "akt binds (self), mdm2."
    doubt = event | {"modality": "speculation"}
    assert event_sentence(template, doubt) == "akt binds (self), mdm2. This is uncertain."
    outer = {"trigger": "stops", "args": {"Theme": ["Nested_Event-e1"]}, "self_role": None}
    assert event_sentence("It <Trigger> <Theme>.", outer, {"e1": "Akt binds."}) == 'It stops "akt binds".'
    with pytest.raises(ValueError, match="no sentence of the nested event 'e1'"):
        event_sentence(template, outer)


def test_number_of_clusters():
    rows = np.concatenate([RNG.normal(center, 0.05, size=(20, 2)) for center in (0, 5, 9)])
    best, scores = choose_clusters(rows, range(2, 7))
    assert best == 3 and len(scores) == 5
    with pytest.raises(ValueError, match="at least 2 rows"):
        choose_clusters([[1.0, 1.0]])


@pytest.mark.parametrize(
    ("events", "agg", "message"),
    [
        (EVENTS, "sum", "max, min, mean, centraldist"),
        ([np.ones((1, 2)), np.ones((1, 3))], "max", "entity 1 must be finite vectors of width 2"),
        ([np.full((1, 2), np.nan)], "max", "entity 0"),
    ],
)
def test_bad_events_are_named(events, agg, message):
    with pytest.raises(ValueError, match=message):
        event_similarity(events, agg)
