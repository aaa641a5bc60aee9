"""Parts of the robot experiment; those that need the simulator say so when it is absent."""

import json

import numpy as np
import pytest
import torch

from robot_arm import stages
from robot_arm.data import Table
from robot_arm.judge import describe, time_ways, trace_ways, ways
from robot_arm.plots import success_against_speed, traces
from robot_arm.policy import Decoder, clone_behaviour, greedy, new_model
from robot_arm.stats import interval, mcnemar, rate
from robot_arm.tokens import ACT, BOS, EOS, Tokens, vocab_size
from robot_arm.world import CONTROLS, FEATURES, HORIZON, TASKS, Episode, Pool, disturbed_episode, features, start

rng = np.random.default_rng(0)


def made_up(rows: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Features, and chunks that they decide: each action goes the way of the third feature."""
    seen = rng.normal(size=(rows, FEATURES))
    return seen, np.clip(np.tile(seen[:, 2, None, None], (1, HORIZON, CONTROLS)), -1, 1)


def test_interval_is_that_of_clopper_and_pearson():
    from scipy.stats import binom

    assert interval(0, 50)[0] == 0 and interval(50, 50)[1] == 1
    low, high = interval(45, 50)
    assert binom.sf(44, 50, low) == pytest.approx(0.025) and binom.cdf(45, 50, high) == pytest.approx(0.025)
    assert rate([True, False, True, True]) | {"ci95": None} == {
        "successes": 3,
        "trials": 4,
        "rate": 0.75,
        "ci95": None,
    }


def test_mcnemar_counts_only_the_goals_on_which_they_differ():
    a, b = [True] * 6 + [False] * 3, [False] * 6 + [False, False, True]
    found = mcnemar(a, b)
    assert (found["only_a"], found["only_b"], found["both"], found["neither"]) == (6, 1, 0, 2)
    # Two-sided: at most one of seven on either side.
    assert found["p"] == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar(a, a)["p"] == 1.0
    with pytest.raises(ValueError, match="same goals, got 9 and 8"):
        mcnemar(a, b[:-1])


def test_a_stage_is_made_once_and_only_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_LABELS_CACHE", str(tmp_path))
    calls = []

    def make(folder):
        calls.append(1)
        (folder / "half").write_text("x")
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stages.stage("step", {"a": 1}, make)
    assert not list(stages.root().iterdir())
    path = stages.stage("step", {"a": 1}, make)
    assert stages.stage("step", {"a": 1}, make) == path and len(calls) == 2
    assert stages.stage("step", {"a": 2}, make) != path and stages.seconds(path) >= 0


def test_prompts_and_labels_have_their_own_ids(tmp_path):
    seen, chunks = made_up()
    tokens = Tokens.fit(seen, chunks)
    prompts = tokens.prompts(seen, [TASKS[i % 4] for i in range(len(seen))])
    labels = tokens.actions.encode(chunks)
    assert prompts.shape == (64, 21) and labels.shape == (64, 33)
    assert (prompts[:, 0] == BOS).all() and (prompts[:, -1] == ACT).all() and (labels[:, -1] == EOS).all()
    assert prompts.max() < labels[:, :-1].min() and labels.max() < vocab_size()
    assert len({tuple(row) for row in prompts[:4, 1:7].tolist()}) == 4
    tokens.save(tmp_path)
    again = Tokens.load(tmp_path)
    assert (again.prompts(seen, ["reach-v3"] * 64) == tokens.prompts(seen, ["reach-v3"] * 64)).all()


def test_balanced_rows_repeat_only_when_a_task_is_too_small():
    table = Table(np.zeros((110, 2)), np.zeros((110, 3)), np.array([0] * 100 + [1] * 10))
    rows = table.balanced(16, rng)
    assert np.bincount(table.task[rows]).tolist() == [8, 8] and len(set(rows)) == 16
    rows = table.balanced(60, rng)
    assert np.bincount(table.task[rows]).tolist() == [30, 30] and len(set(rows[table.task[rows] == 0])) == 30


@pytest.fixture(scope="module")
def cloned(tmp_path_factory):
    """A policy after 30 steps of cloning, its tokens, prompts and log."""
    folder = tmp_path_factory.mktemp("policy")
    seen, chunks = made_up(256)
    tokens = Tokens.fit(seen, chunks)
    prompts = tokens.prompts(seen, ["reach-v3"] * 256).astype(np.int32)
    table = Table(prompts, tokens.actions.encode(chunks).astype(np.int32), np.zeros(256, int))
    model = new_model(vocab_size(), 0)
    clone_behaviour(table, table, model, 30, 16, 0, 3e-3, [30], folder)
    model.set_attn_implementation("sdpa")
    return model.eval(), tokens, torch.from_numpy(prompts).long(), json.loads((folder / "curve.json").read_text())


def test_cloning_learns_and_exact_decoding_is_greedy(cloned):
    model, tokens, prompts, log = cloned
    assert log["held_30"]["loss"] < 5 < np.log(vocab_size())
    exact = Decoder(model, tokens)
    assert (exact.label(prompts[:8]) == greedy(model, prompts[:8], 33)).all()
    assert len(exact.passes) == 8 and max(exact.passes) <= 33
    short = Decoder(model, tokens, sigma=2)
    chunk = short(np.zeros((3, FEATURES)), ["reach-v3"] * 3)
    assert chunk.shape == (3, HORIZON, CONTROLS) and max(short.passes) <= 2


def test_times_and_pictures(cloned, tmp_path):
    model, tokens, prompts, _ = cloned
    times = time_ways(ways(model, model, tokens, [2]), prompts[:4], tokens)
    assert set(times["teacher AR"]["passes"]) == {33} and set(times["student sigma=2"]["passes"]) == {2}
    assert times["student exact"]["same"] == [1.0] * 4 == times["generate greedy"]["same"]
    found = describe(times["student sigma=2"], times["teacher AR"], times["generate greedy"])
    assert found["faster_than_lean_ar"] > 2 and found["ms_p95"] >= found["ms_median"] > 0
    iterates, final = trace_ways(model, model, tokens, prompts, 2)
    assert len(iterates) == 4 and all(len(rows) <= 3 for name, rows in iterates.items() if "early exit 2" in name)
    same = [(rows[-1] == final[name]).all() for name, rows in iterates.items() if "exact" in name]
    assert all(same)
    assert traces(iterates, final, tmp_path / "trace.png").stat().st_size > 5000
    point = {"name": "a", "family": "b", "passes": 2.0, "ms": 5.0, **rate([True, False])}
    assert success_against_speed([point, point | {"passes": 3.0}], tmp_path / "s.png").stat().st_size > 5000


def test_the_expert_solves_a_goal_and_episodes_repeat():
    pytest.importorskip("metaworld", reason="needs hf_labels[robotics]")
    from metaworld.policies import ENV_POLICY_MAP

    from robot_arm.world import roll_out

    pool, task = Pool(1), "reach-v3"
    environment, policy = pool.take(task), ENV_POLICY_MAP["reach-v3"]()
    assert pool.take(task) is None
    quiet = np.random.default_rng(7)
    runs = [disturbed_episode(environment, start(environment, task, 7, 0), policy, quiet) for _ in range(2)]
    assert runs[0][3] and runs[0][0].shape[1] == FEATURES and np.abs(runs[0][1]).max() <= 1
    assert (runs[0][0][0] == runs[1][0][0]).all()
    pool.give(task, environment)

    def expert(seen, tasks):
        goal = seen[:, 7:10] * 10  # goal - hand
        return np.repeat(np.concatenate([goal, np.zeros((len(seen), 1))], axis=1)[:, None], HORIZON, axis=1).clip(
            -1, 1
        )

    episodes = [Episode(task, 7, goal) for goal in (0, 1, 2)]
    found = [roll_out(pool, episodes, expert), roll_out(pool, episodes, expert)]
    assert found[0] == found[1] and list(found[0]) == episodes
    assert all(outcome.success and outcome.steps < 150 for outcome in found[0].values())
    still = roll_out(pool, episodes[:1], lambda seen, tasks: np.zeros((len(seen), HORIZON, CONTROLS)), steps=20)
    assert not still[episodes[0]].success and still[episodes[0]].steps == 20 and still[episodes[0]].chunks == 3


def test_features_are_differences():
    observation = np.arange(39.0)
    found = features(observation)
    assert found.tolist() == [0, 1, 2, 3, 4, 4, 4, 36, 36, 36, 32, 32, 32]


def test_the_full_preset_runs_on_a_small_model(tmp_path):
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM

    from robot_arm.full import PLANS, run_full

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=40, **sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2))
    rows = datasets.Dataset.from_dict({"input_ids": rng.integers(3, 40, (6, 5)).tolist()})
    plan = {"block_size": 4, "max_new_tokens": 8}
    training = {"max_steps": 2, "use_cpu": True, "report_to": "none", "save_strategy": "no", "lora_rank": 2}
    path = run_full(str(tmp_path), model=model, rows=(rows, rows.select([0, 1])), plan=plan, sigmas=(1,), **training)
    found = json.loads(path.read_text())
    assert PLANS["text"]["model"] == found["plan"]["model"]
    for part in ("teacher", "student"):
        by_name = {row["decoder"]: row for row in found[part]}
        assert by_name["exact"]["same_as_greedy"] == 1.0 and by_name["exact"]["passes"] <= 10
        assert by_name["early exit 1"]["passes"] <= by_name["exact"]["passes"]
    assert (tmp_path / "student" / "adapter_model.safetensors").exists()


def test_frames_become_codes_that_find_the_moving_patch():
    from robot_arm.vision import PATCH, FrameCodes, patches

    frames = np.zeros((40, 48, 48, 3), np.uint8)
    places = rng.integers(0, 36, 40)
    for frame, place in zip(frames, places, strict=True):
        row, column = divmod(int(place), 6)
        frame[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH] = 255
    assert patches(frames).shape == (40, 36, 192) and patches(frames).max() == 1
    codes = FrameCodes.fit(frames, codes=2).encode(frames)
    lit = codes[0, places[0]]
    assert (np.argmax(codes == lit, axis=1) == places).all() and ((codes == lit).sum(1) == 1).all()
