"""Fresh processes that start fast: `fresh.run([...])` in place of `subprocess.run([sys.executable, ...])`.

Most of the time of a small script goes into importing torch, scipy and the like. A server has these imported and forks
itself for every script: what the script sees is a new process in which neither this project nor transformers, datasets
or huggingface_hub was imported, so it reads its own environment (`HF_HOME`, `HF_ENDPOINT`, ...).
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("fresh_server.py")
_server: subprocess.Popen | None = None


def run(
    words: Sequence[Any], *, env: Mapping[str, str] | None = None, cwd: Any = None, timeout: float = 300
) -> subprocess.CompletedProcess:
    """Run `python WORDS`, where `WORDS` is a script or `-c CODE`, with its arguments.

    Returns:
        `subprocess.CompletedProcess` with `returncode`, and text in `stdout` and `stderr`. A script that takes longer
        than `timeout` seconds is killed, and has return code -9.
    """
    argv = [str(word) for word in words]
    environment = dict(os.environ if env is None else env)
    if not hasattr(os, "fork"):
        return subprocess.run(
            [sys.executable, *argv],
            env=environment,
            cwd=cwd,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        asked = {"argv": argv, "env": environment, "cwd": str(cwd or os.getcwd()), "timeout": timeout}
        answer = _ask(asked | {"out": str(out), "err": str(err)})
        texts = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    return subprocess.CompletedProcess(argv, answer["returncode"], *texts)


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    global _server
    if _server is None or _server.poll() is not None:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
        _server = subprocess.Popen(
            [sys.executable, str(SERVER)],
            env=clean | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(_server.kill)
    assert _server.stdin is not None and _server.stdout is not None
    _server.stdin.write(json.dumps(request) + "\n")
    _server.stdin.flush()
    line = _server.stdout.readline()
    assert line, f"the server of fresh processes has stopped ({_server.poll()})"
    return json.loads(line)
