"""Meta-World tasks: environments with fixed goals, scripted demonstrations, closed-loop episodes.

Goals are those of `metaworld.MT1(task, seed)`: 50 per seed, and an episode repeats bit for bit under the same goal.
"""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

INSTRUCTIONS = {
    "reach-v3": "reach the goal",
    "push-v3": "push the puck to the goal",
    "drawer-open-v3": "open the drawer",
    "button-press-v3": "press the button",
}
TASKS = tuple(INSTRUCTIONS)
HORIZON = 8  # actions in a chunk
CONTROLS = 4  # dx, dy, dz, gripper
FEATURES = 13
GOALS = 50  # of one seed


def features(observation: np.ndarray) -> np.ndarray:
    """Hand, gripper opening, object - hand, goal - hand, goal - object: `(..., 13)` of observations `(..., 39)`."""
    hand, gripper = observation[..., 0:3], observation[..., 3:4]
    thing, goal = observation[..., 4:7], observation[..., 36:39]
    return np.concatenate([hand, gripper, thing - hand, goal - hand, goal - thing], axis=-1)


@cache
def goals(task: str, seed: int) -> Any:
    """Environment class and the 50 goals of one seed."""
    try:
        import metaworld
    except ImportError as error:
        raise ImportError("The robot experiment needs Meta-World: pip install hf_labels[robotics]") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = metaworld.MT1(task, seed=seed)
    return made.train_classes[task], made.train_tasks


class Pool:
    """Environments that are built once (0.2 s each) and take one goal after the other."""

    def __init__(self, size: int = 15):
        self.size = size
        self._free: dict[str, list[Any]] = {}
        self._built: dict[str, int] = {}

    def take(self, task: str) -> Any | None:
        """A free environment of the task, `None` when all are busy."""
        free = self._free.setdefault(task, [])
        if not free and self._built.get(task, 0) < self.size:
            self._built[task] = self._built.get(task, 0) + 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                free.append(goals(task, 0)[0]())
        return free.pop() if free else None

    def give(self, task: str, environment: Any) -> None:
        self._free[task].append(environment)


def start(environment: Any, task: str, seed: int, goal: int) -> np.ndarray:
    """Put the goal into the environment; the first observation."""
    environment.set_task(goals(task, seed)[1][goal])
    return environment.reset()[0]


@dataclass
class Demonstrations:
    """Rows of behaviour cloning: features (N, 13), expert chunks (N, 8, 4), task and episode of each row."""

    features: np.ndarray
    chunks: np.ndarray
    task: np.ndarray
    episode: np.ndarray
    solved: dict[str, float]


def demonstrate(tasks: Sequence[str], seeds: Sequence[int], rng_seed: int = 0) -> Demonstrations:
    """One disturbed expert episode per goal; failures are kept. About 0.1 s an episode."""
    from metaworld.policies import ENV_POLICY_MAP
    from tqdm.auto import tqdm

    pool, parts, solved, episode = Pool(1), [], {}, 0
    for number, task in enumerate(tasks):
        environment, successes = pool.take(task), 0
        policy = ENV_POLICY_MAP[task]()
        plan = [(seed, goal) for seed in seeds for goal in range(GOALS)]
        for seed, goal in tqdm(plan, desc=f"demonstrations {task}", disable=None):
            rng = np.random.default_rng([rng_seed, number, seed, goal])
            observation = start(environment, task, seed, goal)
            seen, actions, clean, success = disturbed_episode(environment, observation, policy, rng)
            successes += success
            rows = np.array([t for t in range(len(seen) - HORIZON + 1) if clean[t : t + HORIZON].all()], dtype=int)
            chunks = actions[rows[:, None] + np.arange(HORIZON)]
            parts.append((seen[rows], chunks, np.full(len(rows), number), np.full(len(rows), episode)))
            episode += 1
        solved[task] = successes / len(plan)
    return Demonstrations(*(np.concatenate(column) for column in zip(*parts, strict=True)), solved=solved)


def disturbed_episode(
    environment: Any, observation: np.ndarray, policy: Any, rng: np.random.Generator, steps: int = 160, after: int = 10
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Expert segments of 8-30 steps between bursts of 2-8 steps of noise; a quarter of the episodes has no noise.

    Returns:
        Features (T, 13), clipped expert actions (T, 4), whether the expert acted (T,), and success. It ends `after`
        steps past the first success.
    """
    noisy = rng.random() >= 0.25
    clean, left, push, until = True, int(rng.integers(8, 31)), np.zeros(CONTROLS), steps
    rows, success = [], False
    for t in range(steps):
        expert = np.clip(policy.get_action(observation), -1.0, 1.0)
        action = expert if clean else np.clip(0.3 * expert + push, -1.0, 1.0)
        rows.append((features(observation), expert, clean))
        observation, _, _, _, info = environment.step(action.astype(np.float32))
        if info["success"] and not success:
            success, until = True, t + after
        if t >= until:
            break
        left -= 1
        if noisy and left <= 0:
            clean = not clean
            left = int(rng.integers(8, 31) if clean else rng.integers(2, 9))
            push = np.append(rng.uniform(-1, 1, 3), rng.uniform(-1, 1) if rng.random() < 0.3 else 0.0)
    seen, actions, flags = zip(*rows, strict=True)
    return np.array(seen), np.array(actions), np.array(flags), success


@dataclass(frozen=True)
class Episode:
    """One goal of one task."""

    task: str
    seed: int
    goal: int


@dataclass(frozen=True)
class Outcome:
    """Success at any step, steps until then (or all), and chunks decided."""

    success: bool
    steps: int
    chunks: int


Decide = Callable[[np.ndarray, Sequence[str]], np.ndarray]


def roll_out(
    pool: Pool, episodes: Sequence[Episode], decide: Decide, steps: int = 150, execute: int = HORIZON
) -> dict[Episode, Outcome]:
    """Closed loop: decide a chunk, act it out without looking, look again. Success counts at any step and ends it.

    Args:
        pool (`Pool`): All its environments run side by side; a free one takes the next goal of its task.
        episodes: Goals.
        decide: Features (B, 13) and B task names -> chunks (B, >= execute, 4).
        steps (`int`, *optional*, defaults to `150`): Limit of an episode.
        execute (`int`, *optional*, defaults to `8`): Actions of a chunk that are acted out.
    """
    waiting = {task: deque(e for e in episodes if e.task == task) for task in dict.fromkeys(e.task for e in episodes)}
    running: list[dict[str, Any]] = []
    done: dict[Episode, Outcome] = {}
    while True:
        for task, queue in waiting.items():
            while queue and (environment := pool.take(task)) is not None:
                episode = queue.popleft()
                seen = start(environment, task, episode.seed, episode.goal)
                running.append({"episode": episode, "env": environment, "seen": seen, "t": 0, "chunks": 0})
        if not running:
            return {episode: done[episode] for episode in episodes}
        chunks = decide(features(np.stack([run["seen"] for run in running])), [r["episode"].task for r in running])
        still = []
        for run, chunk in zip(running, chunks, strict=True):
            success = act_out(run, chunk[:execute], steps)
            if success or run["t"] >= steps:
                done[run["episode"]] = Outcome(success, run["t"], run["chunks"])
                pool.give(run["episode"].task, run["env"])
            else:
                still.append(run)
        running = still


def act_out(run: dict[str, Any], chunk: np.ndarray, steps: int) -> bool:
    """Execute a chunk; whether the task is solved on the way."""
    run["chunks"] += 1
    for action in chunk:
        if run["t"] >= steps:
            return False
        run["seen"], _, _, _, info = run["env"].step(np.clip(action, -1.0, 1.0).astype(np.float32))
        run["t"] += 1
        if info["success"]:
            return True
    return False
