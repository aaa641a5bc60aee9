"""Runs the checks of one script in a process of its own and reports each by name, as JSON.

The client reads its environment when it is first imported, so everything that talks to the loopback Hub happens in a
subprocess. Functions marked with `check` run in the order in which they are written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHECKS: list[Callable[[], None]] = []
WORK = Path(os.environ.get("LOOPBACK_WORK", "."))


def check(function: Callable[[], None]) -> Callable[[], None]:
    _CHECKS.append(function)
    return function


def main() -> None:
    """Run all checks; write {name: {"seconds": s, "error": traceback or None}} to the path in argv[1]."""
    report: dict[str, dict[str, Any]] = {}
    for function in _CHECKS:
        faults()
        start, error = time.perf_counter(), None
        try:
            function()
        except BaseException:  # a check that fails must not hide the ones after it
            error = traceback.format_exc()
        report[function.__name__] = {"seconds": round(time.perf_counter() - start, 3), "error": error}
        Path(sys.argv[1]).write_text(json.dumps(report))


def raises(kind: type[BaseException], function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The error that the call raises. Fails when there is none; another kind of error goes through."""
    try:
        result = function(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was expected, but the call returned {result!r}")


def _control(method: str, action: str, value: Any = None) -> Any:
    data = None if value is None else json.dumps(value).encode()
    request = urllib.request.Request(f"{os.environ['HF_ENDPOINT']}/__control__/{action}", data=data, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as response:
        return json.loads(response.read())


def faults(*items: dict[str, Any]) -> None:
    """Replace the faults of the loopback Hub (none: everything works) and empty its log."""
    _control("POST", "faults", list(items))
    _control("DELETE", "log")


def log(route: str | None = None, path: str = "") -> list[dict[str, Any]]:
    """Requests since the last call of `faults`, of one route, whose path contains `path`."""
    return [e for e in _control("GET", "log") if route in (None, e["route"]) and path in e["path"]]


def hits() -> list[int]:
    """How many requests each fault has hit."""
    return [fault["hits"] for fault in _control("GET", "faults")]


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file under a folder, to compare before and after."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Messages(logging.Handler):
    """Messages of one logger, as a list of texts, from now on."""

    texts: list[str]

    @classmethod
    def of(cls, name: str) -> list[str]:
        handler = cls()
        handler.texts = []
        logging.getLogger(name).addHandler(handler)
        return handler.texts

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def folder_of(name: str, files: dict[str, bytes]) -> Path:
    """A new folder with these files."""
    folder = WORK / name
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder
