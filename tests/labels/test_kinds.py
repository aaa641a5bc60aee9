"""Every kind: what is accepted, what is refused with column, row and repair, on every way to hold the data."""

import sys
from collections import Counter

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from hf_labels.labels import kinds
from hf_labels.labels.kinds import KINDS, check_column, check_same_label_space, check_stream, check_values, find_kinds

NAMES = ["cat", "dog", "emu"]


def named(ids):
    return Dataset.from_dict({"labels": ids}, features=Features({"labels": ClassLabel(names=NAMES)}))


def test_table_is_the_design():
    assert list(KINDS) == ["hard", "value", "multi", "soft", "crowd", "bag", "text", "sequence"]
    columns = {kind: row.column for kind, row in KINDS.items()}
    assert columns["hard"] == columns["multi"] == columns["value"] == columns["sequence"] == "labels"
    assert columns["soft"] == "soft_labels" and columns["crowd"] == "annotator_labels" and columns["bag"] == "bag_id"
    assert (kinds.MISSING, kinds.IGNORE_INDEX) == (-1, -100)


GOOD = {
    "hard": ([0, 2, -1, 1], {"num_labels": 3, "num_missing": 1, "counts": (1, 1, 1)}),
    "value": ([0.5, -3.0], {"num_labels": 1}),
    "multi": ([[1, 0, 1], [0, 0, 0]], {"num_labels": 3, "counts": (1, 0, 1)}),
    "soft": ([[0.25, 0.75], [1, 0]], {"num_labels": 2, "counts": (1, 1)}),
    "crowd": ([[0, 1, -1], [2, 2, 2]], {"num_labels": 3, "num_missing": 1, "counts": (1, 1, 3)}),
    "text": (["good", "bad"], {"num_labels": None}),
    "sequence": ([[1, 2, -100], [5]], {"num_labels": 6, "num_missing": 1}),
}


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(
    "form", [None, "numpy", "torch", "pandas", "arrow", "transform", "shuffled", "stream", "dict"]
)
def test_good_columns_in_every_form(kind, form):
    values, want = GOOD[kind]
    name = KINDS[kind].column
    data = Dataset.from_dict({name: values, "other": [b"x"] * len(values)})
    if form in ("numpy", "torch", "pandas", "arrow"):
        data = data.with_format(form)
    elif form == "transform":
        data = data.with_transform(lambda batch: 1 / 0)
    elif form == "shuffled":
        data = data.shuffle(seed=1)
    elif form == "stream":
        data = data.to_iterable_dataset()
    elif form == "dict":
        data = {name: values}
    report = check_column(data, kind)
    assert {key: getattr(report, key) for key in want} == want
    assert (report.num_rows, report.column, report.complete) == (len(values), name, form != "stream")


@pytest.mark.parametrize("make", [np.array, torch.tensor, list, pa.array])
def test_values_without_a_data_set(make):
    assert check_values(make([0, 1, -1]), "hard").num_missing == 1
    if make is not pa.array:
        assert check_values(make([[0.5, 0.5], [0.0, 1.0]]), "soft").num_labels == 2
    with pytest.raises(ValueError, match="Column `y` must be in .0, 2., got 2 at row 1"):
        check_values(make([0, 2]), "hard", column="y", num_labels=2)


def test_half_precision_tensors():
    rows = torch.full((4, 3), 1 / 3, dtype=torch.float16)
    assert check_values(rows, "soft", min_classes=1).num_labels == 3


BAD = {
    "range": ("hard", [0, 1, 7], {"num_labels": 3}, ValueError, r"in \[0, 3\), got 7 at row 2.*num_labels=8.*-1"),
    "below": ("hard", [0, 1, -2], {}, ValueError, r"0 or larger, got -2 at row 2.*Use -1"),
    "batch marker": ("hard", [0, 1, -100], {}, ValueError, r"got -100 at row 2.*belongs in a batch.*repair_column"),
    "none": ("hard", [0, None, 1], {}, ValueError, r"None or NaN at row 1.*Use -1.*repair_column"),
    "nan": ("hard", [0.0, 1.0, float("nan")], {}, ValueError, r"None or NaN at row 2"),
    "floats": ("hard", [0.0, 1.0], {}, TypeError, r"float64.*row 0.*encode_labels"),
    "fraction": ("hard", [0.0, 1.5], {}, ValueError, r"1.5 at row 1, which is no class id.*kind `value`"),
    "booleans": ("hard", [True, False], {}, TypeError, r"True/False.*cast_column"),
    "text": ("hard", ["cat", "dog"], {}, TypeError, r"holds text \('cat' at row 0\).*encode_labels\(dataset"),
    "lists": ("hard", [[0], [1]], {}, ValueError, r"holds lists.*kind `multi`"),
    "all missing": ("hard", [-1, -1], {}, ValueError, r"no label at all.*row 0.*Label some rows"),
    "missing refused": ("hard", [0, 1, -1], {"optional_missing": False}, ValueError, r"no label .* row 2.*filter"),
    "one class": ("hard", [0, 0], {}, ValueError, r"one class only.*row 0.*at least two"),
    "one of two": ("hard", [1, 1], {"num_labels": 2, "min_classes": 2}, ValueError, r"only \(id 1, from row 0"),
    "empty": ("hard", [], {}, ValueError, r"is empty: the data set has 0 rows"),
    "value none": ("value", [1.0, None], {}, ValueError, r"NaN at row 1.*repair_column"),
    "value inf": ("value", [1.0, float("inf")], {}, ValueError, r"infinite value at row 1"),
    "value ragged": ("value", [[1.0], [1.0, 2.0]], {}, ValueError, r"2 numbers at row 1, row 0 has 1"),
    "value text": ("value", ["1"], {}, TypeError, r"holds text .'1' at row 0"),
    "value width": ("value", [1.0], {"num_labels": 3}, ValueError, r"one number per row .row 0.*num_labels=3"),
    "multi scalar": ("multi", [0, 1], {}, ValueError, r"one value per row, expected a 0/1 vector"),
    "multi ragged": ("multi", [[0, 1], [1]], {}, ValueError, r"1 entries at row 1, row 0 has 2.*encode_labels"),
    "multi ids": ("multi", [[0, 1], [0, 4]], {}, ValueError, r"must be 0 or 1, got 4 at row 1.*encode_labels"),
    "multi unknown": ("multi", [[0, 1], [0, -1]], {}, ValueError, r"-1 \(unknown\) at row 1.*label_mask"),
    "multi nan": ("multi", [[0, 1], [0, None]], {}, ValueError, r"NaN at row 1.*label_mask"),
    "multi none row": ("multi", [[0, 1], None], {}, ValueError, r"None at row 1, expected a list"),
    "multi width": ("multi", [[0, 1]], {"num_labels": 3}, ValueError, r"2 entries at row 0, expected 3"),
    "multi texts": ("multi", [["a"], ["b"]], {}, TypeError, r"holds text .'a' at row 0.*encode_labels"),
    "soft sum": ("soft", [[0.5, 0.5], [0.5, 0.2]], {}, ValueError, r"sums to 0.7 at row 1, expected 1.*repair_column"),
    "soft zero": ("soft", [[0.5, 0.5], [0, 0]], {"normalize": True}, ValueError, r"all zero at row 1"),
    "soft negative": ("soft", [[0.5, 0.5], [1.2, -0.2]], {}, ValueError, r"negative .* \(-0.2\) at row 1.*softmax"),
    "soft nan": ("soft", [[0.5, 0.5], [float("nan"), 1.0]], {}, ValueError, r"NaN at row 1"),
    "soft inf": ("soft", [[0.5, 0.5], [float("inf"), 1.0]], {}, ValueError, r"not finite at row 1"),
    "soft ragged": ("soft", [[0.5, 0.5], [1.0]], {}, ValueError, r"1 probabilities at row 1, row 0 has 2"),
    "soft hard": ("soft", [0, 1], {}, ValueError, r"one value per row.*convert_column"),
    "soft one": ("soft", [[1.0], [1.0]], {}, ValueError, r"1 class\(es\) from row 0"),
    "soft one of two": ("soft", [[1, 0], [1, 0]], {"min_classes": 2}, ValueError, r"1 class\(es\) only \(id 0"),
    "soft width": ("soft", [[0.5, 0.5]], {"num_labels": 4}, ValueError, r"2 probabilities at row 0, expected 4"),
    "crowd silent": ("crowd", [[0, 1], [-1, -1]], {}, ValueError, r"no answer of any .* row 1 .1 such.*uniform"),
    "crowd ragged": ("crowd", [[0, 1], [0]], {}, ValueError, r"1 annotators at row 1, row 0 has 2.*pads with -1"),
    "crowd none": ("crowd", [[0, 1], [0, None]], {}, ValueError, r"NaN at row 1.*Use -1 for no answer"),
    "crowd range": ("crowd", [[0, 1], [0, 9]], {"num_labels": 3}, ValueError, r"in \[0, 3\), got 9 at row 1"),
    "crowd complete": ("crowd", [[0, 1], [0, -1]], {"optional_missing": False}, ValueError, r"lacks .* at row 1"),
    "crowd hard": ("crowd", [0, 1], {}, ValueError, r"one class id per annotator"),
    "crowd zero wide": ("crowd", [[], []], {}, ValueError, r"no answer of any annotator at row 0"),
    "bag table": ("bag", [0, 1], {}, ValueError, r"needs a table.*bag_table="),
    "bag unknown": ("bag", [0, 5], {"bag_table": {0: [0.5, 0.5]}}, ValueError, r"bag 5 at row 1, .* lacks"),
    "bag sum": ("bag", [0, 0], {"bag_table": {0: [0.5, 0.9]}}, ValueError, r"`bag_table` sums to 1.4 at row 0"),
    "bag ragged": ("bag", [0, 1], {"bag_table": {0: [1.0, 0], 1: [1.0]}}, ValueError, r"1 proportions at row 1"),
    "bag float": ("bag", [0.0, 1.0], {"bag_table": np.eye(2)}, TypeError, r"float64.*integer bag ids"),
    "text empty": ("text", ["a", "  "], {}, ValueError, r"empty text at row 1.*repair_column"),
    "text none": ("text", ["a", None], {}, ValueError, r"None or NaN at row 1"),
    "text numbers": ("text", [1, 2], {}, TypeError, r"int64.*expected text"),
    "sequence scalar": ("sequence", [1, 2], {}, ValueError, r"one value per row, expected a list of token ids"),
    "sequence low": ("sequence", [[1, -1]], {}, ValueError, r"got -1 at row 0.*-100"),
    "sequence high": ("sequence", [[1], [9]], {"num_labels": 5}, ValueError, r"in \[0, 5\), got 9 at row 1"),
    "sequence ignored": ("sequence", [[-100, -100]], {}, ValueError, r"no label at all.*-100"),
    "sequence full": ("sequence", [[1, -100]], {"optional_missing": False}, ValueError, r"-100 at row 0"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_columns_name_column_row_and_repair(what):
    kind, values, options, error, message = BAD[what]
    name = KINDS[kind].column
    with pytest.raises(error, match=message) as caught:
        check_column(Dataset.from_dict({name: values}), kind, **options)
    assert f"`{name}`" in str(caught.value) or "`bag_table`" in str(caught.value)


def test_bad_row_is_found_behind_a_shuffle_and_a_chunk_border():
    parts = datasets.concatenate_datasets([Dataset.from_dict({"labels": ids}) for ids in ([0, 1, 2], [1, 9])])
    with pytest.raises(ValueError, match="got 9 at row 4"):
        check_column(parts, "hard", num_labels=3)
    with pytest.raises(ValueError, match="got 9 at row 0"):
        check_column(parts.select([4, 0]), "hard", num_labels=3)
    rows = Dataset.from_dict({"soft_labels": [[0.5, 0.5], [0.9, 0.9], [1.0, 0.0]]})
    with pytest.raises(ValueError, match="sums to 1.8 at row 2"):
        check_column(rows.select([2, 0, 1]), "soft")


def test_unknown_column_lists_what_exists_and_guesses():
    data = Dataset.from_dict({"text": ["a"], "label": [0]})
    with pytest.raises(KeyError) as caught:
        check_column(data, "hard")
    message = str(caught.value)
    assert message.startswith("Column `labels` is missing; the data set has: text, label. Did you mean `label`?")
    assert "rename_column" in message
    with pytest.raises(KeyError, match="Pass `bag_column=...`"):
        kinds.require_columns(data, ["bag"], argument="bag_column")


def test_wrong_containers():
    data = named([0, 1])
    with pytest.raises(TypeError, match="dict of splits: train, test. Pass one of them"):
        check_column(DatasetDict(train=data, test=data), "hard")
    with pytest.raises(TypeError, match="Expected a `datasets.Dataset`, got int"):
        check_column(3, "hard")
    with pytest.raises(ValueError, match="`kind` must be one of hard, value"):
        check_column(data, "soggy")
    with pytest.raises(TypeError, match="mixes types"):
        check_values([0, "cat"], "hard")
    with pytest.raises(TypeError, match="lists of lists"):
        check_values([[[0]], [[1]]], "multi")


def test_names_of_a_class_label_decide_the_number_of_labels():
    report = check_column(named([0, 1, 0]), "hard")
    assert (report.num_labels, report.names, report.empty_classes) == (3, tuple(NAMES), (2,))
    with pytest.raises(ValueError, match="ClassLabel of 3 names, but num_labels=2.*num_labels=3"):
        check_column(named([0, 1]), "hard", num_labels=2)
    sets = Dataset.from_dict({"labels": [[0, 2], [1]]}, features=Features({"labels": List(ClassLabel(names=NAMES))}))
    with pytest.raises(ValueError, match="lists of class ids .row 0., not 0/1 vectors.*encode_labels"):
        check_column(sets, "multi")


def test_mask_hides_unknown_entries():
    data = Dataset.from_dict({"labels": [[1, -1, 0], [1, 1, 0]], "label_mask": [[1, 0, 1], [0, 0, 0]]})
    report = check_column(data, "multi")
    assert (report.num_missing, report.counts) == (1, (1, 0, 0))
    with pytest.raises(ValueError, match="hides labels of `labels` at row 0"):
        check_column(data, "multi", optional_missing=False)
    wrong = Dataset.from_dict({"labels": [[1, 0]], "label_mask": [[1, 2]]})
    with pytest.raises(ValueError, match="`label_mask` must be 0 or 1, got 2 at row 0"):
        check_column(wrong, "multi")
    with pytest.raises(ValueError, match="`label_mask` has 1 entries at row 0, expected 2"):
        check_values([[1, 0]], "multi", mask=[[1]])


def test_a_soft_class_occurs_when_it_has_any_mass():
    report = check_values([[0.5, 0.5, 0], [0.6, 0.4, 0]], "soft", min_classes=2)
    assert report.counts == (2, 0, 0)


def test_bags():
    data = Dataset.from_dict({"bag_id": [3, 7, 3, -1]})
    report = check_column(data, "bag", bag_table={3: [0.5, 0.5], 7: [1, 0], 9: [0, 1]})
    assert (report.num_labels, report.num_missing) == (2, 1)
    with pytest.raises(ValueError, match="-1 .no bag. at row 3"):
        check_column(data, "bag", bag_table={3: [0.5, 0.5], 7: [1, 0]}, optional_missing=False)
    assert check_column(data, "bag", bag_table={3: [4, 4], 7: [2, 0]}, normalize=True).num_labels == 2


def test_images_elsewhere_are_not_decoded():
    broken = {"labels": [0, 1], "image": [{"bytes": b"no image", "path": None}] * 2}
    data = Dataset.from_dict(broken, features=Features({"labels": Value("int64"), "image": datasets.Image()}))
    assert check_column(data, "hard").num_labels == 2
    assert check_column(data.select([1, 0]), "hard").num_labels == 2
    assert find_kinds(data) == {"labels": "hard"}
    assert check_column(data.to_iterable_dataset(), "hard").num_labels == 2
    assert kinds.convert_column(data, "hard", "soft").column_names == ["labels", "image", "soft_labels"]


def test_a_million_rows_take_no_row_loop():
    rng = np.random.default_rng(0)
    soft = pa.FixedSizeListArray.from_arrays(pa.array(rng.dirichlet(np.ones(5), 10**6).reshape(-1)), 5)
    data = Dataset(pa.table({"labels": rng.integers(-1, 5, 10**6), "soft_labels": soft}))
    picked, calls = data.select(np.arange(0, 10**6, 2)), Counter()
    sys.setprofile(lambda frame, event, argument: calls.update([event]))
    try:
        check_column(data, "hard")
        check_column(data.with_format("torch"), "soft")
        check_column(picked, "soft")
    finally:
        sys.setprofile(None)
    assert calls.total() < 200_000  # a loop over the rows makes a call or more for each of 2.5 million


def test_stream_is_checked_as_it_is_read():
    data = Dataset.from_dict({"labels": [0, 1] * 600 + [7]}).to_iterable_dataset()
    assert check_column(data, "hard", num_labels=2).complete is False  # the bad row is beyond the first 1000
    checked = check_stream(data, "hard", num_labels=2)
    with pytest.raises(ValueError, match=r"got 7 at row 200.*counted from row 1000"):
        list(checked)
    good = check_stream(Dataset.from_dict({"labels": [0, 1]}).to_iterable_dataset(), "hard", num_labels=2)
    assert [row["labels"] for row in good] == [0, 1]


def test_find_kinds():
    data = Dataset.from_dict(
        {
            "text": ["a", "b"],
            "labels": [0, 1],
            "soft_labels": [[0.5, 0.5]] * 2,
            "annotator_labels": [[0, 1]] * 2,
            "bag_id": [0, 0],
            "label_text": ["x", "y"],
            "index": [0, 1],
        }
    )
    want = {"labels": "hard", "soft_labels": "soft", "annotator_labels": "crowd", "bag_id": "bag"}
    assert find_kinds(data) == {**want, "label_text": "text"}
    for values, kind in [([0.5, 1.5], "value"), ([[0, 1], [1, 1]], "multi"), ([[0.1, 3.0]] * 2, "value")]:
        assert find_kinds(Dataset.from_dict({"labels": values})) == {"labels": kind}
    assert find_kinds(Dataset.from_dict({"labels": [[5, 6], [7]]})) == {"labels": "sequence"}
    assert find_kinds(Dataset.from_dict({"labels": ["cat", "dog"]})) == {"labels": "text"}
    assert find_kinds(named([0, 1]).rename_column("labels", "label")) == {"label": "hard"}


def test_label_spaces_must_agree():
    train = named([0, 1, 2])
    check_same_label_space(train, named([1, -1]))
    check_same_label_space(train, {"a": named([1]), "b": named([2])})
    other = Dataset.from_dict({"labels": [0]}, features=Features({"labels": ClassLabel(names=["dog", "cat", "emu"])}))
    with pytest.raises(ValueError, match="another order: id 0 is 'cat' in training and 'dog' in eval.*align_labels"):
        check_same_label_space(train, other)
    check_same_label_space(train, kinds.align_labels(other, "labels", NAMES))
    fewer = Dataset.from_dict({"labels": [0]}, features=Features({"labels": ClassLabel(names=["cat", "fox"])}))
    with pytest.raises(ValueError, match="3 classes in training and 2 in evaluation .only in evaluation: fox; only"):
        check_same_label_space(train, fewer)
    with pytest.raises(ValueError, match="class 5 at row 1 of the evaluation data, training has 2 classes"):
        check_same_label_space(Dataset.from_dict({"labels": [0, 1]}), Dataset.from_dict({"labels": [0, 5]}))
    with pytest.raises(ValueError, match="'fox' at row 1 of the evaluation data"):
        check_same_label_space(Dataset.from_dict({"labels": ["cat"]}), Dataset.from_dict({"labels": ["cat", "fox"]}))
    with pytest.raises(ValueError, match="text in training and numbers in evaluation"):
        check_same_label_space(Dataset.from_dict({"labels": ["cat"]}), Dataset.from_dict({"labels": [0]}))
    with pytest.raises(ValueError, match="3 labels in training and 2 in evaluation"):
        check_same_label_space(
            Dataset.from_dict({"labels": [[0, 1, 1]]}), Dataset.from_dict({"labels": [[0, 1]]}), kind="multi"
        )
    with pytest.raises(KeyError, match="Column `labels` is missing"):
        check_same_label_space(train, Dataset.from_dict({"text": ["a"]}))


def test_fixed_width_lists_with_a_missing_row():
    data = Dataset.from_dict(
        {"soft_labels": [[0.5, 0.5], None, [1.0, 0.0]]},
        features=Features({"soft_labels": List(Value("float32"), length=2)}),
    )
    with pytest.raises(ValueError, match="None at row 1"):
        check_column(data, "soft")


def test_two_dimensional_features_are_read_as_lists_of_lists():
    data = Dataset.from_dict(
        {"labels": [[[1, 0]], [[0, 1]]]}, features=Features({"labels": datasets.Array2D((1, 2), "int64")})
    )
    with pytest.raises(TypeError, match="Column `labels` holds lists of lists"):
        check_column(data, "multi")
