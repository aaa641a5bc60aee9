"""What pip installs is what the tree holds, and it works outside the checkout."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {
    "hf_labels": ROOT / "hf_labels",
    "hf_labels.trainers": ROOT / "trainers",
    "hf_labels.hub_cards": ROOT / "hub_cards",
}


def _modules() -> dict[str, Path]:
    """Every module of the tree by import name."""
    found = {}
    for prefix, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((prefix, *(part for part in parts if part != "__init__")))] = path
    return found


def test_every_folder_is_a_declared_package():
    declared = set(SETTINGS["tool"]["setuptools"]["packages"])
    there = {name for name, path in _modules().items() if path.name == "__init__.py"}
    assert declared == there
    loose = {
        str(path.parent.relative_to(ROOT))
        for path in _modules().values()
        if not (path.parent / "__init__.py").exists()
    }
    assert not loose, f"folders without __init__.py would be missing from the wheel: {sorted(loose)}"


def test_no_file_is_over_400_lines_and_base_not_over_250():
    long = {name: len(path.read_text().splitlines()) for name, path in _modules().items()}
    assert not {name: lines for name, lines in long.items() if lines > 400}
    assert long["hf_labels.trainers.base"] <= 250


def test_imports_go_one_way():
    """labels, losses, mixing <- data, models, generation, lm <- trainers <- cli; cards import only the catalog."""
    import ast

    level = {"labels": 0, "losses": 0, "mixing": 0, "metrics": 0, "data": 1, "models": 1, "generation": 1, "lm": 1}
    level |= {"trainers": 2, "doctor": 3, "cli": 4}
    wrong = []
    for name, path in _modules().items():
        part = name.split(".")[1] if "." in name else None
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hf_labels"):
                targets = [node.module] if node.module != "hf_labels" else [f"hf_labels.{a.name}" for a in node.names]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names if alias.name.startswith("hf_labels.")]
            else:
                continue
            for target in targets:
                goal = target.split(".")[1] if "." in target else None
                if part in level and goal in level and level[goal] > level[part]:
                    wrong.append(f"{name} imports {target}")
                if part == "hub_cards" and goal not in ("hub_cards", "catalog", "_version", None):
                    wrong.append(f"{name} imports {target}")
    assert not wrong


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Wheel and sdist, built from a copy so that the checkout stays clean; the wheel comes from the sdist."""
    import shutil

    source = tmp_path_factory.mktemp("source") / "hf_labels"
    ignore = shutil.ignore_patterns(
        ".git", ".venv", ".types", "build", "dist", "*.egg-info", "__pycache__", "demo-output", ".*_cache"
    )
    shutil.copytree(ROOT, source, ignore=ignore)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


def test_wheel_holds_the_tree_and_nothing_else(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if ".dist-info/" not in name]
    assert all(name.startswith("hf_labels/") for name in names)
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names if name.endswith(".py")
    }
    assert modules == set(_modules())
    data = {name for name in names if not name.endswith(".py")}
    expected = {
        "hf_labels/py.typed",
        "hf_labels/hub_cards/templates/base.md.j2",
        "hf_labels/metrics/calibration/README.md",
    }
    expected |= {f"hf_labels/hub_cards/methods/{path.name}" for path in (ROOT / "hub_cards" / "methods").glob("*.md")}
    assert expected <= data


def test_wheel_works_outside_the_checkout(built, tmp_path):
    """Installed into an empty folder, in front of everything else on the path."""
    target = tmp_path / "site"
    wheel = next(built.glob("*.whl"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    code = """
import json, sys, hf_labels, importlib.metadata
from importlib.resources import files
import hf_labels.trainers, hf_labels.hub_cards, hf_labels.metrics
from hf_labels.hub_cards import render_card
card = render_card("crosstune", model_id="me/model")
print(json.dumps({
  "file": hf_labels.__file__, "trainers": hf_labels.trainers.__file__, "card": "CrossTune" in str(card),
  "template": files("hf_labels.hub_cards").joinpath("templates/base.md.j2").is_file(),
  "metric": files("hf_labels.metrics").joinpath("calibration/README.md").is_file()}))
"""
    env = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert Path(seen["file"]).is_relative_to(target) and Path(seen["trainers"]).is_relative_to(target)
    assert seen["card"] and seen["template"] and seen["metric"]
    script = target / "bin" / "hf-labels"
    shown = subprocess.run(
        [sys.executable, str(script), "methods", "crosstune"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert shown.returncode == 0 and "CrossTune" in shown.stdout, shown.stderr
