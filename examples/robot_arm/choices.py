"""Side experiments: the recipes that were compared on the development goals, and the labels under a weak teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
from robot_arm.judge import flat, judge
from robot_arm.pipeline import data, student, teacher
from robot_arm.report import STUDENT_AR, early
from robot_arm.stats import rate


def compare_choices(preset: Any) -> list[dict[str, Any]]:
    """The recipes among which the goals of the development seed chose."""

    rows, tokens = [], data(preset)[1]
    ways: dict[str, dict[str, Any]] = {early(s): {"kind": "jacobi", "sigma": s} for s in (1, 2, 3)}
    ways[STUDENT_AR] = {"kind": "ar"}
    for name, plan in preset.choices:
        path = student(preset, plan)
        for label, options in (
            (STUDENT_AR, {"kind": "ar"}),
            *((early(s), {"kind": "jacobi", "sigma": s}) for s in (1, 2, 3)),
        ):
            outcome = judge(path, tokens, tasks=preset.tasks, seed=preset.dev_seed, goals=preset.goals, **options)
            by_task = {task: sum(goals) for task, goals in outcome["success"].items()}
            rows.append({"recipe": name, "decoder": label, **rate(flat(outcome)), "tasks": by_task})
    return rows


def ablate(preset: Any) -> dict[str, Any]:
    """Anchor labels under a weak teacher, several training seeds each."""
    plan, tokens, rows = preset.ablation, data(preset)[1], []
    goals, number = preset.test_seeds[0], preset.ablation.goals

    def one(path: Path, arm: str, seed: Any, label: str, **options: Any) -> None:
        outcome = judge(path, tokens, tasks=preset.tasks, seed=goals, goals=number, **options)
        rows.append({"labels": arm, "training_seed": seed, "decoder": label, **rate(flat(outcome))})

    one(teacher(preset) / f"step-{plan.plan.teacher_step}", "weak teacher", None, "AR", kind="ar")
    for arm, distance in plan.arms:
        for seed in plan.seeds:
            path = student(preset, replace(plan.plan, distance=distance, seed=seed))
            one(path, arm, seed, "AR", kind="ar")
            one(path, arm, seed, "early exit 3", kind="jacobi", sigma=3)
    pairs, mixed = [], plan.arms[0][0]
    for label in ("AR", "early exit 3"):
        rates: dict[str, list[float]] = {}
        for row in rows:
            if row["decoder"] == label:
                rates.setdefault(row["labels"], []).append(row["rate"])
        for arm, _ in plan.arms[1:]:
            pair = harness.pair_test(rates[mixed], rates[arm])
            pairs.append({"decoder": label, "a": mixed, "b": arm, **pair})
    steps = f"teacher of {plan.plan.teacher_step} steps, {plan.plan.records} records, {plan.plan.steps} steps"
    return {"setting": f"{steps}, goals of seed {goals}", "rows": rows, "paired_over_training_seeds": pairs}
