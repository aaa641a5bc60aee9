"""`TAILLabels`: documents with a teacher's answers, the report on them, and their files."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_labels.labels.tail_vrd import SCHEMA_FILE, DocumentSchema
from hf_labels.labels.tail_vrd_scores import extraction_scores

FACTS_FILE, ROWS_FOLDER = "tail.json", "rows"
COLUMNS = ("target_json", "field_status", "confidence", "flags", "teacher")


class LabelingError(RuntimeError):
    """No document could be labelled; names the most frequent reasons."""


@dataclass(frozen=True)
class TAILLabels:
    """What [`~hf_labels.lm.tail_vrd.TAILLabeler`] returns.

    Parameters:
        dataset (`datasets.Dataset`): The documents that can be trained on, with their own columns and `index` (row in
            what was given), `target_json` (kept fields, in the order of the schema), `field_status` and `confidence`
            (per field), `flags` (what was hard to read), `teacher`.
        schema ([`DocumentSchema`]): The fields.
        report (`dict`): Counts, reasons of skipped rows, status per field, usage of the teacher.
        task (`str`): Context of the instruction.
        formats (`bool`): The instruction said how values are written.
    """

    dataset: Any
    schema: DocumentSchema
    report: dict[str, Any]
    task: str = ""
    formats: bool = True

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def values(self) -> list[dict[str, Any]]:
        """The kept fields of each document."""
        return [json.loads(text) for text in self.dataset["target_json"][:]]

    def evaluate(self, gold: Any, **options: Any) -> dict[str, Any]:
        """How right the labels are.

        Args:
            gold (`dict` or sequence): Right values by `index`, for as many documents as there are (a sample will do),
                or one dict per row of what was labelled.
            options: As in [`~hf_labels.labels.tail_vrd_scores.extraction_scores`].

        Raises:
            ValueError: If no labelled document has a right answer.
        """
        known = gold if isinstance(gold, dict) else dict(enumerate(gold))
        pairs = [
            (value, known[row])
            for row, value in zip(self.dataset["index"][:], self.values, strict=True)
            if row in known
        ]
        if not pairs:
            raise ValueError("None of the labelled documents (column `index`) is in `gold`.")
        return extraction_scores([one for one, _ in pairs], [two for _, two in pairs], self.schema, **options)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write schema, facts and rows into a folder."""
        place = Path(folder)
        self.schema.save(place)
        facts = {"report": self.report, "task": self.task, "formats": self.formats}
        (place / FACTS_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self.dataset.save_to_disk(str(place / ROWS_FOLDER))
        return place

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> TAILLabels:
        """From a folder written by `save`, or a data set on the Hub written by `push_to_hub`.

        Raises:
            FileNotFoundError: If a folder holds no labels.
        """
        from datasets import load_dataset, load_from_disk

        place, dataset = Path(name), None
        if not place.is_dir():
            from huggingface_hub import hf_hub_download

            dataset = load_dataset(str(name), split="train")
            place = Path(hf_hub_download(str(name), FACTS_FILE, repo_type="dataset")).parent
            hf_hub_download(str(name), SCHEMA_FILE, repo_type="dataset")
        if not (place / FACTS_FILE).is_file():
            raise FileNotFoundError(f"{name} holds no {FACTS_FILE}.")
        facts = json.loads((place / FACTS_FILE).read_text(encoding="utf-8"))
        rows = load_from_disk(str(place / ROWS_FOLDER)) if dataset is None else dataset
        return cls(rows, DocumentSchema.load(place), facts["report"], facts["task"], facts["formats"])

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: Any = None) -> Any:
        """Push rows, schema, report and a card as a data set.

        Documents are private more often than not: look at them before.

        Returns:
            `CommitInfo`
        """
        import tempfile

        from huggingface_hub import HfApi

        from hf_labels.hub_cards import LabelColumn, render_dataset_card, save_card

        api = HfApi(token=token)
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        self.dataset.push_to_hub(repo_id, private=private, token=token)
        counts = {key: value for key, value in self.report.items() if isinstance(value, int | float)}
        with tempfile.TemporaryDirectory() as folder:
            self.schema.save(folder)
            facts = {"report": self.report, "task": self.task, "formats": self.formats}
            Path(folder, FACTS_FILE).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
            card = render_dataset_card(
                repo_id,
                tool="hf_labels.lm.tail_vrd.TAILLabeler",
                columns=[
                    LabelColumn("target_json", "text", "JSON of the fields that passed the gates"),
                    LabelColumn("field_status", "", "per field ok, null, inconsistent or ungrounded"),
                    LabelColumn("confidence", "", "per field the share of the teacher's samples that agree"),
                ],
                label_assumptions=f"Fields: {', '.join(self.schema.names)}. Task: {self.task or 'not given'}.",
                limits="A language model wrote the labels. The gates find disagreement, not errors made twice.",
                slug="tail_vrd",
                labelled_by=self.report.get("teacher"),
                num_rows=len(self),
                report=counts,
            )
            save_card(card, folder)
            return api.upload_folder(
                repo_id=repo_id, repo_type="dataset", folder_path=folder, commit_message="Upload labels"
            )
