"""Shared pieces of the command-line tests: a tiny backbone on disk and small tables."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny  # noqa: E402


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    return tiny.save_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Tables that a test loads are cached in its own folder."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def cli(capsys):
    """Run `hf-labels`: exit code, stdout, stderr."""
    from hf_labels.cli import main

    def run(*words):
        code = main([str(word) for word in words])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run
