"""Prompts and labels of the robot policy as token ids.

Prompt: BOS, instruction padded to 6 words, [frame tokens], 13 state tokens, ACT. Label: 8 x 4 action tokens, EOS.
Ids: special, words, states, frame codes, and the actions at the end, as OpenVLA has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hf_labels.labels.action_bins import ActionBinner, StateBinner
from robot_arm.world import FEATURES, INSTRUCTIONS, TASKS

PAD, BOS, EOS, ACT = range(4)
WORDS = sorted({word for text in INSTRUCTIONS.values() for word in text.split()})
LENGTH = 6  # words of an instruction
STATE_BINS = 128
ACTION_BINS = 256
FIRST_STATE = 4 + len(WORDS)
FIRST_FRAME = FIRST_STATE + FEATURES * STATE_BINS


def vocab_size(codes: int = 0) -> int:
    """Ids in all, with `codes` frame codes."""
    return FIRST_FRAME + codes + ACTION_BINS


def words(task: str) -> np.ndarray:
    """Ids of the instruction of a task, `(6,)`."""
    ids = [4 + WORDS.index(word) for word in INSTRUCTIONS[task].split()]
    return np.array(ids + [PAD] * (LENGTH - len(ids)))


@dataclass
class Tokens:
    """Both binners, and the two conversions that the policy needs."""

    states: StateBinner
    actions: ActionBinner

    @classmethod
    def fit(cls, features: np.ndarray, chunks: np.ndarray, order: str = "time", codes: int = 0) -> Tokens:
        """Bins of training features (N, 13) and chunks (N, 8, 4)."""
        settings = {"bins": ACTION_BINS, "order": order, "eos_token_id": EOS}
        return cls(
            StateBinner.fit(features, STATE_BINS, FIRST_STATE),
            ActionBinner.fit(chunks, vocab_size(codes), **settings),
        )

    def prompts(self, features: np.ndarray, tasks: Sequence[str], frames: np.ndarray | None = None) -> np.ndarray:
        """Prompt ids `(B, P)` of features (B, 13), B task names and optional frame codes (B, F)."""
        table = {task: words(task) for task in set(tasks)}
        parts = [np.full((len(features), 1), BOS), np.stack([table[task] for task in tasks])]
        if frames is not None:
            parts.append(FIRST_FRAME + frames)
        parts += [self.states.encode(features), np.full((len(features), 1), ACT)]
        return np.concatenate(parts, axis=1)

    def task_numbers_to_prompts(self, features: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """The same for task numbers in the order of `TASKS`."""
        return self.prompts(features, [TASKS[number] for number in numbers])

    def save(self, path: Path) -> None:
        self.states.save(path)
        self.actions.save(path)

    @classmethod
    def load(cls, path: Path) -> Tokens:
        return cls(StateBinner.load(path), ActionBinner.load(path))
