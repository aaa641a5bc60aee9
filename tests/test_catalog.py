"""The catalog is the only list of methods, and it is right about itself."""

import json
import subprocess
import sys

import pytest

import hf_labels
from hf_labels import catalog

KINDS = {"hard", "value", "multi", "soft", "crowd", "bag", "text", "sequence"}


def test_fifty_two_systems_with_unique_slugs():
    slugs = [method.slug for method in catalog.METHODS]
    assert len(slugs) == len(set(slugs)) == 52
    assert all(slug.isidentifier() and slug == slug.lower() for slug in slugs)


@pytest.mark.parametrize("method", catalog.METHODS, ids=lambda method: method.slug)
def test_row_is_complete(method):
    assert method.problem in catalog.PROBLEMS
    assert set(method.consumes) <= KINDS and method.consumes
    assert all([method.title, method.paper, method.produces, method.public, method.metrics, method.experiment])
    assert method.summary.endswith(".") and 1990 < method.year <= 2026
    assert method.status in ("ready", "planned")
    assert all((":" in name) == (method.status == "ready") for name in method.public)


def test_every_problem_has_methods_and_nothing_is_lost():
    groups = catalog.by_problem()
    assert list(groups) == list(catalog.PROBLEMS)
    assert all(groups.values())
    assert sum(len(rows) for rows in groups.values()) == len(catalog.METHODS)


def test_public_names_resolve():
    for name, module in catalog.public_names().items():
        value = getattr(hf_labels, name)
        assert callable(value), name
        assert value.__module__.startswith("hf_labels."), name
        assert module.startswith("hf_labels.")
    assert set(catalog.public_names()) < set(dir(hf_labels))


def test_planned_name_says_so():
    planned = next(method for method in catalog.METHODS if method.status == "planned")
    with pytest.raises(AttributeError, match=f"belongs to `{planned.slug}`, which is planned"):
        getattr(hf_labels, planned.public[0])
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = hf_labels.nothing


def test_unknown_slug_names_the_closest():
    with pytest.raises(KeyError, match="Did you mean crosstune"):
        catalog.get("cross-tune")
    assert catalog.get("crosstune").url == "https://arxiv.org/abs/2403.12468"
    assert catalog.get("sla").url is None


def test_import_is_light():
    code = (
        "import json, sys, hf_labels\n"
        "print(json.dumps([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == []
