"""The experiment in cached steps: demonstrations, teacher, trajectories, students."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_labels.labels.action_bins import decode_actions
from robot_arm import stages
from robot_arm.data import Table, demonstrations, load_demonstrations, tables
from robot_arm.policy import clone_behaviour, load_model, new_model
from robot_arm.tokens import EOS, Tokens
from robot_arm.world import HORIZON, TASKS


@dataclass(frozen=True)
class Teacher:
    """Behaviour cloning from scratch; `keep` are the steps after which the model is kept."""

    steps: int = 1200
    keep: tuple[int, ...] = (200, 400, 1200)
    batch: int = 64
    lr: float = 1.5e-3
    seed: int = 0


@dataclass(frozen=True)
class Student:
    """Distillation of one teacher.

    Parameters:
        teacher_step: Which of the kept teachers.
        records: Trajectories; `thin` keeps only so many first iterates of each, and the fixed point.
        anchor: `"fresh"` = ground-truth rows of all demonstrations; `"mixed"` = labels of the record (see `distance`).
        distance: Up to this mean difference of normalised actions the teacher's decode is the label.
    """

    teacher_step: int = 1200
    records: int = 6000
    thin: int | None = None
    anchor: str = "fresh"
    distance: float = 0.1
    weight: float = 2.0
    steps: int = 800
    batch: int = 32
    lr: float = 5e-4
    seed: int = 0


@dataclass(frozen=True)
class Ablation:
    """Labels of the anchor under a weak teacher: the paper's mixed labels, ground truth only, teacher only."""

    plan: Student
    seeds: tuple[int, ...] = (0, 1, 2)
    goals: int = 25
    arms: tuple[tuple[str, float], ...] = (
        ("mixed labels", 0.1),
        ("ground truth only", -1.0),
        ("teacher only", float("inf")),
    )


@dataclass(frozen=True)
class Preset:
    """Sizes of a run. Goals of `dev_seed` may choose the recipe, those of `test_seeds` may not."""

    tasks: tuple[str, ...] = TASKS
    order: str = "time"
    demo_seeds: tuple[int, ...] = tuple(range(1000, 1006))
    teacher: Teacher = field(default_factory=Teacher)
    student: Student = field(default_factory=Student)
    seeds: tuple[int, ...] = (0, 1, 2)
    dev_seed: int = 7
    test_seeds: tuple[int, ...] = (9, 11)
    goals: int = 50
    sigmas: tuple[int, ...] = (1, 2, 3, 4)
    teacher_sigmas: tuple[int, ...] = (2, 3, 4)
    prompts_per_block: int = 15
    choices: tuple[tuple[str, Student], ...] = ()
    ablation: Ablation | None = None


@cache
def data(preset: Preset) -> tuple[Path, Tokens, Table, Table]:
    """Folder of the demonstrations, tokens, training rows, held-out rows."""
    path = demonstrations(preset.tasks, preset.demo_seeds)
    return path, *tables(load_demonstrations(path), preset.tasks, preset.order)


def teacher(preset: Preset) -> Path:
    """Folder with `step-N` for each kept step."""
    path, tokens, train, held = data(preset)
    plan = preset.teacher
    settings = {
        "data": path.name,
        "order": preset.order,
        "steps": plan.steps,
        "keep": plan.keep,
        "batch": plan.batch,
        "lr": plan.lr,
        "seed": plan.seed,
    }

    def make(folder: Path) -> None:
        tokens.save(folder)
        model = new_model(tokens.actions.vocab_size, plan.seed)
        clone_behaviour(train, held, model, plan.steps, plan.batch, plan.seed, plan.lr, plan.keep, folder)

    return stages.stage("teacher", settings, make)


def records(preset: Preset, step: int, number: int) -> Path:
    """Trajectories of a kept teacher on balanced training prompts, from the guess "no motion"."""
    import datasets

    from hf_labels.generation import collect_jacobi_trajectories

    path, (_, tokens, train, _) = teacher(preset) / f"step-{step}", data(preset)

    def make(folder: Path) -> None:
        rows = train.balanced(number, np.random.default_rng(1))
        prompts = datasets.Dataset.from_dict({"input_ids": train.prompts[rows], "labels": train.labels[rows]})
        guess = torch.from_numpy(tokens.actions.guess(HORIZON))
        made = collect_jacobi_trajectories(
            load_model(path),
            prompts,
            block_size=len(guess),
            batch_size=250,
            init=guess,
            eos_token_id=EOS,
            drop_repeats=None,  # a saturated gripper repeats its token by right
            folder=folder / "shards",
        )
        made.save_to_disk(folder / "records")

    settings = {"teacher": path.parent.name, "step": step, "number": number}
    return stages.stage("trajectories", settings, make) / "records"


def student(preset: Preset, plan: Student) -> Path:
    """Folder of a distilled model."""
    source, found = teacher(preset) / f"step-{plan.teacher_step}", records(preset, plan.teacher_step, plan.records)
    settings = {"from": found.parent.name, **vars(plan)}
    return stages.stage("student", settings, lambda folder: distil(preset, plan, source, found, folder))


def distil(preset: Preset, plan: Student, source: Path, found: Path, folder: Path) -> None:
    """Consistency distillation with `ConsistencyDistillationTrainer`, in bfloat16 autocast."""
    import datasets

    from hf_labels.trainers.ceed_vla import ConsistencyDistillationTrainer, ConsistencyDistillationTrainingArguments

    _, tokens, train, _ = data(preset)
    rows = datasets.load_from_disk(found)
    if plan.thin is not None:
        rows = rows.map(lambda row: {"trajectory": [*row["trajectory"][:-1][: plan.thin], row["fixed_point"]]})
    options: dict[str, Any] = {}
    if plan.anchor == "fresh":
        chosen = train.balanced(plan.steps * plan.batch, np.random.default_rng([2, plan.seed]))
        columns = {"prompt_ids": train.prompts[chosen], "labels": train.labels[chosen]}
        options["anchor_dataset"] = datasets.Dataset.from_dict(columns)
    model = load_model(source).train()
    model.set_attn_implementation("eager")  # faster than sdpa in bfloat16 on a CPU
    args = ConsistencyDistillationTrainingArguments(
        str(folder / "run"),
        ar_weight=plan.weight,
        max_label_distance=plan.distance,
        max_steps=plan.steps,
        per_device_train_batch_size=plan.batch,
        learning_rate=plan.lr,
        warmup_steps=min(30, plan.steps // 10),
        weight_decay=0.0,
        max_grad_norm=1.0,
        seed=plan.seed,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        logging_steps=50,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = ConsistencyDistillationTrainer(
        model,
        args,
        train_dataset=rows,
        decode_labels=lambda ids: decode_actions(ids, tokens.actions.vocab_size, tokens.actions.bins),
        label_token_ids=[EOS, *tokens.actions.action_ids],
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    stages.save_json(folder / "log.json", trainer.state.log_history)


def cloned_longer(preset: Preset) -> Path:
    """Control: the teacher, trained on as many ground-truth rows more as a student sees, without distillation."""
    plan, source = preset.student, teacher(preset) / f"step-{preset.student.teacher_step}"
    settings = {"teacher": source.parent.name, **vars(plan), "records": None}

    def make(folder: Path) -> None:
        train, held = data(preset)[2:]
        model = load_model(source)
        keep, rng_seed = (plan.steps,), plan.seed
        path = folder / "run"
        clone_behaviour(train, held, model, plan.steps, plan.batch, rng_seed, plan.lr, keep, path)
        (path / f"step-{plan.steps}").rename(folder / "model")

    return stages.stage("cloned", settings, make) / "model"
