"""Every ready row has all its parts, and its result file is honest about what was measured."""

import json
from pathlib import Path

import pytest

from hf_labels import catalog

ROOT = Path(__file__).resolve().parents[2]
READY = [method.slug for method in catalog.ready()]


def _any(pattern: str) -> bool:
    return any(ROOT.glob(pattern))


@pytest.mark.parametrize("slug", READY)
def test_find_shows_the_whole_method(slug):
    needed = {
        "a card text": f"hub_cards/methods/{slug}.md",
        "an example": f"examples/{slug}.py",
        "a measured result": f"examples/results/{slug}.json",
        "golden vectors": f"tests/golden/vectors/{slug.replace('_', '-')}.json",
        "a golden adapter": f"tests/golden/adapters/{slug}.py",
    }
    missing = [f"{what} ({pattern})" for what, pattern in needed.items() if not _any(pattern)]
    assert not missing, f"{slug} is `ready` in the catalog without " + ", ".join(missing)
    assert _any(f"tests/**/test_{slug}*.py"), f"{slug} has no test file"
    parts = [f"hf_labels/{kind}/{slug}" for kind in ("labels", "losses", "models", "generation")] + [
        f"trainers/{slug}"
    ]
    assert any(_any(f"{part}.py") or _any(f"{part}/__init__.py") for part in parts), f"{slug} has no code"


def test_nothing_is_orphaned():
    """A card, example or result named after neither a method nor a shared part would be a second list."""
    slugs = {method.slug for method in catalog.METHODS}
    shared = {
        "soft_labels",
        "calibration_metrics",
        "doctor",
        "multilabel_metrics",
        "harness",
        "metrics",
        "mixing",
        "mixing_core",
        "soft_label_store",
        "timing",
    }
    for pattern in ("hub_cards/methods/*.md", "examples/*.py", "examples/results/*.json", "examples/benchmarks/*.py"):
        assert {path.stem for path in ROOT.glob(pattern)} <= slugs | shared, pattern


@pytest.mark.parametrize("slug", READY)
def test_result_is_paired_over_seeds_with_a_baseline(slug):
    result = json.loads((ROOT / "examples" / "results" / f"{slug}.json").read_text())
    for key in ("method", "command", "versions", "hardware", "wall_time_s", "date", "rows", "paired"):
        assert result.get(key), f"{key} is missing from the result of {slug}"
    assert result["method"] == slug
    assert len({row["name"] for row in result["rows"]}) >= 2, "no baseline is shown"
    for row in result["rows"]:
        assert row["seeds"] >= 5 and len(row["values"]) == row["seeds"], row["name"]
        assert abs(sum(row["values"]) / len(row["values"]) - row["mean"]) < 1e-9, row["name"]
    for pair in result["paired"]:
        assert pair["n"] >= 5 and pair["stderr"] >= 0 and 0 <= pair["wins"] <= pair["n"]
