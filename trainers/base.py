"""`LabelTrainer`: what all trainers of this package share, and nothing of any method."""

import inspect
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import find_batch_size

from hf_labels.data.collators import LabelCollator
from hf_labels.data.rng import derive_seed, isolated_rng
from hf_labels.hub import SafePush
from hf_labels.trainers.checks import check_data, check_output_dir
from hf_labels.trainers.inputs import InputsTrainer
from hf_labels.trainers.interrupt import InterruptGuard
from hf_labels.trainers.reload import load_renamed_weights
from hf_labels.trainers.state import AfterStep, find_checkpoint, restore_method_state, save_method_state
from hf_labels.trainers.terms import TermLog


@dataclass
class LabelTrainingArguments(TrainingArguments):
    """Arguments that all trainers of this package understand; a method's own arguments derive from it.

    Parameters:
        overwrite_output_dir (`bool`, *optional*, defaults to `False`):
            Train even if `output_dir` already holds another model.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none.
    """

    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Train even if `output_dir` already holds another model."}
    )


class LabelTrainer(SafePush, InputsTrainer):
    """A `Trainer` for losses that need more than `labels`, or state besides the weights.

    A subclass sets the class attributes it needs and overrides `compute_loss`, which **returns the mean over its
    batch** (gradient accumulation is right then). What it can use:

    - `model_inputs(inputs)`: the inputs that `model.forward` takes, without labels and extra columns.
    - `log_terms(name=value)`: named parts of the loss, logged beside `loss` and, when evaluating, as `eval_name`.
    - `method_state`: a module of buffers, saved in every checkpoint and restored on resume. Its parts that have
      `after_step(model, step)` (an [`EMATeacher`]) are called after each optimizer step. Build it in `__init__`, or in
      `init_method_state` when it depends on the model.
    - `add_stream(name, dataset)`: a second data set whose batch arrives as `inputs[name]`.
    - `count_items` with `mean_over_update`: an exact mean when batches hold different numbers of rows or tokens.

    Everything random outside the model (samplers, lazy transforms, collators, evaluation) draws from its own
    generators, so a resumed run equals an uninterrupted one. Ctrl-C finishes the step, saves, and says how to go on.

    Class attributes:
        _slug (`str`): Method, for the model card.
        _extra_columns (`tuple[str, ...]`): Columns kept for the loss although `model.forward` does not name them.
        _required_columns (`tuple[str, ...]`): The same, and training data without them is refused.
        _label_kinds (`dict[str, str]`): Column -> label kind, checked once before training.
        _min_classes (`int`): Classes that hard labels must show; 1 allows a single one.
    """

    loss_is_scaled_for_ga = False  # `compute_loss` returns the mean of one batch
    _slug: ClassVar[str] = ""
    _min_classes: ClassVar[int] = 2

    def __init__(self, model: Any = None, args: Any = None, data_collator: Any = None, *rest: Any, **kwargs: Any):
        super().__init__(model, args, data_collator, *rest, **kwargs)
        if self.args.label_names is None:
            self.label_names = ["labels"]
        if data_collator is None:
            per_token = "ForTokenClassification" in type(self.accelerator.unwrap_model(self.model)).__name__
            self.data_collator = LabelCollator(self.processing_class, token_labels=per_token)
        self.method_state: nn.Module | None = None
        self._train_terms, self._eval_terms = TermLog(), TermLog()
        self._eval_rows: int | None = None  # rows of the batch that is evaluated; None while training
        self._interrupt = InterruptGuard(self)
        self.add_callback(AfterStep(self))
        self.add_callback(self._interrupt)

    # Hooks for subclasses

    def num_classes(self) -> int | None:
        """Classes of the model, against which labels are checked; `None` when it has no such number."""
        return getattr(getattr(self.model, "config", None), "num_labels", None)

    def card_facts(self, finetuned_from: str | None = None) -> dict[str, Any]:
        """Arguments of [`~hf_labels.hub_cards.render_card`] that this method knows better than the base."""
        return {}

    def init_method_state(self) -> None:
        """Called by `train()` when `self.model` is in place and before a checkpoint is restored."""

    # Loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The model's own loss. Subclasses return the mean over their batch."""
        # Without `num_items_in_batch`: many models take it and do not use it, so their loss could mean either thing.
        return super().compute_loss(model, self.model_inputs(inputs, labels=True), return_outputs)

    def mean_over_update(self, total: Tensor, name: str, count: int | Tensor) -> Tensor:
        """`total / count`, or, for things counted by `count_items`, the share in the mean over the whole update.

        With it, the gradient is that of the mean over all rows (or tokens) of all accumulated batches and processes,
        however they are divided.

        Args:
            total (`Tensor` of shape `()`): Sum of the loss over the things of this batch.
            name (`str`): Key in `count_items`.
            count (`int` or `Tensor`): Things in this batch.
        """
        if self._eval_rows is not None or name not in self._items:
            return total / torch.as_tensor(count, device=total.device).clamp_min(1)
        shares = self.current_gradient_accumulation_steps * self.accelerator.num_processes
        return total * shares / self._items[name].to(total).clamp_min(1)

    def log_terms(self, weight: float = 1.0, /, **terms: float | Tensor) -> None:
        """Log named parts of the loss of this batch: their mean since the last log, over accumulation and processes.

        Args:
            weight (`float`, *optional*, defaults to `1.0`): Weight of this batch in the mean.
            terms (`float` or `Tensor` of shape `()`): Values; not differentiated, not read until they are logged.
        """
        if self._eval_rows is None:
            self._train_terms.add(terms, weight / getattr(self, "current_gradient_accumulation_steps", 1))
        else:
            self._eval_terms.add(terms, weight * self._eval_rows)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self._train_terms.pop(self.accelerator))
        super().log(logs, start_time)

    # Evaluation: same loss, own random numbers, `eval_<term>` beside `eval_loss`

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        with isolated_rng(derive_seed(self.args.seed), self.args.device):
            self._eval_terms, self._eval_rows = TermLog(), 0
            try:
                output = super().evaluation_loop(
                    dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
                )
            finally:
                self._eval_rows = None
        terms = self._eval_terms.pop(self.accelerator)
        metrics = {} if output.metrics is None else output.metrics
        metrics.update({f"{metric_key_prefix}_{name}": value for name, value in terms.items()})
        return output

    def prediction_step(self, model, inputs, *args, **kwargs):
        self._eval_rows = find_batch_size(inputs) or 1
        return super().prediction_step(model, inputs, *args, **kwargs)

    # Training, checkpoints, card

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        """As `Trainer.train`. Checks data and `output_dir` first; `KeyboardInterrupt` names the saved checkpoint."""
        output_dir = self.args.output_dir or "."
        resume = find_checkpoint(output_dir, resume_from_checkpoint)
        overwrite = getattr(self.args, "overwrite_output_dir", False)
        check_output_dir(self.model, output_dir, resume, overwrite)
        check_data(self)
        self._train_terms = TermLog()
        try:
            with self._interrupt:
                return super().train(resume, trial, ignore_keys_for_eval)
        finally:
            for stream in self.streams.values():
                stream.close()

    def _prepare_for_training(self, max_steps, train_dataloader, resume_from_checkpoint):
        self.init_method_state()
        if self.method_state is not None:
            parts: list[Any] = [part for part in self.method_state.modules() if hasattr(part, "place")]
            for part in parts:
                part.place(self.accelerator)
            self.method_state.to(self.args.device)
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def _save_checkpoint(self, model, trial):
        with self._interrupt.held():
            super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.method_state is not None and self.args.should_save:
            save_method_state(self.method_state, output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            restore_method_state(self.method_state, checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        own: Any = self.accelerator.unwrap_model(self.model if model is None else model)
        if not load_renamed_weights(own, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        own: Any = self.accelerator.unwrap_model(self.model)
        if not load_renamed_weights(own, str(self.state.best_model_checkpoint)):
            super()._load_best_model()
        if not self.args.save_only_model:
            restore_method_state(self.method_state, str(self.state.best_model_checkpoint))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card of the method to `output_dir/README.md`; arguments as in `Trainer.create_model_card`."""
        if not self.is_world_process_zero():
            return
        from hf_labels.trainers.card import card_arguments, write_card

        given = inspect.signature(Trainer.create_model_card).bind(self, *args, **kwargs).arguments
        facts = card_arguments(**{"trainer": given.pop("self"), **given})
        facts.update(self.card_facts(finetuned_from=given.get("finetuned_from")))
        write_card(self._slug, facts, self.args.output_dir or ".")
