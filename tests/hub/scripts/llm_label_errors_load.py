"""Loads, in a fresh process with an empty cache, what `llm_label_errors_push.py` has pushed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from checks import check, main

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_report_comes_back_whole():
    from hf_labels.labels.llm_label_error_files import load_report

    kept, found = np.load(SHARED / "judged.npz"), load_report("tester/judged")
    np.testing.assert_array_equal(found.probs, kept["probs"])
    assert (found.original == kept["labels"]).all() and found.names == ("no", "maybe", "yes")


@check
def the_rows_are_a_data_set():
    from datasets import load_dataset

    rows = load_dataset("tester/judged", data_files="label_errors.parquet", split="train")
    assert rows.features["label_original"].names == ["no", "maybe", "yes"]
    assert set(rows["status"][:]) <= {"disputed", "agreed"} and len(rows) == 12


if __name__ == "__main__":
    main()
