"""Checks of the labels alone: balance, missing and partial labels, annotators, bags."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.doctor.columns import are_distributions, is_readable, masked, table_of, told
from hf_labels.doctor.intervals import kappa_interval, percent, ratio_interval, share, shown
from hf_labels.doctor.reading import Patient
from hf_labels.doctor.report import Finding
from hf_labels.labels.columns import read_column

FEW, TAIL = 20, 0.1  # rows of a small class; share of the largest class that makes a class part of the tail


def bars(names: list[str], counts: list[int], title: str, folder: Path) -> Any:
    """A bar for each class, the largest first; at most 40."""
    from hf_labels.hub_cards.plots import _figure, _plain, _save

    order = np.argsort(counts, kind="stable")[::-1][:40]
    figure, axes = _figure(6.4, max(1.6, 0.24 * len(order) + 0.8))
    axes.barh([_plain(names[i], 30) for i in order][::-1], [counts[i] for i in order][::-1], color="#4c72b0")
    axes.set_xlabel("rows")
    axes.set_title(_plain(title, 60), fontsize=10)
    alt = f"{title}: " + ", ".join(f"{names[i]} {counts[i]}" for i in order[:5])
    return _save(figure, folder / "bars.png", alt)


def balance(patient: Patient) -> Iterator[Finding]:
    """Class balance and tail of hard or multi labels."""
    names = list(patient.names)
    counts, totals = _counts(patient, len(names))
    if not counts.sum():
        return
    largest, there = int(counts.max()), counts > 0
    ratio = largest / int(counts[there].min())
    low, high = ratio_interval(counts[there], totals[there])
    tail = [names[i] for i in np.flatnonzero(there & (counts < TAIL * largest))]
    few = [names[i] for i in np.flatnonzero(there & (counts < FEW))]
    absent = [names[i] for i in np.flatnonzero(~there)]
    rows = [
        (names[i], int(counts[i]), *(round(v, 4) for v in share(int(counts[i]), int(totals[i]))))
        for i in np.argsort(-counts, kind="stable")[:100]
    ]
    level = "problem" if ratio >= 10 else "warning" if ratio >= 3 else "good"
    behind = f"{len(tail)} {'class' if len(tail) == 1 else 'classes'} in the tail (under a tenth of the largest)"
    details = [f"{behind}: {_list(tail)}"] if tail else []
    draw = functools.partial(bars, names, counts.tolist(), "rows of each class")
    if there.sum() == 1:
        yield Finding("unlabelled", "problem", f"All rows have one class, {names[int(there.argmax())]!r}")
    else:
        yield Finding(
            "skewed",
            level,
            f"The largest class has {ratio:.1f} times the rows of the smallest "
            f"(95 % interval {low:.1f} to {high:.1f})",
            ratio,
            low,
            high,
            tuple(details),
            ("class", "rows", "share", "low", "high"),
            tuple(rows),
            (draw,),
            {"counts": dict(zip(names, counts.tolist(), strict=True)), "tail": tail},
        )
    if few or absent:
        said = [f"under {FEW} rows: {_list(few)}"] if few else []
        said += [f"without any row: {_list(absent)}"] if absent else []
        title = f"{_classes(len(few))} fewer than {FEW} rows" if few else f"{_classes(len(absent))} no row"
        title += f", {len(absent)} none" if few and absent else ""
        problem = "absent" if absent else "few"
        yield Finding(problem, "warning", title, details=tuple(said), values={"few": few, "absent": absent})


def _classes(count: int) -> str:
    return f"{count} class has" if count == 1 else f"{count} classes have"


def _counts(patient: Patient, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each class `(K,)`, and of how many its share is: the labelled rows, or those where it is known."""
    table = patient.multi
    if table is not None:
        return (table == 1).sum(0), (table >= 0).sum(0)
    labels = patient.hard
    assert labels is not None
    counts = np.bincount(labels[labels >= 0], minlength=count)
    return counts, np.full(count, counts.sum())


def _list(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f", ... ({len(names)})" if len(names) > limit else "")


def missing(patient: Patient) -> Iterator[Finding]:
    """Missing labels of rows, and unknown or empty cells of multi-label rows."""
    if patient.label is None:
        numbers = patient.column_of("value")
        if numbers is not None:
            yield from _values(patient, numbers)
        for column in (name for name, kind in patient.kinds.items() if kind == "sequence"):
            yield told(
                "note",
                f"`{column}` holds a sequence of labels in each row; the checks of classes are for one label "
                "or a set of labels a row",
            )
        if not patient.kinds:
            others = patient.candidates()
            hint = (f"These hold few different values: {', '.join(others)}.",) if others else ()
            title = "No column of labels was found; name one with --label_column"
            yield Finding("unlabelled", "problem", title, details=hint)
        return
    total = len(patient.data)
    if patient.kinds[patient.label] == "hard":
        labels = patient.hard
        assert labels is not None
        lost = int((labels < 0).sum())
        value, low, high = share(lost, total)
        level = "problem" if value > 0.2 else "warning" if lost else "good"
        if patient.derived and patient.kinds[patient.derived] == "soft":
            return  # told with the soft labels
        what = "Rows that nobody answered" if patient.derived else "Missing labels"
        title = f"{what}: {shown(lost, total)}" if lost else f"All {total} rows have a label"
        about = "missing" if lost < total else "unlabelled"
        yield Finding(about, level, title, value, low, high, values={"missing": lost})
        return
    table, wrong = masked(patient.data, patient.label)
    if wrong:
        yield told("problem", wrong, "1 = observed, 0 = unknown, in each row one for each label.")
    known = table >= 0
    lost, cells = int((~known).sum()), table.size
    value, low, high = share(lost, cells)
    level = "problem" if value > 0.2 else "warning" if lost else "good"
    title = (
        f"Unknown cells: {shown(lost, cells)}" if lost else f"All {cells} cells of {table.shape[1]} labels are known"
    )
    yield Finding("partial", level, title, value, low, high, values={"unknown": lost})
    positives = ((table == 1) & known).sum(1)
    empty = int((positives == 0).sum())
    level = "warning" if empty > 0.05 * total else "note"
    mean = f"{positives.mean():.2f} labels a row on average"
    yield Finding("partial", level, f"Rows without any positive label: {shown(empty, total)}", details=(mean,))
    if known.any() and (table[known] == 1).all():
        yield Finding("partial", "problem", "Only positives are known: no cell says that a label is absent")
    yield Finding("plural", "note", f"{len(np.unique(table, axis=0))} different label sets in {total} rows")


def _values(patient: Patient, column: str) -> Iterator[Finding]:
    """Numbers instead of classes: only what is missing is counted."""
    cells = read_column(patient.data, column)
    bad = cells.null if cells.lengths is None else cells.lengths < 0
    if cells.lengths is None:
        bad = bad | ~np.isfinite(cells.values.astype(np.float64))
    lost, total = int(bad.sum()), len(patient.data)
    title = f"Missing values of `{column}`: {shown(lost, total)}" if lost else f"All {total} rows have a value"
    level = "problem" if lost > 0.2 * total else "warning" if lost else "good"
    yield Finding("", level, title, *share(lost, total), values={"missing": lost})
    yield told("note", f"`{column}` holds numbers, not classes; the checks of classes were not made")


def soft(patient: Patient) -> Iterator[Finding]:
    """Whether soft labels are distributions, and how sure they are."""
    column = patient.column_of("soft")
    if column is None:
        return
    total = len(patient.data)
    cells = read_column(patient.data, column) if is_readable(patient.data.features[column]) else None
    if cells is None or cells.lengths is None or cells.is_text or not (cells.lengths > 0).any():
        yield told("problem", f"`{column}` must hold a list of numbers in each row, one probability for each class")
        return
    rows = table_of(cells)
    if rows is None:
        first = int(np.flatnonzero(cells.lengths > 0)[0])
        row = int(np.flatnonzero((cells.lengths > 0) & (cells.lengths != cells.lengths[first]))[0])
        why = f"row {first} has {cells.lengths[first]} probabilities, row {row} has {cells.lengths[row]}"
        yield told("problem", f"Rows of `{column}` have different lengths: they are over different classes", why)
        return
    good = are_distributions(rows)
    lost = int((~good).sum())
    if lost:
        row = int((~good).argmax())
        why = f"row {row} has a missing or infinite value"
        if np.isfinite(rows[row]).all():
            why = f"row {row} sums to {rows[row].sum():.4g}, its smallest value is {rows[row].min():.4g}"
        title = f"Rows of `{column}` that are no distribution: {shown(lost, total)}"
        yield Finding("", "problem", title, *share(lost, total), details=(why,), values={"missing": lost})
    else:
        yield Finding("", "good", f"All {total} rows of `{column}` are distributions over {rows.shape[1]} classes")
    if good.any():
        p = rows[good]
        bits = -(p * np.log2(np.maximum(p, 1e-12))).sum(1).mean()
        sure = f"largest probability {p.max(1).mean():.2f}, entropy {bits:.2f} of {np.log2(p.shape[1]):.2f} bits"
        one = f"{percent(float((p.max(1) > 0.999).mean()))} of them are nearly one-hot"
        yield Finding("", "note", f"Soft labels on average: {sure}", details=(one,))


def annotators(patient: Patient, seed: int = 0) -> Iterator[Finding]:
    """Agreement of annotators and weak ones among them."""
    column = patient.column_of("crowd")
    if column is None and patient.answers is None:
        return
    from hf_labels.labels.crowd import CrowdAnnotations
    from hf_labels.labels.crowd_soft_labels import aggregate_annotations

    if column is not None:
        cells = read_column(patient.data, column)
        if cells.null.all() or (not cells.is_text and (cells.values < 0).all()):
            yield told("problem", f"Nobody answered: all of `{column}` is missing")
            return
        data = CrowdAnnotations.from_wide(patient.data, column, num_labels=_two_at_least(patient, column))
    else:
        assert patient.answers is not None and patient.label is not None
        answered = _answered(patient)
        if not len(answered):
            yield told("problem", "No row has an item, an annotator and an answer")
            return
        count = max(len(patient.names), 2)
        data = CrowdAnnotations.from_long(answered, *patient.answers, patient.label, num_labels=count)
    if len(np.unique(data.label)) < 2:
        yield told("problem", "All annotators always gave the same answer: there is nothing to learn from them")
        return
    found = aggregate_annotations(data, "ds", on_empty="uniform")
    table = _by_item(data)
    table = table[(table >= 0).sum(1) >= 2]
    if len(np.unique(table[table >= 0])) > 1:
        yield _agreement(table, data.num_labels, seed)
    skills, answers = np.asarray(found.worker_skill), np.bincount(data.worker, minlength=data.num_workers)
    right = np.bincount(data.worker, weights=found.labels[data.item] == data.label, minlength=data.num_workers)
    if any("numbers of answers" in note.title for note in patient.notes):  # places are no annotators
        return
    names = list(data.workers) if data.workers is not None else list(range(data.num_workers))
    rows, weak = [], []
    chance = 1 / data.num_labels
    for i in np.argsort(skills):
        value, low, high = share(int(right[i]), int(answers[i])) if answers[i] else (0.0, 0.0, 1.0)
        rows.append(
            (str(names[i]), int(answers[i]), round(float(skills[i]), 4), *(round(v, 4) for v in (value, low, high)))
        )
        if answers[i] and (high < np.median(skills) - 0.15 or low <= chance and answers[i] >= 20):
            weak.append(str(names[i]))
    level = "problem" if len(weak) > 0.2 * len(names) else "warning" if weak else "good"
    named = f": {_list(weak)}" if weak else ""
    yield Finding(
        "crowd",
        level,
        f"{len(weak)} of {len(names)} annotators are weak{named}",
        details=("The truth is estimated from all annotators (Dawid-Skene).",),
        header=("annotator", "answers", "skill", "agrees with the estimate", "low", "high"),
        rows=tuple(rows[:100]),
        values={"weak": weak},
    )


def _two_at_least(patient: Patient, column: str) -> int | None:
    """Classes of a crowd in which one class or none was ever answered; None to let them be counted."""
    cells = read_column(patient.data, column)
    return None if cells.is_text or cells.names or cells.values.max(initial=-1) >= 1 else 2


def _answered(patient: Patient) -> Any:
    """Rows of items that somebody answered."""
    assert patient.answers is not None
    item = read_column(patient.data, patient.answers[0])
    worker = read_column(patient.data, patient.answers[1])
    ids = patient.hard
    assert ids is not None
    return patient.data.select(np.flatnonzero((ids >= 0) & ~item.null & ~worker.null))


def _by_item(data: Any) -> np.ndarray:
    """Answers `(T, most of an item)`, in no order of annotators, -1 behind the last."""
    order = np.argsort(data.item, kind="stable")
    item, label = data.item[order], data.label[order]
    counts = np.bincount(item, minlength=data.num_items)
    place = np.arange(len(item)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((data.num_items, int(counts.max())), -1, dtype=np.int64)
    table[item, place] = label
    return table


def _agreement(table: np.ndarray, classes: int, seed: int) -> Finding:
    kappa, low, high, pairs = kappa_interval(table, classes, 200, np.random.default_rng(seed))
    level = "problem" if kappa < 0.4 else "warning" if kappa < 0.6 else "good"
    title = f"Agreement of annotators: Fleiss kappa {kappa:.2f} (95 % interval {low:.2f} to {high:.2f})"
    said = f"Two annotators of one item agree in {percent(pairs)} of the cases."
    return Finding("crowd", level, title, kappa, low, high, (said,))
