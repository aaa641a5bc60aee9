"""Loops around trainings: rounds of estimated labels, stages, and rounds of bought labels. All resume where they stop.

Every round (stage) has a folder; what is finished is never computed again, what was cut off in the middle is continued
from its last checkpoint. Calling the same function again with the same `output_dir` resumes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_labels.trainers.places import (
    INFO,
    Place,
    RoundsResult,
    finish,
    is_main,
    load_labels,
    make_place,
    need_rounds,
    open_plan,
    read_json,
    save_labels,
    split_result,
    wait,
)
from hf_labels.trainers.queries import fit_queries
from hf_labels.trainers.state import checkpoints

__all__ = ["Place", "RoundsResult", "Stage", "fit_queries", "fit_rounds", "fit_stages", "load_labels", "save_labels"]


def fit_rounds(
    estimate: Callable[[Any, Place], Any],
    train: Callable[[Any, Place], Any],
    rounds: int,
    output_dir: str | Path,
    *,
    initial: Any = None,
    load: Callable[[Place], Any] | None = None,
    stop: Callable[[list[dict[str, Any]]], bool] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> RoundsResult:
    """Estimate labels, train on them, repeat.

    Args:
        estimate (callable): `(state, place) -> labels`: a `Dataset`, or a dict of arrays (or tensors). `state` is what
            the round before returned, `initial` in the first.
        train (callable): `(labels, place) -> state` or `(state, numbers)`; trains in `place.folder` and saves there
            what `load` needs. Use `place.checkpoint` to continue a training that was cut off.
        rounds (`int`): Number of rounds.
        output_dir (`str`): Holds `round-000`, ...; each with its labels (`labels.parquet` or `labels.safetensors`) and
            `round.json`.
        initial (*optional*): State of the first `estimate`.
        load (callable, *optional*): `(place) -> state` of a finished round. Needed to resume after one.
        stop (callable, *optional*): `(history) -> bool`, asked after every round.
        settings (`dict`, *optional*): JSON values that must not change between interruption and resume.

    Returns:
        `RoundsResult`

    Raises:
        ValueError: If `rounds` is not positive, `output_dir` holds a loop with other `settings`, or a finished round
            must be loaded and `load` is missing.
        TypeError: If labels cannot be saved.
    """
    need_rounds(rounds)
    output = open_plan(output_dir, "rounds", settings)
    state, history, in_memory = initial, [], True
    for number in range(rounds):
        place = make_place(output, number)
        done = read_json(place.folder / INFO)
        if done is None:
            if not in_memory:
                state, in_memory = _load(load, make_place(output, number - 1)), True
            labels = _labels(estimate, state, place)
            state, numbers = split_result(train(labels, place))
            done = finish(place, numbers)
        else:
            in_memory = False
        history.append(done)
        if stop is not None and stop(history):
            break
    return RoundsResult(state if in_memory else _load(load, place), history)


def _labels(estimate: Callable[[Any, Place], Any], state: Any, place: Place) -> Any:
    """Labels of a round as they are on disk, so that a resumed round trains on the same."""
    if load_labels(place.folder) is None:
        labels = estimate(state, place)
        wait()
        if is_main():
            save_labels(labels, place.folder)
    wait()
    return load_labels(place.folder)


def _load(load: Callable[[Place], Any] | None, place: Place) -> Any:
    if load is None:
        raise ValueError(f"{place.folder} is finished; pass `load=` to get its state, or choose another `output_dir`.")
    return load(place)


@dataclass(frozen=True)
class Stage:
    """One stage of [`fit_stages`].

    Parameters:
        name (`str`): Name of its folder; letters, digits, `-` and `_`.
        make_trainer (callable): `(model, place) -> Trainer`, a new one, so that its optimizer is fresh. `model` is
            that of the stage before. `None` instead of a trainer skips the stage (no data for it).
        load (callable, *optional*): `(path) -> model` of the finished stage; defaults to `from_pretrained` of the
            model's class.
    """

    name: str
    make_trainer: Callable[[Any, Place], Any]
    load: Callable[[Path], Any] | None = None


def fit_stages(
    stages: Sequence[Stage], output_dir: str | Path, *, model: Any, settings: Mapping[str, Any] | None = None
) -> RoundsResult:
    """Train one model in several stages, each with a fresh optimizer and scheduler.

    Args:
        stages (sequence of `Stage`): In order.
        output_dir (`str`): Holds a folder per stage, with its checkpoints and the finished `model`.
        model (`PreTrainedModel`): Model of the first stage.
        settings (`dict`, *optional*): JSON values that must not change between interruption and resume.

    Returns:
        `RoundsResult`: `state` is the model of the last stage.

    Raises:
        ValueError: If names repeat or cannot be folders, the trainer of a stage comes with an optimizer, or
            `output_dir` holds other stages.
    """
    names = [stage.name for stage in stages]
    if (
        not names
        or len(set(names)) < len(names)
        or not all(n.replace("-", "").replace("_", "").isalnum() for n in names)
    ):
        raise ValueError(f"Stages need distinct names of letters, digits, `-` and `_`; got {names}.")
    output = open_plan(output_dir, "stages", {"stages": names, **(settings or {})})
    history: list[dict[str, Any]] = []
    for number, stage in enumerate(stages):
        place = make_place(output, number, stage.name)
        done = read_json(place.folder / INFO)
        if done is not None:
            if not done.get("skipped"):
                model = _load_model(stage, model, place)
        else:
            model, done = _run_stage(stage, model, place)
        history.append(done)
    return RoundsResult(model, history)


def _run_stage(stage: Stage, model: Any, place: Place) -> tuple[Any, dict[str, Any]]:
    trainer = stage.make_trainer(model, place)
    if trainer is None:
        return model, finish(place, {"skipped": True})
    if trainer.optimizer is not None:
        raise ValueError(
            f"The trainer of stage `{stage.name}` already has an optimizer; a stage starts with a fresh one. "
            "Make a new trainer in `make_trainer` and do not pass `optimizers`."
        )
    inside = Path(trainer.args.output_dir)
    found = checkpoints(inside)
    output = trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    trainer.save_model(str(place.folder / "model"))
    wait()
    return trainer.model, finish(place, {"steps": output.global_step, "train_loss": output.training_loss})


def _load_model(stage: Stage, model: Any, place: Place) -> Any:
    path = place.folder / "model"
    return stage.load(path) if stage.load is not None else type(model).from_pretrained(path)
