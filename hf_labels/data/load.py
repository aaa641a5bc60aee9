"""Load a data set from anywhere: a Hub id, a folder, CSV, TSV, JSON lines, JSON or Parquet, with clear errors."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def load_data(
    source: str | os.PathLike[str],
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
) -> Any:
    """Load a data set.

    Args:
        source (`str`): One of: a file (`.csv`, `.tsv`, `.json`, `.jsonl`, `.ndjson`, `.parquet`, `.arrow`, also with
            `.gz`); a folder written by `save_to_disk`; a folder of such files or of images, as the Hub has them; a
            Hub id such as `"fancyzhx/ag_news"`. What exists on disk wins over a Hub id.
        split (`str`, *optional*): Return this split only.
        config (`str`, *optional*): Configuration of a Hub data set.
        revision (`str`, *optional*): Revision of a Hub data set.

    Returns:
        `datasets.DatasetDict`, or `datasets.Dataset` when `split` is given. A single table is the split `train`.
        In CSV and TSV only an empty cell is missing: the texts NA, null and None stay texts.

    Raises:
        FileNotFoundError: Nothing is there; the message names close file names.
        ValueError: The file or folder cannot be read, has no rows, or lacks the split; says why and what to do.
        ConnectionError: The Hub cannot be reached.
    """
    text = os.path.expanduser(str(source))
    if not text.strip():
        raise ValueError("The data set is an empty text. Give a Hub id, a folder or a file.")
    path = Path(text)
    if path.is_file():
        data = _load_file(path)
    elif path.is_dir():
        data = _load_folder(path)
    elif _looks_like_path(text):
        raise FileNotFoundError(f"There is no file or folder {text!r}.{_neighbours(path)}")
    else:
        data = _load_hub(text, config, revision)
    data = _as_dict(data)
    for name, part in data.items():
        if len(part) == 0:
            raise ValueError(f"Split `{name}` of {text!r} has 0 rows. Check that the file holds more than a header.")
    return data if split is None else pick_split(data, split, text)


def pick_split(data: Any, split: str, source: str = "the data set") -> Any:
    """One split of a `DatasetDict`.

    Raises:
        ValueError: It is not there; lists the existing ones.
    """
    if split in data:
        return data[split]
    close = difflib.get_close_matches(split, list(data), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{source!r} has no split {split!r}; it has: {', '.join(data)}.{hint}")


def parse_list_cells(data: Any) -> Any:
    """Columns whose cells are texts such as `[0, 1]`, as CSV files have them, read as the lists that they are.

    Args:
        data (`datasets.Dataset`): Not changed. A column with a cell that is no list stays as it is.
    """
    import json

    for name, feature in data.features.items():
        if getattr(feature, "dtype", None) not in ("string", "large_string"):
            continue
        first = next((cell for cell in data[name][:50] if cell), "")
        if not str(first).lstrip().startswith("["):
            continue
        try:
            values = [json.loads(cell) if cell else None for cell in data[name][:]]
        except json.JSONDecodeError:
            continue
        data = data.remove_columns(name).add_column(name, values)
    return data


def _as_dict(data: Any) -> Any:
    import datasets

    if isinstance(data, datasets.Dataset):
        return datasets.DatasetDict({str(data.split or "train"): data})
    return data


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _looks_like_path(text: str) -> bool:
    return (
        _suffix(Path(text)) in FORMATS
        or text.startswith((".", "/", "~"))
        or os.sep != "/"
        and os.sep in text
        or text.count("/") > 1
    )


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" The folder {str(folder)!r} does not exist either."
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() or _suffix(entry) in FORMATS)
    close = difflib.get_close_matches(path.name, names, n=2, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(repr(str(folder / name)) for name in close)}?"
    return " Give a Hub id, a folder, or a file of type " + ", ".join(FORMATS) + "."


def _load_file(path: Path) -> Any:
    import datasets

    suffix = _suffix(path)
    if suffix not in FORMATS:
        raise ValueError(f"Cannot read {str(path)!r}: its type must be one of {', '.join(FORMATS)}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{str(path)!r} is empty (0 bytes).")
    options: dict[str, Any] = {}
    if FORMATS[suffix] == "csv":
        options = {"keep_default_na": False, "na_values": [""], "sep": "\t" if suffix == ".tsv" else ","}
    try:
        return datasets.load_dataset(FORMATS[suffix], data_files={"train": str(path)}, **options)
    except Exception as error:
        raise ValueError(f"Cannot read {str(path)!r} as {suffix[1:]}: {_cause(error)}") from error


def _load_folder(path: Path) -> Any:
    import datasets

    entries = {entry.name for entry in path.iterdir()}
    try:
        if "dataset_dict.json" in entries or {"state.json", "dataset_info.json"} <= entries:
            return datasets.load_from_disk(str(path))
    except Exception as error:
        raise ValueError(f"The saved data set {str(path)!r} cannot be read: {_cause(error)}") from error
    if not entries:
        raise ValueError(f"The folder {str(path)!r} is empty.")
    if "config.json" in entries and any(name.endswith((".safetensors", ".bin")) for name in entries):
        raise ValueError(f"{str(path)!r} is the folder of a model, not of a data set. Did you swap two options?")
    types = {_suffix(entry) for entry in path.rglob("*") if entry.is_file()} & set(FORMATS)
    options: dict[str, Any] = {}
    if types and types <= {".csv", ".tsv"} and "README.md" not in entries:
        options = {"keep_default_na": False, "na_values": [""]}
    try:
        return datasets.load_dataset(str(path), **options)
    except Exception as error:
        raise ValueError(
            f"The folder {str(path)!r} cannot be read as a data set: {_cause(error)} Expected what `save_to_disk` "
            f"writes, or files such as train.csv and test.csv ({', '.join(FORMATS)}), or folders of images by class."
        ) from error


def _load_hub(name: str, config: str | None, revision: str | None) -> Any:
    import datasets
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    where = f"{name!r} is no file or folder here"
    try:
        return datasets.load_dataset(name, config, revision=revision)
    except (DatasetNotFoundError, DataFilesNotFoundError, HFValidationError) as error:
        raise FileNotFoundError(
            f"{where}, and the Hub has no such data set that you may read. Check the spelling (owner/name); if it is "
            "private or gated, accept its terms on the Hub and log in with `hf auth login`."
        ) from error
    except (ConnectionError, OfflineModeIsEnabled, TimeoutError) as error:
        offline = " HF_HUB_OFFLINE is set: unset it, or" if _is_offline() else " Check the connection, or"
        raise ConnectionError(
            f"{where}, and the Hub cannot be reached.{offline} give a local file or folder."
        ) from error
    except RuntimeError as error:
        if "script" in str(error).lower():
            raise ValueError(
                f"{name!r} needs a loading script, which `datasets` no longer runs. Look for a Parquet version "
                "(revision refs/convert/parquet), or convert the files yourself."
            ) from error
        raise ValueError(f"{name!r} cannot be loaded: {_cause(error)}") from error
    except Exception as error:  # a missing or unknown configuration is a ValueError that lists them
        raise ValueError(f"{name!r} cannot be loaded: {_cause(error)}") from error


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cause(error: BaseException) -> str:
    """The innermost message, on one line and cut to a readable length."""
    inner = error
    while inner.__cause__ is not None or inner.__context__ is not None:
        inner = inner.__cause__ or inner.__context__  # type: ignore[assignment]
        if not isinstance(inner, Exception):
            break
    chosen = inner if str(inner).strip() else error
    text = " ".join(str(chosen).split())
    if "utf-8" in text.lower() or "utf8" in text.lower():
        return "it is not UTF-8. Save it as UTF-8."
    if "corresponds to no data" in text:
        return "it has 0 rows. Check that it holds more than a header."
    text = text if len(text) <= 400 else text[:400] + " ..."
    return text if text.endswith((".", "!", "?")) else text + "."
