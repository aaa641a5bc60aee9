"""Mix-LN under the stock `Trainer`: accumulation, exact resume, two processes, gradient log; the code of its card."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from hf_labels.hub_cards import method_text
from hf_labels.models.layer_diagnostics import GradientNormCallback, gradient_norms, last_over_first
from hf_labels.models.mix_ln import MixLNConfig, MixLNForCausalLM


def model(seed=0, **settings):
    torch.manual_seed(seed)
    config = MixLNConfig(
        vocab_size=23,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        initializer_range=0.2,
        **settings,
    )
    return MixLNForCausalLM(config)


def rows(number=16, length=6):
    ids = torch.randint(0, 23, (number, length), generator=torch.Generator().manual_seed(1)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def train(folder, resume=None, callbacks=(), dropout=0.0, **settings):
    defaults = dict(
        output_dir=str(folder),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
    )
    trainer = Trainer(
        model(attention_dropout=dropout),
        TrainingArguments(**{**defaults, **settings}),
        train_dataset=rows(),
        callbacks=list(callbacks),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_accumulation_equals_one_batch(tmp_path):
    one = train(tmp_path / "a", per_device_train_batch_size=8)
    two = train(tmp_path / "b", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    start = model().state_dict()
    for name, weight in weights(one).items():
        torch.testing.assert_close(weight, weights(two)[name], atol=2e-5, rtol=0)
        if "embed" not in name:
            assert not torch.equal(weight, start[name]), f"{name} did not move"


def test_resume_is_exact_and_keeps_the_gradient_log(tmp_path):
    """With dropout, so that the state of the random numbers counts too."""
    settings = dict(dropout=0.3, save_strategy="steps", save_steps=2)
    whole = train(tmp_path, callbacks=[GradientNormCallback()], **settings)
    checkpoint = tmp_path / "checkpoint-2"
    assert json.loads((checkpoint / "config.json").read_text())["num_post_layers"] == 1
    again = train(tmp_path / "again", resume=str(checkpoint), callbacks=[GradientNormCallback()], **settings)
    for name, weight in weights(whole).items():
        assert torch.equal(weight, weights(again)[name]), name
    logged = [[entry for entry in t.state.log_history if "loss" in entry] for t in (whole, again)]
    assert [entry["step"] for entry in logged[0]] == [1, 2, 3, 4]
    for a, b in zip(*logged, strict=True):
        keys = [key for key in a if key.startswith("grad_norm/")]
        assert len(keys) == 5 and [a[key] for key in keys] == [b[key] for key in keys]


def test_callback_sees_the_gradients_the_optimizer_uses(tmp_path):
    """`max_grad_norm=0`: those of a plain backward pass on the first batch; clipped: the same shape, smaller."""

    class FirstBatch(Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            batches.append({k: v.clone() for k, v in inputs.items() if torch.is_tensor(v)})
            return super().compute_loss(model, inputs, *args, **kwargs)

    found = {}
    for clip in (0.0, 0.01):
        batches: list = []
        callback = GradientNormCallback()
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            max_grad_norm=clip,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        FirstBatch(model(), arguments, train_dataset=rows(8), callbacks=[callback]).train()
        found[clip] = callback.history[0]["norms"]
    plain = model()
    plain(**{k: v for k, v in batches[0].items() if k in ("input_ids", "labels", "attention_mask")}).loss.backward()
    want = gradient_norms(plain)
    assert found[0.0] == pytest.approx(want, rel=1e-5)
    assert sum(n * n for n in found[0.01]) < 0.01**2
    assert last_over_first(found[0.01]) == pytest.approx(last_over_first(want), rel=1e-4)


@pytest.mark.slow
@pytest.mark.dist
def test_two_processes_equal_one(tmp_path):
    """Same global batch: same weights, same gradient norms."""
    model().save_pretrained(tmp_path / "start")
    rows().save_to_disk(tmp_path / "rows")
    script = Path(__file__).with_name("mix_ln_two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(tmp_path)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    callback = GradientNormCallback()
    one = train(tmp_path / "one", callbacks=[callback], max_steps=3, per_device_train_batch_size=8)
    two = MixLNForCausalLM.from_pretrained(tmp_path / "end").state_dict()
    for name, weight in weights(one).items():
        torch.testing.assert_close(
            two[name], weight, atol=1e-4, rtol=0
        )  # steps of 1e-2; AdamW divides rounding by tiny gradients
    history = json.loads((tmp_path / "norms.json").read_text())
    for a, b in zip(history, callback.history, strict=True):
        assert a["step"] == b["step"] and a["norms"] == pytest.approx(b["norms"], rel=1e-3)


def test_usage_of_the_card_runs_and_trains(tmp_path, monkeypatch, capsys):
    """Every line of it: from a config, from a stock model, diagnostics, saving, loading, generating."""
    monkeypatch.chdir(tmp_path)
    method = method_text("mix_ln")
    names: dict = {}
    exec(compile(method.usage_code, "usage", "exec"), names)
    logged = [entry for entry in names["trainer"].state.log_history if "loss" in entry]
    assert logged[-1]["loss"] < logged[0]["loss"] - 0.5
    assert (tmp_path / "out" / "gradient_norms.png").stat().st_size > 1000
    assert torch.equal(names["again"].lm_head.weight, names["model"].lm_head.weight)
    assert capsys.readouterr().out.strip()
    loading = method.loading_code("out/final")
    exec(compile(loading, "loading", "exec"), {})
    assert capsys.readouterr().out.split() == ["mix", "3"]
