"""TAIL on the loopback Hub: labels as a data set, a small VLM and a tagger as students, each with a card."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from checks import check, log, main
from huggingface_hub import DatasetCard, HfApi, ModelCard

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tail_vrd_toys import SCHEMA, receipts, tiny_tagger, tiny_vlm, toy_labels  # noqa: E402

from hf_labels.hub_cards import ResultRow  # noqa: E402
from hf_labels.labels.tail_vrd_cost import CostModel  # noqa: E402
from hf_labels.models.tail_vrd import DocumentStudent  # noqa: E402

SHARED = Path(os.environ["LOOPBACK_SHARED"])
api = HfApi()
LABELS = toy_labels(6, task="audit")


@check
def the_labels_are_pushed_with_schema_report_and_card():
    LABELS.push_to_hub("tester/receipt-labels")
    files = set(api.list_repo_files("tester/receipt-labels", repo_type="dataset"))
    assert {"README.md", "schema.json", "tail.json"} <= files and any(name.endswith(".parquet") for name in files)
    assert log("validate_yaml")
    card = str(DatasetCard.load("tester/receipt-labels", ignore_metadata_errors=False))
    assert "2411.14957" in card and "knowing" in card and "field_status" in card


@check
def a_small_vlm_is_pushed_with_the_table_of_costs():
    student = DocumentStudent(
        *tiny_vlm(LABELS), SCHEMA, task="audit", max_new_tokens=8, facts={"labels": LABELS.report}
    )
    cost = CostModel(0.01, labelled=6, training=1.0, student_per_document=0.001)
    student.push_to_hub("tester/receipt-vlm", cost=cost, results=[ResultRow("receipts", "test", "anls", 0.5)])
    files = set(api.list_repo_files("tester/receipt-vlm"))
    assert {"README.md", "schema.json", "instruction.txt", "student.json", "model.safetensors"} <= files
    card = str(ModelCard.load("tester/receipt-vlm", ignore_metadata_errors=False))
    assert "break-even" in card and "tester/receipt-vlm" in card and "knowing" in card
    found = student.extract_many(receipts(3))
    (SHARED / "vlm.json").write_text(json.dumps(found))


@check
def a_tagger_is_pushed():
    student = DocumentStudent(*tiny_tagger(LABELS), SCHEMA)
    student.push_to_hub("tester/receipt-tagger")
    (SHARED / "tagger.json").write_text(json.dumps(student.extract_many(receipts(3))))


if __name__ == "__main__":
    main()
