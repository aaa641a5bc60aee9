"""Checks of bags, of which only the proportions of labels are known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hf_labels.doctor.columns import is_readable, told
from hf_labels.doctor.reading import BAGS, Patient
from hf_labels.doctor.report import Finding
from hf_labels.labels.columns import read_column

LARGE = 64  # rows of a bag from which its proportion says little about a row


def bags(patient: Patient) -> Iterator[Finding]:
    """Sizes of bags, and what their proportions leave open."""
    column = patient.column_of("bag")
    if column is None:
        return
    if not is_readable(patient.data.features[column]) or read_column(patient.data, column).lengths is not None:
        yield told("problem", f"`{column}` must hold one id in each row, the bag that the row is in")
        return
    ids = ids_of_bags(patient, column)
    sizes = np.unique(ids[ids >= 0], return_counts=True)[1]
    if not len(sizes):
        yield told("problem", f"No row is in a bag: all of `{column}` is missing")
        return
    details = [f"{int((ids < 0).sum())} rows are in no bag; {int((sizes == 1).sum())} bags hold one row."]
    details.append(f"sizes: smallest {sizes.min()}, median {np.median(sizes):.0f}, largest {sizes.max()}")
    usable = False
    if patient.proportion is None:
        why = "Add the share of positive rows of its bag to each row."
        yield told("problem", f"No column of proportions was found; one of {', '.join(BAGS)} is read", why)
    else:
        wrong, left = _proportions(patient, patient.proportion, ids)
        usable = not wrong
        yield from wrong
        if left is not None and usable:
            details.append(f"a row's label is open by {left:.2f} bits on average when its bag is known")
    alone = patient.label is None
    level = "warning" if alone or np.median(sizes) >= LARGE else "note"
    number = "1 bag" if len(sizes) == 1 else f"{len(sizes)} bags"
    title = f"{number} of {np.median(sizes):.0f} rows (median)"
    title += ", and no label of a single row" if alone else ""
    yield Finding("bags" if usable else "", level, title, details=tuple(details), values={"bags": len(sizes)})


def _proportions(patient: Patient, column: str, ids: np.ndarray) -> tuple[list[Finding], float | None]:
    """What is wrong with the shares, and the mean entropy in bits of a row's label."""
    one = "`llp_bp` takes one share of positives for each bag."
    if not is_readable(patient.data.features[column]):
        return [told("problem", f"`{column}` must hold one number in each row", one)], None
    cells = read_column(patient.data, column)
    if cells.lengths is not None or cells.is_text:
        what = "texts" if cells.is_text else "lists"
        return [
            told("warning", f"`{column}` holds {what}, not one number in each row; it was not examined", one)
        ], None
    inside, values = ids >= 0, np.where(cells.null, np.nan, cells.values.astype(np.float64))
    wrong = list(_wrong(column, ids, inside, values))
    if wrong:
        return wrong, None
    p = np.clip(values[inside], 1e-12, 1 - 1e-12)
    return [], float(np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p)))


def _wrong(column: str, ids: np.ndarray, inside: np.ndarray, values: np.ndarray) -> Iterator[Finding]:
    """Shares that no bag can have, or that differ within one."""
    wrong = np.flatnonzero(inside & ~((values >= 0) & (values <= 1)))
    if len(wrong):
        first = "missing" if np.isnan(values[wrong[0]]) else f"{values[wrong[0]]:.4g}"
        what = f"{len(wrong)} rows of `{column}` are no share: {first} at row {wrong[0]}"
        yield told("problem", what, "Proportions are from 0 to 1; divide counts by the bag's size.")
        return
    order = np.argsort(ids[inside], kind="stable")
    bag, share_of = ids[inside][order], values[inside][order]
    starts = np.flatnonzero(np.r_[True, bag[1:] != bag[:-1]])
    spread = np.maximum.reduceat(share_of, starts) - np.minimum.reduceat(share_of, starts)
    if (spread > 1e-6).any():
        bad = np.flatnonzero(inside)[order][starts][spread > 1e-6]
        what = f"{len(bad)} of {len(starts)} bags hold different values of `{column}`, for example bag {ids[bad[0]]}"
        yield told("problem", what, f"It is that of row {bad[0]}. All rows of a bag have the proportion of the bag.")


def has_outside(patient: Patient, column: str) -> bool:
    """Whether rows are in no bag."""
    if not is_readable(patient.data.features[column]):
        return False
    found = read_column(patient.data, column)
    return found.lengths is None and bool((ids_of_bags(patient, column) < 0).any())


def ids_of_bags(patient: Patient, column: str) -> np.ndarray:
    found = read_column(patient.data, column)
    values = found.values if found.values.dtype.kind in "iu" else np.unique(found.values, return_inverse=True)[1]
    return np.where(found.null, -1, values).astype(np.int64)
