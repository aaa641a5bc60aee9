"""What every trainer of a ready method must do, on the tiny version that the method itself describes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import fresh
import pytest
import torch
from matrix_case import load_case

from hf_labels import catalog

ROOT = Path(__file__).resolve().parents[2]
WITH_TRAINER = [m.slug for m in catalog.ready() if any(path.endswith("Trainer") for path in m.public)]
per_method = pytest.mark.parametrize("slug", WITH_TRAINER)


def _weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _assert_equal(one: dict, two: dict, atol: float = 0.0):
    assert one.keys() == two.keys()
    far = {
        k: (one[k] - two[k]).abs().max().item() for k in one if not torch.allclose(one[k], two[k], rtol=0, atol=atol)
    }
    assert not far, far


@per_method
def test_has_a_case(slug):
    assert load_case(slug) is not None, f"tests/matrix/cases/{slug}.py is missing"


@per_method
def test_every_trainable_parameter_moves_and_no_frozen_one(slug, tmp_path):
    case = load_case(slug)
    trainer = case.make(tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    moved = {name for name, old in before.items() if not torch.equal(old, after[name])}
    frozen = {name for name in before if case.frozen and name.startswith(case.frozen)}
    assert moved == set(before) - frozen
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert all(torch.isfinite(torch.tensor(losses)))


@per_method
def test_accumulating_4_times_2_equals_a_batch_of_8(slug, tmp_path):
    case = load_case(slug)
    options = {"max_steps": 2, **case.row_wise}
    whole = case.make(tmp_path / "a", per_device_train_batch_size=8, **options)
    whole.train()
    parts = case.make(tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **options)
    parts.train()
    _assert_equal(_weights(whole.model), _weights(parts.model), atol=1e-4)


@per_method
def test_resume_equals_an_uninterrupted_run(slug, tmp_path):
    case = load_case(slug)
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 4}
    straight = case.make(tmp_path / "a", **options)
    straight.train()
    first = case.make(tmp_path / "b", **options)
    first.train()
    again = case.make(tmp_path / "b", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "b" / "out" / "checkpoint-1"))
    _assert_equal(_weights(straight.model), _weights(again.model), atol=1e-6)


@per_method
def test_extra_columns_arrive_and_evaluation_is_complete(slug, tmp_path):
    case = load_case(slug)
    seen: set[str] = set()

    class Spy(case.trainer):  # type: ignore[misc, name-defined]
        def compute_loss(self, model, inputs, *args, **kwargs):
            seen.update(inputs)
            return super().compute_loss(model, inputs, *args, **kwargs)

    spied = type(case)(**{**vars(case), "trainer": Spy})
    trainer = spied.make(tmp_path, max_steps=1)
    trainer.compute_metrics = lambda p: {"rows": len(p.label_ids)}
    trainer.train()
    assert set(case.extra_columns) <= seen
    metrics = trainer.evaluate()
    assert metrics["eval_rows"] == 8 and metrics["eval_loss"] > 0


@per_method
def test_bf16_autocast(slug, tmp_path):
    trainer = load_case(slug).make(tmp_path, max_steps=2, bf16=True)
    trainer.train()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.model.parameters())


@per_method
def test_bad_data_gives_the_documented_error(slug, tmp_path):
    case = load_case(slug)
    assert case.broken, f"{slug} documents no bad input"
    for number, (what, (change, message)) in enumerate(case.broken.items()):
        with pytest.raises((ValueError, KeyError, TypeError, IndexError), match=message):
            case.make(tmp_path / str(number), data=change).train()
            pytest.fail(f"{what} was accepted")


@per_method
def test_saved_model_loads_in_a_fresh_process_with_its_card(slug, tmp_path):
    case = load_case(slug)
    trainer = case.make(tmp_path, max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    trainer.args.output_dir = str(tmp_path / "saved")
    trainer.create_model_card(model_name="matrix")
    card = (tmp_path / "saved" / "README.md").read_text()
    method = catalog.get(slug)
    assert method.paper.removeprefix("arXiv:") in card and "Label assumptions" in card
    batch = trainer.data_collator([trainer.eval_dataset[i] for i in range(4)])
    batch = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in ("labels", "index")}
    torch.save(batch, tmp_path / "batch.pt")
    trainer.model.eval()
    with torch.no_grad():
        want = trainer.model(**{k: v for k, v in batch.items() if k in _forward_names(trainer.model)}).logits
    code = (
        "import sys, json, inspect, torch, importlib\n"
        "folder, batch, module, name = sys.argv[1:]\n"
        "cls = getattr(importlib.import_module(module), name)\n"
        "model = cls.from_pretrained(folder).eval()\n"
        "batch = torch.load(batch); names = inspect.signature(model.forward).parameters\n"
        "with torch.no_grad(): out = model(**{k: v for k, v in batch.items() if k in names}).logits\n"
        "print(json.dumps(out.tolist()))"
    )
    model_class = case.loads_as or type(trainer.model)
    words = ["-c", code, tmp_path / "saved", tmp_path / "batch.pt", model_class.__module__, model_class.__name__]
    done = fresh.run(words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    got = torch.tensor(json.loads(done.stdout.splitlines()[-1]))
    assert torch.allclose(got, want, atol=1e-6)


def _forward_names(model) -> set[str]:
    """Names of the inputs; a model in adapters takes those of the model inside."""
    import inspect

    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return set(inspect.signature(model.forward).parameters)


@per_method
def test_settings_parse_on_the_command_line(slug):
    from transformers import HfArgumentParser

    case = load_case(slug)
    parser = HfArgumentParser(case.arguments)
    (args,) = parser.parse_args_into_dataclasses(["--output_dir", "out", "--learning_rate", "0.5"])
    assert args.learning_rate == 0.5
    own = set(case.arguments.__dataclass_fields__) - set(case.arguments.__mro__[1].__dataclass_fields__)
    undocumented = [name for name in own if f"{name} (" not in (case.arguments.__doc__ or "")]
    assert not undocumented, f"not in the docstring: {undocumented}"
    assert parser.format_help()  # a bare % in a help text raises here


@pytest.fixture(scope="module")
def two_processes(request, tmp_path_factory):
    """Folder -> slug -> what two processes made of it: one launch for all methods that this run asks for."""
    names = {item.callspec.params["slug"] for item in request.session.items if "two_processes" in item.fixturenames}
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("two_processes.py")
    paths = os.pathsep.join([str(script.parent), str(ROOT / "tests")])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", str(script), str(folder), *sorted(names)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
    )
    return folder, done


@per_method
@pytest.mark.dist
def test_two_processes_equal_one(slug, tmp_path, two_processes):
    folder, done = two_processes
    case = load_case(slug)
    one = case.make(tmp_path, max_steps=2, per_device_train_batch_size=8, **case.row_wise)
    one.train()
    errors = [path.read_text() for path in sorted((folder / slug).glob("error-*.txt"))]
    assert not errors, errors[0]
    place = folder / slug / "weights.pt"
    assert place.is_file(), done.stderr[-3000:]
    _assert_equal(_weights(one.model), torch.load(place), atol=1e-4)
    assert done.returncode == 0, done.stderr[-3000:]
