"""Names of the checks of a script, and what it reported about them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).resolve().parent / "scripts"


def checks_of(script: str) -> list[str]:
    """Names of the functions marked `@check` in scripts/<script>.py, read without running it."""
    tree = ast.parse((SCRIPTS / f"{script}.py").read_text())
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(ast.unparse(mark) == "check" for mark in node.decorator_list)
    ]


@dataclass
class Report:
    """What one script reported: {check: {"seconds", "error"}}, and what it printed."""

    checks: dict[str, dict[str, Any]]
    returncode: int
    output: str

    def assert_passed(self, name: str) -> None:
        if name not in self.checks:
            pytest.fail(f"The script ended (code {self.returncode}) before {name}:\n{self.output[-6000:]}")
        if self.checks[name]["error"]:
            pytest.fail(f"{self.checks[name]['error']}\n--- output of the script\n{self.output[-2000:]}")
