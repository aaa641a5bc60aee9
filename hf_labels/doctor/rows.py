"""Checks of rows against rows: duplicates with conflicting labels, near-duplicates, leakage, shift of the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from hf_labels.doctor.labels import percent, share, shown
from hf_labels.doctor.reading import Patient, ids_of
from hf_labels.doctor.report import Finding
from hf_labels.labels.columns import read_column

NEAR, ALIKE = 0.95, 0.8  # cosine of features, and similarity of characters, from which texts are near-duplicates
MOST = 30_000  # rows that are compared with each other; of more a random part is taken


def keys_of(patient: Patient, data: Any) -> list[str]:
    """A key of each input: equal for equal texts (case and white space aside) or pixels; "" for an empty one."""
    if patient.text is not None and patient.text in data.column_names:
        return [" ".join(str(cell or "").casefold().split()) for cell in data[patient.text][:]]
    if patient.image is not None and patient.image in data.column_names:
        return [_pixels(data[i][patient.image]) for i in range(len(data))]
    return []


def _pixels(image: Any) -> str:
    return hashlib.blake2b(str(image.size).encode() + image.convert("RGB").tobytes(), digest_size=16).hexdigest()


def label_keys(patient: Patient, data: Any) -> list[Any] | None:
    """What is compared between equal inputs: class ids, or label sets; None without labels."""
    if patient.label is None or patient.label not in data.column_names:
        return None
    if patient.kinds[patient.label] == "hard":
        return list(ids_of(data, patient.label).tolist())
    return [tuple(row) for row in read_column(data, patient.label).matrix().tolist()]


def duplicates(patient: Patient) -> Iterator[Finding]:
    """Equal inputs, and those among them whose labels differ."""
    keys = keys_of(patient, patient.data)
    if not keys:
        return
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        if key:
            groups.setdefault(key, []).append(row)
    empty = sum(not key for key in keys)
    if empty:
        yield Finding("", "warning", f"Empty inputs: {shown(empty, len(keys))}")
    twice = [rows for rows in groups.values() if len(rows) > 1]
    extra = sum(len(rows) - 1 for rows in twice)
    value, low, high = share(extra, len(keys))
    level = "warning" if value > 0.01 else "note" if extra else "good"
    yield Finding("", level, f"Exact duplicates: {shown(extra, len(keys))}", value, low, high, values={"rows": extra})
    labels = label_keys(patient, patient.data)
    if labels is None or not twice:
        return
    bad = [rows for rows in twice if len({labels[row] for row in rows if labels[row] != -1}) > 1]
    value, low, high = share(len(bad), len(twice))
    table = [
        (
            ", ".join(map(str, rows[:6])),
            _cut(keys[rows[0]]),
            ", ".join(sorted({name_of(patient, labels[r]) for r in rows})),
        )
        for rows in bad[:50]
    ]
    yield Finding(
        "conflict",
        "problem" if value > 0.05 else "warning" if bad else "good",
        f"Groups of equal inputs with different labels: {shown(len(bad), len(twice))}",
        value,
        low,
        high,
        header=("rows", "input", "labels"),
        rows=tuple(table),
        values={"groups": [rows[:20] for rows in bad[:200]]},
    )


def name_of(patient: Patient, label: Any) -> str:
    names = patient.names
    if isinstance(label, tuple):
        return "{" + ", ".join(names[i] for i, cell in enumerate(label) if cell == 1) + "}"
    return names[label] if 0 <= label < len(names) else "missing"


def near_pairs(one: np.ndarray, other: np.ndarray | None, least: float, block: int = 1024) -> np.ndarray:
    """Pairs of rows `(P, 2)` whose unit features have a cosine from `least` on; within `one` if there is no other."""
    found = []
    for start in range(0, len(one), block):
        part = one[start : start + block]
        against = one[start:] if other is None else other
        row, column = np.nonzero(part @ against.T >= least)
        row, column = row + start, column + (start if other is None else 0)
        if other is None:
            keep = row < column
            row, column = row[keep], column[keep]
        found.append(np.stack([row, column], 1))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def near_duplicates(patient: Patient, features: np.ndarray, seed: int = 0) -> Iterator[Finding]:
    """Inputs that are nearly, but not exactly, the same, and those among them whose labels differ."""
    keys = keys_of(patient, patient.data)
    rows = _part(len(features), seed)
    pairs = rows[near_pairs(features[rows], None, NEAR)]
    pairs = _really_near(patient, keys, keys, pairs)
    labels = label_keys(patient, patient.data)
    close = np.unique(pairs)
    told = (f"A random {MOST} of {len(features)} rows were compared.",) if len(rows) < len(features) else ()
    if labels is None:
        yield Finding("", "note", f"Near-duplicates: {shown(len(close), len(rows))}", details=told)
        return
    bad = [(a, b) for a, b in pairs.tolist() if labels[a] != labels[b] and -1 not in (labels[a], labels[b])]
    wrong = np.unique(bad) if bad else np.empty(0, int)
    value, low, high = share(len(wrong), len(rows))
    level = "problem" if value > 0.02 else "warning" if bad else "good"
    table = [
        (a, _cut(keys[a]), name_of(patient, labels[a]), b, _cut(keys[b]), name_of(patient, labels[b]))
        for a, b in bad[:50]
    ]
    yield Finding(
        "conflict",
        level,
        f"Near-duplicates with different labels: {shown(len(wrong), len(rows))}",
        value,
        low,
        high,
        (f"rows with a near-duplicate: {shown(len(close), len(rows))}", *told),
        ("row", "input", "label", "row", "input", "label"),
        tuple(table),
        values={"pairs": bad[:200]},
    )


def _part(count: int, seed: int) -> np.ndarray:
    if count <= MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MOST, replace=False))


def _really_near(patient: Patient, keys: list[str], others: list[str], pairs: np.ndarray) -> np.ndarray:
    """Of the pairs with near features those with nearly the same characters; equal ones are counted elsewhere."""
    from hf_labels.metrics.functional.edit_distance import similarity

    if patient.text is None:
        return np.array([p for p in pairs.tolist() if keys[p[0]] != others[p[1]]], dtype=np.int64).reshape(-1, 2)
    kept = []
    for a, b in pairs[:200_000].tolist():
        one, two = keys[a], others[b]
        near = one != two and min(len(one), len(two)) >= ALIKE * max(len(one), len(two))
        if near and similarity(one[:500], two[:500], ALIKE) >= ALIKE:
            kept.append((a, b))
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def leakage(patient: Patient, features: Any = None, others: Any = None, seed: int = 0) -> Iterator[Finding]:
    """Evaluation rows that are in the examined rows too, exactly or nearly."""
    if patient.evaluation is None:
        return
    mine, theirs = keys_of(patient, patient.data), keys_of(patient, patient.evaluation)
    if not mine or not theirs:
        return
    known = set(mine)
    leaked = [row for row, key in enumerate(theirs) if key and key in known]
    value, low, high = share(len(leaked), len(theirs))
    level = "problem" if value > 0.01 else "warning" if leaked else "good"
    table = tuple((row, _cut(theirs[row])) for row in leaked[:50])
    title = f"Rows of `{patient.evaluated}` that are in `{patient.split}`: {shown(len(leaked), len(theirs))}"
    yield Finding("", level, title, value, low, high, (), ("row", "input"), table, values={"rows": leaked[:1000]})
    if features is None or others is None:
        return
    rows, columns = _part(len(others), seed), _part(len(features), seed)
    pairs = near_pairs(others[rows], features[columns], NEAR)
    pairs = np.stack([rows[pairs[:, 0]], columns[pairs[:, 1]]], 1)
    pairs = _really_near(patient, theirs, mine, pairs)
    near = np.setdiff1d(np.unique(pairs[:, 0]), leaked)
    value, low, high = share(len(near), len(rows))
    level = "warning" if value > 0.01 else "note" if len(near) else "good"
    title = f"Rows of `{patient.evaluated}` with a near-duplicate in `{patient.split}`: {shown(len(near), len(rows))}"
    shown_rows = tuple((a, _cut(theirs[a]), b, _cut(mine[b])) for a, b in pairs[:50].tolist())
    header = (f"row of {patient.evaluated}", "input", f"row of {patient.split}", "input")
    yield Finding("", level, title, value, low, high, (), header, shown_rows, values={"rows": near[:1000].tolist()})


def shift(patient: Patient, resamples: int = 500, seed: int = 0) -> Iterator[Finding]:
    """How far the class shares of the evaluation rows are from those of the examined ones."""
    evaluation, label = patient.evaluation, patient.label
    if evaluation is None or label is None or label not in evaluation.column_names or patient.kinds[label] != "hard":
        return
    from scipy.stats import chi2_contingency

    names = patient.names
    counts = [np.bincount(ids[ids >= 0], minlength=len(names)) for ids in (patient.hard, ids_of(evaluation, label))]  # type: ignore[index, operator]
    if not all(count.sum() for count in counts):
        return
    rng = np.random.default_rng(seed)
    value = _apart(*counts)
    draws = [_apart(*(rng.multinomial(c.sum(), c / c.sum()) for c in counts)) for _ in range(resamples)]
    low, high = (float(v) for v in np.quantile(draws, [0.025, 0.975]))
    table = np.stack(counts)
    chance = float(chi2_contingency(table[:, table.sum(0) > 0]).pvalue) if (table.sum(0) > 0).sum() > 1 else 1.0
    level = "problem" if value > 0.2 and chance < 0.01 else "warning" if value > 0.05 and chance < 0.01 else "good"
    shares = [count / count.sum() for count in counts]
    order = np.argsort(-np.abs(shares[0] - shares[1]))
    rows = tuple((names[i], round(float(shares[0][i]), 4), round(float(shares[1][i]), 4)) for i in order[:50])
    yield Finding(
        "shift",
        level,
        f"Label shift between `{patient.split}` and `{patient.evaluated}`: total variation {percent(value)} "
        f"(95 % interval {percent(low)} to {percent(high)}, chi-square p = {chance:.2g})",
        value,
        low,
        high,
        header=("class", f"share in {patient.split}", f"share in {patient.evaluated}"),
        rows=rows,
        values={"p": chance},
    )


def _apart(one: np.ndarray, two: np.ndarray) -> float:
    """Total variation of two tables of counts."""
    return float(np.abs(one / one.sum() - two / two.sum()).sum() / 2)


def _cut(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
