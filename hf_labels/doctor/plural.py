"""Likely wrong cells of multi-label rows: each label by itself, on frozen features, cross-fitted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hf_labels.doctor.intervals import percent, share, shown
from hf_labels.doctor.linear import FOLDS, discriminants, surest
from hf_labels.doctor.noise import CELLS, KEPT, SHOWN
from hf_labels.doctor.reading import Patient
from hf_labels.doctor.report import Finding
from hf_labels.doctor.rows import _cut, keys_of

LEAST = 10  # rows that have a label, and rows that lack it, which it takes to judge the label


def plural_noise(patient: Patient, features: np.ndarray, name: str, seed: int = 0) -> Iterator[Finding]:
    """Estimated share of wrong cells of multi labels, and the cells that are likely wrong.

    Linear discriminants give each cell's probability without having seen its row. A cell is an error where the
    features are surest of the opposite; labels that are missing and labels without reason are counted apart.
    """
    table = patient.multi
    if table is None:
        return
    judged = np.flatnonzero(((table == 1).sum(0) >= LEAST) & ((table == 0).sum(0) >= LEAST))
    if not len(judged) or len(table) < 10 * FOLDS:
        yield Finding("", "note", f"Wrong labels were not looked for: none is in {LEAST} rows and lacks in {LEAST}")
        return
    if len(table) * len(judged) > CELLS:
        title = f"Too many labels ({len(judged)}) for {len(table)} rows to look for wrong ones"
        yield Finding("", "note", title)
        return
    probs, useful = discriminants(features, table[:, judged], seed=seed)
    if not useful.any():
        title = "The noise rate cannot be estimated: the features tell no more about the labels than their shares"
        why = f"by {name} features: try another --encoder, or --text_column"
        yield Finding("", "warning", title, details=(why,))
        return
    judged, probs = judged[useful], probs[:, useful]
    yield _suspects(patient, table[:, judged], probs, [patient.names[k] for k in judged], name)


def _suspects(patient: Patient, table: np.ndarray, probs: np.ndarray, names: list[str], name: str) -> Finding:
    rows, places = np.nonzero(table >= 0)
    given, p = table[rows, places] == 1, probs[rows, places]
    guess = p > 0.5
    sure = surest(2 * places + guess, np.maximum(p, 1 - p))
    found, ends, said = [], np.zeros(3), []
    for side, what in ((True, "missing"), (False, "there without reason")):
        own, among = guess == side, (guess == side) & sure
        wrong = int((given != side)[among].sum())
        ends += own.mean() * np.array(share(wrong, int(among.sum())))
        suspects = np.flatnonzero(given != side)
        order = np.argsort(np.where(side, -p, p)[suspects], kind="stable")
        found.append(suspects[order[: round(wrong / max(int(among.sum()), 1) * int(own.sum()))]])
        if among.any():
            has = "should be" if side else "should not be"
            said.append(
                f"labels that are {what}: {shown(wrong, int(among.sum()))} of the cells where one surely {has};"
            )
    wrong_cells = np.concatenate(found)
    against = np.where(given, p, 1 - p)
    wrong_cells = wrong_cells[np.argsort(against[wrong_cells], kind="stable")]
    rate, low, high = (float(end) for end in ends)
    left = [one for one in patient.names if one not in names]
    said.append(
        f"counted where the {name} features are surest; what they cannot tell apart even there looks like noise. "
        "Look at rows before you change them."
    )
    if left:
        names_left = ", ".join(left[:12]) + (", ..." if len(left) > 12 else "")
        said.append(f"not judged, as they are too rare, or the features do not tell them: {names_left}")
    keys = keys_of(patient, patient.data)
    lines = [
        (int(rows[i]), _cut(keys[rows[i]]) if patient.text else "", names[places[i]])
        + ("there" if given[i] else "not there", float(p[i]))
        for i in wrong_cells[:SHOWN]
    ]
    kept = wrong_cells[:KEPT]
    return Finding(
        "noise",
        "problem" if low > 0.05 else "warning" if low > 0.01 else "good",
        f"Estimated noise rate {percent(rate)} of the cells (95 % interval {percent(low)} to {percent(high)}); "
        f"{len(wrong_cells)} cells are likely wrong",
        rate,
        low,
        high,
        tuple(said),
        ("row", "input", "label", "given as", "probability"),
        tuple(lines),
        values={
            "rows": [int(rows[i]) for i in kept],
            "labels": [names[places[i]] for i in kept],
            "flagged": len(wrong_cells),
        },
    )
