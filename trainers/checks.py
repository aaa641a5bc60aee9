"""What is checked once, before the first step: data, labels, and the folder that the run writes to."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_labels.labels.kinds import check_column, check_same_label_space, require_columns
from hf_labels.trainers.state import checkpoints

# Kinds whose width or ids are the model's classes, and those for which one class only cannot be learned from.
_CLASS_KINDS = ("hard", "multi", "soft", "crowd")
_COUNTED_KINDS = ("hard", "crowd")


def check_data(trainer: Any) -> None:
    """Check the training and evaluation data of a [`LabelTrainer`].

    Raises:
        ValueError: Empty data, one class only, labels of the wrong kind or range, or label spaces that differ.
        MissingColumnError: (a `KeyError`) A column that the method needs is missing.
    """
    train, kinds = trainer.train_dataset, trainer.label_kinds()
    if train is None:
        return  # Trainer says so itself
    _check_rows(train, "training data set (`train_dataset`)")
    if not _has_columns(train):
        return
    require_columns(train, trainer.required_columns())
    classes = trainer.num_classes()
    for column, kind in kinds.items():
        least = trainer._min_classes if kind in _COUNTED_KINDS else 1
        width = classes if kind in _CLASS_KINDS else None
        check_column(train, kind, column, num_labels=width, min_classes=least)
    for name, dataset in _evaluation_sets(trainer.eval_dataset):
        _check_rows(dataset, name)
        if not _has_columns(dataset):
            continue
        for column, kind in kinds.items():
            if column in dataset.column_names:
                check_column(dataset, kind, column, num_labels=classes if kind in _CLASS_KINDS else None)
                if kind in _CLASS_KINDS:
                    check_same_label_space(train, dataset, column, kind=kind)


def _has_columns(dataset: Any) -> bool:
    return getattr(dataset, "column_names", None) is not None


def _check_rows(dataset: Any, name: str) -> None:
    if hasattr(dataset, "__len__") and len(dataset) == 0:
        raise ValueError(f"The {name} is empty. Give at least one row; check the filter or the split that made it.")


def _evaluation_sets(dataset: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(dataset, Mapping):
        for key, part in dataset.items():
            yield f"evaluation data set `{key}`", part
    elif dataset is not None:
        yield "evaluation data set (`eval_dataset`)", dataset


def check_output_dir(model: Any, output_dir: str, resume: str | None, overwrite: bool) -> None:
    """Refuse to write into a folder that holds another model, or to continue from a checkpoint of one.

    Models differ when their type, class, size, label names or (adapters) base model differ.

    Raises:
        ValueError: The checkpoint to continue from holds another model.
        FileExistsError: `output_dir` holds another model, and neither resuming nor overwriting was asked for.
    """
    mine = describe_model(model)
    if resume is not None:
        found = describe_folder(Path(resume))
        difference = _difference(found, mine)
        if difference:
            raise ValueError(
                f"Checkpoint {resume} holds another model: {difference}. Make the trainer with the model of that run, "
                "or start in another `output_dir`."
            )
        return
    if overwrite:
        return
    for folder in [Path(output_dir), *reversed(checkpoints(output_dir))]:
        difference = _difference(describe_folder(folder), mine)
        if difference:
            raise FileExistsError(
                f"`output_dir` {output_dir} already holds another model ({folder.name}): {difference}. Choose another "
                "`output_dir`, delete the folder, or pass `overwrite_output_dir=True`."
            )


def describe_model(model: Any) -> dict[str, Any]:
    """What tells one model from another, of a model in memory."""
    if hasattr(model, "peft_config"):
        config = next(iter(model.peft_config.values()))
        return {"base model": config.base_model_name_or_path, "adapter": str(getattr(config.peft_type, "value", ""))}
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return {}
    return _from_config(config.to_dict() | {"architectures": [type(model).__name__]})


def describe_folder(folder: Path) -> dict[str, Any] | None:
    """The same of a model in a folder; `None` when there is none or it cannot be read."""
    try:
        if (folder / "adapter_config.json").is_file():
            saved = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            return {"base model": saved.get("base_model_name_or_path"), "adapter": saved.get("peft_type")}
        return _from_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError):
        return None


def _from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    names = {int(key): name for key, name in (config.get("id2label") or {}).items()}
    labels = [names[key] for key in sorted(names)] or [f"LABEL_{i}" for i in range(2)]  # 2: the default, not written
    return {
        "model type": config.get("model_type"),
        "class": next(iter(config.get("architectures") or ()), None),
        "hidden size": config.get("hidden_size"),
        "number of layers": config.get("num_hidden_layers"),
        "labels": labels,
    }


def _difference(found: Mapping[str, Any] | None, mine: Mapping[str, Any]) -> str | None:
    if found is None or not mine:
        return None
    for key in dict.fromkeys([*found, *mine]):
        if found.get(key) != mine.get(key):
            return f"its {key} is {_short(found.get(key))}, this model's is {_short(mine.get(key))}"
    return None


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{', '.join(map(str, value[:4]))}{', ...' if len(value) > 4 else ''} ({len(value)})"
    return "none" if value is None else str(value)
