"""`hf-labels env`: what a bug report needs. Shows that a token exists, never the token."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from hf_labels._version import __version__
from hf_labels.cli.main import Parser

PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "accelerate",
    "huggingface-hub",
    "peft",
    "trl",
    "sentence-transformers",
    "safetensors",
    "numpy",
    "scikit-learn",
    "scipy",
    "pyarrow",
)
SWITCHES = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "WORLD_SIZE")


def facts() -> dict[str, Any]:
    """Versions, devices and cache folders as JSON values."""
    versions: dict[str, str] = {"hf_labels": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    from datasets import config as datasets_config
    from huggingface_hub import constants, get_token

    return {
        "versions": versions,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "executable": sys.executable,
        "devices": _devices(),
        "caches": {
            "HF_HOME": constants.HF_HOME,
            "models": constants.HF_HUB_CACHE,
            "datasets": str(datasets_config.HF_DATASETS_CACHE),
        },
        "hub": {"logged_in": get_token() is not None, "endpoint": constants.ENDPOINT.rpartition("@")[2]},
        "environment": {name: os.environ[name] for name in SWITCHES if name in os.environ},
    }


def _devices() -> dict[str, Any]:
    found: dict[str, Any] = {"cpu_count": os.cpu_count()}
    try:
        import torch
    except ImportError as error:
        return {**found, "torch": f"cannot be imported: {error}"}
    found["torch_threads"] = torch.get_num_threads()
    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found["cuda"] = accelerators or "none"
    found["mps"] = bool(torch.backends.mps.is_available())
    return found


def run(argv: Sequence[str]) -> int:
    """Print the facts."""
    parser = Parser(prog="hf-labels env", description="Show versions, devices and cache folders; no secrets.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    known = facts()
    if args.json:
        print(json.dumps(known, indent=2))
        return 0
    for part, values in known.items():
        if not isinstance(values, dict):
            print(f"{part}: {values}")
            continue
        print(f"{part}:")
        for key, value in values.items():
            print(f"  {key:<24} {', '.join(value) if isinstance(value, list) else value}")
    return 0
