"""Commands that need no training: fast, light, with the right exit codes."""

import json
import subprocess
import sys
from importlib import import_module

import pytest

from hf_labels import catalog

HEAVY = ("torch", "transformers", "datasets", "numpy", "huggingface_hub", "sentence_transformers")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["methods"], ["methods", "--help"], ["--version"]])
def test_help_loads_nothing_heavy_and_little_else(words):
    code = (
        "import sys, json\nfrom hf_labels.cli import main\n"
        f"code = main({words!r})\n"
        f"print(json.dumps([code, [m for m in {HEAVY!r} if m in sys.modules], len(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    code, heavy, modules = json.loads(done.stdout.splitlines()[-1])
    assert (code, heavy) == (0, []), done.stderr
    assert modules < 200  # 70 of them are Python's own at the start


def test_no_command_and_unknown_command(cli):
    assert cli()[0] == 2
    code, out, err = cli("tarin")
    assert (code, out) == (2, "") and "there is no command 'tarin'. Did you mean 'train'?" in err
    code, _, err = cli("methods", "--jsno")
    assert code == 2 and "--jsno" in err and "`hf-labels methods --help`" in err
    code, out, _ = cli("--version")
    assert code == 0 and out.startswith("hf_labels 0.")


def test_methods_lists_the_whole_catalog_by_problem(cli):
    code, out, _ = cli("methods")
    assert code == 0
    places = [out.index(f"\n{name}: {text}") if i else 0 for i, (name, text) in enumerate(catalog.PROBLEMS.items())]
    assert places == sorted(places)
    for method in catalog.METHODS:
        assert f"  {method.slug} " in out
    ready = len(catalog.ready())
    assert f"{len(catalog.METHODS)} methods, {ready} ready, {len(catalog.METHODS) - ready} planned." in out


def test_methods_options(cli):
    listed = json.loads(cli("methods", "--json")[1])
    assert [row["slug"] for row in listed] == [m.slug for rows in catalog.by_problem().values() for m in rows]
    trainers = {m.slug for m in catalog.ready() if any(name.startswith(f"trainers.{m.slug}:") for name in m.public)}
    trainable = {slug for slug in trainers if hasattr(import_module(f"hf_labels.trainers.{slug}"), "cli_setup")}
    assert {row["slug"] for row in listed if row["trainable"]} == trainable > {"crosstune"}
    assert "ceed_vla" in trainers - trainable and "hf-labels train" not in cli("methods", "ceed_vla")[1]
    ready = json.loads(cli("methods", "--ready", "--json")[1])
    assert {row["slug"] for row in ready} == {m.slug for m in catalog.ready()}
    few = json.loads(cli("methods", "--problem", "few", "--json")[1])
    assert {row["slug"] for row in few} == {m.slug for m in catalog.by_problem()["few"]}
    assert cli("methods", "--problem", "none")[0] == 2


def test_one_method_is_explained(cli):
    code, out, _ = cli("methods", "CrossTune")
    method = catalog.get("crosstune")
    assert code == 0 and method.title in out and "https://arxiv.org/abs/2403.12468" in out
    assert "few: little or nothing is labelled" in out and "hf-labels train crosstune" in out
    assert "missing: -1 in data" in " ".join(out.split()) and "CrossTuneTrainer" in out
    assert json.loads(cli("methods", "crosstune", "--json")[1])["paper"] == "arXiv:2403.12468"
    planned = cli("methods", "rankmixup")[1]
    assert "planned, not there yet" in planned and "hf-labels train" not in planned
    assert "SoftLabelTrainer" in cli("methods", "soft_labels")[1]
    code, out, err = cli("methods", "crostune")
    assert (code, out) == (2, "") and "No method is called 'crostune'. Did you mean crosstune" in err


def test_train_names_unknown_and_planned_methods(cli):
    code, _, err = cli("train", "crosstun", "--dataset", "x")
    assert code == 2 and "Did you mean 'crosstune'?" in err and "Methods to train: " in err and "crosstune, " in err
    code, _, err = cli("train", "rankmixup")
    assert code == 2 and "`rankmixup` is planned and not there yet" in err
    assert cli("train")[0] == 2


def test_env_shows_no_secret(cli, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_verysecrettoken")
    code, out, err = cli("env", "--json")
    facts = json.loads(out)
    assert code == 0 and "verysecret" not in out + err
    assert facts["hub"]["logged_in"] is True and facts["versions"]["torch"].startswith("2.")
    assert set(facts["caches"]) == {"HF_HOME", "models", "datasets"} and facts["devices"]["cpu_count"] >= 1
    text = cli("env")[1]
    assert "transformers" in text and "verysecret" not in text


def test_card(cli, tmp_path):
    code, out, _ = cli("card", "crosstune")
    assert code == 0 and out.startswith("# CrossTune") and "2403.12468" in out
    target = tmp_path / "page.md"
    assert cli("card", "crosstune", "--output", target)[0] == 0 and target.read_text().startswith("# CrossTune")
    code, _, err = cli("card", "crosstune", "--output", target)
    assert code == 1 and "exists. Pass --overwrite" in err
    assert cli("card", "crosstune", "--output", target, "--overwrite")[0] == 0
    code, _, err = cli("card", "rankmixup")
    assert code == 2 and "planned and has no card yet" in err
    code, _, err = cli("card", "crostune")
    assert code == 2 and "Did you mean crosstune" in err
    code, _, err = cli("card", "crosstune", "--model", tmp_path / "no")
    assert code == 1 and "there is no folder" in err
    code, _, err = cli("card", "crosstune", "--model", tmp_path)
    assert code == 1 and "no config.json" in err


def test_card_of_a_trained_model(cli, tmp_path):
    folder = tmp_path / "news"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"id2label": {"1": "zebra", "0": "sport: #1"}, "backbone": "a/b"}))
    (folder / "eval_results.json").write_text(json.dumps({"eval_accuracy": 0.875, "eval_runtime": 3.0, "epoch": 1.0}))
    code, out, err = cli("card", "crosstune", "--model", folder, "--dataset", "me/news", "--output", folder)
    card = (folder / "README.md").read_text()
    assert code == 0 and err == "" and "0.875" in card and "runtime" not in card
    assert card.index("sport: #1") < card.index("zebra") and "me/news" in card
    (folder / "config.json").write_text("{")
    code, _, err = cli("card", "crosstune", "--model", folder)
    assert code == 1 and "is no JSON" in err


def test_debug_shows_the_traceback_and_nothing_else_does(cli, tmp_path):
    code, _, err = cli("card", "crosstune", "--model", tmp_path)
    assert code == 1 and "Traceback" not in err and len(err.splitlines()) == 1
    with pytest.raises(Exception, match="no config.json"):
        cli("--debug", "card", "crosstune", "--model", tmp_path)


def test_unexpected_errors_are_one_message(cli, monkeypatch):
    from hf_labels.cli import env

    def broken():
        raise RuntimeError("pop")

    monkeypatch.setattr(env, "facts", broken)
    code, _, err = cli("env")
    assert code == 1 and "unexpected RuntimeError: pop. Run it again with --debug" in err
    monkeypatch.setattr(env, "facts", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli("env")[0] == 130


def test_demo_is_wired(cli):
    code, out, _ = cli("demo", "--help")
    assert code == 0 and "--output_dir" in out
