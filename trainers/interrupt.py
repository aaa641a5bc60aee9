"""Ctrl-C without loss: finish the step, save a checkpoint, stop, and say how to continue."""

import logging
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_labels.trainers.state import checkpoints

logger = logging.getLogger(__name__)


class InterruptGuard(TrainerCallback):
    """Turns the first Ctrl-C of a training into a stop at the end of the current optimizer step.

    Between steps (evaluation, loading data) the training stops at once. Either way a checkpoint of the last finished
    step is written, unless `save_strategy="no"`, and `KeyboardInterrupt` is raised with the way to continue. A second
    Ctrl-C stops immediately. With several processes the training stops at the end of a step, on all of them.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.requested = False
        self._busy = True  # the weights may be in the middle of a change
        self._previous: Any = None

    def __enter__(self) -> "InterruptGuard":
        self.requested, self._busy, self._previous = False, True, None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        stopped = kind is None and self.requested
        if not stopped and not (kind is not None and issubclass(kind, KeyboardInterrupt)):
            return
        if not stopped and not self._busy and self.trainer.args.world_size == 1:
            self._save()
        self.trainer.is_in_train = False
        raise KeyboardInterrupt(self._message()) from None

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.requested or (not self._busy and self.trainer.args.world_size == 1):
            raise KeyboardInterrupt
        self.requested = True
        logger.warning("Interrupted: finishing the current step, then saving. Press Ctrl-C again to stop at once.")

    @contextmanager
    def held(self) -> Any:
        """A block (writing a checkpoint) that the first Ctrl-C does not cut off."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._busy = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._busy = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.world_size > 1:
            flag = torch.tensor(float(self.requested), device=args.device)
            self.requested = bool(self.trainer.accelerator.reduce(flag, "sum") > 0)
        if self.requested:
            control.should_training_stop = True
            # At the end of an epoch the evaluation of that epoch comes first, see on_epoch_end.
            control.should_save = self._saves and not float(state.epoch).is_integer()
        self._busy = False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.requested:
            return
        if float(state.epoch).is_integer():
            control.should_save = self._saves
        else:
            control.should_log = control.should_evaluate = control.should_save = False

    @property
    def _saves(self) -> bool:
        return self.trainer.args.save_strategy != "no"

    @property
    def _checkpoint(self) -> Path:
        return Path(self.trainer.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.trainer.state.global_step}"

    def _save(self) -> None:
        if (
            self._saves
            and self.trainer.state.global_step > 0
            and self._checkpoint not in checkpoints(self.trainer.args.output_dir)
        ):
            self.trainer._save_checkpoint(self.trainer.model_wrapped, trial=None)

    def _message(self) -> str:
        step = self.trainer.state.global_step
        found = checkpoints(self.trainer.args.output_dir)
        if not found:
            why = ' (`save_strategy="no"`)' if not self._saves else ""
            return f"Training was interrupted after step {step}; nothing was saved{why}."
        saved = "everything" if found[-1] == self._checkpoint else f"step {found[-1].name.rpartition('-')[2]}"
        return (
            f"Training was interrupted after step {step}; {saved} is saved in {found[-1]}. "
            "Continue with `trainer.train(resume_from_checkpoint=True)` or `--resume_from_checkpoint`."
        )
