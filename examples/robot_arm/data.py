"""Demonstrations as cached token tables, split by episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_arm import stages
from robot_arm.tokens import Tokens
from robot_arm.world import Demonstrations, demonstrate


def demonstrations(tasks: Sequence[str], seeds: Sequence[int]) -> Path:
    """Folder with `data.npz` of all demonstrations."""

    def make(path: Path) -> None:
        made = demonstrate(tasks, seeds)
        arrays = {"features": made.features, "chunks": made.chunks, "task": made.task, "episode": made.episode}
        np.savez(path / "data.npz", **{name: array.astype(np.float32) for name, array in arrays.items()})
        stages.save_json(path / "solved.json", made.solved)

    return stages.stage("demonstrations", {"tasks": list(tasks), "seeds": list(seeds), "version": 1}, make)


def load_demonstrations(path: Path) -> Demonstrations:
    with np.load(path / "data.npz") as data:
        task, episode = data["task"].astype(int), data["episode"].astype(int)
        return Demonstrations(data["features"], data["chunks"], task, episode, stages.load_json(path / "solved.json"))


@dataclass
class Table:
    """Rows as token ids: prompts (N, P), labels (N, 33), task (N,)."""

    prompts: np.ndarray
    labels: np.ndarray
    task: np.ndarray

    def __len__(self) -> int:
        return len(self.task)

    def select(self, rows: np.ndarray) -> Table:
        return Table(self.prompts[rows], self.labels[rows], self.task[rows])

    def balanced(self, number: int, rng: np.random.Generator) -> np.ndarray:
        """Row numbers, as many of each task as possible, without repeats unless a task is too small."""
        tasks = np.unique(self.task)
        parts = []
        for i, task in enumerate(tasks):
            rows = np.flatnonzero(self.task == task)
            share = number // len(tasks) + (i < number % len(tasks))
            parts.append(rng.choice(rows, share, replace=share > len(rows)))
        return rng.permutation(np.concatenate(parts))


def tables(data: Demonstrations, tasks: Sequence[str], order: str, held: float = 0.05) -> tuple[Tokens, Table, Table]:
    """Tokens fitted on the training episodes, training rows, and rows of held-out episodes."""
    rng = np.random.default_rng(0)
    episodes = rng.permutation(int(data.episode.max()) + 1)
    out = np.isin(data.episode, episodes[: max(1, int(len(episodes) * held))])
    tokens = Tokens.fit(data.features[~out], data.chunks[~out], order)
    made = [
        Table(
            tokens.prompts(data.features[rows], [tasks[number] for number in data.task[rows]]).astype(np.int32),
            tokens.actions.encode(data.chunks[rows]).astype(np.int32),
            data.task[rows],
        )
        for rows in (~out, out)
    ]
    return tokens, made[0], made[1]
