"""Trajectories: iterates of exact Jacobi decoding, the same in one call, in batches and after an interruption."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_decoders import decoder, vision_decoder

from hf_labels.generation import augment_trajectory, collect_jacobi_trajectories, plot_decoding_trace, trajectories
from hf_labels.generation.trace import fixed_at

RNG = np.random.default_rng(0)
PROMPTS = Dataset.from_dict(
    {
        "input_ids": [RNG.integers(3, 17, 3 + i % 4).tolist() for i in range(10)],
        "labels": [RNG.integers(3, 17, 7).tolist() for _ in range(10)],
    }
)
OPTIONS = {"block_size": 5, "max_new_tokens": 10, "batch_size": 4, "drop_repeats": None, "progress": False}


@pytest.fixture(scope="module")
def model():
    return decoder()


def greedy(model, prompt, count):
    return model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, eos_token_id=None)[0].tolist()


def test_records_are_iterates_of_the_greedy_answer(model):
    data = collect_jacobi_trajectories(model.train(), PROMPTS, eos_token_id=2, **OPTIONS)
    assert model.training and model.eval()
    assert data.features["trajectory"].feature.feature.dtype == "int32"
    seen = set()
    for row in data:
        prompt = PROMPTS[row["index"]]["input_ids"]
        assert (row["index"], row["block"]) not in seen
        seen.add((row["index"], row["block"]))
        answer = greedy(model, prompt, 10)
        start = len(prompt) + 5 * row["block"]
        assert row["prompt_ids"] == answer[:start] and row["fixed_point"] == answer[start : start + 5]
        path = row["trajectory"]
        assert path[-1] == row["fixed_point"] and all(a != b for a, b in zip(path, path[1:], strict=False))
        assert set(path[0]) <= set(row["prompt_ids"])
        for j, block in enumerate(path):  # each is what one full pass makes of the one before
            if j:
                ids = torch.tensor([row["prompt_ids"] + path[j - 1]])
                assert model(ids).logits[0, start - 1 : -1].argmax(-1).tolist() == block
        labels = PROMPTS[row["index"]]["labels"][5 * row["block"] : 5 * row["block"] + 5]
        assert row["labels"] == labels + [-100] * (5 - len(labels))
    for index in range(10):  # a second block exactly where the first has no EOS
        first = next(r for r in data if r["index"] == index and r["block"] == 0)
        assert ((index, 1) in seen) == (2 not in first["fixed_point"])
    assert list(data["index"]) == sorted(data["index"])


def test_batches_do_not_change_the_fixed_points(model):
    one = collect_jacobi_trajectories(model, PROMPTS, **{**OPTIONS, "batch_size": 1})
    many = collect_jacobi_trajectories(model, PROMPTS, **{**OPTIONS, "batch_size": 10})
    assert one["fixed_point"][:] == many["fixed_point"][:]
    same = [collect_jacobi_trajectories(model, PROMPTS, seed=s, init="prompt", **OPTIONS) for s in (1, 1, 2)]
    assert same[0]["trajectory"][:] == same[1]["trajectory"][:] != same[2]["trajectory"][:]


def test_an_interrupted_collection_is_continued(model, tmp_path, monkeypatch):
    whole = collect_jacobi_trajectories(model, PROMPTS, **OPTIONS)
    calls, real = [], trajectories.jacobi_generate

    def breaking(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(trajectories, "jacobi_generate", breaking)
    with pytest.raises(KeyboardInterrupt):
        collect_jacobi_trajectories(model, PROMPTS, folder=tmp_path, **OPTIONS)
    kept = sorted(path.name for path in tmp_path.glob("*.parquet"))
    assert kept and not list(tmp_path.glob("*.tmp"))
    again = collect_jacobi_trajectories(model, PROMPTS, folder=tmp_path, **OPTIONS)
    assert again[:] == whole[:] and len(list(tmp_path.glob("*.parquet"))) == 3
    count = len(calls)
    assert collect_jacobi_trajectories(model, PROMPTS, folder=tmp_path, **OPTIONS)[:] == whole[:]
    assert len(calls) == count  # nothing is made twice
    with pytest.raises(ValueError, match="another block_size"):
        collect_jacobi_trajectories(model, PROMPTS, folder=tmp_path, **{**OPTIONS, "block_size": 4})
    with pytest.raises(ValueError, match="another model"):
        collect_jacobi_trajectories(decoder(seed=9), PROMPTS, folder=tmp_path, **OPTIONS)


def test_answers_that_repeat_a_token_are_left_out(tmp_path):
    stuck = decoder()
    with torch.no_grad():
        stuck.lm_head.weight.zero_()  # all logits 0: always token 0
    with pytest.raises(ValueError, match="drop_repeats=None"):
        collect_jacobi_trajectories(stuck, PROMPTS, **{**OPTIONS, "drop_repeats": 10})
    with pytest.raises(ValueError, match="drop_repeats=None"):  # empty shards are shards too
        collect_jacobi_trajectories(stuck, PROMPTS, folder=tmp_path, **{**OPTIONS, "drop_repeats": 10})
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    kept = collect_jacobi_trajectories(stuck, PROMPTS, **{**OPTIONS, "drop_repeats": 11})
    assert len(kept) == 20
    assert trajectories._run_length([4, 4, 2, 4, 4, 4, 4], [2]) == 2


def test_images_go_into_the_model_and_into_the_records():
    model, inputs = vision_decoder()
    rows = {"input_ids": [[5, 6, 16, 16, 16, 16, 7]] * 2, "pixel_values": inputs["pixel_values"].tolist()}
    data = collect_jacobi_trajectories(
        model, Dataset.from_dict(rows), block_size=5, model_columns=["pixel_values"], drop_repeats=None, progress=False
    )
    ids = torch.tensor(rows["input_ids"])
    want = model.generate(
        ids, pixel_values=inputs["pixel_values"], max_new_tokens=5, do_sample=False, eos_token_id=None
    )
    assert data["fixed_point"][:] == want[:, 7:].tolist()
    assert np.asarray(data["pixel_values"][:]).shape == (2, 3, 8, 8)


def test_augmentation_puts_right_about_half_of_the_wrong_tokens():
    fixed = torch.arange(40)
    path = torch.stack([torch.full((40,), 50 - j) for j in range(3)] + [fixed])
    path[1, :4] = fixed[:4]
    before = path.clone()
    new = augment_trajectory(path, torch.Generator().manual_seed(0))
    assert torch.equal(path, before) and torch.equal(new[2:], path[2:])
    for j in range(2):
        changed = (new[j] != path[j]).nonzero().flatten()
        wrong = (path[j] != fixed).nonzero().flatten()
        assert 1 <= len(changed) <= len(wrong) // 2 and wrong[0] not in changed
        assert torch.equal(new[j, changed], fixed[changed])


def test_bad_input_is_named(model):
    with pytest.raises(ValueError, match="`block_size` must be at least 1"):
        collect_jacobi_trajectories(model, PROMPTS, block_size=0)
    with pytest.raises(ValueError, match="empty"):
        collect_jacobi_trajectories(model, PROMPTS.select([]), block_size=4)
    with pytest.raises(KeyError, match="input_ids"):
        collect_jacobi_trajectories(model, PROMPTS.remove_columns("input_ids"), block_size=4)
    with pytest.raises(ValueError, match="row 1.*BOS"):
        collect_jacobi_trajectories(model, Dataset.from_dict({"input_ids": [[3], []]}), block_size=4, progress=False)


def test_trace_is_drawn(tmp_path):
    path = [[9, 9, 9, 9], [4, 9, 6, 9], [4, 5, 9, 7], [4, 5, 6, 7]]
    assert fixed_at(path).tolist() == [1, 2, 3, 2]
    assert fixed_at([[4, 5]]).tolist() == [0, 0]
    for names in (None, [f"${i}" for i in range(10)], str):
        picture = plot_decoding_trace(path, tmp_path / "trace.png", names=names, title="a chunk")
        assert picture.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="one row"):
        plot_decoding_trace([path, path], tmp_path / "trace.png")
