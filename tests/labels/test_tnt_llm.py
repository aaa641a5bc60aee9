"""Taxonomies: rules, names, files, batches, measures."""

import numpy as np
import pytest

from hf_labels.hub_cards import taxonomy_plot
from hf_labels.labels.tnt_llm import Taxonomy, TaxonomyLabel, check_table, minibatches
from hf_labels.metrics import functional as fn

ROWS = [{"name": "Acne", "description": "Skin."}, {"name": "Type 2 diabetes", "description": "Sugar."}]


def taxonomy(**options):
    return Taxonomy(tuple(TaxonomyLabel(i, **row) for i, row in enumerate(ROWS, start=1)), "conditions", **options)


def test_good_tables_are_numbered_and_long_ones_warned_about():
    labels, problems, warnings = check_table([{"id": 9, **row} for row in ROWS], 5)
    assert [label.id for label in labels] == [1, 2] and not problems and not warnings
    long = [{"name": "a b c", "description": "d " * 9}, ROWS[0]]
    _, problems, warnings = check_table(long, 5, name_words=2, description_words=8)
    assert not problems and "more than 2 words" in warnings[0] and "more than 8 words" in warnings[1]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (ROWS[:1], "there are 1 labels, 2 to 3 are allowed"),
        ([*ROWS, *ROWS], "there are 4 labels"),
        ([ROWS[0], {"name": "acne ", "description": "x"}], "the name 'acne' occurs twice"),
        ([ROWS[0], {"name": "General", "description": "x"}], "'General' is vague"),
        ([ROWS[0], {"name": "", "description": "x"}], "label 2 has no name"),
        ([ROWS[0], {"name": "Flu", "description": " "}], "'Flu' has no description"),
    ],
)
def test_bad_tables_are_explained(table, problem):
    assert any(problem in text for text in check_table(table, 3)[1])


def test_names_are_matched_by_case_space_and_likeness():
    found = taxonomy()
    assert [found.match(name) for name in ("ACNE", "type2 diabetes", "Type 2 diabetis")] == [0, 1, 1]
    assert [found.match(name) for name in ("Other", "none", "Undefined", "Asthma")] == [2, 2, 2, None]


def test_taxonomy_goes_through_files_with_its_history(tmp_path):
    history = ({"step": 0, "kind": "generate", "rating": None, "table": ROWS, "accepted": True},)
    found = taxonomy(history=history, config={"seed": 0}, complete=False)
    found.save(tmp_path)
    assert Taxonomy.load(tmp_path) == found
    assert found.as_class_label().names == ["Acne", "Type 2 diabetes", "Other"]
    assert found.as_class_label(fallback=False).num_classes == 2 and len(found) == 2
    with pytest.raises(FileNotFoundError, match=r"taxonomy\.json"):
        Taxonomy.load(tmp_path / "..")


def test_names_of_people_make_a_taxonomy_and_pipes_do_not_break_the_table():
    found = Taxonomy.from_names({"a|b": "x", "c": "y"}, "use")
    assert "a\\|b" in found.to_markdown() and Taxonomy.from_names(["p", "q"], "use").labels[1].description == "q"
    with pytest.raises(ValueError, match="occurs twice"):
        Taxonomy.from_names(["p", "P"], "use")


def test_tree_picture_names_its_labels(tmp_path):
    plot = taxonomy_plot("what hurts", [("Acne", "Skin."), ("$x$", "<b>")], tmp_path / "tree.png", counts={"Acne": 7})
    assert plot.path.stat().st_size > 1000 and plot.alt.startswith("Taxonomy of 2 labels for what hurts: Acne")
    with pytest.raises(ValueError, match="nothing to draw"):
        taxonomy_plot("x", [], tmp_path / "tree.png")


@pytest.mark.parametrize(("count", "size"), [(23, 5), (20, 5), (7, 5), (3, 5), (5, 5)])
def test_batches_cover_all_rows_and_only_the_last_repeats(count, size):
    parts = minibatches(count, size, seed=1)
    assert len(parts) == max(-(-count // size), 1) and all(len(part) == min(size, count) for part in parts)
    assert set(np.concatenate(parts)) == set(range(count))
    assert all(len(set(part)) == len(part) for part in parts)
    if len(parts) > 1:
        assert len(set(np.concatenate(parts[:-1]))) == size * (len(parts) - 1)
    for one, two in zip(parts, minibatches(count, size, seed=1), strict=True):
        assert (one == two).all()


def test_no_rows_no_batches():
    with pytest.raises(ValueError, match="at least 2 rows"):
        minibatches(1, 5)


def test_measures():
    assert fn.taxonomy_coverage(["a", "Other", None, "b"]) == pytest.approx(2 / 3)
    assert fn.pairwise_label_accuracy([0, 1, 2, None]) == pytest.approx(1 / 3)
    found = fn.label_set_scores([["a"], []], [["a", "b"], []], ["a", "b", "c"])
    assert found["micro"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)}
    assert found["macro_f1"] == pytest.approx(1 / 3) and found["exact_match"] == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fn.taxonomy_coverage([None]), "no coverage"),
        (lambda: fn.pairwise_label_accuracy([]), "chose nothing"),
        (lambda: fn.label_set_scores([["z"]], [["a"]], ["a"]), "Row 0 has the label 'z'"),
        (lambda: fn.label_set_scores([], [], ["a"]), "predictions for 0 texts"),
    ],
)
def test_measures_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()
