"""What `hf-labels train` takes besides the training arguments of the method, and how a YAML file becomes arguments."""

import dataclasses
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_labels.cli.errors import UsageError


@dataclass
class ScriptArguments:
    """Data and model of one run.

    Parameters:
        dataset, model, text_column, ...: See the help of each field, which is what `--help` shows.
    """

    dataset: str = field(
        metadata={"help": "Training data: a Hub id, a folder, or a CSV, TSV, JSONL, JSON or Parquet file."}
    )
    model: str = field(metadata={"help": "Model or backbone: a Hub id or a folder."})
    eval_dataset: str | None = field(
        default=None, metadata={"help": "Evaluation data, when it is not a split of --dataset."}
    )
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    eval_split: str | None = field(
        default=None, metadata={"help": "Split to evaluate on; validation, valid, dev or eval is taken when present."}
    )
    eval_fraction: float = field(
        default=0.0,
        metadata={"help": "Share of the training rows, in [0, 1), kept for evaluation if there is no split."},
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of a Hub data set."})
    dataset_revision: str | None = field(default=None, metadata={"help": "Revision of a Hub data set."})
    model_revision: str | None = field(default=None, metadata={"help": "Revision of the model on the Hub."})
    text_column: str | None = field(default=None, metadata={"help": "Column with the text."})
    label_column: str | None = field(default=None, metadata={"help": "Column with the labels."})
    label_kind: str | None = field(
        default=None,
        metadata={
            "help": "What the label column holds, when name and content do not tell: hard, multi, soft, crowd, value."
        },
    )
    class_names: list[str] = field(
        default_factory=list, metadata={"help": "Names of the classes in the order of their ids."}
    )
    label_descriptions: str | None = field(
        default=None, metadata={"help": "JSON or YAML file, or inline JSON object: label name -> description."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Longest text in tokens; the rest is cut off."})

    def __post_init__(self) -> None:
        if not 0 <= self.eval_fraction < 1:
            raise ValueError(f"`eval_fraction` must be in [0, 1), got {self.eval_fraction}.")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"`max_length` must be at least 1, got {self.max_length}.")
        if self.label_kind not in (None, "hard", "multi", "soft", "crowd", "value"):
            raise ValueError(f"`label_kind` must be hard, multi, soft, crowd or value, got {self.label_kind!r}.")


@dataclass
class RunArguments:
    """What the hook `cli_setup` of a trainer module is told about the run, after the data were prepared.

    Parameters:
        dataset (`str`): What the user passed to --dataset, for the card.
        model (`str`), model_revision (`str`, *optional*): Hub id or folder of the model or backbone.
        text_column (`str`): Exists in every split.
        label_column (`str`): The column that the method learns from, named as the trainer wants it.
        label_names (`tuple[str, ...]`): K names; the position is the class id.
        label_descriptions (`dict[str, str]`): Name -> description; empty when none was given.
        max_length (`int`, *optional*): Longest text in tokens.
        evaluated_on (`str`, *optional*): Split or file of the evaluation rows, for the card.
    """

    dataset: str
    model: str
    model_revision: str | None = None
    text_column: str = "text"
    label_column: str = "labels"
    label_names: tuple[str, ...] = ()
    label_descriptions: dict[str, str] = field(default_factory=dict)
    max_length: int | None = None
    evaluated_on: str | None = None


def read_descriptions(source: str | None) -> dict[str, str]:
    """Label name -> description from a JSON or YAML file, or from inline JSON.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no mapping of text to text.
    """
    import yaml

    if source is None:
        return {}
    if source.lstrip().startswith("{"):
        text, where = source, "--label_descriptions"
    else:
        if not Path(source).is_file():
            raise FileNotFoundError(f"--label_descriptions: there is no file {source!r}.")
        text, where = Path(source).read_text(encoding="utf-8"), repr(source)
    try:
        values = yaml.safe_load(text)  # JSON is YAML
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is neither JSON nor YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{where} must map label names to descriptions, got {type(values).__name__}.")
    wrong = [name for name, description in values.items() if not isinstance(description, str | None)]
    if wrong:
        raise ValueError(f"{where}: the description of {wrong[0]!r} is no text. Put it in quotes.")
    return {str(name): description or "" for name, description in values.items()}


def take_config(argv: Sequence[str], prog: str) -> tuple[list[str], str | None]:
    """Arguments without `--config FILE`, and the file."""
    rest: list[str] = []
    config: str | None = None
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--config":
            if not words or words[0].startswith("--"):
                raise UsageError("--config needs a YAML file.", prog)
            config = words.pop(0)
        elif word.startswith("--config="):
            config = word.partition("=")[2]
        else:
            rest.append(word)
    return rest, config


def config_words(path: str, known: Sequence[str], prog: str) -> list[str]:
    """A YAML file of options as command-line words, so that each value is parsed like one that was typed.

    Raises:
        UsageError: No such file, no mapping, or an unknown option (with the closest one).
    """
    import yaml

    if not Path(path).is_file():
        raise UsageError(f"--config: there is no file {path!r}.", prog)
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config: {path!r} is no YAML: {' '.join(str(error).split())}.", prog) from None
    if not isinstance(values, dict):
        raise UsageError(f"--config: {path!r} must map options to values, got {type(values).__name__}.", prog)
    words: list[str] = []
    for key, value in values.items():
        name = str(key).lstrip("-").replace("-", "_")
        if name not in known:
            raise UsageError(f"{path!r} has the unknown option {key!r}.{closest(name, known)}", prog)
        if value is None:
            continue
        if isinstance(value, list):
            words += [f"--{name}", *map(str, value)] if value else []
        elif isinstance(value, dict):
            words += [f"--{name}", json.dumps(value)]
        else:
            words.append(f"--{name}={value}")
    return words


def closest(name: str, known: Sequence[str]) -> str:
    """` Did you mean ...?`, or nothing."""
    close = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), list(known), n=2)
    return f" Did you mean {' or '.join(f'--{other}' for other in close)}?" if close else ""


def field_names(*classes: Any) -> list[str]:
    """Names of the options of some dataclasses."""
    return [item.name for cls in classes for item in dataclasses.fields(cls) if item.init]


def without_fields(cls: Any, names: set[str]) -> Any:
    """A plain dataclass with the fields of another but for some."""
    left = [item for item in dataclasses.fields(cls) if item.name not in names]
    parts = []
    for item in left:
        plain: Any = dataclasses.field(
            default=item.default, default_factory=item.default_factory, metadata=item.metadata
        )
        parts.append((item.name, item.type, plain))
    return dataclasses.make_dataclass(cls.__name__, parts)
