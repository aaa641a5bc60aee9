"""Keeping a `LabelErrorReport`: a table of its rows, files, and a data set on the Hub."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.labels.kinds import MISSING
from hf_labels.labels.llm_label_errors import LabelErrorReport

FACTS_FILE, ROWS_FILE = "label_errors.json", "label_errors.parquet"


def report_rows(report: LabelErrorReport, threshold: float = 0.8) -> Any:
    """The report as a `datasets.Dataset`: `index`, `label_original`, `suggested_label`, `label_quality`, `is_issue`,
    `confidence`, `status` (`"disputed"`, `"agreed"`, `"unjudged"`, `"no label"`), `votes` and `probs` (M * T * C)."""
    from datasets import ClassLabel, Dataset, Features, List, Value

    issues, flat = report.issues(threshold), report.probs.shape
    label = ClassLabel(names=list(report.names)) if report.names else Value("int64")
    status = np.where(report.disputed, "disputed", "agreed").astype(object)
    status[~report.judged], status[report.original == MISSING] = "unjudged", "no label"
    columns = {
        "index": np.arange(len(report)),
        "label_original": report.original,
        "suggested_label": issues.suggested,
        "label_quality": issues.quality,
        "is_issue": issues.is_issue,
        "confidence": report.confidence,
        "status": status.tolist(),
        "votes": report.votes.tolist(),
        "probs": report.probs.transpose(2, 0, 1, 3).reshape(len(report), -1).tolist(),
    }
    features = Features(
        {
            "index": Value("int64"),
            "label_original": label,
            "suggested_label": label,
            "label_quality": Value("float64"),
            "is_issue": Value("bool"),
            "confidence": Value("float64"),
            "status": Value("string"),
            "votes": List(Value("int64"), length=flat[0] * flat[1]),
            "probs": List(Value("float64"), length=flat[0] * flat[1] * flat[3]),
        }
    )
    return Dataset.from_dict(columns, features=features)


def _facts(report: LabelErrorReport, threshold: float) -> dict[str, Any]:
    return {
        "judges": list(report.judges),
        "prompts": list(report.prompts),
        "names": None if report.names is None else list(report.names),
        "shape": list(report.probs.shape),
        "threshold": threshold,
        "ordinal": report.ordinal,
        "delta": report.delta,
        "disputed": int(report.disputed.sum()),
        "flagged": int(report.flagged(threshold).sum()),
        "unjudged": int((~report.judged).sum()),
    }


def save_report(report: LabelErrorReport, folder: str | Path, threshold: float = 0.8) -> Path:
    """Write the rows (Parquet) and the facts (JSON: judges, prompts, thresholds) into a folder. Returns it."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    report_rows(report, threshold).to_parquet(str(place / ROWS_FILE))
    (place / FACTS_FILE).write_text(json.dumps(_facts(report, threshold), indent=2) + "\n", encoding="utf-8")
    return place


def load_report(folder: str | Path) -> LabelErrorReport:
    """Read back what [`save_report`] wrote, from a folder or a data set on the Hub.

    Raises:
        FileNotFoundError: If the files are not there.
    """
    import pyarrow.parquet as pq

    place = Path(folder)
    if not place.is_dir():
        from huggingface_hub import snapshot_download

        place = Path(snapshot_download(str(folder), repo_type="dataset", allow_patterns=[FACTS_FILE, ROWS_FILE]))
    if not (place / FACTS_FILE).is_file():
        raise FileNotFoundError(f"{folder} holds no {FACTS_FILE}: it was not written by `save_report`.")
    facts = json.loads((place / FACTS_FILE).read_text(encoding="utf-8"))
    table = pq.read_table(place / ROWS_FILE, columns=["label_original", "probs"])
    judges, prompts, rows, classes = facts["shape"]
    probs = np.array(table.column("probs").to_pylist(), dtype=np.float64).reshape(rows, judges, prompts, classes)
    return LabelErrorReport(
        probs.transpose(1, 2, 0, 3),
        np.array(table.column("label_original").to_pylist(), dtype=object),
        None if facts["names"] is None else tuple(facts["names"]),
        facts["judges"],
        facts["prompts"],
        facts["ordinal"],
        facts["delta"],
    )


def push_report(
    report: LabelErrorReport, repo_id: str, threshold: float = 0.8, *, private: bool | None = None, token: Any = None
) -> Any:
    """Push rows, facts and a card as a data set; both label columns are there for everybody to judge.

    Returns:
        `CommitInfo`
    """
    import tempfile

    from huggingface_hub import HfApi

    from hf_labels.hub_cards import LabelColumn, render_dataset_card

    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_report(report, folder, threshold)
        names = list(report.names or ())
        card = render_dataset_card(
            repo_id,
            tool="hf_labels.lm.llm_label_errors.LabelErrorDetector",
            columns=[
                LabelColumn("label_original", "hard", "as it was before", names),
                LabelColumn("suggested_label", "hard", "by the ensemble of judges", names),
            ],
            label_assumptions="The judges' suggestions are right more often than the labels that they dispute.",
            limits="Errors on which judges and label agree are not seen. A flag is a suspicion.",
            slug="llm_label_errors",
            num_rows=len(report),
            settings={"judges": ", ".join(report.judges), "threshold": threshold},
            report={name: _facts(report, threshold)[name] for name in ("disputed", "flagged", "unjudged")},
        )
        (Path(folder) / "README.md").write_text(str(card), encoding="utf-8")
        return api.upload_folder(
            repo_id=repo_id, repo_type="dataset", folder_path=folder, commit_message="Upload judged labels"
        )
