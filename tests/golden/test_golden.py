"""Replay reference numbers: every case of every file in `HF_LABELS_GOLDEN_DIR` through `adapters/<slug>.py`.

An adapter sees what a case asks for (`function`, `inputs`, `params`) and never its name or its expected numbers.
"""

import importlib.util
import json
import math
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
VECTORS = Path(os.environ.get("HF_LABELS_GOLDEN_DIR") or HERE / "vectors")
CASES = [
    (path, index, case["name"])
    for path in sorted(VECTORS.glob("*.json"))
    for index, case in enumerate(json.loads(path.read_text())["cases"])
]


@cache
def _file(path: Path) -> dict:
    return json.loads(path.read_text())


@cache
def _adapter(stem: str):
    slug = stem.replace("-", "_")
    path = HERE / "adapters" / f"{slug}.py"
    if not path.exists():
        raise LookupError(f"No adapter {path.name} handles the cases of {stem}.json.")
    spec = importlib.util.spec_from_file_location(f"golden_adapter_{slug}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _plain(value):
    """Tensors, arrays and tuples -> nested lists of Python numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.double().numpy() if value.is_floating_point() else value.numpy()
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def differences(got, want, tolerance: float, where: str = "") -> list[str]:
    """Paths at which `got` is not `want`; extra keys of `got` do not count."""
    if isinstance(want, dict):
        if not isinstance(got, dict):
            return [f"{where}: expected a mapping, got {type(got).__name__}"]
        missing = [f"{where}.{key}: missing" for key in want if key not in got]
        return missing + [d for k in want if k in got for d in differences(got[k], want[k], tolerance, f"{where}.{k}")]
    if isinstance(want, list):
        if not isinstance(got, list) or len(got) != len(want):
            size = len(got) if isinstance(got, list) else type(got).__name__
            return [f"{where}: expected {len(want)} items, got {size}"]
        pairs = zip(got, want, strict=True)
        return [d for i, (g, w) in enumerate(pairs) for d in differences(g, w, tolerance, f"{where}[{i}]")]
    if _is_number(want) and (_is_number(got) or isinstance(got, bool)):
        if isinstance(want, float) and math.isnan(want):
            return [] if math.isnan(got) else [f"{where}: expected NaN, got {got}"]
        close = got == want or abs(got - want) <= tolerance * max(1.0, abs(want))
        return [] if close else [f"{where}: expected {want!r}, got {got!r}"]
    same = got == want and isinstance(got, bool) == isinstance(want, bool)
    return [] if same else [f"{where}: expected {want!r}, got {got!r}"]


@pytest.mark.parametrize(("path", "index", "name"), CASES, ids=[f"{p.stem}-{i}-{n}" for p, i, n in CASES])
def test_golden(path: Path, index: int, name: str, record_property):
    record_property("golden_file", path.name)
    file = _file(path)
    case = json.loads(json.dumps(file["cases"][index]))  # a copy: an adapter may change its inputs
    tolerance = case.get("tolerance", file.get("tolerance", 1e-6))
    got = _plain(_adapter(path.stem).replay(case["function"], case["inputs"], case.get("params", {})))
    wrong = differences(got, case["expected"], tolerance)
    assert not wrong, f"{path.name}, case {name}: " + "; ".join(wrong[:5])


def test_there_are_vectors():
    assert CASES, f"No golden vectors in {VECTORS}."


def test_a_wrong_number_is_seen():
    want = {"a": [1.0, {"b": float("nan")}], "c": True}
    assert not differences({"a": [1.0, {"b": float("nan")}], "c": True, "more": 1}, want, 1e-6)
    assert differences({"a": [1.0 + 1e-5, {"b": float("nan")}], "c": True}, want, 1e-6) == [
        ".a[0]: expected 1.0, got 1.00001"
    ]
    assert differences({"a": [-1.0, {"b": 0.0}], "c": 1}, want, 1e-6)
    assert differences({"a": [1.0]}, want, 1e-6) == [".c: missing", ".a: expected 2 items, got 1"]
