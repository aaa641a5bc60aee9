"""Closed-loop evaluation of a decoder on fixed goals, and its time per chunk at batch size 1."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.generation.jacobi import jacobi_generate
from robot_arm import stages
from robot_arm.policy import Decoder, greedy, load_model
from robot_arm.tokens import PAD, Tokens
from robot_arm.world import GOALS, HORIZON, Episode, Pool, roll_out

_POOLS: dict[int, Pool] = {}


def pool(size: int = 15) -> Pool:
    """The pool of this process."""
    return _POOLS.setdefault(size, Pool(size))


def judge(model: Path, tokens: Tokens, kind: str, tasks: Sequence[str], seed: int, **options: Any) -> dict[str, Any]:
    """Success of each goal of one seed under one decoder; cached.

    Args:
        model: Folder of a saved model.
        tokens: Binners.
        kind: `"ar"` or `"jacobi"`.
        tasks: Meta-World names.
        seed: Of the goals.
        options: `sigma`, `init`, `execute` (actions of a chunk that are acted out), `goals` (how many).

    Returns:
        `success` and `steps` (task -> list over goals), `passes` (mean per chunk, without the confirming pass).
    """
    execute, number = options.pop("execute", 8), options.pop("goals", GOALS)
    settings = {
        "model": "/".join(model.parts[-2:]),
        "kind": kind,
        "tasks": list(tasks),
        "seed": seed,
        "execute": execute,
        "goals": number,
        **options,
    }

    def make(folder: Path) -> None:
        decoder = Decoder(load_model(model), tokens, kind, **options)
        episodes = [Episode(task, seed, goal) for task in tasks for goal in range(number)]
        begin = time.process_time()
        found = roll_out(pool(), episodes, decoder, execute=execute)
        by_task: dict[str, Any] = {"success": {}, "steps": {}}
        for task in tasks:
            mine = [outcome for episode, outcome in found.items() if episode.task == task]
            by_task["success"][task] = [bool(outcome.success) for outcome in mine]
            by_task["steps"][task] = [outcome.steps for outcome in mine]
        by_task["passes"] = float(np.mean(decoder.passes))
        by_task["cpu_s"] = round(time.process_time() - begin, 1)
        stages.save_json(folder / "outcome.json", by_task)

    return stages.load_json(stages.stage("judged", settings, make) / "outcome.json")


def flat(outcome: dict[str, Any]) -> list[bool]:
    """Successes over all tasks and goals, in a fixed order."""
    return [success for goals in outcome["success"].values() for success in goals]


def record_prompts(
    model: Path, tokens: Tokens, tasks: Sequence[str], seeds: Sequence[int], per_block: int
) -> tuple[Tensor, list[str]]:
    """Prompts that the policy meets in closed loop, and the block `task/seed` of each: `per_block` of each block."""
    seen: list[tuple[str, np.ndarray]] = []
    decoder = Decoder(load_model(model), tokens, "ar")

    def decide(features: np.ndarray, names: Sequence[str]) -> np.ndarray:
        seen.extend(zip(names, tokens.prompts(features, names), strict=True))
        return decoder(features, names)

    prompts, blocks, rng = [], [], np.random.default_rng(0)
    for seed in seeds:
        seen.clear()
        roll_out(pool(), [Episode(task, seed, goal) for task in tasks for goal in range(10)], decide)
        for task in tasks:
            mine = [prompt for name, prompt in seen if name == task]
            chosen = rng.permutation(len(mine))[:per_block]
            prompts += [mine[i] for i in chosen]
            blocks += [f"{task}/{seed}"] * len(chosen)
    return torch.from_numpy(np.stack(prompts)), blocks


def ways(teacher: Any, student: Any, tokens: Tokens, sigmas: Sequence[int]) -> dict[str, Callable[[Tensor], Any]]:
    """Decoders to time: prompt (1, P) -> (label (1, 33), passes)."""
    guess = torch.from_numpy(tokens.actions.guess(HORIZON))
    n = len(guess)

    def jacobi(model: Any, sigma: int | None) -> Callable[[Tensor], Any]:
        def run(prompt: Tensor) -> Any:
            out = jacobi_generate(
                model,
                prompt,
                block_size=n,
                init=guess,
                max_jacobi_iter=sigma,
                eos_token_id=None,
                return_jacobi_stats=True,
            )
            return out.sequences[:, prompt.shape[1] :], out.stats.forward_passes

        return run

    def generate(prompt: Tensor) -> Any:
        out = teacher.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=n)
        return out[:, prompt.shape[1] :], n

    found: dict[str, Callable[[Tensor], Any]] = {
        "generate greedy": generate,
        "teacher AR": lambda prompt: (greedy(teacher, prompt, n), n),
        "student AR": lambda prompt: (greedy(student, prompt, n), n),
        "teacher exact": jacobi(teacher, None),
        "student exact": jacobi(student, None),
    }
    return found | {f"student sigma={sigma}": jacobi(student, sigma) for sigma in sigmas}


@torch.no_grad()
def time_ways(
    found: dict[str, Callable[[Tensor], Any]], prompts: Tensor, tokens: Tokens, seed: int = 0
) -> dict[str, dict[str, list[float]]]:
    """Wall-clock and processor milliseconds and passes of each way on each prompt, batch 1; all orders are drawn.

    `l1` is the mean difference of normalised actions to the way's own autoregressive decode.
    """
    rng, names = np.random.default_rng(seed), list(found)
    keys = ("ms", "cpu_ms", "passes", "l1", "same")
    out = {name: {key: [0.0] * len(prompts) for key in keys} for name in names}
    for name in names:
        for prompt in prompts[:3]:
            found[name](prompt[None])
    for place in rng.permutation(len(prompts)):
        prompt, labels = prompts[place], {}
        for name in rng.permutation(names):
            row, wall, cpu = out[name], time.perf_counter(), time.process_time()
            labels[name], row["passes"][place] = found[name](prompt[None])
            row["cpu_ms"][place] = 1000 * (time.process_time() - cpu)
            row["ms"][place] = 1000 * (time.perf_counter() - wall)
        for name in names:
            own = labels["student AR" if name.startswith("student") else "teacher AR"]
            label = torch.nn.functional.pad(labels[name], (0, own.shape[1] - labels[name].shape[1]), value=PAD)
            far = tokens.actions.decode_labels(label) - tokens.actions.decode_labels(own)
            out[name]["l1"][place] = float(np.abs(far).mean())
            out[name]["same"][place] = float((label == own).all())
    return out


def describe(
    times: dict[str, list[float]], lean: dict[str, list[float]], stock: dict[str, list[float]]
) -> dict[str, Any]:
    """Median and 95th percentile, and how many times faster than the two references."""
    middle = {key: float(np.median(times[key])) for key in ("ms", "cpu_ms")}
    return {
        "passes_mean": float(np.mean(times["passes"])),
        "passes_p95": float(np.percentile(times["passes"], 95)),
        "ms_median": middle["ms"],
        "ms_p95": float(np.percentile(times["ms"], 95)),
        "cpu_ms_median": middle["cpu_ms"],
        "faster_than_lean_ar": float(np.median(lean["ms"])) / middle["ms"],
        "faster_than_generate": float(np.median(stock["ms"])) / middle["ms"],
        "faster_than_lean_ar_cpu": float(np.median(lean["cpu_ms"])) / middle["cpu_ms"],
        "faster_than_generate_cpu": float(np.median(stock["cpu_ms"])) / middle["cpu_ms"],
        "l1_to_own_ar": float(np.mean(times["l1"])),
        "same_as_own_ar": float(np.mean(times["same"])),
        "chunks": len(times["ms"]),
    }


def trace_ways(
    teacher: Any, student: Any, tokens: Tokens, prompts: Tensor, sigma: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Iterates of the first prompt under teacher and student, exact and cut, and each model's own greedy chunk."""
    guess = torch.from_numpy(tokens.actions.guess(HORIZON))
    iterates, final = {}, {}
    for who, model in (("teacher", teacher), ("student", student)):
        own = greedy(model, prompts[:1], len(guess))[0].numpy()
        for cut in (None, sigma):
            title = f"{who}, exact" if cut is None else f"{who}, early exit {cut} (red: differs from its own AR)"
            options = {"block_size": len(guess), "init": guess, "max_jacobi_iter": cut, "eos_token_id": None}
            out = jacobi_generate(model, prompts[:1], return_jacobi_stats=True, **options)
            iterates[title] = out.stats.iterates[0][:, 0].numpy()
            final[title] = own
    return iterates, final
