"""Findings against data whose illness is known; intervals; treatments that run; what is recognised."""

import importlib
import json
import shlex

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict
from doctor_toys import WORDS, Frozen, only, table, texts

from hf_labels import catalog
from hf_labels.doctor import examine
from hf_labels.doctor.report import Finding
from hf_labels.doctor.rows import near_pairs
from hf_labels.doctor.treatments import TREATMENTS


def test_healthy_data_needs_nothing():
    report = examine(table(600), encoder="tfidf")
    assert not [finding.title for finding in report.findings if finding.is_ill]
    assert report.facts["labels"] == {"labels": "hard"} and "0 of" in report.text().splitlines()[-1]
    assert report.seconds.keys() == {"reading", "encoder", "checks"}


@pytest.mark.parametrize("rate", [0.1, 0.25])
def test_planted_noise_is_within_its_interval_and_the_wrong_rows_are_named(rate):
    rows, labels = texts(1500, 1)
    rng = np.random.default_rng(2)
    wrong = rng.random(len(labels)) < rate
    given = np.where(wrong, (labels + rng.integers(1, 3, size=len(labels))) % 3, labels)
    report = examine(Dataset.from_dict({"text": rows, "labels": given}), encoder="tfidf")
    found = only(report, "Estimated noise rate")
    assert found.low - 0.02 <= wrong.mean() <= found.high + 0.02 and found.level == "problem"
    named = found.values["rows"]
    assert wrong[named].mean() > 0.9 and wrong[named].sum() > 0.8 * wrong.sum()
    assert any(t.slug == "confident_learning" for t in report.treatments(found))


def test_where_labels_are_wrong_on_hard_rows_both_rates_are_told():
    """Words of two subjects in a text: the more even they are, the oftener its label is wrong."""
    rng = np.random.default_rng(0)
    own, rows = rng.integers(0, 6, 2000), []
    names = list(WORDS)[:2]
    labels = rng.integers(0, 2, 2000)
    for k, other in zip(labels, own // 2, strict=True):
        words = [*rng.choice(WORDS[names[k]], 6 - other), *rng.choice(WORDS[names[1 - k]], other)]
        rows.append(" ".join(words) + f" {rng.integers(10**9)}")
    wrong = rng.random(2000) < np.array([0.0, 0.08, 0.35])[own // 2]
    report = examine(Dataset.from_dict({"text": rows, "labels": np.where(wrong, 1 - labels, labels)}), encoder="tfidf")
    found = only(report, "Estimated noise rate")
    assert found.low <= found.value < 0.01 and found.level == "warning"
    assert 0.05 < found.values["confident_learning"] < found.high
    may_be = found.values["may_be"]
    assert (
        f" to {100 * found.values['confident_learning']:.1f} % (95 %" in found.title and "more may be" in found.title
    )
    assert wrong[may_be].mean() > 0.9 and len(may_be) > 0.4 * wrong.sum()


def test_balance_tail_and_missing_classes():
    labels = [0] * 400 + [1] * 100 + [2] * 5 + [-1] * 95
    data = Dataset.from_dict({"labels": labels}).cast_column("labels", ClassLabel(names=["a", "b", "c", "d"]))
    report = examine(data)
    skewed = only(report, "largest class")
    assert skewed.value == 80 and skewed.low < 80 < skewed.high and skewed.values["tail"] == ["c"]
    few = only(report, "fewer than 20")
    assert few.values == {"few": ["c"], "absent": ["d"]}
    missing = only(report, "Missing labels")
    assert missing.value == 95 / 600 and missing.low < missing.value < missing.high and missing.level == "warning"
    assert [t.slug for t in report.treatments(few)][0] == "crosstune"


def test_duplicates_conflicts_and_empty_inputs():
    data = table(200)
    extra = Dataset.from_dict({"text": [data["text"][0].upper(), data["text"][1], ""], "labels": [0, 0, 0]})
    labels = list(data["labels"][:2])
    both = Dataset.from_dict(
        {"text": data["text"][:] + extra["text"][:], "labels": data["labels"][:] + [(labels[0] + 1) % 3, labels[1], 0]}
    )
    report = examine(both, encoder="tfidf")
    assert only(report, "Exact duplicates").values["rows"] == 2
    conflict = only(report, "Groups of equal inputs")
    assert conflict.value == 0.5 and conflict.values["groups"] == [[0, 200]]
    assert only(report, "Empty inputs").level == "warning"


def test_near_duplicates_with_other_labels_are_shown_side_by_side():
    data = table(120)
    near = data["text"][5] + " too"
    both = Dataset.from_dict(
        {"text": [*data["text"][:], near], "labels": [*data["labels"][:], (data["labels"][5] + 1) % 3]}
    )
    found = only(examine(both, encoder="tfidf"), "Near-duplicates with different")
    assert found.values["pairs"] == [(5, 120)] and found.rows[0][0] == 5 and found.rows[0][3] == 120


def test_near_pairs_equal_the_whole_table():
    x = np.random.default_rng(0).normal(size=(70, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    want = {(i, j) for i in range(70) for j in range(i + 1, 70) if x[i] @ x[j] >= 0.9}
    assert {tuple(pair) for pair in near_pairs(x, None, 0.9, block=16).tolist()} == want
    across = {(i, j) for i in range(30) for j in range(40) if x[i] @ x[30 + j] >= 0.9}
    assert {tuple(pair) for pair in near_pairs(x[:30], x[30:], 0.9, block=7).tolist()} == across


def test_leakage_and_label_shift_between_splits():
    train, test = table(400), table(200, seed=9)
    rows = test["text"][:150] + train["text"][:20]
    labels = [0 if k == 1 else k for k in test["labels"][:150]] + train["labels"][:20]
    other = Dataset.from_dict({"text": rows, "labels": labels}).cast_column("labels", train.features["labels"])
    report = examine(DatasetDict({"train": train, "test": other}), encoder="tfidf")
    leak = only(report, "that are in `train`")
    assert leak.values["rows"] == list(range(150, 170)) and leak.level == "problem"
    shift = only(report, "Label shift")
    one = np.bincount(train["labels"][:], minlength=3) / 400
    two = np.bincount(labels, minlength=3) / 170
    assert abs(shift.value - np.abs(one - two).sum() / 2) < 1e-12 and shift.low <= shift.value <= shift.high
    assert shift.level == "problem" and shift.values["p"] < 1e-6


def test_annotators_agreement_and_the_weak_one():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=200)
    answers = np.stack(
        [np.where(rng.random(200) < skill, truth, rng.integers(3, size=200)) for skill in (0.9,) * 4 + (0.0,)], 1
    )
    answers[rng.random(answers.shape) < 0.2] = -1
    report = examine(
        Dataset.from_dict({"text": texts(200)[0], "annotator_labels": answers.tolist()}), embeddings=False
    )
    weak = only(report, "annotators are weak")
    assert weak.values["weak"] == ["4"] and weak.level in ("problem", "warning")
    kappa = only(report, "Fleiss kappa")
    assert kappa.low < kappa.value < kappa.high
    assert report.treatments(weak)[0].slug == "crowd_soft_labels"


def test_bags_multi_labels_and_probabilities():
    bags = examine(Dataset.from_dict({"bag_id": [0] * 70 + [1] * 80 + [-1], "proportion": [0.5] * 151}))
    assert "75 rows (median)" in only(bags, "2 bags").title and "1.00 bits" in " ".join(only(bags, "2 bags").details)
    rows = [[1, 0, 0], [0, 0, 0], [1, 1, 0]] * 20
    multi = examine(Dataset.from_dict({"labels": rows, "label_mask": [[1, 1, 0]] * 60}))
    assert only(multi, "Unknown cells").value == 1 / 3 and "20 of 60" in only(multi, "without any positive").title
    positives = examine(Dataset.from_dict({"labels": [[1, -1], [1, 1]] * 10}))
    assert only(positives, "Only positives").level == "problem"
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    sure = np.where(rng.random(400) < 0.7, labels, 1 - labels)
    probs = np.where(np.arange(2) == sure[:, None], 0.97, 0.03)
    found = only(examine(Dataset.from_dict({"labels": labels, "probs": probs.tolist()})), "Calibration error")
    assert (
        abs(found.value - 0.27) < 0.06 and found.low < found.value < found.high and "overconfident" in found.details[0]
    )


def test_files_text_labels_and_lists_in_cells_are_read(tmp_path):
    rows, labels = texts(90)
    path = tmp_path / "x.csv"
    lines = [f'"{row}",{list(WORDS)[k]},"[{k}, {k}]"' for row, k in zip(rows, labels, strict=True)]
    path.write_text("sentence,category,annotator_labels\n" + "\n".join(lines))
    report = examine(str(path), encoder="tfidf")
    assert report.facts["input"] == "sentence" and report.facts["labels"] == {
        "annotator_labels": "crowd",
        "category": "hard",
    }
    assert set(only(report, "largest class").values["counts"]) == set(WORDS)


def test_labels_of_a_string_column_get_the_same_ids_in_both_splits():
    rows, labels = texts(100)
    names = [list(WORDS)[k] for k in labels]
    one = Dataset.from_dict({"text": rows, "label": names})
    two = Dataset.from_dict({"text": rows[:40], "label": [name for name in names[:40]]})
    report = examine(DatasetDict({"train": one, "validation": two}), embeddings=False)
    assert only(report, "Label shift").value < 0.2


def test_images_are_compared_by_pixels():
    from PIL import Image

    pictures = [Image.fromarray(np.full((8, 8, 3), 5 * (i % 40), np.uint8)) for i in range(60)]
    data = Dataset.from_dict({"image": pictures, "labels": [i // 30 for i in range(60)]})
    report = examine(data)
    assert only(report, "Exact duplicates").values["rows"] == 20 and "thumbnails" in report.facts["features"]


def test_bad_input_is_named(tmp_path):
    data = Dataset.from_dict({"text": [f"text {i}" for i in range(50)], "note": ["x"] * 50})
    assert "No column of labels" in examine(data, embeddings=False).findings[0].title
    with pytest.raises(KeyError, match="labelz"):
        examine(data, label_column="labelz")
    with pytest.raises(ValueError, match="50 different values"):
        examine(data, label_column="text")
    with pytest.raises(ValueError, match="no split 'dev'"):
        examine(data, eval_split="dev")
    with pytest.raises(FileNotFoundError):
        examine(str(tmp_path / "nothing.csv"))
    with pytest.raises(ValueError, match="`level`"):
        Finding("", "fatal", "x")


def test_every_treatment_is_a_method_of_the_catalog():
    slugs = {method.slug for method in catalog.METHODS}
    assert all(slug in slugs for found in TREATMENTS.values() for slug, _ in found)


def test_commands_of_treatments_run_as_they_stand(tmp_path, monkeypatch):
    rows, labels = texts(120)
    path = tmp_path / "it's.csv"
    given = [list(WORDS)[(k + (i % 9 == 0)) % 3] for i, k in enumerate(labels)]
    answers = [f'"[{k}, {k}, {(k + 1) % 3}]"' for k in labels]
    lines = [f'"{row}",{name},{cell}' for row, name, cell in zip(rows, given, answers, strict=True)]
    path.write_text("text,label,annotator_labels\n" + "\n".join(lines))
    report = examine(str(path), encoder="tfidf")
    commands = {t.slug: t.command for one in report.findings for t in report.treatments(one) if t.ready}
    assert {"confident_learning", "crowd_soft_labels"} <= set(commands)
    from hf_labels.doctor.features import _tfidf

    module = importlib.import_module("hf_labels.trainers.cross_fit")
    monkeypatch.setattr(module, "make_encoder", lambda *a, **k: Frozen(_tfidf))
    for slug in ("confident_learning", "crowd_soft_labels"):
        exec(compile(commands[slug], slug, "exec"), {})
    from hf_labels.cli.train import parse
    from hf_labels.trainers.crowd_soft_labels import CrowdLabelTrainingArguments

    line = commands["crowd_soft_labels"].rpartition("# or, to train on it: ")[2]
    script, _ = parse(shlex.split(line)[3:], CrowdLabelTrainingArguments, "hf-labels train crowd_soft_labels")
    assert (script.dataset, script.text_column, script.label_column) == (str(path), "text", "annotator_labels")
    from hf_labels.trainers.crosstune import CrossTuneTrainingArguments

    report = examine(Dataset.from_dict({"text": rows[:30], "labels": labels[:30]}), embeddings=False)
    command = next(t.command for one in report.findings for t in report.treatments(one) if t.slug == "crosstune")
    words = shlex.split(command)
    assert words[:3] == ["hf-labels", "train", "crosstune"]
    script, _ = parse(words[3:], CrossTuneTrainingArguments, "hf-labels train crosstune")
    assert script.text_column == "text" and script.label_column == "labels"


def test_the_command_for_bags_runs_as_it_stands(tmp_path, monkeypatch):
    rows, labels = texts(160, names=("skin", "money"))
    bag = np.where(np.arange(160) % 5 == 0, 1 - labels, labels)  # bags of 20 and 80 per cent
    shares = (np.bincount(bag, weights=labels) / np.bincount(bag))[bag]
    path = tmp_path / "bags.csv"
    lines = [f"{row},{b},{s}" for row, b, s in zip(rows, bag, shares, strict=True)]
    path.write_text("text,bag_id,proportion\n" + "\n".join(lines))
    report = examine(str(path), embeddings=False)
    command = report.treatments(only(report, "2 bags"))[0].command
    from hf_labels.doctor.features import _tfidf

    monkeypatch.setattr("hf_labels.data.encoders.make_encoder", lambda *a, **k: Frozen(_tfidf))
    run: dict = {}
    exec(compile(command, "llp_bp", "exec"), run)
    right = (np.array(run["data"]["pseudo_label"][:]) == labels).mean()
    assert right > 0.8


def test_the_report_is_json_and_the_command_line_prints_it(tmp_path, capsys):
    from hf_labels.cli import main

    data = table(150)
    data.save_to_disk(tmp_path / "data")
    pages = ["--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html")]
    code = main(["doctor", str(tmp_path / "data"), "--encoder", "tfidf", *pages])
    shown = capsys.readouterr().out
    assert code == 0 and "95 % interval" in shown and "r.html" in shown
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["facts"]["input"] == "text" and all("level" in one for one in found["findings"])
    assert main(["doctor", str(tmp_path / "nothing.csv")]) == 1
    assert "nothing.csv" in capsys.readouterr().err
