"""Checks that need a model: likely wrong labels, and the calibration of given probabilities."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.doctor.labels import percent, share
from hf_labels.doctor.reading import Patient, are_distributions, ids_of
from hf_labels.doctor.report import Finding
from hf_labels.doctor.rows import _cut, keys_of
from hf_labels.labels.columns import read_column

FOLDS = 5
SHRINKS = (0.01, 0.1, 0.3, 0.7)
CELLS = 5_000_000  # rows times classes of the largest table of probabilities


def noise(patient: Patient, features: np.ndarray, name: str, resamples: int = 50, seed: int = 0) -> Iterator[Finding]:
    """Estimated noise rate and the likely wrong rows: confident learning on cross-fitted probabilities.

    Linear discriminants on the frozen features give each row's probabilities without having seen it.
    """
    labels = patient.hard
    if labels is None:
        if patient.label is not None:
            yield Finding("", "note", "Wrong labels were not looked for: that is done for one label a row")
        return
    rows = np.flatnonzero(labels >= 0)
    kinds, counts = np.unique(labels[rows], return_counts=True)
    kinds = kinds[counts >= 2]
    rows = rows[np.isin(labels[rows], kinds)]
    if len(kinds) < 2 or len(rows) < 10 * FOLDS:
        yield Finding("", "note", "Too few labelled rows to look for wrong labels")
        return
    if len(rows) * len(kinds) > CELLS:
        yield Finding("", "note", f"Too many classes ({len(kinds)}) for {len(rows)} rows to look for wrong labels")
        return
    from hf_labels.labels.confident_learning import ConfidentLearning
    from hf_labels.metrics.functional import clopper_pearson

    y = np.searchsorted(kinds, labels[rows])
    probs = cross_fitted(features[rows], y, seed=seed)
    cl = ConfidentLearning(y, probs, held_out=True)
    issues = cl.issues()
    names = [patient.names[k] for k in kinds]
    accuracy = float((probs.argmax(1) == y).mean())
    rate = _rate(cl)
    rng = np.random.default_rng(seed)
    drawn = [
        _rate(ConfidentLearning(y[i], probs[i], held_out=True)) for i in _resampled(y, len(kinds), resamples, rng)
    ]
    exact = clopper_pearson(round(rate * len(rows)), len(rows))  # a bootstrap of no errors knows none
    low, high = (float(v) for v in np.quantile(drawn, [0.025, 0.975]))
    low, high = min(low, exact[0]), max(high, exact[1])
    level = "problem" if low > 0.05 else "warning" if low > 0.01 else "good"
    flagged = issues.ranked()
    value, least, most = share(len(flagged), len(rows))
    keys = keys_of(patient, patient.data)
    shown = [
        (
            int(rows[i]),
            _cut(keys[rows[i]]) if patient.text else "",
            names[y[i]],
            names[int(issues.suggested[i])],
            float(issues.quality[i]),
        )
        for i in flagged[:50]
    ]
    yield Finding(
        "noise",
        level,
        f"Estimated noise rate {percent(rate)} (95 % interval {percent(low)} to {percent(high)}); "
        f"{len(flagged)} rows are likely wrong",
        rate,
        low,
        high,
        (
            f"likely wrong: {percent(value)} of {len(rows)} rows (95 % interval {percent(least)} to {percent(most)}),",
            f"by {name} features that tell {percent(accuracy)} of the labels out of sample: what they cannot tell "
            "apart may look like noise. Look at the rows before you change them.",
        ),
        ("row", "input", "label", "suggested", "quality"),
        tuple(shown),
        (functools.partial(_confusions, cl.joint, names),) if len(names) <= 30 else (),
        {"rows": [int(rows[i]) for i in flagged[:1000]], "flagged": len(flagged), "accuracy": accuracy},
    )


def cross_fitted(features: np.ndarray, y: np.ndarray, folds: int = FOLDS, seed: int = 0) -> np.ndarray:
    """Probabilities `(N, K)` of each row by linear discriminants of the other folds, in seconds for 20 000 rows.

    Args:
        features (`(N, d)`), y (`(N,)` integers): All K classes with two rows at least.
        folds, seed (`int`, *optional*): Every class is spread over the folds.

    The pooled covariance is shrunk towards a multiple of the identity; how far, and one temperature for all rows, are
    those of the lowest log loss out of sample. A head that has learned wrong labels by heart finds fewer of them, one
    that is too stiff takes hard rows for wrong ones.
    """
    from hf_labels.metrics.functional import temperature_scaling

    count = int(y.max()) + 1
    x = np.asarray(features, dtype=np.float64)
    part = _parts(y, folds, np.random.default_rng(seed))
    logits = {shrink: np.empty((len(x), count)) for shrink in SHRINKS}
    for fold in range(folds):
        held = part == fold
        train, own = x[~held], y[~held]
        sizes = np.bincount(own, minlength=count)
        sums = np.zeros((count, x.shape[1]))
        np.add.at(sums, own, train)
        means = sums / np.maximum(sizes, 1)[:, None]
        apart = train - means[own]
        values, vectors = np.linalg.eigh(apart.T @ apart / max(len(train) - count, 1))
        values = np.maximum(values, 0.0)
        turned, rows = means @ vectors, x[held] @ vectors
        prior = np.log(np.maximum(sizes, 1e-12) / len(train))
        for shrink, table in logits.items():
            inverse = 1 / ((1 - shrink) * values + shrink * max(values.mean(), 1e-12))
            table[held] = rows @ (turned * inverse).T - 0.5 * (turned**2 * inverse).sum(1) + prior
    best, found = np.inf, np.empty(0)
    for table in logits.values():
        scaled = table / temperature_scaling(table, y, 1e-4, 1e6, warn=False)
        scaled -= scaled.max(1, keepdims=True)
        probs = np.exp(scaled)
        probs /= probs.sum(1, keepdims=True)
        loss = float(-np.log(np.maximum(probs[np.arange(len(y)), y], 1e-12)).mean())
        if loss < best:
            best, found = loss, probs
    return found


def _parts(y: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each row; the rows of a class are dealt out in turn."""
    part, start = np.empty(len(y), np.int64), 0
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        part[rows] = (np.arange(len(rows)) + start) % folds
        start += len(rows)
    return part


def _rate(cl: Any) -> float:
    """Share of wrong labels by the estimated joint of given and true labels."""
    return max(0.0, float(1 - np.trace(cl.joint)))


def _resampled(y: np.ndarray, classes: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows with replacement, within each class, so that none vanishes."""
    groups = [np.flatnonzero(y == k) for k in range(classes)]
    for _ in range(resamples):
        yield np.concatenate([group[rng.integers(len(group), size=len(group))] for group in groups])


def _confusions(joint: np.ndarray, names: list[str], folder: Path) -> Any:
    from hf_labels.hub_cards import confusion_matrix_plot

    return confusion_matrix_plot(joint, names, folder / "joint.png")


def calibration(patient: Patient, resamples: int = 200, seed: int = 0) -> Iterator[Finding]:
    """Calibration of probabilities that are in the data set, of the evaluation rows if they are there."""
    column, label = patient.probs, patient.label
    if column is None or label is None or patient.kinds[label] != "hard":
        return
    from hf_labels.metrics.functional import calibration_scores

    inside = patient.evaluation is not None and {column, label} <= set(patient.evaluation.column_names)
    data, split = (patient.evaluation, patient.evaluated) if inside else (patient.data, patient.split)
    cells, labels = read_column(data, column), ids_of(data, label)
    wrong = _no_probabilities(cells, len(patient.names))
    if wrong:
        yield Finding("", "problem", f"The probabilities `{column}` of `{split}` cannot be measured: {wrong}")
        return
    probs, known = cells.matrix(), labels >= 0
    probs, labels = probs[known], labels[known]
    if not len(labels):
        return
    scores = calibration_scores(probs, labels, per_bin=True)
    rng = np.random.default_rng(seed)
    parts = (rng.integers(len(labels), size=len(labels)) for _ in range(resamples))
    draws = [calibration_scores(probs[part], labels[part])["ece"] for part in parts]
    low, high = (float(v) for v in np.quantile(draws, [0.025, 0.975]))
    ece = scores["ece"]
    level = "problem" if ece > 0.1 else "warning" if ece > 0.03 else "good"
    side = "over" if scores["oe"] > scores["ue"] else "under"
    details = (
        f"accuracy {percent(scores['accuracy'])}, log loss {scores['nll']:.3f}, Brier {scores['brier']:.3f}; "
        f"mostly {side}confident",
        "a single temperature repairs much of it: hf_labels.metrics.temperature_scaling on rows that are held back",
    )
    yield Finding(
        "calibration",
        level,
        f"Calibration error of `{column}` on `{split}`: ECE {ece:.3f} (95 % interval {low:.3f} to {high:.3f})",
        float(ece),
        low,
        high,
        details,
        pictures=(functools.partial(_diagram, scores),),
        values={name: scores[name] for name in ("accuracy", "nll", "brier", "oe", "ue")},
    )


def _no_probabilities(cells: Any, classes: int) -> str:
    """What keeps a column from being a table of probabilities; `""` for nothing."""
    if cells.lengths is None or cells.is_text:
        return "each row must be a list of numbers"
    widths = np.flatnonzero(cells.lengths != classes)
    if len(widths):
        row = int(widths[0])
        return f"row {row} has {max(int(cells.lengths[row]), 0)} values, there are {classes} classes"
    rows = cells.matrix()
    bad = np.flatnonzero(~are_distributions(rows))
    if len(bad):
        row = int(bad[0])
        values = ", ".join(f"{value:.4g}" for value in rows[row][:5])
        return f"{len(bad)} rows are no distribution, for example row {row}: {values}"
    return ""


def _diagram(scores: dict[str, Any], folder: Path) -> Any:
    from hf_labels.hub_cards import reliability_diagram

    return reliability_diagram(scores, folder / "reliability.png")
