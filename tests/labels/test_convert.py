"""Conversions between kinds against slow loops, and the repairs that the errors promise."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_labels.labels.kinds import (
    align_labels,
    check_column,
    convert_column,
    crowd_to_hard,
    crowd_to_soft,
    encode_labels,
    hard_to_multi,
    hard_to_soft,
    mask_missing,
    multi_to_soft,
    normalize_soft,
    repair_column,
    soft_to_hard,
)


def slow_votes(rows, num_labels):
    out = []
    for row in rows:
        votes = [0.0] * num_labels
        for answer in row:
            if answer != -1:
                votes[answer] += 1
        out.append(votes)
    return out


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1, 2), (7, 3, 4), (40, 9, 3)])
def test_crowd_against_a_loop(seed, shape):
    rows, annotators, num_labels = shape
    rng = np.random.default_rng(seed)
    answers = rng.integers(-1, num_labels, (rows, annotators))
    answers[:, 0] = np.maximum(answers[:, 0], 0)
    soft, hard = crowd_to_soft(answers, num_labels), crowd_to_hard(answers, num_labels)
    for i, votes in enumerate(slow_votes(answers.tolist(), num_labels)):
        assert soft[i].tolist() == pytest.approx([v / sum(votes) for v in votes], abs=1e-7)
        assert hard[i] == votes.index(max(votes))  # index gives the lowest id of a tie
    assert soft.dtype == np.float32 and hard.dtype == np.int64


def test_crowd_without_an_answer():
    answers = [[1, -1], [-1, -1]]
    with pytest.raises(ValueError, match="no answer at row 1 .1 such rows.*uniform"):
        crowd_to_soft(answers, 2)
    with pytest.raises(ValueError, match="no answer at row 1 .*missing"):
        crowd_to_hard(answers, 2)
    assert crowd_to_soft(answers, 2, "uniform").tolist() == [[0, 1], [0.5, 0.5]]
    assert crowd_to_hard(answers, 2, "missing").tolist() == [1, -1]
    with pytest.raises(ValueError, match="`on_empty` must be 'error' or 'uniform', got 'missing'"):
        crowd_to_soft(answers, 2, "missing")
    with pytest.raises(ValueError, match="got .3, -1. at row 0"):
        crowd_to_soft([[3, -1]], 2)


def test_hard_to_soft():
    assert hard_to_soft([1, 0], 3).tolist() == [[0, 1, 0], [1, 0, 0]]
    smooth = hard_to_soft(torch.tensor([1, 0]), 4, smoothing=0.2)
    assert smooth[0].tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])
    assert hard_to_soft([-1, 1], 2, on_empty="uniform").tolist() == [[0.5, 0.5], [0, 1]]
    with pytest.raises(ValueError, match="missing .-1. at row 1"):
        hard_to_soft([0, -1], 2)
    with pytest.raises(ValueError, match="`smoothing` must be in"):
        hard_to_soft([0], 2, smoothing=1.5)
    with pytest.raises(ValueError, match="in .0, 2. or -1, got 2 at row 0"):
        hard_to_soft([2], 2)
    with pytest.raises(TypeError, match="integer class ids, got float64"):
        hard_to_soft([0.0], 2)
    with pytest.raises(ValueError, match="`num_labels` must be at least 2"):
        hard_to_soft([0], 1)
    assert hard_to_soft(np.zeros(0, dtype=int), 2).shape == (0, 2)


def test_soft_to_hard_gives_ties_to_the_lowest_id():
    assert soft_to_hard([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0, 0, 1]]).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="all zero at row 1"):
        soft_to_hard([[1, 0], [0, 0]])
    with pytest.raises(ValueError, match="sums to 0.7 at row 0"):
        soft_to_hard([[0.5, 0.2]])


def test_soft_and_hard_are_inverse():
    ids = np.random.default_rng(0).integers(0, 5, 50)
    for smoothing in (0.0, 0.3):
        assert (soft_to_hard(hard_to_soft(ids, 5, smoothing)) == ids).all()


def test_multi_to_soft():
    rows = multi_to_soft([[1, 0, 1], [0, 1, 0]])
    assert rows.tolist() == [[0.5, 0, 0.5], [0, 1, 0]]
    assert multi_to_soft([[1, 1, -1]], mask=[[1, 0, 0]]).tolist() == [[1, 0, 0]]
    assert multi_to_soft([[0, 0]], on_empty="uniform").tolist() == [[0.5, 0.5]]
    with pytest.raises(ValueError, match="no positive label at row 1"):
        multi_to_soft([[1, 0], [0, 0]])
    with pytest.raises(ValueError, match="0 or 1 where observed, got .0.0, 2.0. at row 0"):
        multi_to_soft([[0, 2]])
    with pytest.raises(ValueError, match="one shape"):
        multi_to_soft([[0, 1]], mask=[[1]])


def test_hard_to_multi_hides_missing_rows():
    labels, mask = hard_to_multi([2, -1], 3)
    assert labels.tolist() == [[0, 0, 1], [0, 0, 0]] and mask.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_normalize_soft():
    assert normalize_soft([[2, 2], [0, 5]]).tolist() == [[0.5, 0.5], [0, 1]]
    with pytest.raises(ValueError, match="negative probability"):
        normalize_soft([[2, -1]])


def test_mask_missing_keeps_the_type_and_the_input():
    tensor = torch.tensor([0, -1, 2])
    assert mask_missing(tensor).tolist() == [0, -100, 2] and tensor.tolist() == [0, -1, 2]
    array = np.array([[-1, 3]], dtype=np.int32)
    assert mask_missing(array).tolist() == [[-100, 3]] and mask_missing(array).dtype == np.int32
    assert mask_missing([-1]).tolist() == [-100]


def test_convert_column_on_data_sets():
    data = Dataset.from_dict({"text": ["a", "b"], "annotator_labels": [[0, 1, 1], [2, -1, 2]], "index": [7, 9]})
    soft = convert_column(data.with_format("torch"), "crowd", "soft")
    assert soft.column_names == ["text", "annotator_labels", "index", "soft_labels"]
    assert soft.features["soft_labels"] == List(Value("float32"), length=3)
    assert soft.with_format(None)["soft_labels"][1] == [0, 0, 1]
    hard = convert_column(soft, "soft", "hard")
    assert hard.with_format(None)["labels"][:] == [1, 2]
    assert data.column_names == ["text", "annotator_labels", "index"]
    with pytest.raises(ValueError, match="`labels` exists already.*overwrite=True"):
        convert_column(hard, "crowd", "hard")
    assert convert_column(hard, "crowd", "hard", overwrite=True).with_format(None)["labels"][:] == [1, 2]
    with pytest.raises(ValueError, match="No way from kind 'soft' to 'crowd'; there are: hard -> soft"):
        convert_column(hard, "soft", "crowd")


def test_convert_follows_a_shuffle():
    data = Dataset.from_dict({"labels": list(range(5)) * 3, "index": list(range(15))}).shuffle(seed=3)
    soft = convert_column(data, "hard", "soft")
    assert [np.argmax(row["soft_labels"]) for row in soft] == [row["index"] % 5 for row in soft]
    assert soft["index"][:] == data["index"][:]


def test_convert_column_with_missing():
    silent = Dataset.from_dict({"annotator_labels": [[0, 1], [-1, -1]]})
    with pytest.raises(ValueError, match="no answer of any annotator at row 1"):
        convert_column(silent, "crowd", "soft")
    assert convert_column(silent, "crowd", "soft", on_empty="uniform")["soft_labels"][1] == [0.5, 0.5]
    assert convert_column(silent, "crowd", "hard", on_empty="missing")["labels"][:] == [0, -1]
    gaps = Dataset.from_dict({"annotator_labels": [[None, 1], [None, None]]})  # None is no answer, and not class 0
    assert convert_column(gaps, "crowd", "hard", on_empty="missing")["labels"][:] == [1, -1]
    assert convert_column(gaps, "crowd", "soft", on_empty="uniform")["soft_labels"][:] == [[0, 1], [0.5, 0.5]]
    masked = Dataset.from_dict({"labels": [[1, -1, 1]], "label_mask": [[1, 0, 1]]})
    assert convert_column(masked, "multi", "soft")["soft_labels"][0] == [0.5, 0, 0.5]
    multi = convert_column(Dataset.from_dict({"labels": [0, -1, 1]}), "hard", "multi", target_column="sets")
    assert multi["sets"][0] == [1, 0] and multi["label_mask"][1] == [0, 0]


def test_text_and_names():
    data = Dataset.from_dict({"label_text": ["dog", "cat", "dog"]})
    hard = convert_column(data, "text", "hard")
    assert hard.features["labels"].names == ["cat", "dog"] and hard["labels"][:] == [1, 0, 1]
    back = convert_column(hard.remove_columns("label_text"), "hard", "text")
    assert back["label_text"][:] == ["dog", "cat", "dog"]
    with pytest.raises(ValueError, match="no class names"):
        convert_column(Dataset.from_dict({"labels": [0, 1]}), "hard", "text")
    with pytest.raises(ValueError, match="no label .-1. at row 1"):
        convert_column(
            Dataset.from_dict({"labels": [0, -1, 1]}, features=Features({"labels": ClassLabel(names=["a", "b"])})),
            "hard",
            "text",
        )


def test_encode_labels():
    data = Dataset.from_dict({"a": [1, 2, 3, 4], "labels": [" dog", "cat", None, ""], "z": [1, 2, 3, 4]})
    coded = encode_labels(data, "labels")
    assert coded.column_names == ["a", "labels", "z"]
    assert coded.features["labels"].names == ["cat", "dog"] and coded["labels"][:] == [1, 0, -1, -1]
    assert encode_labels(data, "labels", ["dog", "cat", "emu"])["labels"][:] == [0, 1, -1, -1]
    with pytest.raises(
        ValueError, match="'cat' at row 1, which is not among the 2 names: dog, cats. Did you mean 'cats'"
    ):
        encode_labels(data, "labels", ["dog", "cats"])
    with pytest.raises(ValueError, match="distinct and not empty, got dog"):
        encode_labels(data, "labels", ["dog", "dog"])
    with pytest.raises(KeyError, match="Column `label` is missing.*Did you mean `labels`"):
        encode_labels(data, "label")
    with pytest.raises(ValueError, match="no label at all"):
        encode_labels(Dataset.from_dict({"labels": ["", None]}), "labels")
    only = encode_labels(Dataset.from_dict({"labels": ["b", "a"]}), "labels")
    assert only["labels"][:] == [1, 0]


def test_encode_numbers():
    assert encode_labels(Dataset.from_dict({"labels": [5, 9, 5]}), "labels")["labels"][:] == [0, 1, 0]
    floats = encode_labels(Dataset.from_dict({"labels": [1.0, None, 0.0]}), "labels")
    assert floats["labels"][:] == [1, -1, 0] and floats.features["labels"].names == ["0", "1"]
    assert encode_labels(Dataset.from_dict({"labels": [True, False]}), "labels")["labels"][:] == [1, 0]
    named = encode_labels(Dataset.from_dict({"labels": [1, 0, -100]}), "labels", ["no", "yes"])
    assert named["labels"][:] == [1, 0, -1] and named.features["labels"].names == ["no", "yes"]
    with pytest.raises(ValueError, match="fractions"):
        encode_labels(Dataset.from_dict({"labels": [0.5, 1.0]}), "labels")


def test_encode_a_dict_gives_all_splits_one_list_of_names():
    splits = DatasetDict(train=Dataset.from_dict({"y": ["a", "c"]}), test=Dataset.from_dict({"y": ["b", "a"]}))
    coded = encode_labels(splits, "y")
    assert isinstance(coded, DatasetDict)
    assert coded["train"].features["y"].names == coded["test"].features["y"].names == ["a", "b", "c"]
    assert coded["test"]["y"][:] == [1, 0]


def test_encode_label_sets():
    data = Dataset.from_dict({"labels": [["red", "blue"], [], ["red"]]})
    coded = encode_labels(data, "labels")
    assert coded["labels"][:] == [[1, 1], [0, 0], [0, 1]]
    assert check_column(coded, "multi").counts == (1, 2)
    ids = Dataset.from_dict(
        {"labels": [[0, 2], [1]]}, features=Features({"labels": List(ClassLabel(names=list("abc")))})
    )
    assert encode_labels(ids, "labels")["labels"][:] == [[1, 0, 1], [0, 1, 0]]


def test_align_labels():
    data = encode_labels(Dataset.from_dict({"y": ["a", "b", None]}), "y")
    assert align_labels(data, "y", ["b", "c", "a"])["y"][:] == [2, 0, -1]
    with pytest.raises(ValueError, match="class 'b' at row 1, which the wanted names lack"):
        align_labels(data, "y", ["a", "c"])
    with pytest.raises(ValueError, match="no ClassLabel"):
        align_labels(Dataset.from_dict({"y": [0]}), "y", ["a"])


@pytest.mark.parametrize(
    ("kind", "values", "want"),
    [
        ("hard", [0, None, 1], [0, -1, 1]),
        ("hard", [0.0, float("nan"), 1.0], [0, -1, 1]),
        ("hard", [0, -100, 1], [0, -1, 1]),
        ("hard", [True, False], [1, 0]),
        ("value", [1.0, None, float("inf"), 2.0], [1.0, 2.0]),
        ("value", [[1.0, 2.0], [1.0, None]], [[1.0, 2.0]]),
        ("soft", [[2.0, 2.0], [0.0, 5.0]], [[0.5, 0.5], [0.0, 1.0]]),
        ("crowd", [[0, 1], [1], [None, 1, 0]], [[0, 1, -1], [1, -1, -1], [-1, 1, 0]]),
        ("text", ["a", None, " ", "b"], ["a", "b"]),
        ("multi", [[1, None], [0, -1], [1, 0]], [[1, 0], [0, 0], [1, 0]]),
    ],
)
def test_repair_makes_the_column_pass(kind, values, want):
    column = "x"
    data = Dataset.from_dict({column: values, "other": list(range(len(values)))})
    with pytest.raises((ValueError, TypeError), match="repair_column|cast_column"):
        check_column(data, kind, column)
    fixed = repair_column(data, kind, column)
    check_column(fixed, kind, column)
    assert fixed[column][:] == want
    if kind == "multi":
        assert fixed["label_mask"][:] == [[1, 0], [1, 0], [1, 1]]
    assert check_column(repair_column(fixed, kind, column), kind, column) == check_column(fixed, kind, column)


def test_repair_keeps_names_and_says_when_it_cannot():
    data = Dataset.from_dict({"labels": [1, None]}, features=Features({"labels": ClassLabel(names=["a", "b"])}))
    fixed = repair_column(data, "hard")
    assert fixed.features["labels"].names == ["a", "b"] and fixed["labels"][:] == [1, -1]
    with pytest.raises(ValueError, match="'bag' has no automatic repair"):
        repair_column(Dataset.from_dict({"bag_id": [0]}), "bag")
    with pytest.raises(ValueError, match="1.5 at row 1, which is no class label"):
        repair_column(Dataset.from_dict({"labels": [0.0, 1.5]}), "hard")
