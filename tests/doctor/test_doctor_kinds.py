"""What the doctor does with soft labels, answers of annotators, sets of names, bags, odd columns and bad numbers."""

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict
from doctor_toys import WORDS, Frozen, only, table, texts

from hf_labels.doctor import examine


def titles(report):
    return " | ".join(finding.title for finding in report.findings)


def test_soft_labels_are_checked_and_their_largest_is_examined():
    rows, labels = texts(300)
    wrong = np.random.default_rng(0).random(300) < 0.1
    soft = np.full((300, 3), 0.1)
    soft[np.arange(300), np.where(wrong, (labels + 1) % 3, labels)] = 0.8
    soft[7] = 0.5
    report = examine(Dataset.from_dict({"text": rows, "soft_labels": soft.tolist()}), encoder="tfidf")
    bad = only(report, "no distribution")
    assert "1 of 300" in bad.title and "row 7 sums to 1.5" in bad.details[0] and bad.level == "problem"
    found = only(report, "Estimated noise rate")
    assert (
        found.low < wrong.mean() < found.high and report.facts["labels"]["labels"] == "hard (largest of soft_labels)"
    )
    assert "Missing labels" not in titles(report) and "largest probability 0.80" in titles(report)
    command = next(t.command for t in report.treatments(found) if t.slug == "confident_learning")
    assert "convert_column(data, 'soft', 'hard', column='soft_labels', target_column='labels')" in command
    ragged = examine(Dataset.from_dict({"soft_labels": [[0.5, 0.5], [1.0]]}), embeddings=False)
    assert only(ragged, "different lengths").level == "problem"


def test_a_crowd_is_examined_by_its_majority_and_the_command_for_it_runs(tmp_path, monkeypatch):
    import importlib

    from hf_labels.doctor.features import _tfidf

    rows, labels = texts(150)
    answers = np.stack([labels, labels, (labels + 1) % 3], 1)
    answers[::10, 0] = answers[::10, 1] = (labels[::10] + 1) % 3  # a majority for the wrong one
    answers[3] = -1
    path = tmp_path / "crowd.csv"
    lines = [f'"{row}","{one.tolist()}"' for row, one in zip(rows, answers, strict=True)]
    path.write_text("text,annotator_labels\n" + "\n".join(lines))
    report = examine(str(path), encoder="tfidf")
    assert only(report, "Rows that nobody answered").value == 1 / 150
    found = only(report, "Estimated noise rate")
    assert found.low < 0.1 < found.high and set(found.values["rows"]) <= set(range(0, 150, 10)) | {3}
    command = next(t.command for t in report.treatments(found) if t.slug == "confident_learning")
    data = Dataset.from_dict({"text": rows, "annotator_labels": np.delete(answers, 3, 0).tolist() + [[0, 0, 0]]})
    data.to_json(tmp_path / "crowd.jsonl")
    command = command.replace(str(path), str(tmp_path / "crowd.jsonl")).replace(
        "from hf_labels.data.load import parse_list_cells\ndata = parse_list_cells(data)\n", ""
    )
    module = importlib.import_module("hf_labels.trainers.cross_fit")
    monkeypatch.setattr(module, "make_encoder", lambda *a, **k: Frozen(_tfidf))
    run: dict = {}
    exec(compile(command, "confident_learning", "exec"), run)
    assert len(run["cleaned"]) < 150


def test_a_table_with_an_answer_per_row_is_a_crowd(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=80)
    skill = {"ann": 0.95, "bob": 0.9, "eve": 0.5, "joe": 0.9}
    rows = [(i, who, int(t if rng.random() < p else 1 - t)) for i, t in enumerate(truth) for who, p in skill.items()]
    rng.shuffle(rows)
    path = tmp_path / "answers.csv"
    lines = [f"{i},{who},{said},text {i}" for i, who, said in rows[:-9]]
    path.write_text("task,worker,label,text\n" + "\n".join(lines) + "\n0,ann,,text 0")
    report = examine(str(path))
    assert report.facts["one answer per row"] == "item in task, annotator in worker"
    assert only(report, "1 of 4 annotators").values["weak"] == ["eve"]
    assert "uplicates" not in titles(report)  # an input is there once per annotator
    kappa = only(report, "Fleiss kappa")
    assert kappa.low < kappa.value < kappa.high
    run: dict = {}
    exec(compile(report.treatments(only(report, "1 of 4 annotators"))[0].command, "crowd", "exec"), run)
    assert len(run["data"]) == 80 and (np.array(run["data"]["labels"][:]) == truth).mean() > 0.85


def test_sets_of_names_are_multi_labels_with_the_same_columns_in_both_splits():
    train = Dataset.from_dict({"text": list("abc"), "tags": [["x", "y"], [], ["x"]]})
    test = Dataset.from_dict({"text": list("de"), "tags": [["z"], ["x"]]})
    report = examine(DatasetDict(train=train, test=test), embeddings=False)
    assert report.facts["labels"] == {"tags": "multi"}
    found = only(report, "times the rows of the smallest")
    assert found.values["counts"] == {"x": 2, "y": 1, "z": 0}


def test_floats_without_fractions_are_ids_and_columns_like_labels_are_named():
    rows, labels = texts(60)
    ids = [None if i == 4 else float(k) for i, k in enumerate(labels)]
    report = examine(Dataset.from_dict({"text": rows, "label": ids}), embeddings=False)
    assert report.facts["labels"] == {"label": "hard"} and only(report, "Missing labels").values == {"missing": 1}
    odd = Dataset.from_dict({"Body": rows, "Topic Name": [list(WORDS)[k] for k in labels], "row": list(range(60))})
    report = examine(odd, embeddings=False)
    assert report.facts["also like labels"] == "Topic Name"
    assert only(report, "No column of labels").details == ("These hold few different values: Topic Name.",)


def test_classes_of_both_splits_are_told_apart_by_name():
    train = table(200)
    names = list(WORDS)[::-1]
    other = Dataset.from_dict({"text": ["a"] * 50, "labels": [names.index("skin")] * 50})
    other = other.cast_column("labels", ClassLabel(names=[*names, "new"]))
    report = examine(DatasetDict(train=train, test=other), embeddings=False)
    shift = only(report, "Label shift")
    assert {row[0]: row[2] for row in shift.rows} == {"skin": 1.0, "sleep": 0.0, "money": 0.0, "new": 0.0}


def test_bags_with_shares_that_cannot_be():
    bags = {"bag_id": [0] * 4 + [1] * 4, "proportion": [0.5, 0.5, 0.25, 0.5] + [1.0] * 4}
    report = examine(Dataset.from_dict(bags), embeddings=False)
    assert "1 of 2 bags hold different values of `proportion`, for example bag 0" in titles(report)
    report = examine(Dataset.from_dict(bags | {"proportion": [3.0] * 8}), embeddings=False)
    assert "8 rows of `proportion` are no share: 3 at row 0" in titles(report)


def test_probabilities_that_cannot_be_measured_do_not_stop_the_rest():
    for bad, why in (
        ([0.5, 0.5], "row 0 has 2 values, there are 3 classes"),
        ([0.5, 0.5, 0.5], "no distributions. Row 0 holds 0.5, 0.5, 0.5"),
    ):
        report = examine(table(60, probs=[bad] * 60), embeddings=False)
        assert why in only(report, "The probabilities `probs` of `train` cannot be measured").title
        assert only(report, "Exact duplicates").level == "good"
    report = examine(table(60, probs=[0.5] * 60), embeddings=False)
    assert "each row must be a list" in titles(report)


def test_no_errors_found_is_not_no_errors_at_all(caplog):
    report = examine(table(60), encoder="tfidf")
    found = only(report, "Estimated noise rate")
    assert found.value == found.low == 0 and 0.1 < found.high < 0.12  # exact: 1 - 0.025 ** (1 / 31)
    assert not caplog.records
    one = examine(Dataset.from_dict({"text": ["a", "b"], "label": ["x", "x"]}), embeddings=False)
    assert "All rows have one class, 'x'" in titles(one) and "times the rows" not in titles(one)
    assert "1 class has fewer than 20 rows" in titles(one)


def test_too_many_classes_are_not_searched_for_noise(monkeypatch):
    monkeypatch.setattr("hf_labels.doctor.noise.CELLS", 100)
    assert "Too many classes (3) for 60 rows" in titles(examine(table(60), encoder="tfidf"))


def test_names_of_columns_never_become_code():
    from hf_labels.doctor.treatments import treatments_for

    evil = "a\nraise SystemExit('run')\n'"
    for problem in ("crowd", "noise", "bags"):
        given = {"text": evil, "label": evil, "crowd": evil, "bag": evil, "proportion": evil}
        for treatment in treatments_for(problem, evil, given):
            if treatment.command.startswith("from "):
                tree = compile(treatment.command, "command", "exec")
                assert "SystemExit" not in tree.co_names
