"""Calibration of probabilities that are in the data set."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.doctor.columns import are_distributions, ids_of, is_readable, table_of, told
from hf_labels.doctor.intervals import gap_interval, percent, shown
from hf_labels.doctor.reading import Patient
from hf_labels.doctor.report import Finding
from hf_labels.labels.columns import class_names, read_column

BINS = 15  # of the calibration error, as in `calibration_scores`


def calibration(patient: Patient, resamples: int = 200, seed: int = 0) -> Iterator[Finding]:
    """Calibration of probabilities that are in the data set, of the evaluation rows if they are there."""
    column, label = patient.probs, patient.label
    if column is None:
        return
    if label is None or patient.kinds[label] != "hard":
        yield told("note", f"The calibration of `{column}` was not measured: that needs one label a row")
        return
    from hf_labels.metrics.functional import calibration_scores

    inside = patient.evaluation is not None and {column, label} <= set(patient.evaluation.column_names)
    data, split = (patient.evaluation, patient.evaluated) if inside else (patient.data, patient.split)
    probs, wrong = _probabilities(patient, data, column)
    if wrong:
        yield told("problem", f"The probabilities `{column}` of `{split}` cannot be measured: {wrong}")
    if probs is None or probs.shape[1] < 2:
        return
    labels, good = ids_of(data, label), are_distributions(probs)
    if not good.all():
        title = f"Rows of `{column}` of `{split}` that are no distribution: {shown(int((~good).sum()), len(good))}"
        yield told("problem", title, f"They were left out. {_no_distribution(probs, good)}")
    used = good & (labels >= 0)
    probs, labels = probs[used], labels[used]
    if not len(labels):
        return
    scores = calibration_scores(probs, labels, per_bin=True)
    sure, right = probs.max(1), probs.argmax(1) == labels
    part = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    _, low, high = gap_interval(sure - right, part, resamples, np.random.default_rng(seed))
    ece = scores["ece"]
    level = "problem" if ece > 0.1 else "warning" if ece > 0.03 else "good"
    over, under = scores["oe"], scores["ue"]
    side = "" if max(over, under) < 0.005 else f"; mostly {'over' if over > under else 'under'}confident"
    details = [
        f"accuracy {percent(scores['accuracy'])}, log loss {scores['nll']:.3f}, Brier {scores['brier']:.3f}{side}"
    ]
    if level != "good":
        repair = "hf_labels.metrics.temperature_scaling on rows that are held back"
        details.append(f"a single temperature repairs much of it: {repair}")
    if "encode" in patient.steps:
        details.append(f"columns are taken as the classes in this order: {', '.join(patient.names[:12])}")
    yield Finding(
        "calibration",
        level,
        f"Calibration error of `{column}` on `{split}`: ECE {ece:.3f} (95 % interval {low:.3f} to {high:.3f})",
        float(ece),
        low,
        high,
        tuple(details),
        pictures=(functools.partial(_diagram, scores),),
        values={name: scores[name] for name in ("accuracy", "nll", "brier", "oe", "ue")},
    )


def _probabilities(patient: Patient, data: Any, column: str) -> tuple[np.ndarray | None, str]:
    """A column as a table `(N, K)`, and what keeps it from being one, `""` for nothing."""
    cells = read_column(data, column) if is_readable(data.features[column]) else None
    if cells is None or cells.lengths is None or cells.is_text or not (cells.lengths > 0).any():
        return None, "each row must be a list of numbers"
    assert patient.label is not None
    classes, rows = len(patient.names), table_of(cells)
    named = "encode" in patient.steps or class_names(data, patient.label) is not None
    if rows is None or rows.shape[1] < classes or (named and rows.shape[1] > classes):
        bad = int(np.flatnonzero((cells.lengths > 0) & (cells.lengths != classes))[0])
        return None, f"row {bad} has {int(cells.lengths[bad])} values, there are {classes} classes"
    good = are_distributions(rows)
    return (rows, "") if good.any() else (None, f"its rows are no distributions. {_no_distribution(rows, good)}")


def _no_distribution(rows: np.ndarray, good: np.ndarray) -> str:
    row = int((~good).argmax())
    values = ", ".join("missing" if np.isnan(value) else f"{value:.4g}" for value in rows[row][:5])
    return f"Row {row} holds {values}{', ...' if rows.shape[1] > 5 else ''}."


def _diagram(scores: dict[str, Any], folder: Path) -> Any:
    from hf_labels.hub_cards import reliability_diagram

    return reliability_diagram(scores, folder / "reliability.png")
