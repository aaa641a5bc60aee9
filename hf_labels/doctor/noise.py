"""Checks that need a model: likely wrong labels, and the calibration of given probabilities."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.doctor.columns import are_distributions, ids_of, is_readable, table_of, told
from hf_labels.doctor.intervals import gap_interval, percent, share, shown
from hf_labels.doctor.reading import Patient
from hf_labels.doctor.report import Finding
from hf_labels.doctor.rows import _cut, keys_of
from hf_labels.labels.columns import class_names, read_column

FOLDS = 5
SHRINKS = (0.01, 0.1, 0.3, 0.7)
BINS = 15  # of the calibration error, as in `calibration_scores`
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
    accuracy = float((probs.argmax(1) == y).mean())
    if not _informed(probs, y):
        why = f"{name} features tell {percent(accuracy)} of the labels out of sample, the largest class is "
        why += (
            f"{percent(float(np.bincount(y).max() / len(y)))}. Either the labels are random, or the features do not "
        )
        why += "show what they are about: try another --encoder, or --text_column."
        title = "The noise rate cannot be estimated: the features tell no more about the labels than the class shares"
        yield Finding("", "warning", title, details=(why,), values={"accuracy": accuracy})
        return
    cl = ConfidentLearning(y, probs, held_out=True)
    issues = cl.issues()
    names = [patient.names[k] for k in kinds]
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
    table = [
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
        tuple(table),
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


def _informed(probs: np.ndarray, y: np.ndarray) -> bool:
    """Whether probabilities out of sample are surely better than the shares of the classes, by their log loss."""
    own = np.log(np.maximum(probs[np.arange(len(y)), y], 1e-12))
    gain = own - np.log(np.bincount(y) / len(y))[y]
    return bool(gain.mean() > 2 * gain.std() / np.sqrt(len(y)))


def _rate(cl: Any) -> float:
    """Share of wrong labels by the estimated joint of given and true labels."""
    rate = float(1 - np.trace(cl.joint))
    return rate if rate > 1e-9 else 0.0


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
