"""Turn the user's table into what a trainer takes: splits chosen, columns found, labels converted and checked."""

from __future__ import annotations

import difflib
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from hf_labels.cli.arguments import RunArguments, ScriptArguments, read_descriptions
from hf_labels.data.load import load_data, pick_split
from hf_labels.labels.columns import read_column, require_columns, write_column
from hf_labels.labels.convert import WAYS
from hf_labels.labels.encode import label_texts
from hf_labels.labels.kinds import (
    KINDS,
    align_labels,
    check_column,
    check_same_label_space,
    class_names,
    convert_column,
    encode_labels,
    repair_column,
)
from hf_labels.labels.kinds import kind_of as content_kind
from hf_labels.labels.verbalize import LabelSpace

logger = logging.getLogger(__name__)

TEXT_COLUMNS = ("text", "sentence", "content", "document", "review", "question", "title", "tweet")
LABEL_COLUMNS = ("labels", "label", "soft_labels", "annotator_labels", "class", "category", "target")
EVAL_SPLITS = ("validation", "valid", "dev", "eval")


def prepare(args: ScriptArguments, kinds: Mapping[str, str], seed: int = 42) -> tuple[RunArguments, dict[str, Any]]:
    """Load, choose, convert and check the data of a run.

    Args:
        args: What the user wrote.
        kinds: Label columns of the trainer -> kind; the first is the one that it learns from. Empty for a method that
            reads text alone.
        seed (`int`): For `eval_fraction`.

    Returns:
        `RunArguments` with the columns and names found, and a `dict` of `train` and `eval` (`None` without evaluation
        data).

    Raises:
        ValueError, KeyError, TypeError, OSError: With column, row and repair.
    """
    train, evaluation, evaluated_on = _splits(args)
    found = {"train": train} if evaluation is None else {"train": train, "eval": evaluation}
    if not kinds:
        return _text_only(args, found, evaluated_on, seed)
    column = _label_column(args, train, kinds)
    for part in found.values():
        require_columns(part, [column], "--label_column")
    found = {name: _parse_lists(part, column) for name, part in found.items()}
    run = RunArguments(args.dataset, args.model, args.model_revision, max_length=args.max_length)
    run.evaluated_on = evaluated_on
    run.text_column = _text_column(args, found["train"], {column, *kinds, *LABEL_COLUMNS})
    for part in found.values():
        require_columns(part, [run.text_column], "--text_column")
        check_column(part, "text", run.text_column)
    run.label_names = tuple(args.class_names)
    run.label_descriptions = read_descriptions(args.label_descriptions)
    found = _convert(run, _source_kind(args, found["train"], column), found, column, kinds)
    for name, part in found.items():
        if "index" not in part.column_names:
            import datasets

            found[name] = write_column(part, "index", np.arange(len(part)), datasets.Value("int64"))
    found = _hold_out(args, run, found, seed)
    kind = kinds[run.label_column]
    check_column(found["train"], kind, run.label_column, min_classes=2)
    if "eval" in found:
        check_column(found["eval"], kind, run.label_column)
        check_same_label_space(found["train"], found["eval"], run.label_column, kind=kind)
    return run, {"train": found["train"], "eval": found.get("eval")}


def _hold_out(args: ScriptArguments, run: RunArguments, found: dict[str, Any], seed: int) -> dict[str, Any]:
    """Split evaluation rows off, when a share is asked for and there are none."""
    if "eval" in found or args.eval_fraction <= 0:
        return found
    halves = found["train"].train_test_split(test_size=args.eval_fraction, seed=seed)
    run.evaluated_on = f"{args.eval_fraction:g} of {args.train_split}, held out"
    return {"train": halves["train"], "eval": halves["test"]}


def _text_only(
    args: ScriptArguments, found: dict[str, Any], evaluated_on: str | None, seed: int
) -> tuple[RunArguments, dict[str, Any]]:
    """The same for a method without labels."""
    run = RunArguments(args.dataset, args.model, args.model_revision, max_length=args.max_length)
    run.evaluated_on = evaluated_on
    run.text_column = _text_column(args, found["train"], set(LABEL_COLUMNS))
    for part in found.values():
        require_columns(part, [run.text_column], "--text_column")
        check_column(part, "text", run.text_column)
    found = _hold_out(args, run, found, seed)
    return run, {"train": found["train"], "eval": found.get("eval")}


def _splits(args: ScriptArguments) -> tuple[Any, Any, str | None]:
    """Training rows, evaluation rows and what the latter are called."""
    data = load_data(args.dataset, config=args.dataset_config, revision=args.dataset_revision)
    train = pick_split(data, args.train_split, args.dataset)
    if args.eval_dataset:
        other = load_data(args.eval_dataset)
        first = next((name for name in (*EVAL_SPLITS, "test", "train") if name in other), next(iter(other)))
        name = args.eval_dataset if os.path.exists(args.eval_dataset) else f"{args.eval_dataset} {first}"
        return train, pick_split(other, args.eval_split or first, args.eval_dataset), os.path.basename(name)
    if args.eval_split:
        return train, pick_split(data, args.eval_split, args.dataset), args.eval_split
    chosen = next((name for name in EVAL_SPLITS if name in data and name != args.train_split), None)
    if chosen is None and args.eval_fraction == 0:
        logger.warning(
            "There is no evaluation data: pass --eval_dataset, --eval_split or --eval_fraction to see metrics."
        )
    return train, None if chosen is None else data[chosen], chosen


def _label_column(args: ScriptArguments, train: Any, kinds: Mapping[str, str]) -> str:
    if args.label_column:
        require_columns(train, [args.label_column], "--label_column")
        return args.label_column
    for name in (*kinds, *LABEL_COLUMNS):
        if name in train.column_names:
            return name
    raise ValueError(
        f"No column with labels was found; the data set has: {', '.join(train.column_names)}. Pass --label_column."
    )


def _text_column(args: ScriptArguments, train: Any, others: set[str]) -> str:
    if args.text_column:
        require_columns(train, [args.text_column], "--text_column")
        return args.text_column
    texts = [
        name
        for name, feature in train.features.items()
        if getattr(feature, "dtype", None) in ("string", "large_string") and name not in others
    ]
    for name in TEXT_COLUMNS:
        if name in texts:
            return name
    if len(texts) == 1:
        return texts[0]
    which = f"it could be any of {', '.join(texts)}" if texts else "no column holds text"
    raise ValueError(f"No column with the text was found: {which}. Pass --text_column.")


def _parse_lists(dataset: Any, column: str) -> Any:
    """Cells such as `[0.2, 0.8]` in a CSV file are text: read them as the lists that they are."""
    col = read_column(dataset, column)
    if not col.is_text or col.lengths is not None or not len(col.values):
        return dataset
    if not str(col.values[0]).lstrip().startswith("["):
        return dataset
    rows = []
    for row, text in enumerate(col.values):
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = None
        if not isinstance(value, list):
            raise ValueError(
                f"Column `{column}` has {str(text)[:40]!r} at row {row}, expected a list such as [0.2, 0.8]."
            )
        rows.append(value)
    import datasets

    values = pa.array(rows)
    return write_column(dataset, column, values, datasets.Dataset(pa.table({column: values})).features[column])


def _source_kind(args: ScriptArguments, dataset: Any, column: str) -> str:
    if args.label_kind:
        return args.label_kind
    by_name = {row.column: kind for kind, row in KINDS.items() if kind in ("soft", "crowd")}
    if column in by_name:
        return by_name[column]
    col = read_column(dataset, column)
    kind = content_kind(col)
    if kind == "value" and col.lengths is None and not (col.values != np.round(col.values)).any():
        return "hard"  # whole floats: ids with an empty cell between them
    if col.is_text:
        return "hard" if col.lengths is None else "multi"
    return kind or "hard"


def _convert(
    run: RunArguments, source: str, found: dict[str, Any], column: str, kinds: Mapping[str, str]
) -> dict[str, Any]:
    """Give all splits the label columns that the trainer reads, and the run its label names."""
    main, wanted = next(iter(kinds.items()))
    if source != wanted and (source, wanted) not in WAYS:
        raise ValueError(
            f"Column `{column}` holds kind `{source}`, the method learns from `{wanted}` (column `{main}`), and there "
            "is no way from one to the other. Pass another --label_column, or say with --label_kind what it holds."
        )
    if source == "hard":
        found = _encode(run, found, column)
    elif source == "multi":
        found = {name: _encode_sets(run, part, column) for name, part in found.items()}
    home = next((name for name, kind in kinds.items() if kind == source), KINDS[source].column)
    found = {name: _rename(part, column, home) for name, part in found.items()}
    found = _second_labels(run, found, home, kinds)
    report = check_column(found["train"], source, home, num_labels=len(run.label_names) or None)
    run.label_names = run.label_names or report.names or tuple(map(str, range(report.num_labels or 0)))
    if source != wanted:
        way = WAYS[source, wanted]
        logger.warning("Column `%s` (%s) is converted to `%s` (%s): %s.", column, source, main, wanted, way)
        count = len(run.label_names)
        found = {
            name: convert_column(part, source, wanted, column=home, target_column=main, num_labels=count)
            for name, part in found.items()
        }
    run.label_column = main
    _need_described(run, column)
    return found


def _second_labels(run: RunArguments, found: dict[str, Any], home: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    """Class ids that lie beside the labels to learn from: they give names, and metrics at evaluation."""
    for other, kind in kinds.items():
        if other == home or kind != "hard" or other not in found["train"].column_names:
            continue
        if class_names(found["train"], other) is None and read_column(found["train"], other).is_text:
            names = run.label_names or tuple(label_texts(found["train"], other))
            found = {
                key: encode_labels(part, other, names) if other in part.column_names else part
                for key, part in found.items()
            }
        run.label_names = run.label_names or class_names(found["train"], other) or ()
    return found


def _need_described(run: RunArguments, column: str) -> None:
    """Every label has a description when any has one."""
    if not run.label_descriptions:
        return
    known = LabelSpace.from_descriptions(run.label_descriptions).names
    for name in run.label_names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ValueError(
                f"Column `{column}` has the label {name!r}, which `label_descriptions` lacks; it has: "
                f"{', '.join(known[:8])}.{f' Did you mean {close[0]!r}?' if close else ''} Add a description of it."
            )


def _rename(dataset: Any, column: str, home: str) -> Any:
    if column == home:
        return dataset
    if home in dataset.column_names:
        raise ValueError(
            f"The data set has both `{column}` and `{home}`, and the method reads `{home}`. Rename or remove one."
        )
    return dataset.rename_column(column, home)


def _encode(run: RunArguments, found: dict[str, Any], column: str) -> dict[str, Any]:
    """Class ids with names on all splits; the training split defines them."""
    train = found["train"]
    own = class_names(train, column)
    if own is not None:
        if run.label_names and run.label_names != own:
            raise ValueError(
                f"Column `{column}` has its own names ({', '.join(own[:8])}), --class_names says otherwise "
                f"({', '.join(run.label_names[:8])}). Leave --class_names out."
            )
        run.label_names = own
        if "eval" in found and class_names(found["eval"], column) not in (None, own):
            if not set(class_names(found["eval"], column) or ()) <= set(own):
                check_same_label_space(train, found["eval"], column)
            found["eval"] = align_labels(found["eval"], column, own)
        return {name: repair_column(part, "hard", column) for name, part in found.items()}
    described = tuple(name.strip() for name in run.label_descriptions)
    present = tuple(label_texts(train, column))
    if not run.label_names:
        if "eval" in found:
            check_same_label_space(train, found["eval"], column, kind="hard")
        run.label_names = described if set(present) <= set(described) else present
    return {name: encode_labels(part, column, run.label_names) for name, part in found.items()}


def _encode_sets(run: RunArguments, dataset: Any, column: str) -> Any:
    col = read_column(dataset, column)
    if not col.is_text and col.names is None:
        return dataset
    run.label_names = run.label_names or tuple(label_texts(dataset, column))
    return encode_labels(dataset, column, run.label_names)
