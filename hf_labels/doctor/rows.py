"""Checks of rows against rows: duplicates with conflicting labels, near-duplicates, leakage, shift of the labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from hf_labels.doctor.columns import ids_of, masked
from hf_labels.doctor.intervals import percent, share, shift_interval, shown
from hf_labels.doctor.reading import Patient
from hf_labels.doctor.report import Finding

NEAR, ALIKE = 0.95, 0.8  # cosine of features, and similarity of characters, from which texts are near-duplicates
MOST = 30_000  # rows that are compared with each other; of more a random part is compared with all
NEAREST = 5  # neighbours of a row that are looked at


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
    return [tuple(row) for row in masked(data, patient.label)[0].tolist()]


def differ(labels: Any) -> bool:
    """Whether known labels differ: class ids, or label sets in a column that both of them know."""
    known = {one for one in labels if one != -1}
    if len(known) < 2 or not isinstance(next(iter(known)), tuple):
        return len(known) > 1
    rows = np.array(sorted(known))
    return bool(((rows == 1).any(0) & (rows == 0).any(0)).any())


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
    bad = [rows for rows in twice if differ(labels[row] for row in rows)]
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


def near_pairs(
    one: np.ndarray, other: np.ndarray | None, least: float, nearest: int = 0, block: int | None = None
) -> np.ndarray:
    """Pairs of rows `(P, 2)` whose unit features have a cosine from `least` on; within `one` if there is no other.

    With `nearest`, of a crowd of near rows only as many for each of them, so that templates do not fill the memory.
    """
    found, count = [], len(one if other is None else other)
    seen = np.zeros(count, np.int64)
    block = block or max(1, min(1024, 8_000_000 // max(count, 1)))
    for start in range(0, len(one), block):
        close = one[start : start + block] @ (one[start:] if other is None else other).T
        if other is None:
            close[np.tril_indices(len(close), m=close.shape[1])] = -2  # each pair once
        near = close >= least
        first = start if other is None else 0
        if nearest and near.sum(1).max() > nearest:
            near = _fewer(close, near, nearest, None if other is not None else seen[first:])
        row, column = np.nonzero(near)
        seen += np.bincount(column + first, minlength=count)
        found.append(np.stack([row + start, column + first], 1))
    return np.concatenate(found) if found else np.empty((0, 2), np.int64)


def _fewer(close: np.ndarray, near: np.ndarray, nearest: int, seen: np.ndarray | None) -> np.ndarray:
    """Of the near pairs the nearest of each row, and some of each column that has not been `seen` as often yet."""
    kept = np.zeros_like(near)
    best = np.argpartition(close, close.shape[1] - nearest, axis=1)[:, -nearest:]
    kept[np.arange(len(close))[:, None], best] = True
    kept &= near
    if seen is not None:
        lack = np.flatnonzero(seen + kept.sum(0) < nearest)
        some = near[:, lack]
        kept[:, lack] |= some & (np.cumsum(some, axis=0) <= nearest)
    return kept


def near_duplicates(patient: Patient, features: np.ndarray, seed: int = 0) -> Iterator[Finding]:
    """Inputs that are nearly, but not exactly, the same, and those among them whose labels differ."""
    keys, labels = keys_of(patient, patient.data), label_keys(patient, patient.data)
    units: dict[Any, int] = {}  # an input with a label: of equal ones a single row is compared
    unit = np.array([units.setdefault((k, labels[i] if labels else 0), len(units)) for i, k in enumerate(keys)])
    first = np.unique(unit, return_index=True)[1]
    rows = _part(len(keys), len(first), seed)
    asked = np.unique(unit[rows])
    whole = len(asked) == len(first)
    pairs = near_pairs(features[first[asked]], None if whole else features[first], NEAR, NEAREST)
    pairs = _really_near(patient, keys, keys, np.stack([first[asked][pairs[:, 0]], first[pairs[:, 1]]], 1))
    wrong = [(a, b) for a, b in pairs.tolist() if labels and differ((labels[a], labels[b]))]

    def count(found: Any) -> int:
        return int(np.isin(unit[rows], unit[np.unique(np.array(found, dtype=np.int64))]).sum())

    told = () if len(rows) == len(keys) else (f"A random {len(rows)} of {len(keys)} rows were compared with all.",)
    close = shown(count(pairs), len(rows))
    if labels is None:
        yield Finding("", "note", f"Near-duplicates: {close}", *share(count(pairs), len(rows)), details=told)
        return
    value, low, high = share(count(wrong), len(rows))
    level = "problem" if value > 0.02 else "warning" if wrong else "good"
    table = [
        (a, _cut(keys[a]), name_of(patient, labels[a]), b, _cut(keys[b]), name_of(patient, labels[b]))
        for a, b in wrong[:50]
    ]
    yield Finding(
        "conflict",
        level,
        f"Near-duplicates with different labels: {shown(count(wrong), len(rows))}",
        value,
        low,
        high,
        (f"rows with a near-duplicate: {close}", *told),
        ("row", "input", "label", "row", "input", "label"),
        tuple(table),
        values={"pairs": wrong[:200]},
    )


def _part(count: int, others: int, seed: int) -> np.ndarray:
    """Rows that are compared with `others`: all, or so many that it takes as long as `MOST` with each other."""
    if others <= MOST or count * others <= MOST**2:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, min(count, max(MOST**2 // others, 500)), replace=False))


def _really_near(patient: Patient, keys: list[str], others: list[str], pairs: np.ndarray) -> np.ndarray:
    """Of the pairs with near features those with nearly the same characters; equal ones are counted elsewhere."""
    from hf_labels.metrics.functional.edit_distance import similarity

    kept = []
    for a, b in pairs.tolist():
        one, two = keys[a], others[b]
        near = one != two and (
            patient.text is None
            or min(len(one), len(two)) >= ALIKE * max(len(one), len(two))
            and similarity(one[:500], two[:500], ALIKE) >= ALIKE
        )
        if near:
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
    rows = _part(len(others), len(features), seed)
    columns = _firsts(mine)
    pairs = near_pairs(others[rows], features[columns], NEAR, NEAREST)
    pairs = _really_near(patient, theirs, mine, np.stack([rows[pairs[:, 0]], columns[pairs[:, 1]]], 1))
    near = np.setdiff1d(np.unique(pairs[:, 0]), leaked)
    value, low, high = share(len(near), len(rows))
    level = "warning" if value > 0.01 else "note" if len(near) else "good"
    title = f"Rows of `{patient.evaluated}` with a near-duplicate in `{patient.split}`: {shown(len(near), len(rows))}"
    shown_rows = tuple((a, _cut(theirs[a]), b, _cut(mine[b])) for a, b in pairs[:50].tolist())
    told = () if len(rows) == len(others) else (f"A random {len(rows)} of {len(others)} rows were compared.",)
    header = (f"row of {patient.evaluated}", "input", f"row of {patient.split}", "input")
    found = {"rows": near[:1000].tolist()}
    yield Finding("", level, title, value, low, high, told, header, shown_rows, values=found)


def _firsts(keys: list[str]) -> np.ndarray:
    """First row of each key that is not empty."""
    seen: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key:
            seen.setdefault(key, row)
    return np.array(list(seen.values()), dtype=np.int64)


def unknown_classes(patient: Patient) -> Iterator[Finding]:
    """Evaluation rows of a class of which no examined row is: no model can have learned it."""
    evaluation, label = patient.evaluation, patient.label
    own = patient.hard
    if evaluation is None or label is None or own is None or label not in evaluation.column_names:
        return
    ids = ids_of(evaluation, label)
    ids = ids[ids >= 0]
    new = np.setdiff1d(ids, own)
    if not len(new) or not (own >= 0).any():
        return
    lost = int(np.isin(ids, new).sum())
    names = ", ".join(patient.names[i] for i in new[:12]) + (", ..." if len(new) > 12 else "")
    title = f"Rows of `{patient.evaluated}` of a class that `{patient.split}` has no row of: {shown(lost, len(ids))}"
    values = {"classes": [patient.names[i] for i in new]}
    level = "problem" if lost > 0.01 * len(ids) else "warning"
    yield Finding("absent", level, title, *share(lost, len(ids)), details=(f"classes: {names}",), values=values)


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
    value, low, high = shift_interval(counts[0], counts[1], resamples, np.random.default_rng(seed))
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


def _cut(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
