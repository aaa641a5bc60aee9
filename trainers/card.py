"""What a trainer knows about its run, as the arguments of `render_card`."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from hf_labels.hub_cards import ResultRow, render_card, save_card
from hf_labels.hub_cards.texts import method_slugs

logger = logging.getLogger(__name__)

_TASKS = (
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForImageClassification", "image-classification"),
    ("ForSemanticSegmentation", "image-segmentation"),
    ("ForMaskedLM", "fill-mask"),
    ("ForCausalLM", "text-generation"),
)
_SPEED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")


def card_arguments(
    trainer: Any,
    *,
    language: Any = None,
    license: str | None = None,
    tags: Any = None,
    model_name: str | None = None,
    finetuned_from: str | None = None,
    tasks: Any = None,
    dataset_tags: Any = None,
    dataset: Any = None,
    dataset_args: Any = None,
) -> dict[str, Any]:
    """Keyword arguments of [`~hf_labels.hub_cards.render_card`] for a trained [`LabelTrainer`].

    Arguments as in `Trainer.create_model_card`. Results are those of the run's last evaluation; without one there are
    none.
    """
    names = _as_list(dataset) or [_data_name(trainer.train_dataset)]
    config = getattr(trainer.model, "config", None)
    task = next(iter(_as_list(tasks)), None) or _task_of(trainer.model)
    given = {
        "model_id": trainer.hub_model_id or model_name or os.path.basename(os.path.abspath(trainer.args.output_dir)),
        "base_model": finetuned_from or _hub_id(getattr(config, "_name_or_path", None)),
        "datasets": [name for name in [*_as_list(dataset_tags), *names] if name],
        "language": language,
        "training": changed_arguments(trainer.args),
        "results": _results(trainer, _as_list(dataset), _as_list(dataset_args)),
        "labels": _label_names(config),
        "tags": _as_list(tags),
    }
    if license is not None:
        given["license"] = license
    if task is not None:
        given["pipeline_tag"] = task
    return given


def write_card(slug: str, facts: Mapping[str, Any], folder: str) -> None:
    """Render the card and save it; a `README.md` that somebody else wrote stays, and the log says so.

    A `LabelTrainer` of another package may name a method of its own: its card is the general one.
    """
    card = render_card(slug if slug in method_slugs() else "", **facts)
    try:
        save_card(card, folder)
    except FileExistsError as error:
        logger.warning("No model card was written. %s", error)


def changed_arguments(args: Any) -> dict[str, Any]:
    """Training arguments that differ from their defaults and are plain values."""
    changed = {}
    for field in dataclasses.fields(args):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = getattr(args, field.name)
        value = getattr(value, "value", value)  # enumerations
        plain = value is None or isinstance(value, (bool, int, float, str))
        switched_off = value is False and default is None  # `TrainingArguments` settles what was left open
        if plain and value != default and not switched_off and not (isinstance(value, str) and os.path.isabs(value)):
            changed[field.name] = value
    return changed


def _results(trainer: Any, names: Sequence[str], splits: Sequence[str]) -> list[ResultRow]:
    evaluations = [logs for logs in trainer.state.log_history if any(key.startswith("eval_") for key in logs)]
    if not evaluations:
        return []
    data = trainer.eval_dataset
    name = next(iter(names), None) or _data_name(data) or "evaluation data"
    split = next(iter(splits), None) or str(getattr(data, "split", None) or "evaluation")
    rows = []
    for key, value in evaluations[-1].items():
        metric = key.removeprefix("eval_")
        if key.startswith("eval_") and not metric.endswith(_SPEED) and isinstance(value, (int, float)):
            rows.append(ResultRow(name, split, metric, float(value), seeds=1))
    return rows


def _data_name(dataset: Any) -> str | None:
    info = getattr(dataset, "info", None)
    name = getattr(info, "dataset_name", None)
    return str(name) if name and name not in ("csv", "json", "parquet", "text", "generator") else None


def _hub_id(name: str | None) -> str | None:
    return name if name and not os.path.exists(name) and not os.path.isabs(name) and name.count("/") <= 1 else None


def _task_of(model: Any) -> str | None:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return next((task for part, task in _TASKS if part in type(base).__name__), None)


def _label_names(config: Any) -> Any:
    names = getattr(config, "id2label", None)
    if not isinstance(names, Mapping) or all(name == f"LABEL_{key}" for key, name in names.items()):
        return None
    return [names[key] for key in sorted(names)]


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
