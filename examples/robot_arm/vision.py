"""Frames as a prefix of the prompt, rendered without a display (`MUJOCO_GL=egl` or `osmesa`, in software if need be).

A frame is cut into patches; each becomes the id of the nearest of `codes` k-means centres. The policy stays a plain
language model, and its prompt grows by one token per patch. The state keeps only the robot's own part (hand, gripper):
where the object is must be seen. The control is blind: the same state without frames.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_labels.labels.action_bins import ActionBinner, StateBinner
from robot_arm import stages
from robot_arm.data import Table
from robot_arm.policy import clone_behaviour, load_model, new_model
from robot_arm.stats import mcnemar, rate
from robot_arm.tokens import ACTION_BINS, EOS, FIRST_STATE, STATE_BINS, Tokens, vocab_size
from robot_arm.world import GOALS, HORIZON, INSTRUCTIONS, TASKS, Pool, act_out, features, goals, start

PIXELS, PATCH, CODES, CAMERA = 48, 8, 96, "topview"
OWN = 4  # features of the robot itself


class Camera:
    """Draws what an environment shows; one renderer per environment."""

    def __init__(self, pixels: int = PIXELS, camera: str = CAMERA):
        self.pixels, self.camera, self._made = pixels, camera, {}

    def __call__(self, environment: Any) -> np.ndarray:
        """Frame `(pixels, pixels, 3)`, uint8, without shadows (they take most of the time in software).

        Raises:
            RuntimeError: If nothing can render here.
        """
        import mujoco

        key = id(environment)
        if key not in self._made:
            try:
                self._made[key] = mujoco.Renderer(environment.model, self.pixels, self.pixels)
            except Exception as error:
                raise RuntimeError(
                    "Rendering failed. Install Mesa (libegl1 or libosmesa6) and set MUJOCO_GL."
                ) from error
        renderer = self._made[key]
        renderer.update_scene(environment.data, camera=self.camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        return renderer.render().copy()

    def close(self) -> None:
        for renderer in self._made.values():
            renderer.close()
        self._made.clear()


def patches(frames: np.ndarray) -> np.ndarray:
    """`(N, S, S, 3)` -> `(N, (S / 8) ** 2, 192)` in [0, 1]."""
    number, side = len(frames), frames.shape[1] // PATCH
    cut = frames.reshape(number, side, PATCH, side, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(number, side * side, -1).astype(np.float32) / 255


@dataclass
class FrameCodes:
    """k-means centres of patches `(codes, 192)`."""

    centres: np.ndarray

    @classmethod
    def fit(cls, frames: np.ndarray, codes: int = CODES, seed: int = 0) -> FrameCodes:
        from sklearn.cluster import MiniBatchKMeans

        rows = patches(frames).reshape(-1, PATCH * PATCH * 3)
        found = MiniBatchKMeans(codes, n_init=3, batch_size=4096, random_state=seed).fit(rows)
        return cls(found.cluster_centers_.astype(np.float32))

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Codes `(N, patches)` of frames."""
        rows = patches(frames)
        far = (self.centres**2).sum(1) - 2 * rows @ self.centres.T
        return far.argmin(-1)


def look_and_act(task: str, seeds: Sequence[int], every: int = 4) -> Any:
    """Frames, features and expert chunks of clean expert segments in disturbed episodes, each `every` steps."""
    from metaworld.policies import ENV_POLICY_MAP

    from robot_arm.world import disturbed_episode

    environment, camera = Pool(1).take(task), Camera()
    frames: list[np.ndarray] = []
    rows, policy = [], ENV_POLICY_MAP[task]()

    class Watching:
        """The expert, with a picture taken at each `every`-th look."""

        t = 0

        def get_action(self, observation: np.ndarray) -> np.ndarray:
            if self.t % every == 0:
                frames.append(camera(environment))
            self.t += 1
            return policy.get_action(observation)

    try:
        for seed in seeds:
            for goal in range(GOALS):
                watching = Watching()
                first = len(frames)
                observation = start(environment, task, seed, goal)
                rng = np.random.default_rng([9, seed, goal])
                seen, actions, clean, _ = disturbed_episode(environment, observation, watching, rng)
                for place, t in enumerate(range(0, len(seen), every)):
                    if t + HORIZON <= len(seen) and clean[t : t + HORIZON].all():
                        rows.append((first + place, seen[t], actions[t : t + HORIZON]))
    finally:
        camera.close()
    chosen, seen, chunks = zip(*rows, strict=True)
    return np.stack([frames[i] for i in chosen]), np.array(seen), np.array(chunks)


@dataclass
class Sight:
    """A policy that sees (or is blind: `codes` is `None`)."""

    model: Any
    tokens: Tokens
    codes: FrameCodes | None

    def prompts(self, task: str, seen: np.ndarray, frames: np.ndarray | None) -> np.ndarray:
        codes = None if self.codes is None or frames is None else self.codes.encode(frames)
        return self.tokens.prompts(seen[:, :OWN], [task] * len(seen), codes)


def act(policy: Sight, task: str, seed: int, steps: int = 150) -> list[bool]:
    """Closed loop over the goals of a seed; exact Jacobi decoding, which is the greedy decode."""
    from hf_labels.generation.jacobi import jacobi_generate

    camera, environment, found = Camera(), goals(task, seed)[0](), []
    guess = torch.from_numpy(policy.tokens.actions.guess(HORIZON))
    try:
        for goal in range(GOALS):
            run: dict[str, Any] = {
                "env": environment,
                "seen": start(environment, task, seed, goal),
                "t": 0,
                "chunks": 0,
            }
            done = False
            while not done and run["t"] < steps:
                frame = None if policy.codes is None else camera(environment)[None]
                prompt = torch.from_numpy(policy.prompts(task, features(run["seen"])[None], frame))
                ids = jacobi_generate(policy.model, prompt, block_size=len(guess), init=guess, eos_token_id=None)
                done = act_out(run, policy.tokens.actions.decode(ids[:, prompt.shape[1] :])[0], steps)
            found.append(done)
    finally:
        camera.close()
    return found


def see(task: str = "button-press-v3", seeds: Sequence[int] = (1000, 1001), steps: int = 300) -> dict[str, Any]:
    """Behaviour cloning with and without frames, judged on goals that neither saw; cached.

    Call it before anything imports mujoco, which reads `MUJOCO_GL` once.
    """
    os.environ.setdefault("MUJOCO_GL", "egl")
    settings = {"task": task, "seeds": list(seeds), "steps": steps, "pixels": PIXELS, "codes": CODES, "test": 9}

    def make(folder: Path) -> None:
        frames, seen, chunks = look_and_act(task, seeds)
        codes = FrameCodes.fit(frames)
        size = vocab_size(CODES)
        states = StateBinner.fit(seen[:, :OWN], STATE_BINS, FIRST_STATE)
        tokens = Tokens(states, ActionBinner.fit(chunks, size, bins=ACTION_BINS, eos_token_id=EOS))
        found: dict[str, Any] = {"task": task, "rows": len(frames)}
        outcomes: dict[str, list[bool]] = {}
        for name, eyes in (("frames", codes), ("blind", None)):
            model = new_model(size, 0)
            prompts = Sight(model, tokens, eyes).prompts(task, seen, frames if eyes else None).astype(np.int32)
            table = Table(prompts, tokens.actions.encode(chunks).astype(np.int32), np.zeros(len(frames), int))
            clone_behaviour(table, table, model, steps, 48, 0, 1.5e-3, [steps], folder / name)
            policy = Sight(load_model(folder / name / f"step-{steps}"), tokens, eyes)
            outcomes[name] = act(policy, task, 9)
            found[name] = rate(outcomes[name])
        found["pairs"] = mcnemar(outcomes["frames"], outcomes["blind"])
        stages.save_json(folder / "seen.json", found)

    return stages.load_json(stages.stage("vision", settings, make) / "seen.json")


def picture(path: Path, tasks: Sequence[str] = TASKS) -> Path:
    """One rendered frame per task."""
    from robot_arm.plots import frames

    os.environ.setdefault("MUJOCO_GL", "egl")
    shots = []
    for task in tasks:
        camera, environment = Camera(192, "corner2"), Pool(1).take(task)
        start(environment, task, 0, 0)
        shots.append(camera(environment)[::-1, ::-1])  # this camera of Meta-World hangs upside down
        camera.close()
    return frames(shots, [f"{task}: {INSTRUCTIONS[task]}" for task in tasks], path)
