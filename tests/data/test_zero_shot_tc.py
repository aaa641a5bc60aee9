"""Seen and unseen labels of a task, entailment pairs, and the files of the benchmark."""

import pytest
from datasets import ClassLabel, Dataset, List, Value

from hf_labels.data.zero_shot_tc import build_zero_shot_task, entailment_pairs, label_sets, read_benchmark_file
from hf_labels.data.zero_shot_tc_hypotheses import ASPECTS, wordnet_hypotheses
from hf_labels.labels.columns import MissingColumnError
from hf_labels.metrics.functional import zero_shot_accuracy, zero_shot_f1

NAMES = ("art", "food", "law", "sea", "war")
HYPOTHESES = {name: [f"{name} one", f"{name} two"][: 1 + place % 2] for place, name in enumerate(NAMES)}


def single(rows=60):
    data = Dataset.from_dict({"text": [f"text {i}" for i in range(rows)], "labels": [i % 5 for i in range(rows)]})
    return data.cast_column("labels", ClassLabel(names=list(NAMES)))


def several():
    cells = [["food", "sea"], [], ["law"], ["art", "food", "law"], ["war"]] * 12
    return Dataset.from_dict({"text": [f"text {i}" for i in range(60)], "labels": cells})


def test_partially_unseen_keeps_unseen_labels_out_of_training():
    for version, seen in (("v0", ("art", "law", "war")), ("v1", ("food", "sea"))):
        task = build_zero_shot_task(single(), version=version, hypotheses=HYPOTHESES)
        assert task.seen == seen and set(task.unseen) == set(NAMES) - set(seen) and task.labels == NAMES
        assert {name for part in (task.train, task.dev) for row in part["label_names"] for name in row} == set(seen)
        assert {name for row in task.test["label_names"] for name in row} == set(NAMES)
        assert len(task.test) == 36  # 60 %
        rows = [set(part["index"][:]) for part in (task.train, task.dev, task.test)]
        assert not rows[0] & rows[1] and not rows[0] & rows[2] and not rows[1] & rows[2]
        for row in task.test:
            assert row["text"] == f"text {row['index']}" and row["label_names"] == [NAMES[row["index"] % 5]]


def test_fully_unseen_has_no_training_texts():
    task = build_zero_shot_task(single(), setting="fully_unseen", hypotheses=HYPOTHESES)
    assert task.seen == () and task.unseen == NAMES and len(task.train) == len(task.dev) == 0
    assert len(task.test) == 36 and len(task.pairs()) == 0
    assert task.train.features == task.test.features


def test_several_labels_per_text_keep_their_seen_ones():
    task = build_zero_shot_task(several(), "situation", labels=NAMES, hypotheses=HYPOTHESES, test_fraction=0.0)
    assert len(task.test) == 0 and task.seen == ("art", "law", "war")
    whole = {row: set(cell) for row, cell in enumerate(several()["labels"])}
    for part in (task.train, task.dev):
        for row in part:
            assert set(row["label_names"]) == whole[row["index"]] & set(task.seen) != set()
    assert len(task.train) + len(task.dev) == 36 and task.rule().multi_label
    assert (task.rule().threshold, task.rule().seen_threshold) == (0.5, 0.6)


def test_own_halves_own_test_and_a_none_label():
    data = Dataset.from_dict({"text": ["a", "b", "c", "d"], "emotion": ["joy", "noemo", "anger", "fear"]})
    options = {"label_column": "emotion", "hypotheses": {"joy": ["x"], "anger": ["y"], "fear": ["z"]}}
    task = build_zero_shot_task(data, "emotion", test=data, labels=["joy", "anger", "fear", "noemo"], **options)
    assert task.labels == ("joy", "anger", "fear") and task.seen == ("joy", "fear")
    assert task.test["label_names"][:] == [["joy"], [], ["anger"], ["fear"]]
    assert sorted(map(tuple, [*task.train["label_names"], *task.dev["label_names"]])) == [("fear",), ("joy",)]
    rule = task.rule("single_phase")
    assert rule.reject and rule.seen_margin == 0.05 and rule.decision == "single_phase"
    task = build_zero_shot_task(
        data, "emotion", test=data, seen_labels=["anger"], labels=["joy", "anger", "fear"], **options
    )
    assert task.seen == ("anger",) and task.unseen == ("joy", "fear")


def test_the_labels_of_the_benchmark_are_taken_when_they_cover_the_data():
    data = Dataset.from_dict({"text": ["a", "b"], "labels": ["joy", "noemo"]})
    hypotheses = {name: ["x"] for name in "sadness joy anger disgust fear surprise shame guilt love".split()}
    task = build_zero_shot_task(data, "emotion", test=data, hypotheses=hypotheses)
    assert len(task.labels) == 9 and "joy" not in task.seen
    data = Dataset.from_dict({"text": ["a", "b"], "labels": ["joy", "boredom"]})
    task = build_zero_shot_task(data, "emotion", test=data, hypotheses={"joy": ["x"], "boredom": ["y"]})
    assert task.labels == ("boredom", "joy")


@pytest.mark.parametrize("data", [single(10), several()], ids=["single", "several"])
@pytest.mark.parametrize("seen", [("art", "law", "war"), NAMES])
def test_pairs_are_all_hypotheses_of_seen_labels(data, seen):
    found = entailment_pairs(data, HYPOTHESES, seen)
    gold = label_sets(data, NAMES)
    want = [
        (data[row]["text"], sentence, int(name not in truth), row)
        for row, truth in enumerate(gold)
        if truth & set(seen)
        for name in seen
        for sentence in HYPOTHESES[name]
    ]
    columns = ("premise", "hypothesis", "labels", "index")
    assert list(zip(*(found[name][:] for name in columns), strict=True)) == want
    unseen = {sentence for name in set(NAMES) - set(seen) for sentence in HYPOTHESES[name]}
    assert not unseen & set(found["hypothesis"][:])
    texts = sum(bool(truth & set(seen)) for truth in gold)
    assert len(found) == texts * sum(len(HYPOTHESES[name]) for name in seen)
    assert found.features["labels"].names == ["entailment", "not_entailment"]


def test_a_number_of_negatives_is_drawn_per_text():
    every = entailment_pairs(single(), HYPOTHESES)
    assert entailment_pairs(single(), HYPOTHESES, negatives=9)[:] == every[:]
    one, two, again = (entailment_pairs(single(), HYPOTHESES, negatives=1, seed=seed) for seed in (0, 1, 0))
    assert one[:] == again[:] != two[:]
    for row in range(60):
        mine = [pair for pair in one if pair["index"] == row]
        wrong = {pair["hypothesis"].split()[0] for pair in mine if pair["labels"] == 1}
        right = {pair["hypothesis"].split()[0] for pair in mine if pair["labels"] == 0}
        assert right == {NAMES[row % 5]} and len(wrong) == 1 and not wrong & right


def test_labels_are_read_as_names_ids_and_lists():
    want = [{"art"}, {"sea"}, set()]
    columns = {
        "names": ["art", " sea ", ""],
        "ids": [0, 3, -1],
        "lists": [["art"], ["sea"], []],
        "missing": ["art", "sea", None],
        "none": ["art", "sea", "other"],
    }
    for name, cells in columns.items():
        assert label_sets(Dataset.from_dict({name: cells}), NAMES, name, none_label="other") == want
    data = Dataset.from_dict({"labels": [[0, 1], []]}).cast_column("labels", List(ClassLabel(names=["sea", "law"])))
    assert label_sets(data, NAMES) == [{"sea", "law"}, set()]
    pairs = Dataset.from_dict({"text": ["a", "b"], "labels": ["art", "other"]})
    assert len(entailment_pairs(pairs, HYPOTHESES, none_label="other")) == 7


FILES = {
    "topic": ("0\tWhy?\\nBecause\t so.\n\n9\tWho\u2028rules\n", ["Society & Culture", "Politics & Government"]),
    "emotion": ("joy\ttweets\tWhat a day\nnoemo\tevents\tA table\n", ["joy", None]),
    "situation": ("water food\tNo water\nout-of-domain\tHello\n", [{"food", "water"}, None]),
}


@pytest.mark.parametrize("aspect", FILES)
def test_benchmark_files(tmp_path, aspect):
    content, want = FILES[aspect]
    (tmp_path / "test.txt").write_text(content, encoding="utf-8")
    data = read_benchmark_file(tmp_path / "test.txt", aspect)
    got = [set(cell) for cell in data["label_names"]]
    assert got == [set() if one is None else one if isinstance(one, set) else {one} for one in want]
    assert data["index"][:] == [0, 1] and (aspect != "emotion" or data["domain"][:] == ["tweets", "events"])
    assert data.features["label_names"] == List(Value("string"))
    if aspect == "topic":
        assert data["text"][:] == ["Why?\\nBecause\t so.", "Who\u2028rules"]
    task = build_zero_shot_task(
        data, aspect, test=data, label_column="label_names", hypotheses=_any_hypotheses(aspect), dev_fraction=0.0
    )
    assert len(task.labels) == {"topic": 10, "emotion": 9, "situation": 11}[aspect] and len(task.test) == 2


def _any_hypotheses(aspect):
    return wordnet_hypotheses(ASPECTS[aspect].labels, aspect, wordnet=False)


def test_a_broken_benchmark_file_names_the_line(tmp_path):
    for content, message in (
        ("0\tx\n11\ty\n", "line 2: '11' is not a label"),
        ("0\tx\nnothing\n", "line 2: 1 columns"),
    ):
        (tmp_path / "x.txt").write_text(content)
        with pytest.raises(ValueError, match=message):
            read_benchmark_file(tmp_path / "x.txt", "topic")


def test_perfect_decisions_score_one():
    task = build_zero_shot_task(single(), hypotheses=HYPOTHESES)
    gold = [row[0] for row in task.test["label_names"]]
    assert zero_shot_accuracy(gold, gold, task.seen, task.labels)["harmonic_mean"] == pytest.approx(1, abs=1e-6)
    task = build_zero_shot_task(several(), "situation", labels=NAMES, hypotheses=HYPOTHESES)
    cells, none = task.test["label_names"][:], task.aspect.none_label
    assert zero_shot_f1(cells, cells, task.seen, task.labels, none)["all_f1"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"setting": "unseen"}, "partially_unseen, fully_unseen"),
        ({"version": "v2"}, "'v0' or 'v1'"),
        ({"aspect": "weather"}, "topic, emotion, situation"),
        ({"test_fraction": 1.0}, r"`test_fraction` must be in \[0, 1\)"),
        ({"dev_fraction": -0.1}, "`dev_fraction`"),
        ({"seen_labels": ["x"]}, "'x', which is not a label: art"),
        ({"seen_labels": NAMES}, "5 of 5 labels are seen"),
        ({"seen_labels": []}, "0 of 5 labels are seen"),
        ({"seen_labels": ["art"], "setting": "fully_unseen"}, "no label is seen"),
        ({"labels": ["art", "food"]}, "'law' at row 2.*art, food"),
        ({"hypotheses": {"art": ["x"]}}, "none for 'food'"),
        ({"labels": ["art", "art"]}, "twice"),
    ],
)
def test_bad_tasks_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_zero_shot_task(single(), **{"hypotheses": HYPOTHESES, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seen_labels": ["x"]}, "'x', which is not a label"),
        ({"negatives": 0}, "at least 1, got 0"),
        ({"negatives": "many"}, "'all' or a number"),
        ({"hypotheses": {**HYPOTHESES, "sea": []}}, "'sea' must be a list"),
        ({"hypotheses": {**HYPOTHESES, "sea": "text"}}, "'sea' must be a list"),
        ({"hypotheses": {"art": ["x"]}}, "'food' at row 1"),
        ({"hypotheses": {}}, "at least one"),
    ],
)
def test_bad_pairs_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        entailment_pairs(single(), **{"hypotheses": HYPOTHESES, **options})


def test_missing_columns_are_named():
    for call in (
        lambda: entailment_pairs(single().remove_columns("labels"), HYPOTHESES),
        lambda: build_zero_shot_task(single().remove_columns("text"), hypotheses=HYPOTHESES),
    ):
        with pytest.raises(MissingColumnError, match="labels|text"):
            call()
