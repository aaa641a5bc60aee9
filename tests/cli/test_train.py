"""`hf-labels train` end to end on small tables: what it accepts, what it leaves behind, how it refuses and resumes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny

FAST = "--use_cpu --num_train_epochs 20 --learning_rate 2e-3 --report_to none --disable_tqdm true".split()


@pytest.fixture
def tables(tmp_path):
    tiny.write_csv(tmp_path / "train.csv", tiny.rows(48))
    tiny.write_jsonl(tmp_path / "dev.jsonl", tiny.rows(24, seed=1))
    return tmp_path


def words(method, folder, backbone, *more, data="train.csv"):
    return [
        "train",
        method,
        "--dataset",
        folder / data,
        "--model",
        backbone,
        "--output_dir",
        folder / "out",
        *FAST,
        *more,
    ]


def scores(folder):
    return json.loads((folder / "out" / "eval_results.json").read_text())


@pytest.mark.parametrize("method", ["soft_labels", "crosstune"])
def test_csv_end_to_end(cli, tables, backbone, method):
    more = ["--num_train_epochs", "60", "--learning_rate", "1e-2"] if method == "crosstune" else []
    code, out, err = cli(*words(method, tables, backbone, "--eval_dataset", tables / "dev.jsonl", *more))
    assert code == 0, err
    assert f"Model, card and metrics of `{method}` are in" in out and "eval_accuracy" in out
    got = scores(tables)
    assert got["eval_accuracy"] > 0.5 and got["eval_loss"] > 0 and 0 <= got["eval_ece"] <= 1  # chance is 0.33
    config = json.loads((tables / "out" / "config.json").read_text())
    assert list(config["id2label"].values()) == sorted(tiny.TOPICS)
    card = (tables / "out" / "README.md").read_text()
    assert "Label assumptions" in card and "train.csv" in card and "dev.jsonl" in card and str(tables) not in card


def test_crosstune_with_descriptions_from_jsonl(cli, tables, backbone):
    tiny.write_jsonl(tables / "train.jsonl", tiny.rows(12))
    described = {name: " ".join(ws[:3]) for name, ws in tiny.TOPICS.items()} | {"arts": "old songs"}
    (tables / "labels.yaml").write_text(json.dumps(described))
    more = ["--label_descriptions", tables / "labels.yaml", "--eval_dataset", tables / "dev.jsonl"]
    code, _, err = cli(*words("crosstune", tables, backbone, *more, data="train.jsonl"))
    assert code == 0, err
    config = json.loads((tables / "out" / "config.json").read_text())
    assert config["label_descriptions"] == described  # a class without a row keeps its place
    assert cli("card", "crosstune", "--model", tables / "out")[0] == 0
    wrong = {"sport": "ball", "monney": "bank", "music": "song"}
    code, _, err = cli(
        *words("crosstune", tables, backbone, "--label_descriptions", json.dumps(wrong), "--overwrite_output_dir")
    )
    assert code == 1 and "label 'money', which `label_descriptions` lacks" in err and "Did you mean 'monney'?" in err


def test_soft_labels_from_probabilities_crowds_and_label_sets(cli, tables, backbone):
    names = sorted(tiny.TOPICS)
    records = tiny.rows(24)
    soft = [
        {"body": r["text"], "soft_labels": [0.8 if r["label"] == n else 0.1 for n in names], "labels": r["label"]}
        for r in records
    ]
    tiny.write_jsonl(tables / "soft.jsonl", soft)
    more = ["--eval_fraction", "0.25", "--hard_label_weight", "0.5", "--overwrite_output_dir"]
    code, _, err = cli(*words("soft_labels", tables, backbone, *more, data="soft.jsonl"))
    assert code == 0, err
    assert "eval_accuracy" in scores(tables)
    assert list(json.loads((tables / "out" / "config.json").read_text())["id2label"].values()) == names
    tiny.write_csv(tables / "soft.csv", [{"body": r["body"], "p": json.dumps(r["soft_labels"])} for r in soft])
    code, _, err = cli(
        *words("soft_labels", tables, backbone, "--label_column", "p", "--overwrite_output_dir", data="soft.csv")
    )
    assert code == 0, err
    crowd = [{"text": r["text"], "annotator_labels": [names.index(r["label"]), -1, 0]} for r in records]
    tiny.write_jsonl(tables / "crowd.jsonl", crowd)
    code, _, err = cli(*words("soft_labels", tables, backbone, "--overwrite_output_dir", data="crowd.jsonl"))
    assert code == 0, err
    assert "is converted to `soft_labels` (soft): shares of the votes" in err
    sets = [{"text": r["text"], "tags": [r["label"], "music"]} for r in records]
    tiny.write_jsonl(tables / "sets.jsonl", sets)
    code, _, err = cli(
        *words("soft_labels", tables, backbone, "--label_column", "tags", "--overwrite_output_dir", data="sets.jsonl")
    )
    assert code == 0 and "equal shares of the positive labels" in err


def test_a_crowd_is_aggregated_with_the_method_that_is_asked_for(cli, tables, backbone):
    names = sorted(tiny.TOPICS)
    crowd = [
        {"text": r["text"], "annotator_labels": [names.index(r["label"])] * 2 + [i % 3], "labels": r["label"]}
        for i, r in enumerate(tiny.rows(24))
    ]
    tiny.write_jsonl(tables / "crowd.jsonl", crowd)
    more = ["--eval_fraction", "0.25", "--objective", "multi_task", "--aggregation", "ds", "--max_steps", "2"]
    code, _, err = cli(*words("crowd_soft_labels", tables, backbone, *more, data="crowd.jsonl"))
    assert code == 0, err
    assert "eval_accuracy" in scores(tables)
    assert list(json.loads((tables / "out" / "config.json").read_text())["id2label"].values()) == names
    assert "| `aggregation` | `ds` |" in (tables / "out" / "README.md").read_text()
    code, _, err = cli(
        *words(
            "crowd_soft_labels",
            tables,
            backbone,
            "--aggregation",
            "mean",
            "--overwrite_output_dir",
            data="crowd.jsonl",
        )
    )
    assert code != 0 and "aggregation" in err and "'mean'" in err


def test_yaml_config_and_overrides(cli, tables, backbone):
    settings = {
        "dataset": str(tables / "train.csv"),
        "model": backbone,
        "output_dir": str(tables / "out"),
        "max_steps": 2,
        "temperature": 3.0,
        "learning-rate": 1e-3,
        "use_cpu": True,
        "report_to": ["none"],
        "run_name": None,
    }
    (tables / "run.yaml").write_text(json.dumps(settings))
    code, _, err = cli(
        "train", "soft_labels", "--config", tables / "run.yaml", "--temperature", "2", "--disable_tqdm", "1"
    )
    assert code == 0, err
    card = (tables / "out" / "README.md").read_text()
    assert "| `temperature` | `2.0` |" in card  # the command line wins over the file
    assert json.loads((tables / "out" / "trainer_state.json").read_text())["max_steps"] == 2
    (tables / "bad.yaml").write_text("temprature: 3\n")
    code, _, err = cli("train", "soft_labels", "--config", tables / "bad.yaml")
    assert code == 2 and "unknown option 'temprature'. Did you mean --temperature" in err
    (tables / "bad.yaml").write_text("- a\n")
    assert "must map options to values" in cli("train", "soft_labels", "--config", tables / "bad.yaml")[2]
    (tables / "bad.yaml").write_text("a: [\n")
    assert "is no YAML" in cli("train", "soft_labels", "--config", tables / "bad.yaml")[2]
    assert "there is no file" in cli("train", "soft_labels", "--config", tables / "none.yaml")[2]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lerning_rate", "1"], r"unknown option '--lerning_rate'. Did you mean --learning_rate"),
        (["--learning_rate", "fast"], r"argument --learning_rate.*invalid float value: 'fast'"),
        (["--temperature", "0"], r"`temperature` must be above 0, got 0.0"),
        (["--eval_fraction", "1.5"], r"`eval_fraction` must be in [0, 1), got 1.5"),
        (["--label_kind", "soggy"], r"`label_kind` must be hard, multi, soft, crowd or value"),
        (["--dataset"], r"argument --dataset"),
    ],
)
def test_wrong_usage_is_exit_2(cli, tables, backbone, more, message):
    import re

    code, out, err = cli(*words("soft_labels", tables, backbone, *more))
    assert code == 2 and out == "" and "Traceback" not in err
    assert message in err or re.search(message, err)
    assert err.count("\n") == 2 and "`hf-labels train soft_labels --help`" in err


def test_missing_options(cli, tmp_path):
    code, _, err = cli("train", "soft_labels")
    assert code == 2 and "the following arguments are required: --dataset" in err and "--model" in err
    code, _, err = cli("train", "soft_labels", "--dataset", "x", "--model", "y")
    assert code == 2 and "--output_dir is needed" in err


def table(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (
            "text,label\na,x\nb,y\n",
            ["--label_column", "lable"],
            "Column `lable` is missing; the data set has: text, label. Did you",
        ),
        ("text,label\na,x\nb,y\n", ["--text_column", "txt"], "Column `txt` is missing; the data set has: text, label"),
        (
            "text,topic\na,x\nb,y\n",
            [],
            "No column with labels was found; the data set has: text, topic. Pass --label_column",
        ),
        ("title1,body,label\na,b,x\nc,d,y\n", [], "it could be any of title1, body. Pass --text_column"),
        ("n,label\n1,x\n2,y\n", [], "no column holds text. Pass --text_column"),
        ("text,label\na,x\n,y\n", [], "Column `text` has None or NaN at row 1"),
        ("text,label\na,x\nb,x\n", [], "one class only"),
        ("text,label\na,x\nb,\nc,y\n", [], "missing (-1) at row 1"),
        ("text,label\na,0.25\nb,1.5\n", [], "holds kind `value`, the method learns from `soft`"),
        ('text,label\na,"[0.2, 0.9]"\nb,"[1.0, 0.0]"\n', ["--label_kind", "soft"], "sums to 1.1 at row 0, expected 1"),
        ('text,label\na,"[0.2, 0.8]"\nb,what\n', [], "'what' at row 1, expected a list such as"),
        ("text,label\na,x\nb,y\n", ["--train_split", "trian"], "has no split 'trian'; it has: train"),
        ("text,label\na,x\nb,y\n", ["--class_names", "x", "z"], "'y' at row 1, which is not among the 2 names: x, z"),
        ("text,label\na,x\nb,y\n", ["--eval_strategy", "epoch"], "--eval_strategy epoch needs evaluation data"),
        ("text,label\na,x\nb,y\n", ["--max_length", "99"], "`max_length` is 99"),
        ("text,label\na,x\nb,y\n", ["--resume_from_checkpoint"], "holds no checkpoint. Run without it"),
        ("text,label\na,x\nb,y\n", ["--resume_from_checkpoint", "nowhere"], "'nowhere' is no checkpoint folder"),
    ],
)
def test_bad_data_is_exit_1_with_one_message(cli, tmp_path, backbone, content, more, message):
    table(tmp_path / "train.csv", content)
    code, out, err = cli(*words("soft_labels", tmp_path, backbone, *more))
    assert code == 1 and out == ""
    assert "Traceback" not in err and message in " ".join(err.split())
    assert not (tmp_path / "out" / "config.json").exists()


def test_evaluation_labels_must_be_known(cli, tables, backbone):
    tiny.write_jsonl(tables / "dev.jsonl", [{"text": "a", "label": "sport"}, {"text": "b", "label": "chess"}])
    code, _, err = cli(*words("soft_labels", tables, backbone, "--eval_dataset", tables / "dev.jsonl"))
    assert code == 1 and "'chess' at row 1 of the evaluation data, which no training row has" in err


def test_model_or_data_that_is_not_there(cli, tables, backbone):
    code, _, err = cli(*words("soft_labels", tables, tables / "nomodel"))
    assert code == 1 and "nomodel" in err and "Traceback" not in err
    code, _, err = cli(*words("soft_labels", tables, backbone, data="tarin.csv"))
    assert code == 1 and "Did you mean" in err and "train.csv" in err
    code, _, err = cli(*words("soft_labels", tables, backbone, "--dataset", "nobody/nothing"))
    assert code == 1 and "the Hub cannot be reached" in err


def test_a_folder_with_another_model_is_refused_and_kept(cli, tables, backbone):
    out = tables / "out"
    out.mkdir()
    (out / "config.json").write_text('{"model_type": "other"}')
    code, _, err = cli(*words("soft_labels", tables, backbone))
    assert (
        code == 1
        and "already holds a model (config.json). Choose another folder, or pass --overwrite_output_dir" in err
    )
    assert (out / "config.json").read_text() == '{"model_type": "other"}'
    code, _, err = cli(*words("soft_labels", tables, backbone, "--output_dir", tables / "train.csv"))
    assert code == 1 and "is a file" in err
    assert cli(*words("soft_labels", tables, backbone, "--overwrite_output_dir", "--max_steps", "1"))[0] == 0


def test_help_of_a_method(cli):
    code, out, _ = cli("train", "soft_labels", "--help")
    assert code == 0 and "--temperature" in out and "--label_column" in out and "--torch_compile" not in out
    assert "--torch_compile" in cli("train", "soft_labels", "--help_all")[1]


def test_resume_goes_on_from_the_last_checkpoint(cli, tables, backbone):
    more = ["--save_strategy", "steps", "--save_steps", "2", "--max_steps", "4"]
    assert cli(*words("soft_labels", tables, backbone, *more))[0] == 0
    whole = json.loads((tables / "out" / "trainer_state.json").read_text())
    code, _, err = cli(*words("soft_labels", tables, backbone, *more, "--max_steps", "6"))
    assert code == 1 and "continue it with --resume_from_checkpoint" in err
    assert cli(*words("soft_labels", tables, backbone, *more, "--max_steps", "6", "--resume_from_checkpoint"))[0] == 0
    again = json.loads((tables / "out" / "trainer_state.json").read_text())
    assert (whole["global_step"], again["global_step"]) == (4, 6)


def test_resume_command_repeats_the_launcher_and_no_token(tmp_path, monkeypatch):
    from hf_labels.cli.train import _resume_text

    argv = ["soft_labels", "--hub_token", "hf_secret", "--resume-from-checkpoint", "last", "--dataset", "my data.csv"]
    argv += ["--hub_token=hf_secret", "--use_cpu"]
    assert "start again with the same command" in _resume_text("Stopped.", argv, str(tmp_path))
    (tmp_path / "checkpoint-7").mkdir()
    text = _resume_text("Stopped. Continue with X", argv, str(tmp_path))
    command = "train soft_labels --dataset 'my data.csv' --use_cpu --resume_from_checkpoint"
    assert text == f"Stopped.\nContinue with:\n  hf-labels {command}"
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert f"torchrun --nproc_per_node 2 -m hf_labels.cli {command}" in _resume_text("Stopped.", argv, str(tmp_path))


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_ctrl_c_says_how_to_go_on_and_that_command_works(cli, tables, backbone):
    more = ["--max_steps", "100000", "--save_steps", "50", "--logging_steps", "1", "--save_total_limit", "1"]
    line = [str(word) for word in words("soft_labels", tables, backbone, *more)]
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_labels.cli", *line],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 120
        while not list((tables / "out").glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err and "Continue with:" in err
    command = err.strip().splitlines()[-1].split()
    assert command[:3] == ["hf-labels", "train", "soft_labels"] and command[-1] == "--resume_from_checkpoint"
    stopped = max(int(p.name.rpartition("-")[2]) for p in (tables / "out").glob("checkpoint-*"))
    resumed = command[1:-1] + ["--max_steps", str(stopped + 1), "--resume_from_checkpoint"]
    code, out, err = cli(*resumed)
    assert code == 0, err
    assert json.loads((tables / "out" / "trainer_state.json").read_text())["global_step"] == stopped + 1


@pytest.mark.dist
def test_torchrun_with_two_processes(tables, backbone):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    launch += ["--rdzv_endpoint", "127.0.0.1:0", "-m", "hf_labels.cli"]
    line = words("soft_labels", tables, backbone, "--eval_dataset", tables / "dev.jsonl")
    line += ["--per_device_train_batch_size", "4"]
    done = subprocess.run(
        [*launch, *map(str, line)], capture_output=True, text=True, env=environment(), stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("Model, card and metrics of `soft_labels` are in") == 1
    assert scores(tables)["eval_accuracy"] > 0.5
    again = subprocess.run(
        [*launch, *map(str, line)], capture_output=True, text=True, env=environment(), stdin=subprocess.DEVNULL
    )
    assert again.returncode != 0 and again.stderr.count("already holds a model") == 1
