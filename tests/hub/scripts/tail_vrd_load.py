"""Loads, in a fresh process with an empty cache, what `tail_vrd_push.py` has pushed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from checks import check, main, raises

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tail_vrd_toys import SCHEMA, receipts  # noqa: E402

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_labels_come_back():
    from hf_labels.labels.tail_vrd_files import TAILLabels

    labels = TAILLabels.load("tester/receipt-labels")
    assert labels.schema == SCHEMA and labels.task == "audit" and labels.report["labelled"] == len(labels) == 6
    truths = [json.loads(text) for text in labels.dataset["truth"][:]]
    assert labels.values == [{name: truth[name] for name in SCHEMA.names} for truth in truths]


@check
def the_students_read_as_before():
    from hf_labels.models.tail_vrd import DocumentStudent

    for name in ("vlm", "tagger"):
        student = DocumentStudent.from_pretrained(f"tester/receipt-{name}")
        assert student.schema == SCHEMA
        assert student.extract_many(receipts(3)) == json.loads((SHARED / f"{name}.json").read_text())


@check
def another_repository_is_refused():
    from hf_labels.models.tail_vrd import DocumentStudent

    error = raises(OSError, DocumentStudent.from_pretrained, "tester/nothing")
    assert "tester/nothing" in str(error)


if __name__ == "__main__":
    main()
