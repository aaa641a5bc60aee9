"""Folders, records and saved labels of the loops in `rounds.py` and `queries.py`.

Under several processes all of them run the loops; the main one writes, then all read what was written.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.trainers.state import checkpoints

INFO = "round.json"
_PLAN = "plan.json"


@dataclass(frozen=True)
class Place:
    """Where one round or stage works.

    Parameters:
        number (`int`): Counted from 0.
        name (`str`): Name of the stage, or `round-000`.
        folder (`Path`): Its folder, made already. Use it (or a folder in it) as `output_dir` of the trainer.
    """

    number: int
    name: str
    folder: Path

    @property
    def checkpoint(self) -> str | None:
        """Last complete checkpoint of a training that was cut off here: pass it as `resume_from_checkpoint`."""
        found = checkpoints(self.folder)
        return str(found[-1]) if found else None


@dataclass(frozen=True)
class RoundsResult:
    """What a loop returns.

    Parameters:
        state: What the last `train` (`update`) returned.
        history (`list[dict]`): One entry per round, in order: `round`, `name` and the round's own numbers.
    """

    state: Any
    history: list[dict[str, Any]] = field(default_factory=list)

    def area(self, metric: str, x: str = "spent") -> float:
        """Area under the curve of a number over another, divided by the width: a mean height.

        Raises:
            ValueError: If fewer than two rounds have both.
        """
        points = [(entry[x], entry[metric]) for entry in self.history if x in entry and metric in entry]
        if len(points) < 2:
            raise ValueError(f"An area needs two rounds with `{x}` and `{metric}`, there are {len(points)}.")
        xs, ys = np.array(points, dtype=float).T
        return float(np.trapezoid(ys, xs) / (xs[-1] - xs[0])) if xs[-1] != xs[0] else float(ys.mean())


def is_main() -> bool:
    """Whether this process writes."""
    from accelerate import PartialState

    return PartialState().is_main_process


def wait() -> None:
    """Until all processes are here."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def save_labels(labels: Any, folder: str | Path) -> Path:
    """Save labels of a round: a `Dataset` as Parquet, a dict of arrays or tensors as safetensors.

    Raises:
        TypeError: For anything else.
    """
    folder = Path(folder)
    if hasattr(labels, "to_parquet"):
        path = folder / "labels.parquet"
        part = folder / "labels.parquet.part"
        labels.to_parquet(str(part))
    elif isinstance(labels, Mapping) and labels:
        import torch
        from safetensors.torch import save_file

        path, part = folder / "labels.safetensors", folder / "labels.safetensors.part"
        save_file({str(name): torch.as_tensor(values).contiguous().clone() for name, values in labels.items()}, part)
    else:
        raise TypeError(f"Labels must be a Dataset or a dict of arrays, got {type(labels).__name__}.")
    os.replace(part, path)
    return path


def load_labels(folder: str | Path) -> Any:
    """Labels that [`save_labels`] wrote: a `Dataset`, or a dict of tensors; `None` when there are none."""
    folder = Path(folder)
    if (folder / "labels.parquet").is_file():
        from datasets import Dataset

        return Dataset.from_parquet(str(folder / "labels.parquet"))
    if (folder / "labels.safetensors").is_file():
        from safetensors.torch import load_file

        return load_file(folder / "labels.safetensors")
    return None


def need_rounds(rounds: int | None) -> int:
    """Check a number of rounds."""
    if rounds is None or rounds < 1:
        raise ValueError(f"`rounds` must be at least 1, got {rounds}.")
    return rounds


def open_plan(output_dir: str | Path, kind: str, settings: Mapping[str, Any] | None) -> Path:
    """Make the folder, or check that it holds the same loop."""
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    plan = {"kind": kind, "settings": plain(dict(settings or {}))}
    found = read_json(output / _PLAN)
    if found is None:
        wait()  # nobody writes before all have looked
        if is_main():
            write_json(output / _PLAN, plan)
    elif found != plan:
        raise ValueError(
            f"{output} holds {found.get('kind')} with settings {found.get('settings')}, not {kind} with "
            f"{plan['settings']}. Resume with the same settings, or choose another `output_dir`."
        )
    return output


def make_place(output: Path, number: int, name: str | None = None) -> Place:
    """A place with its folder; `round-000`, ... without a name."""
    name = f"round-{number:03d}" if name is None else name
    folder = output / name
    folder.mkdir(parents=True, exist_ok=True)
    return Place(number, name, folder)


def split_result(result: Any) -> tuple[Any, dict[str, Any]]:
    """What a callback returned: `state` or `(state, numbers)`."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping):
        return result[0], dict(result[1])
    return result, {}


def finish(place: Place, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Record that a round is finished."""
    entry = {"round": place.number, "name": place.name, **plain(dict(numbers))}
    wait()
    if is_main():
        write_json(place.folder / INFO, entry)
    wait()
    return entry


def plain(value: Any) -> Any:
    """JSON values of numpy and torch numbers, arrays and containers."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def read_json(path: Path) -> Any:
    """Content of a file, `None` when it is not there."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all."""
    write_text(path, json.dumps(value, indent=2))


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
