"""Data of the zero-shot benchmark: seen and unseen labels, its file format, and pairs for an entailment model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.data.zero_shot_tc_hypotheses import Aspect, find_aspect, wordnet_hypotheses
from hf_labels.labels.columns import class_names, require_columns
from hf_labels.labels.verbalize import LabelSpace
from hf_labels.labels.zero_shot_tc import DecisionRule, alternate_labels

logger = logging.getLogger(__name__)

PAIR_NAMES = ("entailment", "not_entailment")
SETTINGS = ("partially_unseen", "fully_unseen")


@dataclass(frozen=True)
class ZeroShotTask:
    """One task in one setting.

    Parameters:
        aspect ([`Aspect`]): Patterns and rules.
        labels (`tuple[str, ...]`): All labels, without the none label.
        seen (`tuple[str, ...]`): Those with training texts; empty in the label-fully-unseen setting.
        hypotheses (`dict[str, list[str]]`): Label -> sentences.
        train, dev, test (`datasets.Dataset`): Columns `text`, `label_names` (list of names; empty = none), `index`.
            `train` holds seen labels only and is empty in the label-fully-unseen setting; `dev` holds seen labels
            only; `test` holds all.
    """

    aspect: Aspect
    labels: tuple[str, ...]
    seen: tuple[str, ...]
    hypotheses: dict[str, list[str]]
    train: Any
    dev: Any
    test: Any

    @property
    def unseen(self) -> tuple[str, ...]:
        """Labels without training texts."""
        return tuple(name for name in self.labels if name not in self.seen)

    def rule(self, decision: str = "two_phase") -> DecisionRule:
        """The benchmark's decision rule for this aspect."""
        aspect = self.aspect
        return DecisionRule(
            decision,
            aspect.multi_label,
            reject=aspect.none_label is not None,
            threshold=aspect.threshold,
            seen_margin=aspect.seen_margin,
            seen_threshold=aspect.seen_threshold,
        )

    def pairs(self, negatives: str | int = "all", seed: int = 0) -> Any:
        """[`entailment_pairs`] of the training texts."""
        return entailment_pairs(self.train, self.hypotheses, self.seen, negatives, seed, label_column="label_names")


def build_zero_shot_task(
    dataset: Any,
    aspect: str | Aspect = "topic",
    setting: str = "partially_unseen",
    *,
    version: str = "v0",
    seen_labels: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    hypotheses: Mapping[str, Sequence[str]] | None = None,
    test: Any = None,
    text_column: str = "text",
    label_column: str = "labels",
    dev_fraction: float = 0.1,
    test_fraction: float = 0.6,
    seed: int = 0,
) -> ZeroShotTask:
    """Any labelled texts as a zero-shot task, in one form for topics, emotions and situations.

    Args:
        dataset (`datasets.Dataset`): Texts with one label (a `ClassLabel`, or names) or a list of labels each. The
            aspect's none label, -1 or an empty list is "no label".
        aspect (`str` or [`Aspect`], *optional*, defaults to `"topic"`): Patterns and rules.
        setting (`str`, *optional*, defaults to `"partially_unseen"`): Or `"fully_unseen"`: none has training texts.
        version (`str`, *optional*, defaults to `"v0"`): Seen labels: every other one from the first (`"v0"`) or from
            the second (`"v1"`).
        seen_labels (names, *optional*): Your own choice in place of `version`.
        labels (names, *optional*): All labels in order; default: the `ClassLabel` names, or the aspect's labels when
            they cover the data, else those of the data, sorted.
        hypotheses (`dict`, *optional*): Default: [`wordnet_hypotheses`].
        test (`datasets.Dataset`, *optional*): Test texts. Without them `test_fraction` of `dataset` is drawn.
        dev_fraction (`float`, *optional*, defaults to 0.1): Share of the remaining texts of seen labels for `dev`.
        test_fraction (`float`, *optional*, defaults to 0.6): As in the situation task of the benchmark.
        seed (`int`, *optional*, defaults to 0): Of the draws.

    Raises:
        MissingColumnError: (a `KeyError`) A column is missing.
        ValueError: An unknown setting, version, label or fraction; no unseen or no seen label is left.
    """
    plan = find_aspect(aspect)
    if setting not in SETTINGS:
        raise ValueError(f"`setting` must be one of {', '.join(SETTINGS)}, got {setting!r}.")
    for name, value in (("dev_fraction", dev_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` must be in [0, 1), got {value}.")
    names = tuple(labels) if labels is not None else _names_of(dataset, plan, label_column)
    names = tuple(name for name in LabelSpace.from_names(names).names if name != plan.none_label)
    seen = _seen(names, setting, version, seen_labels)
    whole = _texts(dataset, names, plan.none_label, text_column, label_column)
    rng = np.random.default_rng(seed)
    if test is None:
        order = rng.permutation(len(whole))
        cut = round(len(order) * test_fraction)
        held, whole = whole.select(np.sort(order[:cut])), whole.select(np.sort(order[cut:]))
    else:
        held = _texts(test, names, plan.none_label, text_column, label_column)
    known = _restrict(whole, set(seen))
    order = rng.permutation(len(known))
    cut = round(len(order) * dev_fraction)
    dev, train = known.select(np.sort(order[:cut])), known.select(np.sort(order[cut:]))
    sentences = hypotheses if hypotheses is not None else wordnet_hypotheses(names, plan)
    without = [name for name in names if not sentences.get(name)]
    if without:
        raise ValueError(f"`hypotheses` has none for {without[0]!r}. Write one, or leave the argument out.")
    return ZeroShotTask(plan, names, seen, {name: list(sentences[name]) for name in names}, train, dev, held)


def read_benchmark_file(path: str | Path, aspect: str | Aspect) -> Any:
    """A file of the published benchmark: `train_pu_half_v0.txt`, `dev.txt`, `test.txt` and so on.

    Lines are separated by tabs: topic `<class id> text`, emotion `<label> <domain> text`, situation
    `<labels separated by blanks> text`.

    Returns:
        `datasets.Dataset`: Columns `text`, `label_names` (list; the none label is an empty list), `index`, and
        `domain` for emotions.

    Raises:
        ValueError: A line with too few columns, or a label that the aspect does not have; names the line.
    """
    import datasets

    plan = find_aspect(aspect)
    columns: dict[str, list[Any]] = {"text": [], "label_names": [], "index": []}
    columns |= {name: [] for name in plan.columns if name not in ("labels", "text")}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n")):
        if not line.strip():
            continue
        parts = line.split("\t", len(plan.columns) - 1)
        if len(parts) < len(plan.columns):
            raise ValueError(f"{path}, line {number + 1}: {len(parts)} columns, expected {', '.join(plan.columns)}.")
        row = dict(zip(plan.columns, parts, strict=True))
        found = [_file_label(name, plan, f"{path}, line {number + 1}") for name in _split_labels(row, plan)]
        columns["label_names"].append([name for name in found if name != plan.none_label])
        columns["index"].append(len(columns["index"]))
        for name in columns.keys() - {"label_names", "index"}:
            columns[name].append(row[name].strip())
    features = {name: datasets.Value("string") for name in columns if name not in ("label_names", "index")}
    features |= {"label_names": datasets.List(datasets.Value("string")), "index": datasets.Value("int64")}
    return datasets.Dataset.from_dict({name: columns[name] for name in features}, features=datasets.Features(features))


def entailment_pairs(
    dataset: Any,
    hypotheses: Mapping[str, Sequence[str]],
    seen_labels: Sequence[str] | None = None,
    negatives: str | int = "all",
    seed: int = 0,
    *,
    text_column: str = "text",
    label_column: str = "labels",
    none_label: str | None = None,
) -> Any:
    """Training pairs of an entailment model.

    For a text with the labels Y: every hypothesis of every label of Y entails, every hypothesis of every *other seen*
    label does not. Unseen labels never appear. Texts without a seen label give no pairs. Nothing is balanced.

    Args:
        dataset (`datasets.Dataset`): Texts with one label or a list of labels each; ids of a `ClassLabel`, ids in the
            order of `hypotheses`, or names. -1 and an empty list are "no label".
        hypotheses (`dict[str, list[str]]`): Label -> sentences.
        seen_labels (names, *optional*): Labels that may be trained on; default: all of `hypotheses`.
        negatives (`"all"` or `int`, *optional*): Negative labels per text: all other seen ones, or so many drawn.
        seed (`int`, *optional*, defaults to 0): Of that draw.
        none_label (`str`, *optional*): What "no label" is called in the column.

    Returns:
        `datasets.Dataset`: Columns `premise`, `hypothesis`, `labels` (ClassLabel: entailment, not_entailment),
        `index` (row of the text in `dataset`).

    Raises:
        MissingColumnError: (a `KeyError`) A column is missing.
        ValueError: A label without hypothesis, a seen label that is none, an unknown gold label (names the row),
            `negatives` below 1.

    Source: Yin, Hay and Roth, EMNLP 2019, section 5; `convert_*_train_zeroshot` of their code.
    """
    import datasets

    require_columns(dataset, [text_column, label_column])
    if negatives != "all" and (not isinstance(negatives, int) or negatives < 1):
        raise ValueError(f"`negatives` must be 'all' or a number of labels of at least 1, got {negatives!r}.")
    names = LabelSpace.from_names(list(hypotheses)).names
    empty = [name for name in names if not hypotheses[name] or isinstance(hypotheses[name], str)]
    if empty:
        raise ValueError(f"`hypotheses` of {empty[0]!r} must be a list of at least one sentence.")
    seen = list(names) if seen_labels is None else list(dict.fromkeys(seen_labels))
    _need_labels(seen, names)
    rng = np.random.default_rng(seed)
    columns: dict[str, list[Any]] = {"premise": [], "hypothesis": [], "labels": [], "index": []}
    gold = label_sets(dataset, names, label_column, none_label)
    for row, (text, truth) in enumerate(zip(dataset[text_column][:], gold, strict=True)):
        if not truth & set(seen):
            continue
        others = [name for name in seen if name not in truth]
        if negatives != "all" and len(others) > int(negatives):
            kept = set(rng.choice(len(others), int(negatives), replace=False).tolist())
            others = [name for place, name in enumerate(others) if place in kept]
        for name in seen:
            if name in truth or name in others:
                for sentence in hypotheses[name]:
                    for key, value in zip(columns, (text, sentence, int(name not in truth), row), strict=True):
                        columns[key].append(value)
    features = {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string")}
    features |= {"labels": datasets.ClassLabel(names=list(PAIR_NAMES)), "index": datasets.Value("int64")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def all_pairs(texts: Sequence[str], gold: Sequence[set[str]], hypotheses: Mapping[str, Sequence[str]]) -> Any:
    """Every text with every hypothesis, text by text: `premise`, `hypothesis`, `labels`."""
    import datasets

    flat = [(name, sentence) for name, sentences in hypotheses.items() for sentence in sentences]
    columns = {
        "premise": [text for text in texts for _ in flat],
        "hypothesis": [sentence for _ in texts for _, sentence in flat],
        "labels": [int(name not in truth) for truth in gold for name, _ in flat],
    }
    features = {"premise": datasets.Value("string"), "hypothesis": datasets.Value("string")}
    features |= {"labels": datasets.ClassLabel(names=list(PAIR_NAMES))}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def label_sets(
    dataset: Any, names: Sequence[str], column: str = "labels", none_label: str | None = None
) -> list[set[str]]:
    """The labels of each row as a set of names; "no label" is the empty set.

    Raises:
        ValueError: A label that is not among `names`; names it and the row.
    """
    require_columns(dataset, [column])
    own, known = class_names(dataset, column), set(names)
    found = []
    for row, cell in enumerate(dataset[column][:]):
        cells = cell if isinstance(cell, list) else [cell]
        here = set()
        for one in cells:
            if one is None or one == -1 or one == "":
                continue
            if isinstance(one, str):
                name = one.strip()
            else:
                table = own if own is not None else names
                name = table[int(one)] if 0 <= int(one) < len(table) else str(one)
            if name == none_label:
                continue
            if name not in known:
                raise ValueError(
                    f"Column `{column}` has the label {name!r} at row {row}, which is not one of: "
                    f"{', '.join(list(names)[:8])}. Add it (with a hypothesis), or name it as the none label."
                )
            here.add(name)
        found.append(here)
    return found


def _seen(names: tuple[str, ...], setting: str, version: str, given: Sequence[str] | None) -> tuple[str, ...]:
    if setting == "fully_unseen":
        if given:
            raise ValueError("`seen_labels` are given, and in the setting 'fully_unseen' no label is seen.")
        return ()
    seen = alternate_labels(names, version) if given is None else tuple(dict.fromkeys(given))
    _need_labels(seen, names)
    if not seen or set(seen) == set(names):
        raise ValueError(f"{len(seen)} of {len(names)} labels are seen; at least one must be and one must not.")
    return seen


def _need_labels(seen: Sequence[str], names: Sequence[str]) -> None:
    strange = [name for name in seen if name not in names]
    if strange:
        raise ValueError(f"`seen_labels` names {strange[0]!r}, which is not a label: {', '.join(list(names)[:8])}.")


def _names_of(dataset: Any, plan: Aspect, column: str) -> tuple[str, ...]:
    own = class_names(dataset, column)
    if own is not None:
        return own
    require_columns(dataset, [column])
    cells = [one for cell in dataset[column][:] for one in (cell if isinstance(cell, list) else [cell])]
    used = {str(one).strip() for one in cells if one not in (None, -1, "")} - {plan.none_label}
    return plan.labels if used and used <= set(plan.labels) else tuple(sorted(used))


def _texts(dataset: Any, names: Sequence[str], none_label: str | None, text_column: str, label_column: str) -> Any:
    import datasets

    require_columns(dataset, [text_column, label_column])
    gold = label_sets(dataset, names, label_column, none_label)
    index = dataset["index"][:] if "index" in dataset.column_names else range(len(dataset))
    order = {name: place for place, name in enumerate(names)}
    columns = {
        "text": list(dataset[text_column][:]),
        "label_names": [sorted(row, key=order.__getitem__) for row in gold],
        "index": list(index),
    }
    features = {"text": datasets.Value("string"), "label_names": datasets.List(datasets.Value("string"))}
    features |= {"index": datasets.Value("int64")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _restrict(dataset: Any, seen: set[str]) -> Any:
    """Rows with a seen label, and only those labels (a multi-label text keeps its seen ones, as in the benchmark)."""
    rows = [row for row, names in enumerate(dataset["label_names"][:]) if seen & set(names)]
    kept = dataset.select(rows)
    names = [[name for name in row if name in seen] for row in kept["label_names"][:]]
    feature = dataset.features["label_names"]
    return kept.remove_columns("label_names").add_column("label_names", names, feature=feature)


def _split_labels(row: Mapping[str, str], plan: Aspect) -> list[str]:
    return row["labels"].split() if plan.multi_label else [row["labels"].strip()]


def _file_label(name: str, plan: Aspect, where: str) -> str:
    if plan.name == "topic" and name.isdigit() and int(name) < len(plan.labels):
        return plan.labels[int(name)]
    if name in plan.labels or name == plan.none_label:
        return name
    raise ValueError(f"{where}: {name!r} is not a label of the {plan.name} task: {', '.join(plan.labels)}.")
