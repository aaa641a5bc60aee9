"""Fixtures: one loopback Hub for the session, and the reports of the scripts that talk to it.

The loopback Hub is a protocol stand-in written by this project. It proves the client path, not the Hub's validation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fresh
import pytest
from hub_reports import SCRIPTS, Report
from loopback_hub import LoopbackHub

SETTINGS = ("HF_", "HUGGING", "TRANSFORMERS_")  # a caller's own tokens, caches and offline switches stay out


@pytest.fixture(scope="session")
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        running.page_size = 5  # so that every listing of a larger repository goes through pagination
        yield running


@pytest.fixture(scope="session")
def run_script(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Report]:
    """Run scripts/<name>.py once per session against the loopback Hub.

    Its cache is empty and its own, or (`cache_of`) the one that another script has filled, now in offline mode.
    """
    done: dict[str, Report] = {}
    folders: dict[str, Path] = {}
    shared = tmp_path_factory.mktemp("hub_shared")

    def run(name: str, cache_of: str | None = None) -> Report:
        if name in done:
            return done[name]
        folder = folders[name] = tmp_path_factory.mktemp(f"hub_{name}")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
        env = kept | hub.environment(folder / "home") | {"OMP_NUM_THREADS": "1", "LOOPBACK_SHARED": str(shared)}
        env |= {"LOOPBACK_WORK": str(folder), "HF_LABELS_CACHE": str(folder / "hf_labels_cache")}
        if cache_of:
            env |= {"HF_HOME": str(folders[cache_of] / "home"), "HF_HUB_OFFLINE": "1"}
        script, result = SCRIPTS / f"{name}.py", folder / "report.json"
        process = fresh.run([script, result], env=env, cwd=folder)
        checks = json.loads(result.read_text()) if result.is_file() else {}
        done[name] = Report(checks, process.returncode, process.stdout + process.stderr)
        return done[name]

    return run
