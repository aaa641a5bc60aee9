"""Judged labels on the loopback Hub: rows, facts and a card as a data set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from checks import check, log, main
from huggingface_hub import DatasetCard, HfApi

from hf_labels.labels.llm_label_error_files import push_report
from hf_labels.labels.llm_label_errors import LabelErrorReport

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def a_report_is_pushed_with_its_card():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet(np.ones(3), size=(2, 2, 12)), rng.integers(0, 3, 12)
    report = LabelErrorReport(probs, labels, ("no", "maybe", "yes"), ["one", "two"], ["{text}", "Text: {text}"])
    push_report(report, "tester/judged", 0.5)
    np.savez(SHARED / "judged.npz", probs=probs, labels=labels)
    assert log("validate_yaml")
    files = set(HfApi().list_repo_files("tester/judged", repo_type="dataset"))
    assert {"README.md", "label_errors.json", "label_errors.parquet"} <= files
    card = str(DatasetCard.load("tester/judged", ignore_metadata_errors=False))
    assert "2410.18889" in card and "label_original" in card


if __name__ == "__main__":
    main()
