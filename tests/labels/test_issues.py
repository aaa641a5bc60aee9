"""The common format of suspected label errors."""

import datasets
import numpy as np
import pytest

from hf_labels.labels.issues import ClassVanishesError, LabelIssues, combine

NAMES = ("cat", "dog", "owl")


def rows(labels=(0, 1, 2, 0, 1, -1)):
    features = datasets.Features({"text": datasets.Value("string"), "labels": datasets.ClassLabel(names=list(NAMES))})
    texts = [f"text {i}" for i in range(len(labels))]
    return datasets.Dataset.from_dict({"text": texts, "labels": list(labels)}, features=features)


def issues(flags=(0, 1, 0, 1, 0, 0), quality=(0.9, 0.2, 0.8, 0.1, 0.7, np.nan), suggested=(0, 2, 2, 1, 1, 0), **rest):
    given = rest.pop("given", np.array([0, 1, 2, 0, 1, -1]))
    return LabelIssues(given, np.array(suggested), np.array(quality), np.array(flags, dtype=bool), NAMES, **rest)


def test_flagged_rows_are_ranked_most_suspicious_first_and_ties_keep_their_order():
    assert issues().ranked().tolist() == [3, 1]
    assert issues(quality=(0.9, 0.2, 0.8, 0.2, 0.7, np.nan)).ranked().tolist() == [1, 3]


def test_annotated_data_set_reads_back_the_same():
    data = issues().annotate(rows())
    assert data.column_names == ["text", "labels", "label_quality", "is_issue", "suggested_label"]
    assert data.features["suggested_label"].names == list(NAMES)
    again = LabelIssues.from_columns(data)
    for name in ("given", "suggested", "quality", "is_issue"):
        np.testing.assert_array_equal(getattr(again, name), getattr(issues(), name))
    assert again.names == NAMES
    with pytest.raises(KeyError, match="label_quality"):
        LabelIssues.from_columns(rows())


def test_filter_drops_and_flip_replaces_and_both_keep_the_original():
    dropped = issues().apply(rows(), "filter")
    assert dropped["text"][:] == ["text 0", "text 2", "text 4", "text 5"]
    flipped = issues().apply(rows(), "flip")
    assert flipped["labels"][:] == [0, 2, 2, 1, 1, -1]
    assert flipped["label_original"][:] == [0, 1, 2, 0, 1, -1]
    assert flipped.features["labels"] == rows().features["labels"]


def test_a_filter_does_not_remove_a_class_unless_told():
    bad = issues(flags=(0, 0, 1, 0, 0, 0))
    with pytest.raises(ClassVanishesError, match="class owl"):
        bad.apply(rows(), "filter")
    assert len(bad.apply(rows(), "filter", allow_empty_class=True)) == 5


def test_apply_refuses_other_data():
    with pytest.raises(ValueError, match="5 rows"):
        issues().apply(rows().select(range(5)), "flip")
    with pytest.raises(ValueError, match="was dog at row 1"):
        issues().apply(rows((0, 2, 2, 0, 1, -1)), "flip")
    with pytest.raises(ValueError, match="expected 'filter' or 'flip'"):
        issues().apply(rows(), "drop")
    with pytest.raises(KeyError, match="label_column"):
        issues().apply(rows(), "flip", "label")


def test_shapes_and_unjudged_flags_are_refused():
    with pytest.raises(ValueError, match="`suggested` has shape"):
        issues(suggested=(0, 1))
    with pytest.raises(ValueError, match="`quality` has shape"):
        issues(quality=(0.1,))
    with pytest.raises(ValueError, match="Row 5 is flagged"):
        issues(flags=(0, 0, 0, 0, 0, 1))


def test_plural_labels_work_the_same():
    given = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]])
    suggested = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 1]])
    found = LabelIssues(given, suggested, np.array([0.1, 0.9, 0.2]), np.array([True, False, True]), NAMES)
    data = datasets.Dataset.from_dict({"labels": given.tolist()})
    assert found.apply(data, "flip")["labels"][:] == suggested.tolist()
    assert (LabelIssues.from_columns(found.annotate(data)).suggested == suggested).all()
    assert [found.name_of(row) for row in given] == ["cat, owl", "(none)", "dog"]
    with pytest.raises(ClassVanishesError, match="class"):
        found.apply(data, "filter")


def test_combined_flags_and_order():
    one = issues(source="one")
    two = issues(
        flags=(0, 1, 1, 0, 0, 0), quality=(9, 1, 0, 3, np.nan, np.nan), suggested=(0, 0, 1, 1, 1, 0), source="two"
    )
    assert combine([one, two]).ranked().tolist() == [1, 3, 2]
    both = combine([one, two], how="all")
    assert both.ranked().tolist() == [1]
    assert both.suggested[1] == 2 and both.suggested[2] == 1  # rank .25 against .33; row 2 is flagged by `two` only
    assert both.source == "one + two"
    assert np.isnan(both.quality[5]) and both.quality[4] == pytest.approx(0.5)
    assert combine([one]).is_issue.tolist() == one.is_issue.tolist()
    assert combine([one, one, two], how="majority").ranked().tolist() == [3, 1]


def test_combine_refuses():
    with pytest.raises(ValueError, match="empty"):
        combine([])
    with pytest.raises(ValueError, match=r"issues\[1\]"):
        combine([issues(), issues(given=np.array([0, 1, 2, 0, 2, -1]))])
    with pytest.raises(ValueError, match="expected 'any'"):
        combine([issues()], how="some")
