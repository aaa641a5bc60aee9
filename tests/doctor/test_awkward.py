"""Data that is not as it should be: what is wrong is told with column, row and repair, and the rest is examined."""

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, List
from doctor_toys import WORDS, only, table, texts

from hf_labels.cli import main
from hf_labels.doctor import examine
from hf_labels.doctor.examination import command_of
from hf_labels.doctor.reading import read_patient
from hf_labels.doctor.report import DoctorReport, Finding
from hf_labels.doctor.rows import near_pairs

ROWS, IDS = texts(120)
NAMES = [list(WORDS)[k] for k in IDS]


def look(**columns):
    return examine(Dataset.from_dict({"text": ROWS, **columns}), embeddings=False)


def titles(report):
    return " | ".join(finding.title for finding in report.findings)


def test_missing_cells_and_rows_of_multi_labels_are_unknown_and_not_zero():
    cells = look(labels=[[None if k == 2 else float(i == k) for k in range(3)] for i in IDS])
    assert only(cells, "Unknown cells").value == 1 / 3
    rows = look(labels=[None if j < 12 else [int(i == k) for k in range(3)] for j, i in enumerate(IDS)])
    assert rows.facts["labels"] == {"labels": "multi"} and only(rows, "Unknown cells").value == 0.1
    names = look(tags=[None if j < 12 else [name] for j, name in enumerate(NAMES)])
    assert only(names, "Unknown cells").value == 0.1


def test_lists_of_ids_are_sets_and_tags_of_words_are_a_sequence():
    ids = [[int(k)] if k else [0, 1] for k in IDS]
    named = Dataset.from_dict({"text": ROWS, "labels": ids}).cast_column("labels", List(ClassLabel(names=list(WORDS))))
    for report in (look(labels=ids), examine(named, embeddings=False)):
        counts = only(report, "largest class").values["counts"]
        zero = int((IDS == 0).sum())
        assert list(counts.values()) == [zero, zero + int((IDS == 1).sum()), int((IDS == 2).sum())]
    tags = Dataset.from_dict({"text": ROWS, "ner_tags": [[0, 0, 1] for _ in ROWS]})
    tags = tags.cast_column("ner_tags", List(ClassLabel(names=["O", "B"])))
    assert "holds a sequence of labels" in titles(examine(tags, embeddings=False))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"labels": [[[1]]] * 120}, "`labels` was not read as labels"),
        ({"label": [{"a": 1}] * 120}, "`label` was not read as labels"),
        ({"labels": [[1, 0, 0]] * 120, "label_mask": [[1, 1]] * 120}, "`label_mask` must have 3 values in each row"),
        ({"soft_labels": [[]] * 120}, "must hold a list of numbers in each row"),
        ({"soft_labels": [0.5] * 120}, "must hold a list of numbers in each row"),
        ({"annotator_labels": [1] * 120}, "`annotator_labels` holds one value per row"),
        ({"annotator_labels": [[0, -5]] * 60 + [[1, 1]] * 60}, "-5 at row 0"),
        ({"annotator_labels": [[-1, -1]] * 120}, "Nobody answered: all of `annotator_labels` is missing"),
        ({"annotator_labels": [[0, 0]] * 120}, "always gave the same answer"),
        ({"bag_id": [[1]] * 120}, "`bag_id` must hold one id in each row"),
        ({"bag_id": IDS, "proportion": [float("nan")] * 120}, "missing at row 0"),
        ({"bag_id": IDS}, "No column of proportions was found"),
        ({"label": [float("inf"), *np.linspace(0, 1, 119)]}, "Missing values of `label`: 1 of 120"),
        ({"label": [f"c{i}" for i in range(120)]}, "'label' holds 120 different values in 120 rows: no classes"),
        ({"labels": IDS, "probs": [[[0.5]]] * 120}, "`probs` of `train` cannot be measured: each row must be a list"),
        ({"probs": [[0.5, 0.5]] * 120}, "calibration of `probs` was not measured"),
    ],
)
def test_what_cannot_be_read_is_told_and_the_rest_examined(columns, said):
    report = look(**columns)
    assert said in titles(report) and "Exact duplicates" in titles(report)


def test_rows_of_a_crowd_may_be_missing_or_short():
    answers = [None if j == 2 else [int(k)] * (1 + j % 3) for j, k in enumerate(IDS)]
    report = look(annotator_labels=answers)
    found = only(report, "different numbers of answers")
    assert "Row 0 has 1, the longest 3" in found.details[0] and only(report, "Fleiss kappa").value == 1
    assert only(report, "nobody answered").values == {"missing": 1}
    assert "annotators are weak" not in titles(report)  # a place in the list is nobody


def test_a_missing_soft_label_is_one_bad_row():
    soft = np.eye(3)[IDS] * 0.8 + 0.2 / 3
    rows = soft.tolist()
    rows[4] = None
    found = only(look(soft_labels=rows), "no distribution")
    assert found.value == 1 / 120 and found.details == ("row 4 has a missing or infinite value",)
    assert look(labels=soft.tolist()).facts["labels"]["hard_labels"] == "hard (largest of labels)"


def test_bad_rows_of_probabilities_are_left_out_and_more_classes_are_no_fault():
    probs = (np.eye(5)[IDS] * 0.9 + 0.02).tolist()
    probs[5] = None
    report = look(labels=IDS, probs=probs)
    assert "Row 5 holds missing" in only(report, "`train` that are no distribution").details[0]
    assert only(report, "Calibration error").value == pytest.approx(0.08)


@pytest.mark.parametrize("step", [1000, 10**12])
def test_large_ids_are_names_and_do_not_fill_the_memory(step):
    report = look(labels=[int(k) * step + 7 for k in IDS])
    assert set(only(report, "largest class").values["counts"]) == {str(k * step + 7) for k in range(3)}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([int(k) for k in IDS[:40]], "other kinds of cells"),
        ([[1, 0]] * 40, "other kinds of cells"),
        (["new"] * 40, "of a class that `train` has no row of: 40 of 40"),
    ],
)
def test_labels_of_the_other_split(labels, said):
    train = Dataset.from_dict({"text": ROWS, "label": NAMES})
    other = Dataset.from_dict({"text": ROWS[:40], "label": labels})
    report = examine(DatasetDict(train=train, test=other), embeddings=False)
    assert said in titles(report) and "that are in `train`: 40 of 40" in titles(report)


def test_other_names_ids_and_widths_in_the_other_split():
    train = table(120)
    other = train.select(range(40)).cast_column("labels", ClassLabel(names=["x", "sleep", "skin"]))
    report = examine(DatasetDict(train=train, test=other), embeddings=False)
    assert "align_labels" in only(report, "The names of `labels` in `test` are others").details[0]
    assert only(report, "has no row of").values == {"classes": ["x"]}
    ids = Dataset.from_dict({"labels": [0, 1] * 20}), Dataset.from_dict({"labels": [1, 4] * 10})
    found = only(examine(DatasetDict(train=ids[0], test=ids[1])), "has no row of")
    assert found.value == 0.5 and found.values == {"classes": ["4"]}
    sets = Dataset.from_dict({"labels": [[1, 0, 1]] * 9}), Dataset.from_dict({"labels": [[1, 0]] * 9})
    assert "another number of them" in titles(examine(DatasetDict(train=sets[0], test=sets[1])))


def test_features_that_tell_nothing_give_no_noise_rate():
    labels = np.random.default_rng(1).integers(2, size=300)
    report = examine(Dataset.from_dict({"text": texts(300)[0], "label": labels}), encoder="tfidf")
    assert "cannot be estimated" in titles(report) and "Estimated noise rate" not in titles(report)
    same = examine(Dataset.from_dict({"text": ["same text"] * 120, "label": NAMES}), encoder="tfidf")
    assert "cannot be estimated" in titles(same)


def test_noise_intervals_hold_the_planted_rate():
    held = 0
    for seed in range(12):
        rows, labels = texts(600, seed)
        rng = np.random.default_rng(100 + seed)
        wrong = rng.random(600) < 0.1
        given = np.where(wrong, (labels + 1) % 3, labels)
        found = only(examine(Dataset.from_dict({"text": rows, "labels": given}), encoder="tfidf"), "noise rate")
        held += found.low <= wrong.mean() <= found.high
    assert held >= 10


def test_templates_do_not_fill_the_memory():
    x = np.ones((3000, 4), np.float32) / 2
    pairs = near_pairs(x, None, 0.95, nearest=5, block=100)
    assert (
        len(pairs) < 12 * 3000
        and len(pairs) > 3000
        and len(np.unique(pairs)) == 3000
        and (pairs[:, 0] < pairs[:, 1]).all()
    )


def test_a_sample_of_rows_is_compared_with_all_of_them(monkeypatch):
    rows, labels = texts(1500)
    rows = [*rows, *(f"{row} too" for row in rows[:500])]
    data = Dataset.from_dict({"text": rows, "labels": [*labels, *labels[:500]]})
    monkeypatch.setattr("hf_labels.doctor.rows.MOST", 1000)
    report = examine(data, encoder="tfidf")
    found = only(report, "Near-duplicates with different")
    assert "500 rows were compared" in found.details[-1].replace("A random ", "").replace(" of 2000", "")
    near = found.details[0]
    low, high = (float(part.split(" %")[0]) / 100 for part in (near.split("interval ")[1], near.split("to ")[1]))
    assert low < 0.5 < high  # half of the rows have one


def test_json_knows_no_nan_and_is_the_same_each_time(tmp_path):
    finding = Finding(
        "", "note", "x", float("nan"), 0.0, float("inf"), values={"a": np.array([1.0, np.nan]), 3: {"b": ()}}
    )
    text = DoctorReport("d\ud800", {}, (finding,)).to_json(tmp_path / "a" / "r.json")
    found = json.loads(text, parse_constant=pytest.fail)
    assert found["findings"][0]["interval"] == [0.0, None] and found["findings"][0]["values"]["a"] == [1.0, None]
    one, two = (json.loads(examine(table(200), encoder="tfidf").to_json()) for _ in range(2))
    one.pop("seconds"), two.pop("seconds")
    assert one == two


def test_nothing_of_the_data_reaches_the_terminal_raw(tmp_path):
    names = ["\x1b[2J" if k else "a\r\u202eb" for k in IDS]
    data = Dataset.from_dict({"te\x1bxt": ROWS, "la\nbel'": names})
    report = examine(data, label_column="la\nbel'", embeddings=False)
    assert all(line.isprintable() for line in report.text().split("\n"))
    few = examine(data.select(range(30)), label_column="la\nbel'", embeddings=False)
    commands = [
        t.command for one in few.findings for t in few.treatments(one) if t.command.startswith("hf-labels train")
    ]
    assert commands and all(command.isprintable() and r"$'la\nbel\''" in command for command in commands)
    page = report.to_html(tmp_path / "r.html").read_text()
    assert "\x1b" not in page and "\u202e" not in page and "<main>" in page


def test_commands_know_split_configuration_and_rows_to_leave_out(tmp_path):
    path = tmp_path / "x"
    labels = [None if j % 11 == 0 else NAMES[(j + (j % 7 == 0)) % 120] for j in range(120)]
    text = [None if j == 5 else row for j, row in enumerate(ROWS)]
    DatasetDict(test=Dataset.from_dict({"text": text, "label": labels})).save_to_disk(path)
    report = examine(str(path), encoder="tfidf")
    train = next(t.command for one in report.findings for t in report.treatments(one) if t.slug == "zero_shot_tc")
    assert "--train_split test " in train
    code = next(t.command for one in report.findings for t in report.treatments(one) if t.slug == "confident_learning")
    run: dict = {}
    exec(compile(code.partition("from hf_labels import cross_fit")[0], "command", "exec"), run)
    kept = [j for j in range(120) if labels[j] is not None and text[j]]
    assert run["data"]["text"][:] == [ROWS[j] for j in kept] and min(run["data"]["label"][:]) == 0
    patient = read_patient(table(60), config="de")
    assert command_of(patient)["config"] == "de"


def test_multi_labels_get_no_command_for_one_label_a_row():
    report = look(labels=[[1, 0], [0, 0]] * 60)
    slugs = {t.slug for one in report.findings for t in report.treatments(one) if t.ready}
    assert not slugs & {"crosstune", "zero_shot_tc", "llm_label_errors"}


def test_images_get_a_command_for_images(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    labels = [j % 2 for j in range(120)]
    pictures = [Image.fromarray(rng.integers(0, 90, (8, 8), np.uint8) + np.uint8(100 * k)) for k in labels]
    data = Dataset.from_dict(
        {"image": pictures, "labels": [1 - k if j % 10 == 0 else k for j, k in enumerate(labels)]}
    )
    data.save_to_disk(tmp_path / "x")
    report = examine(str(tmp_path / "x"))
    command = next(
        t.command for one in report.findings for t in report.treatments(one) if t.slug == "confident_learning"
    )
    run: dict = {}
    exec(compile(command, "command", "exec"), run)
    assert len(run["cleaned"]) < 120


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--html", "out.txt"], 2, "--html must name a file that ends in .html"),
        (["--json", "."], 2, "is a folder"),
        (["--json", "x.csv"], 2, "is the data set itself"),
        (["--seed", "-1"], 2, "--seed must be 0 or more"),
        (["--no_embeddings", "--encoder", "tfidf"], 2, "exclude each other"),
        (["--eval_split", "train"], 1, "both 'train'"),
        (["--text_column", "nope"], 1, "Pass `--text_column=...`"),
        (["--text_column", "label", "--label_column", "label"], 1, "are both 'label'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_measured(tmp_path, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text(
        "text,label\n" + "\n".join(f"{row},{k}" for row, k in zip(ROWS, NAMES, strict=True))
    )
    assert main(["doctor", "x.csv", *words]) == code
    shown = capsys.readouterr()
    assert said in shown.err and "findings" not in shown.out and "Traceback" not in shown.err


def test_an_interrupt_and_a_missing_package_end_with_one_line(tmp_path, monkeypatch, capsys):
    table(60).save_to_disk(tmp_path / "x")

    def stop(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_labels.doctor.examination.features_of", stop)
    assert main(["doctor", str(tmp_path / "x")]) == 130
    assert "Interrupted." in capsys.readouterr().err

    def lack(*_args, **_options):
        raise ImportError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr("hf_labels.doctor.examination.features_of", lack)
    assert main(["doctor", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1] == "hf-labels: No module named 'sklearn'"
