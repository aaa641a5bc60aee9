"""Graphs: from WordNet's files and from triples, their parts, vectors of nodes; bad input."""

import logging

import numpy as np
import pytest
from datasets import Dataset
from kg_toys import CLASSES, graph, vectors

from hf_labels.data.kg_zero_shot import KnowledgeGraph, node_vectors
from hf_labels.data.offline_graphs import WordVectors, load_triples


def wordnet(folder):
    """Three nouns as WordNet writes them: entity, animal, cat; and a person who is an instance of animal."""
    head = "  1 licence\n"
    place = len(head)
    rows = [("03", "entity", [], "all there is"), ("05", "animal", [("@", 0)], 'it breathes; "an animal"')]
    rows += [("05", "cat", [("@", 1)], "it purrs"), ("18", "Felix", [("@i", 2)], "a cat of films")]
    offsets, lines = [], []
    for file, word, up, gloss in rows:
        offsets.append(place)
        pointers = "".join(f" {symbol} {offsets[number]:08d} n 0000" for symbol, number in up)
        lines.append(f"{place:08d} {file} n 01 {word} 0 {len(up):03d}{pointers} | {gloss}  \n")
        place += len(lines[-1])
    (folder / "data.noun").write_text(head + "".join(lines))
    index = [f"{w.lower()} n 1 0 1 0 {o:08d}  \n" for (_, w, _, _), o in zip(rows, offsets, strict=True)]
    (folder / "index.noun").write_text(head + "".join(sorted(index)))


def test_wordnet_becomes_nodes_names_texts_and_parents(tmp_path):
    wordnet(tmp_path)
    kg = KnowledgeGraph.from_wordnet(tmp_path)
    assert kg.nodes == ("entity.n.01", "animal.n.01", "cat.n.01", "Felix.n.01") and kg.names[2] == "cat"
    assert kg.edges.tolist() == [[1, 0], [2, 1], [3, 2]] and kg.texts[1] == "it breathes"
    assert kg.find("cat") == "cat.n.01" and kg.find("felix") == "Felix.n.01"
    assert kg.with_ancestors(["animal.n.01"]).nodes == ("animal.n.01", "entity.n.01")


def test_triples_come_from_rows_files_and_data_sets_and_go_back(tmp_path):
    rows = [("a", "isa", "b"), ("b", "isa", "c"), ("a", "likes", "c")]
    (tmp_path / "x.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    data = Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(("head", "relation", "tail"))})
    made = [KnowledgeGraph.from_triples(source) for source in (rows, tmp_path / "x.tsv", data)]
    assert all(one.nodes == ("a", "b", "c") and one.triples.tolist() == made[0].triples.tolist() for one in made)
    assert made[0].edges.tolist() == [[0, 1], [1, 2]]  # "likes" is no parent
    back = made[0].to_dataset()
    assert list(zip(*(back[name][:] for name in back.column_names), strict=True)) == rows
    assert made[0].numbered([("c", "likes", "a")]).tolist() == [[2, 1, 0]]


def test_parts_keep_their_triples_and_the_given_nodes_come_first():
    part = graph().with_ancestors(["wolf", "cat"])
    assert part.nodes[:2] == ("wolf", "cat") and set(part.nodes) == {
        "wolf",
        "cat",
        "canine",
        "feline",
        "animal",
        "thing",
    }
    names = {(part.nodes[a], part.nodes[b]) for a, b in part.edges.tolist()}
    assert names == {
        ("wolf", "canine"),
        ("cat", "feline"),
        ("canine", "animal"),
        ("feline", "animal"),
        ("animal", "thing"),
    }


def test_nodes_without_a_vector_get_their_relatives(caplog):
    kg, known = graph(), vectors()
    lost = {name: value for name, value in known.items() if name not in ("cat", "feline", "thing")}
    with caplog.at_level(logging.WARNING):
        found = dict(zip(kg.nodes, node_vectors(kg, lost), strict=True))
    assert "3 of 12 nodes have no vector" in caplog.text
    np.testing.assert_allclose(found["cat"], known["animal"])  # by way of its parent, which has none
    np.testing.assert_allclose(found["thing"], (known["animal"] + known["vehicle"]) / 2)  # from its children
    alone = KnowledgeGraph(("a", "b"), np.empty((0, 3)), ())
    assert node_vectors(alone, {"a": np.ones(2)}).tolist() == [[1, 1], [0, 0]]
    few = node_vectors(kg, known, ["dog", "cat"])
    np.testing.assert_allclose(few, [known["dog"], known["cat"]])


def test_word_vectors_average_over_words():
    words = WordVectors(["big", "cat"], np.array([[1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(words(["Big cat", "cat", "zzz"])[:2], [[0.5, 0.5], [0.0, 1.0]])
    assert np.isnan(words(["zzz"])).all() and words([]).shape == (0, 2)
    with pytest.raises(ValueError, match="1 different words for 2"):
        WordVectors(["a", "a"], np.ones((2, 2)))


def test_duplicate_triples_are_dropped_with_a_count(caplog):
    with caplog.at_level(logging.WARNING):
        kg = KnowledgeGraph.from_triples([("a", "r", "b"), ("a", "r", "b"), ("b", "r", "a")])
    assert kg.duplicates == 1 and len(kg.triples) == 2 and "1 duplicate" in caplog.text


def test_triples_that_are_known_backwards_are_named(caplog):
    kg = KnowledgeGraph.from_triples([("a", "above", "b"), ("c", "above", "d"), ("b", "near", "c")])
    test = np.array([[1, 0, 0], [3, 0, 2]])  # b above a, d above c
    with caplog.at_level(logging.WARNING):
        assert kg.inverse_leakage(test) == {"above": 1.0}
    assert "above are known backwards" in caplog.text
    assert kg.inverse_leakage(np.array([[0, 1, 3]])) == {}


@pytest.mark.parametrize(
    ("act", "match"),
    [
        (lambda: graph().number("cats"), "no node 'cats'.*Nearest: cat"),
        (lambda: graph().find("velhicle"), "Nearest: vehicle"),
        (lambda: KnowledgeGraph((), np.empty((0, 3)), ()), "no node"),
        (lambda: KnowledgeGraph(("a", "a"), np.empty((0, 3)), ()), "'a' comes more than once"),
        (lambda: KnowledgeGraph(("a",), np.empty((0, 3)), (), ("x", "y")), "1 nodes, 2 names"),
        (lambda: KnowledgeGraph(("a",), np.array([[0, 0, 4]]), ("r",)), "Triple 0"),
        (lambda: KnowledgeGraph.from_triples([]), "no triple"),
        (lambda: KnowledgeGraph.from_triples([("a", "r", "b"), ("a", "b")]), "Line 1 has 2 parts"),
        (lambda: graph().numbered([("cat", "isa", "unicorn")]), "Triple 0 has 'unicorn'.*unknown='skip'"),
        (lambda: node_vectors(graph(), np.ones((3, 2))), "one vector for each of the 12 nodes"),
        (lambda: node_vectors(graph(), np.full((12, 2), np.nan)), "No node has a vector"),
        (lambda: node_vectors(graph(), np.full((12, 2), np.inf)), "'cat' is infinite"),
        (lambda: load_triples("freebase"), "umls.*'freebase'"),
    ],
)
def test_bad_input_is_named(act, match):
    with pytest.raises(ValueError, match=match):
        act()


def test_unknown_triples_can_be_skipped_with_a_count(caplog):
    with caplog.at_level(logging.WARNING):
        found = graph().numbered([("cat", "isa", "unicorn"), ("cat", "isa", "dog")], unknown="skip")
    assert len(found) == 1 and "1 of 2 triples" in caplog.text


def test_packages_are_read_without_being_imported(tmp_path, monkeypatch):
    folder = tmp_path / "datasets" / "umls"
    folder.mkdir(parents=True)
    for part in ("train", "valid", "test"):
        (folder / f"{part}.txt").write_text("a\tr\tb\nb\tr\tc\n")
    monkeypatch.setattr("hf_labels.data.offline_graphs._package_folder", lambda *a, **k: tmp_path)
    data = load_triples("umls")
    assert set(data) == {"train", "valid", "test"} and data["test"][1] == {"head": "b", "relation": "r", "tail": "c"}
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install --no-deps pykeen"):
        load_triples("umls")
    assert CLASSES
