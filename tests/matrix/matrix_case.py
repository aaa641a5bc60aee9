"""What a method tells the matrix about itself: one `CASE` in `tests/matrix/cases/<slug>.py` per ready trainer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import transformers


@dataclass(frozen=True)
class MatrixCase:
    """A tiny version of one method.

    Parameters:
        trainer, arguments: The trainer class and its settings class.
        model: `folder -> model`: a tiny seeded model; what it needs on disk (a backbone, say) it writes into `folder`.
        data: `(model, rows) -> Dataset` with the columns that the trainer reads, of at least two classes.
        options: Settings of the method for the tests; randomness such as dropout must be off.
        trainer_options: `model -> dict` of further trainer arguments (a collator, a second data set).
        frozen: Prefixes of parameters that must not move.
        broken: What is wrong -> (change of the data set, regular expression of the documented error).
        extra_columns: Columns that must reach `compute_loss`.
        row_wise: For a loss that compares the rows of a batch with each other: settings without that part, with which
            accumulated and distributed batches must equal a whole one.
        loads_as: Class whose `from_pretrained` loads what was saved, if not the class of the model (adapters).
    """

    trainer: type[transformers.Trainer]
    arguments: type[transformers.TrainingArguments]
    model: Callable[[Path], transformers.PreTrainedModel]
    data: Callable[[Any, int], datasets.Dataset]
    options: dict[str, Any] = field(default_factory=dict)
    trainer_options: Callable[[Any], dict[str, Any]] = lambda model: {}
    frozen: tuple[str, ...] = ()
    broken: dict[str, tuple[Callable[[datasets.Dataset], datasets.Dataset], str]] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()
    row_wise: dict[str, Any] = field(default_factory=dict)
    loads_as: type | None = None

    def make(self, folder: Path, train_rows: int = 16, eval_rows: int = 8, data=None, **settings) -> Any:
        """A trainer on fresh copies of everything; `settings` go to the arguments."""
        transformers.set_seed(0)
        model = self.model(folder)
        options: dict[str, Any] = {
            "output_dir": str(folder / "out"),
            "use_cpu": True,
            "per_device_train_batch_size": 8,
            "num_train_epochs": 2,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            "seed": 0,
        }
        args = self.arguments(**{**options, **self.options, **settings})
        train = self.data(model, train_rows) if data is None else data(self.data(model, train_rows))
        extra = self.trainer_options(model)
        return self.trainer(
            model=model, args=args, train_dataset=train, eval_dataset=self.data(model, eval_rows), **extra
        )


def load_case(slug: str) -> MatrixCase | None:
    """The case of one method, `None` when it has no file."""
    path = Path(__file__).parent / "cases" / f"{slug}.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"matrix_case_{slug}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CASE
