"""`examine`: all checks of the doctor on one data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from hf_labels.doctor import bags, calibration, labels, noise, plural, rows
from hf_labels.doctor.features import features_of
from hf_labels.doctor.reading import Patient, read_patient
from hf_labels.doctor.report import LEVELS, DoctorReport, Finding
from hf_labels.labels.columns import class_names


def examine(
    source: Any,
    *,
    split: str | None = None,
    eval_split: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    probs_column: str | None = None,
    config: str | None = None,
    encoder: Any = None,
    embeddings: bool = True,
    seed: int = 0,
) -> DoctorReport:
    """Measure what ails the labels of a data set.

        report = examine("fancyzhx/ag_news")
        print(report.text())
        report.to_html("report.html")

    Args:
        source: Hub id, folder or file, `datasets.Dataset`, or a dict of splits.
        split, eval_split (`str`, *optional*): Rows to examine, and rows to compare with; `train` and the first of
            `validation`, `valid`, `dev`, `eval` and `test` by default.
        text_column, label_column, probs_column (`str`, *optional*): Where name and content do not tell.
        config (`str`, *optional*): Of a Hub data set.
        encoder (*optional*): For near-duplicates and likely wrong labels: as in
            [`~hf_labels.data.encoders.make_encoder`], `"tfidf"`, or a function from images to vectors. MiniLM by
            default.
        embeddings (`bool`, *optional*, defaults to `True`): Without them only what needs no encoder is checked.
        seed (`int`, *optional*): Of folds and resamples.

    Returns:
        [`~hf_labels.doctor.DoctorReport`]: `.text()`, `.to_json(path)`, `.to_html(path)`.

    Raises:
        KeyError, ValueError, OSError: If the data cannot be read, or a column is missing; says which.

    Intervals are 95 %: exact for shares (Clopper-Pearson), by resamples for the others (`doctor/intervals.py`).
    """
    if seed < 0:
        raise ValueError(f"`seed` must be 0 or more, got {seed}.")
    start = time.perf_counter()
    patient = read_patient(
        source,
        split=split,
        eval_split=eval_split,
        text_column=text_column,
        label_column=label_column,
        probs_column=probs_column,
        config=config,
    )
    seconds = {"reading": time.perf_counter() - start}
    features, others, encoded_by = None, None, ""
    if embeddings and patient.answers is None:
        start = time.perf_counter()
        parts = [patient.data]
        if patient.evaluation is not None and patient.text in patient.evaluation.column_names:
            parts.append(patient.evaluation)
        found, encoded_by = features_of(patient, parts, encoder)
        features, others = (*found, None, None)[:2]
        seconds["encoder"] = time.perf_counter() - start
    start = time.perf_counter()
    findings: list[Finding] = list(patient.notes)
    for check in _checks(patient, features, others, encoded_by, seed):
        findings += check()
    seconds["checks"] = time.perf_counter() - start
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    facts = patient.facts()
    if encoded_by:
        facts["features"] = encoded_by
    return DoctorReport(patient.source, facts, tuple(findings), command_of(patient), seconds)


def command_of(patient: Patient) -> dict[str, str]:
    """What the commands of the treatments need to know."""
    command = {"split": patient.split, "config": patient.config or "", **dict.fromkeys(patient.steps, "yes")}
    if patient.answers:
        command["item"], command["worker"] = patient.answers
    labels, soft = patient.hard, patient.derived and patient.kinds[patient.derived] == "soft"
    if labels is not None and not soft and (labels < 0).any():
        command["missing"] = "yes"
    if patient.text and not all(patient.data[patient.text][:]):
        command["no text"] = "yes"
    bag = patient.column_of("bag")
    if bag and bags.has_outside(patient, bag):
        command["no bag"] = "yes"
    if patient.image and not patient.text:
        command["image"] = patient.image
    if patient.label and class_names(patient.data, patient.label) and not patient.derived:
        command["named"] = "yes"
    if patient.derived:
        command["derived"] = patient.kinds[patient.derived]
        command["target"] = patient.label or ""
    elif patient.label:
        command["kind"] = patient.kinds[patient.label]
    columns = {"text": patient.text, "label": patient.derived or patient.label, "crowd": patient.column_of("crowd")}
    columns |= {"bag": patient.column_of("bag"), "proportion": patient.proportion}
    return {name: value for name, value in (command | columns).items() if value}


def _checks(
    patient: Patient, features: Any, others: Any, encoded_by: str, seed: int
) -> Iterator[Callable[[], Iterator[Finding]]]:
    yield lambda: labels.missing(patient)
    if patient.label is not None:
        yield lambda: labels.balance(patient)
    yield lambda: labels.soft(patient)
    yield lambda: labels.annotators(patient, seed)
    yield lambda: bags.bags(patient)
    if patient.answers is None:  # else each input is there once per annotator
        yield lambda: rows.duplicates(patient)
    if features is not None:
        yield lambda: rows.near_duplicates(patient, features, seed)
        yield lambda: noise.noise(patient, features, encoded_by, seed=seed)
        yield lambda: plural.plural_noise(patient, features, encoded_by, seed)
    yield lambda: rows.leakage(patient, features, others, seed)
    yield lambda: rows.unknown_classes(patient)
    yield lambda: rows.shift(patient, seed=seed)
    yield lambda: calibration.calibration(patient, seed=seed)
