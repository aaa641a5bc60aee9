"""Steps of the experiment that are done once: kept in the cache folder, so an interrupted run goes on where it was."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def root() -> Path:
    """`robot_arm` in the cache folder of hf_labels."""
    from hf_labels.data.features import cache_root

    return cache_root() / "robot_arm"


def stage(name: str, settings: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """Folder of a finished step.

    Args:
        name (`str`): Kind of step.
        settings: Everything that decides the result, also the folder names of earlier steps. A change makes a new one.
        make: Fills the folder that it is given; the folder gets its name only when `make` is through.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    path = root() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if path.exists():
        return path
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    begin = time.perf_counter()
    try:
        make(part)
        (part / "stage.json").write_text(
            json.dumps({"settings": json.loads(text), "seconds": round(time.perf_counter() - begin, 1)}, indent=1)
        )
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    logger.info("%s: %.0f s", name, time.perf_counter() - begin)
    return path


def seconds(path: Path) -> float:
    """What a step took when it was made."""
    return float(json.loads((path / "stage.json").read_text())["seconds"])


def save_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


def load_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
