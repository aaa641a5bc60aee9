"""Likely wrong labels and the noise rate: confident learning on frozen features, cross-fitted.

The rate of wrong labels lies between two numbers. Among the rows whose label the features tell best, another label is
an error and no hard row; but people err less on these. Confident learning counts all rows, and takes what the features
cannot tell apart for noise.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.doctor.intervals import percent, share, shown
from hf_labels.doctor.linear import FOLDS, cross_fitted, informed, surest
from hf_labels.doctor.reading import Patient
from hf_labels.doctor.report import Finding
from hf_labels.doctor.rows import _cut, keys_of

CELLS = 5_000_000  # rows times classes of the largest table of probabilities
SHOWN, KEPT = 50, 1000  # suspects on the page, and in the numbers


def noise(patient: Patient, features: np.ndarray, name: str, resamples: int = 50, seed: int = 0) -> Iterator[Finding]:
    """Estimated noise rate and the likely wrong rows of hard labels.

    Linear discriminants on the frozen features give each row's probabilities without having seen it.
    """
    labels = patient.hard
    if labels is None:
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
    y = np.searchsorted(kinds, labels[rows])
    probs = cross_fitted(features[rows], y, seed=seed)
    if informed(probs, y):
        yield _suspects(patient, rows, y, probs, [patient.names[k] for k in kinds], name, resamples, seed)
    else:
        yield _no_help(y, probs, name)


def _no_help(y: np.ndarray, probs: np.ndarray, name: str) -> Finding:
    accuracy, largest = float((probs.argmax(1) == y).mean()), float(np.bincount(y).max() / len(y))
    why = (
        f"{name} features tell {percent(accuracy)} of the labels out of sample, the largest class is "
        f"{percent(largest)}. Either the labels are random, or the features do not show what they are about: try "
        "another --encoder, or --text_column."
    )
    title = "The noise rate cannot be estimated: the features tell no more about the labels than the class shares"
    return Finding("", "warning", title, details=(why,), values={"accuracy": accuracy})


def _suspects(
    patient: Patient,
    rows: np.ndarray,
    y: np.ndarray,
    probs: np.ndarray,
    names: list[str],
    name: str,
    resamples: int,
    seed: int,
) -> Finding:
    from hf_labels.labels.confident_learning import ConfidentLearning

    cl = ConfidentLearning(y, probs, held_out=True)
    issues, guess = cl.issues(), probs.argmax(1)
    sure = surest(guess, probs.max(1))
    other = int((guess != y)[sure].sum())
    rate, low, high = share(other, int(sure.sum()))
    everywhere = _rate(cl)
    apart = everywhere > high
    ends = _interval(y, probs, everywhere, resamples, np.random.default_rng(seed))
    low, high = min(low, ends[0]), max(high, ends[1])
    count, ranked = round(rate * len(y)), issues.ranked()
    likely, others = ranked[:count], ranked[count:] if apart else ranked[:0]
    told = f"Estimated noise rate {percent(rate)}" + (f" to {percent(everywhere)}" if apart else "")
    told += f" (95 % interval {percent(low)} to {percent(high)}); {len(likely)} rows are likely wrong"
    said = f"confident learning over all rows says {percent(everywhere)}"
    if apart:
        said += (
            ": the truth is near the first number if the features are weak, near this one if labels are wrong where "
        )
        said += "rows are hard to tell"
    keys, accuracy = keys_of(patient, patient.data), float((guess == y).mean())
    table = [
        (int(rows[i]), _cut(keys[rows[i]]) if patient.text else "", names[y[i]], names[int(issues.suggested[i])])
        + (float(issues.quality[i]),)
        for i in [*likely, *others][:SHOWN]
    ]
    return Finding(
        "noise",
        "problem" if low > 0.05 else "warning" if low > 0.01 or (apart and everywhere > 0.05) else "good",
        told + (f", {len(others)} more may be" if len(others) else ""),
        rate,
        low,
        high,
        (
            f"of the rows whose label the {name} features tell best, another label is on "
            f"{shown(other, int(sure.sum()))};",
            f"{said}. Of all labels the features tell {percent(accuracy)} out of sample. Look at rows before you "
            "change them.",
        ),
        ("row", "input", "label", "suggested", "quality"),
        tuple(table),
        (functools.partial(_confusions, cl.joint, names),) if len(names) <= 30 else (),
        {
            "rows": [int(rows[i]) for i in likely[:KEPT]],
            "flagged": len(likely),
            "may_be": [int(rows[i]) for i in others[:KEPT]],
            "accuracy": accuracy,
            "confident_learning": everywhere,
        },
    )


def _rate(cl: Any) -> float:
    """Share of wrong labels by the estimated joint of given and true labels."""
    rate = float(1 - np.trace(cl.joint))
    return rate if rate > 1e-9 else 0.0


def _interval(
    y: np.ndarray, probs: np.ndarray, rate: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Of the rate of confident learning, by rows drawn anew within each class, so that none vanishes."""
    from hf_labels.labels.confident_learning import ConfidentLearning

    groups = [np.flatnonzero(y == k) for k in range(probs.shape[1])]
    drawn = []
    for _ in range(resamples):
        i = np.concatenate([group[rng.integers(len(group), size=len(group))] for group in groups])
        drawn.append(_rate(ConfidentLearning(y[i], probs[i], held_out=True)))
    _, low, high = share(round(rate * len(y)), len(y))  # a bootstrap of no errors knows none
    return min(low, float(np.quantile(drawn, 0.025))), max(high, float(np.quantile(drawn, 0.975)))


def _confusions(joint: np.ndarray, names: list[str], folder: Path) -> Any:
    from hf_labels.hub_cards import confusion_matrix_plot

    return confusion_matrix_plot(joint, names, folder / "joint.png")
