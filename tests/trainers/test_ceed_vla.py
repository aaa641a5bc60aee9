"""The trainer of consistency distillation: its loss by hand, its options, adapters, resuming, and what it teaches."""

import inspect
import math

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_decoders import decoder, vision_decoder
from torch.nn.functional import cross_entropy

from hf_labels.generation import collect_jacobi_trajectories, jacobi_generate
from hf_labels.losses.ceed_vla import consistency_mask
from hf_labels.trainers.ceed_vla import ConsistencyDistillationTrainer, ConsistencyDistillationTrainingArguments

RNG = np.random.default_rng(0)
N = 6
PROMPTS = Dataset.from_dict(
    {
        "input_ids": [RNG.integers(3, 17, 3 + i % 4).tolist() for i in range(24)],
        "labels": [RNG.integers(3, 17, N).tolist() for _ in range(24)],
    }
)
COLLECT = {"block_size": N, "drop_repeats": None, "progress": False, "eos_token_id": 2}


@pytest.fixture(scope="module")
def records():
    data = collect_jacobi_trajectories(decoder(), PROMPTS, **COLLECT)
    return data.map(lambda row, i: {"labels": row["fixed_point"]} if i % 2 else {}, with_indices=True)


def make(folder, records, model=None, family="llama", settings=None, **options):
    settings = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-2} | (settings or {})
    settings |= {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no"}
    args = ConsistencyDistillationTrainingArguments(str(folder), **{**settings, "warmup_steps": 0})
    model = decoder(family) if model is None else model
    return ConsistencyDistillationTrainer(model, args, train_dataset=records, **options)


def batch_of(trainer, records, rows):
    keep = {*trainer.required_columns(), "labels"}
    return trainer.data_collator([{k: v for k, v in records[i].items() if k in keep} for i in rows])


def by_hand(model, records, rows, trainer, limit, omega):
    """The loss of a batch, row by row, without padding, from the definition."""
    batch = batch_of(trainer, records, rows)
    guesses = trainer.drawn(batch)[0]
    total, count, anchor, tokens = 0.0, 0, 0.0, 0
    for guess, i in zip(guesses, rows, strict=True):
        row = records[i]
        prompt, fixed, truth = (torch.tensor(row[name]) for name in ("prompt_ids", "fixed_point", "labels"))
        near = (truth != fixed).float().mean() <= limit
        target = fixed if near else truth
        start = len(prompt) - 1
        q = model(torch.cat([prompt, fixed])[None]).logits[0, start:-1].detach().softmax(-1)
        log_p = model(torch.cat([prompt, guess])[None]).logits[0, start:-1].log_softmax(-1)
        mask = consistency_mask(guess[None], fixed[None], pad_token_id=0)[0]
        total = total - (q * log_p)[mask].sum()
        count += int(mask.sum())
        logits = model(torch.cat([prompt, target])[None]).logits[0, start:-1]
        anchor = anchor + cross_entropy(logits, target, reduction="sum")
        tokens += N
    return total / max(count, 1) + omega * anchor / tokens, count


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("limit", [0.1, -1.0, math.inf])
def test_loss_and_gradient_equal_the_definition(tmp_path, records, family, limit):
    trainer = make(tmp_path, records, family=family, settings={"max_label_distance": limit, "ar_weight": 0.7})
    model, rows = trainer.model.eval(), [0, 1, 2, 3, 5]
    loss = trainer.compute_loss(model, batch_of(trainer, records, rows))
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    want, count = by_hand(model, records, rows, trainer, limit, 0.7)
    want.backward()
    assert count and loss.item() == pytest.approx(want.item(), rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(grads[name], p.grad, atol=1e-5, rtol=1e-4)


def test_forwards_per_step_are_two_at_most(tmp_path, records):
    calls = []
    for limit, weight, want in ((math.inf, 1.0, [16]), (-1.0, 1.0, [16, 8]), (0.1, 1.0, None), (0.1, 0.0, [8, 8])):
        trainer = make(tmp_path, records, settings={"max_label_distance": limit, "ar_weight": weight})
        calls.clear()
        hook = trainer.model.register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((len(kwargs["input_ids"]), kwargs["logits_to_keep"])),
            with_kwargs=True,
        )
        trainer.compute_loss(trainer.model, batch_of(trainer, records, range(8)))
        hook.remove()
        assert all(kept == N + 1 for _, kept in calls)  # the head runs over the block only
        sizes = [size for size, _ in calls]
        assert sizes == want if want else sizes[0] == 16 and 0 < sizes[1] < 8  # only what the anchor has not run


def test_iterates_are_drawn_uniformly_and_depend_on_step_and_record_only(tmp_path, records):
    trainer = make(tmp_path, records)
    rows = list(range(24))
    batch = batch_of(trainer, records, rows)
    seen = {row: set() for row in rows}
    for step in range(60):
        trainer.state.global_step = step
        guess = trainer.drawn(batch)[0]
        alone = batch_of(trainer, records, [7])
        assert torch.equal(trainer.drawn(alone)[0][0], guess[7])
        for row in rows:
            path = records[row]["trajectory"]
            j = next(j for j, block in enumerate(path) if block == guess[row].tolist())
            assert j < max(len(path) - 1, 1)
            seen[row].add(j)
    assert all(len(seen[row]) == max(len(records[row]["trajectory"]) - 1, 1) for row in rows)


def test_a_record_that_converged_at_once_has_the_anchor_only(tmp_path, records):
    one = records.select([1]).map(lambda row: {"trajectory": [row["fixed_point"]]})
    trainer = make(tmp_path, one)
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, one, [0]))
    ids = torch.tensor(one[0]["prompt_ids"] + one[0]["fixed_point"])[None]
    logits = trainer.model(ids).logits[0, -N - 1 : -1]
    assert loss.item() == pytest.approx(cross_entropy(logits, ids[0, -N:]).item(), rel=1e-5)
    silent = make(tmp_path, one, settings={"ar_weight": 0.0})
    loss = silent.compute_loss(silent.model, batch_of(silent, one, [0]))
    loss.backward()
    assert loss.item() == 0 and all(not p.grad.any() for p in silent.model.parameters())


def test_terms_are_logged_and_kl_and_ce_train_alike(tmp_path, records):
    runs = {}
    for divergence in ("ce", "kl"):
        trainer = make(tmp_path, records, settings={"divergence": divergence})
        trainer.train()
        logs = [log for log in trainer.state.log_history if "consistency_ce" in log]
        assert len(logs) == 3 and all({"consistency_kl", "ar", "teacher_labels"} <= set(log) for log in logs)
        assert all(log["consistency_ce"] > log["consistency_kl"] for log in logs)
        log = logs[0]
        part = log[f"consistency_{divergence}"]
        assert log["loss"] == pytest.approx(part + log["ar"], abs=2e-3)
        runs[divergence] = trainer.model.state_dict()
    assert all(torch.allclose(runs["ce"][name], runs["kl"][name], atol=1e-5) for name in runs["ce"])


def test_preset_of_consistency_llm_trains_the_whole_sequence(tmp_path, records):
    trainer = make(tmp_path, records, settings={"preset": "cllm", "max_label_distance": math.inf})
    assert (trainer.args.ar_weight, trainer.args.ar_label_smoothing, trainer.args.ar_scope) == (10.0, 0.1, "sequence")
    rows = [0, 1]
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, records, rows))
    own = make(tmp_path, records, model=trainer.model, settings={"ar_weight": 0.0})
    consistency = own.compute_loss(own.model, batch_of(own, records, rows))
    total, count = 0.0, 0
    for i in rows:
        ids = torch.tensor(records[i]["prompt_ids"] + records[i]["fixed_point"])
        logits = trainer.model(ids[None]).logits[0, :-1]
        total += cross_entropy(logits, ids[1:], label_smoothing=0.1, reduction="sum").item()
        count += len(ids) - 1
    assert loss.item() == pytest.approx(consistency.item() + 10 * total / count, rel=1e-5)


def test_allowed_tokens_narrow_both_losses(tmp_path, records):
    every = make(tmp_path, records, label_token_ids=range(17))
    plain = make(tmp_path, records)
    batch = batch_of(plain, records, range(6))
    assert every.compute_loss(every.model, batch).item() == pytest.approx(
        plain.compute_loss(plain.model, batch).item(), rel=1e-6
    )
    used = sorted({i for row in records for i in (*row["fixed_point"], *row["labels"])})
    some = make(tmp_path, records, label_token_ids=used)
    assert some.compute_loss(some.model, batch).item() < plain.compute_loss(plain.model, batch).item()
    with pytest.raises(ValueError, match=r"`(labels|fixed_point)`.*at row \d+: not in `label_token_ids`"):
        make(tmp_path, records, label_token_ids=used[:-1]).train()
    with pytest.raises(ValueError, match="ar_scope"):
        make(tmp_path, records, label_token_ids=used, settings={"preset": "cllm"})


def test_fresh_rows_take_the_place_of_the_records_labels(tmp_path, records):
    fresh = Dataset.from_dict({"prompt_ids": PROMPTS["input_ids"][:], "labels": PROMPTS["labels"][:]})
    bare = records.remove_columns("labels")  # the records need no labels then
    trainer = make(tmp_path, bare, anchor_dataset=fresh, settings={"ar_weight": 2.0})
    seen, real = [], trainer.compute_loss

    def spy(model, inputs, *args, **kwargs):
        seen.append(inputs["anchor"]["fixed_point"].tolist())
        return real(model, inputs, *args, **kwargs)

    trainer.compute_loss = spy
    trainer.train()
    truth = PROMPTS["labels"][:]
    assert all(row in truth for batch in seen for row in batch) and {len(batch) for batch in seen} == {8}
    log = next(log for log in trainer.state.log_history if "ar" in log)
    assert "teacher_labels" not in log
    assert log["loss"] == pytest.approx(log["consistency_ce"] + 2 * log["ar"], abs=2e-3)
    with pytest.raises(KeyError, match="labels"):
        make(tmp_path, bare, anchor_dataset=fresh.remove_columns("labels")).train()


def test_adapters_move_and_the_base_does_not(tmp_path, records):
    settings = {"lora_rank": 4, "lora_dropout": 0.0, "gradient_checkpointing": True}
    trainer = make(tmp_path, records, settings=settings)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert any("lora_A" in name for name in moved) and any("lora_B" in name for name in moved)
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    prompt = torch.tensor([PROMPTS[0]["input_ids"]])
    trainer.model.eval()
    want = trainer.model.generate(input_ids=prompt, max_new_tokens=6, do_sample=False)
    got = trainer.model.generate(
        input_ids=prompt, max_new_tokens=6, do_sample=False, custom_generate=jacobi_generate, block_size=3
    )
    assert torch.equal(got, want)


def test_checkpointing_and_accumulation_change_nothing(tmp_path, records):
    def weights(**settings):
        trainer = make(tmp_path, records, settings={"max_steps": 2, **settings})
        trainer.train()
        return trainer.model.state_dict()

    plain = weights()
    for settings in (
        {"gradient_checkpointing": True},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
    ):
        other = weights(**settings)
        assert all(torch.allclose(plain[name], other[name], atol=1e-4) for name in plain), settings


def test_a_resumed_run_with_adapters_and_a_second_stream_equals_a_plain_one(tmp_path, records):
    fresh = Dataset.from_dict({"prompt_ids": PROMPTS["input_ids"][:], "labels": PROMPTS["labels"][:]})

    def run(folder, resume=None):
        trainer = make(
            tmp_path / folder, records, anchor_dataset=fresh, settings={"max_steps": 4, "lora_rank": 2, "seed": 3}
        )
        trainer.args.save_strategy, trainer.args.save_steps = "steps", 2
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    whole = run("a")
    run("b")
    again = run("b", resume=str(tmp_path / "b" / "checkpoint-2"))
    assert all(torch.allclose(whole[name], again[name], atol=1e-6) for name in whole)


def test_images_reach_every_forward(tmp_path):
    model, inputs = vision_decoder()
    rows = {"input_ids": [[5, 6, 16, 16, 16, 16, 7]] * 2, "pixel_values": inputs["pixel_values"].tolist()}
    rows["labels"] = [[4, 5, 6], [7, 8, 9]]
    data = collect_jacobi_trajectories(
        model, Dataset.from_dict(rows), block_size=3, model_columns=["pixel_values"], drop_repeats=None, progress=False
    )
    trainer = make(tmp_path, data, model=model)
    calls = []
    hook = model.model.vision_tower.register_forward_pre_hook(lambda *_: calls.append(1))
    trainer.train()
    hook.remove()
    assert len(calls) >= 6 and math.isfinite(trainer.state.log_history[0]["loss"])


def test_distillation_saves_passes_and_keeps_exactness(tmp_path):
    """On the prompts of its trajectories, with no anchor to the ground truth: fewer passes, still greedy."""
    teacher = decoder(seed=5)
    prompts = PROMPTS.remove_columns("labels")
    data = collect_jacobi_trajectories(teacher, prompts, init=4, **{**COLLECT, "eos_token_id": 99})
    settings = {"max_steps": 60, "per_device_train_batch_size": 24, "max_label_distance": math.inf}
    trainer = make(tmp_path, data, model=decoder(seed=5), settings={**settings, "learning_rate": 5e-3})
    trainer.train()
    student = trainer.model.eval()

    def passes(model):
        total = 0
        for prompt in prompts["input_ids"]:
            ids = torch.tensor([prompt])
            options = {"max_new_tokens": N, "eos_token_id": None}
            out = jacobi_generate(model, ids, block_size=N, init=4, return_jacobi_stats=True, **options)
            assert torch.equal(out.sequences, model.generate(ids, do_sample=False, **options))
            total += out.stats.forward_passes
        return total

    assert passes(student) < 0.8 * passes(teacher)


def test_jacobi_decoding_is_saved_beside_the_model_when_asked(tmp_path, records):
    for asked in (False, True):
        trainer = make(tmp_path / str(asked), records, settings={"save_custom_generate": asked})
        trainer.save_model()
        assert (tmp_path / str(asked) / "custom_generate" / "generate.py").exists() == asked


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ar_weight": -1.0}, "ar_weight"),
        ({"lora_rank": -1}, "lora_rank"),
        ({"max_label_distance": float("nan")}, "NaN"),
        ({"ar_label_smoothing": 1.0}, r"\[0, 1\), got 1.0"),
        ({"ar_scope": "prompt"}, "block, sequence"),
        ({"divergence": "js"}, "ce, kl"),
        ({"preset": "other"}, "cllm"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        ConsistencyDistillationTrainingArguments("out", **settings)


def test_wrong_classes_are_refused(tmp_path, records):
    from transformers import T5Config, T5ForConditionalGeneration, TrainingArguments

    with pytest.raises(TypeError, match="ConsistencyDistillationTrainingArguments, got TrainingArguments"):
        ConsistencyDistillationTrainer(decoder(), TrainingArguments(str(tmp_path)), train_dataset=records)
    sizes = {"vocab_size": 17, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    with pytest.raises(ValueError, match="encoder-decoder"):
        make(tmp_path, records, model=T5ForConditionalGeneration(T5Config(**sizes)))
    assert "decode_labels" in inspect.signature(ConsistencyDistillationTrainer.__init__).parameters


def test_distance_can_be_in_the_unit_of_the_decoded_labels(tmp_path, records):
    trainer = make(tmp_path, records, decode_labels=lambda ids: ids / 100, settings={"max_label_distance": 0.2})
    near = trainer._anchor(batch_of(trainer, records, range(8)))[3]
    want = [
        np.mean(np.abs(np.subtract(records[i]["fixed_point"], records[i]["labels"]))) / 100 <= 0.2 for i in range(8)
    ]
    assert near.tolist() == want
