"""Checks of the labels alone: balance, missing and partial labels, annotators, bags."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.doctor.reading import Patient, are_distributions
from hf_labels.doctor.report import Finding
from hf_labels.labels.columns import read_column
from hf_labels.metrics.functional import clopper_pearson, fleiss_kappa, pairwise_agreement

FEW, TAIL = 20, 0.1  # rows of a small class; share of the largest class that makes a class part of the tail


def percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value >= 0.001 or value == 0 else f"{100 * value:.2g} %"


def share(count: int, total: int) -> tuple[float, float, float]:
    """Share with its exact 95 % interval."""
    low, high = clopper_pearson(int(count), int(total))
    return count / total, low, high


def shown(count: int, total: int) -> str:
    value, low, high = share(count, total)
    return f"{count} of {total} ({percent(value)}, 95 % interval {percent(low)} to {percent(high)})"


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
    counts = _counts(patient, len(names))
    total = int(counts.sum())
    if not total:
        return
    largest, there = int(counts.max()), counts > 0
    smallest = int(counts[there].min())
    ratio = largest / smallest
    low, high = _ratio_interval(largest, smallest, total)
    tail = [names[i] for i in np.flatnonzero(there & (counts < TAIL * largest))]
    few = [names[i] for i in np.flatnonzero(there & (counts < FEW))]
    absent = [names[i] for i in np.flatnonzero(~there)]
    rows = [(names[i], int(counts[i]), *(round(v, 4) for v in share(counts[i], total))) for i in np.argsort(-counts)]
    level = "problem" if ratio >= 10 else "warning" if ratio >= 3 else "good"
    details = [f"{len(tail)} classes in the tail (under a tenth of the largest): {_list(tail)}"] if tail else []
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
            tuple(rows[:100]),
            (draw,),
            {"counts": dict(zip(names, counts.tolist(), strict=True)), "tail": tail},
        )
    if few or absent:
        said = [f"under {FEW} rows: {_list(few)}"] if few else []
        said += [f"without any row: {_list(absent)}"] if absent else []
        title = f"{len(few)} {'class has' if len(few) == 1 else 'classes have'} fewer than {FEW} rows, "
        title += f"{len(absent)} none"
        yield Finding("few", "warning", title, details=tuple(said), values={"few": few, "absent": absent})


def _counts(patient: Patient, count: int) -> np.ndarray:
    assert patient.label is not None
    if patient.kinds[patient.label] == "multi":
        return (read_column(patient.data, patient.label).matrix() == 1).sum(0)
    labels = patient.hard
    assert labels is not None
    return np.bincount(labels[labels >= 0], minlength=count)


def _ratio_interval(largest: int, smallest: int, total: int) -> tuple[float, float]:
    """Of the ratio of two counts out of one total: the share among both is binomial (Clopper-Pearson)."""
    low, high = clopper_pearson(largest, largest + smallest)
    return low / max(1 - low, 1e-12), high / max(1 - high, 1e-12)


def _list(names: list[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (f", ... ({len(names)})" if len(names) > limit else "")


def missing(patient: Patient) -> Iterator[Finding]:
    """Missing labels of rows, and unknown or empty cells of multi-label rows."""
    if patient.label is None:
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
        yield Finding("missing", level, title, value, low, high, values={"missing": lost})
        return
    table = read_column(patient.data, patient.label).matrix()
    mask = np.ones_like(table)
    if "label_mask" in patient.data.column_names:
        mask = read_column(patient.data, "label_mask").matrix()
    known = (mask == 1) & (table >= 0)
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


def soft(patient: Patient) -> Iterator[Finding]:
    """Whether soft labels are distributions, and how sure they are."""
    column = patient.column_of("soft")
    if column is None:
        return
    cells, total = read_column(patient.data, column), len(patient.data)
    if cells.lengths is None or len(np.unique(cells.lengths)) != 1:
        yield Finding("", "problem", f"Rows of `{column}` have different lengths: they are over different classes")
        return
    rows = cells.matrix()
    good = are_distributions(rows)
    lost = int((~good).sum())
    if lost:
        row = int((~good).argmax())
        why = (
            f"row {row} sums to {np.nan_to_num(rows[row]).sum():.4g}, its smallest value is {np.nanmin(rows[row]):.4g}"
        )
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


def annotators(patient: Patient) -> Iterator[Finding]:
    """Agreement of annotators and weak ones among them."""
    column = patient.column_of("crowd")
    if column is None and patient.answers is None:
        return
    from hf_labels.labels.crowd import CrowdAnnotations
    from hf_labels.labels.crowd_soft_labels import aggregate_annotations

    if column is not None:
        data = CrowdAnnotations.from_wide(patient.data, column)
    else:
        assert patient.answers is not None and patient.label is not None
        data = CrowdAnnotations.from_long(_answered(patient), *patient.answers, patient.label)
    if not len(data):
        return
    found = aggregate_annotations(data, "ds", on_empty="uniform")
    table = _by_item(data)
    table = table[(table >= 0).sum(1) >= 2]
    if len(table):
        yield _agreement(table, data.num_labels)
    skills, answers = np.asarray(found.worker_skill), np.bincount(data.worker, minlength=data.num_workers)
    right = np.bincount(data.worker, weights=found.labels[data.item] == data.label, minlength=data.num_workers)
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
    told = f": {_list(weak)}" if weak else ""
    yield Finding(
        "crowd",
        level,
        f"{len(weak)} of {len(names)} annotators are weak{told}",
        details=("The truth is estimated from all annotators (Dawid-Skene).",),
        header=("annotator", "answers", "skill", "agrees with the estimate", "low", "high"),
        rows=tuple(rows[:100]),
        values={"weak": weak},
    )


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


def _agreement(table: np.ndarray, classes: int, resamples: int = 200) -> Finding:
    kappa, rng = fleiss_kappa(table, classes, -1), np.random.default_rng(0)
    draws = [fleiss_kappa(table[rng.integers(len(table), size=len(table))], classes, -1) for _ in range(resamples)]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    level = "problem" if kappa < 0.4 else "warning" if kappa < 0.6 else "good"
    title = f"Agreement of annotators: Fleiss kappa {kappa:.2f} (95 % interval {low:.2f} to {high:.2f})"
    pairs = f"Two annotators of one item agree in {percent(pairwise_agreement(table, classes, -1))} of the cases."
    return Finding("crowd", level, title, kappa, float(low), float(high), (pairs,))


def bags(patient: Patient) -> Iterator[Finding]:
    """Sizes of bags, and what their proportions leave open."""
    column = patient.column_of("bag")
    if column is None:
        return
    ids = ids_of_bags(patient, column)
    inside = ids[ids >= 0]
    if not len(inside):
        yield Finding("bags", "problem", "No row is in a bag")
        return
    sizes = np.unique(inside, return_counts=True)[1]
    details = [f"{int((ids < 0).sum())} rows are in no bag; {int((sizes == 1).sum())} bags hold one row."]
    details.append(f"sizes: smallest {sizes.min()}, median {np.median(sizes):.0f}, largest {sizes.max()}")
    if patient.proportion is not None:
        cells = read_column(patient.data, patient.proportion)
        if cells.lengths is None and cells.values.dtype.kind == "f":
            wrong = list(_proportions(patient.proportion, ids, cells.values))
            yield from wrong
            p = np.clip(cells.values[ids >= 0], 1e-12, 1 - 1e-12)
            left = float(np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p)))
            if not wrong:
                details.append(f"a row's label is open by {left:.2f} bits on average when its bag is known")
    level = "warning" if np.median(sizes) >= 64 else "note"
    yield Finding("bags", level, f"{len(sizes)} bags of {np.median(sizes):.0f} rows (median)", details=tuple(details))


def _proportions(column: str, ids: np.ndarray, values: np.ndarray) -> Iterator[Finding]:
    """Shares that no bag can have, or that differ within one."""
    inside = ids >= 0
    wrong = np.flatnonzero(inside & ~((values >= 0) & (values <= 1)))
    if len(wrong):
        what = f"{len(wrong)} rows of `{column}` are no share: {values[wrong[0]]:.4g} at row {wrong[0]}"
        yield Finding("", "problem", what, details=("Proportions are from 0 to 1; divide counts by the bag's size.",))
        return
    order = np.argsort(ids[inside], kind="stable")
    bag, share_of = ids[inside][order], values[inside][order]
    starts = np.flatnonzero(np.r_[True, bag[1:] != bag[:-1]])
    spread = np.maximum.reduceat(share_of, starts) - np.minimum.reduceat(share_of, starts)
    if (spread > 1e-6).any():
        bad = bag[starts][spread > 1e-6]
        what = f"{len(bad)} of {len(starts)} bags hold different values of `{column}`, for example bag {bad[0]}"
        yield Finding("", "problem", what, details=("All rows of a bag have the proportion of the bag.",))


def ids_of_bags(patient: Patient, column: str) -> np.ndarray:
    found = read_column(patient.data, column)
    values = found.values if found.values.dtype.kind in "iu" else np.unique(found.values, return_inverse=True)[1]
    return np.where(found.null, -1, values).astype(np.int64)
