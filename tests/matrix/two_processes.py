"""Started by torchrun: trains matrix cases on two processes with the global batch of the single-process run."""

import contextlib
import dataclasses
import os
import sys
import traceback
from pathlib import Path

import torch
import transformers
from matrix_case import MatrixCase, load_case
from torch import distributed


def with_model(slug: str, folder: Path) -> MatrixCase:
    """A case whose model is made already: only the first of the processes could write a backbone later."""
    case = load_case(slug)
    assert case is not None
    transformers.set_seed(0)
    model = case.model(folder)
    return dataclasses.replace(case, model=lambda _: model)


def train(case: MatrixCase, folder: Path, rank: int) -> None:
    """One case; the first process writes its weights."""
    trainer = case.make(folder / str(rank), max_steps=2, per_device_train_batch_size=4, **case.row_wise)
    assert trainer.args.world_size == 2
    trainer.train()
    if rank == 0:
        own = trainer.accelerator.unwrap_model(trainer.model).state_dict()
        torch.save({name: value.detach().cpu() for name, value in own.items()}, folder / "weights.pt")
    trainer.accelerator.wait_for_everyone()


def main() -> None:
    rank, root = int(os.environ["RANK"]), Path(sys.argv[1])
    cases = {}
    for slug in sys.argv[2:]:
        (root / slug / str(rank)).mkdir(parents=True, exist_ok=True)
        cases[slug] = with_model(slug, root / slug / str(rank))
    for slug, case in cases.items():
        try:
            train(case, root / slug, rank)
        except Exception:
            (root / slug / f"error-{rank}.txt").write_text(traceback.format_exc())
            raise
    with contextlib.suppress(ValueError, RuntimeError):
        distributed.barrier()
        distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of the process group that outlive it abort the interpreter now and then


main()
