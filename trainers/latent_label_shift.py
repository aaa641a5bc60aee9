"""`LatentLabelShiftTrainer`: a classifier of domains that count alike, and the classes that it gives away."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.labels.columns import class_names as names_of
from hf_labels.labels.columns import read_column, require_columns
from hf_labels.labels.latent_label_shift import LatentLabelShift
from hf_labels.labels.latent_label_shift_factors import NotIdentifiedError
from hf_labels.labels.latent_label_shift_files import card_facts
from hf_labels.models.latent_label_shift import LLSForClassification
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments

logger = logging.getLogger(__name__)


@dataclass
class LatentLabelShiftTrainingArguments(LabelTrainingArguments):
    """Arguments of [`LatentLabelShiftTrainer`].

    Parameters:
        domain_column (`str`, *optional*, defaults to `"domain"`):
            Column with the domain id of each row, a `ClassLabel` or integers; -1 = unknown, which trains nothing.
        balance_domains (`bool`, *optional*, defaults to `True`):
            Weigh each row by N / (r n_d), so that all domains count alike whatever their sizes n_d.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none. Stop early, because what the
    > classifier learns by heart about a row's domain is noise for the classes: `eval_strategy="epoch"`,
    > `save_strategy="epoch"`, `load_best_model_at_end=True`, `metric_for_best_model="eval_loss"`.
    """

    domain_column: str = field(default="domain", metadata={"help": "Column with the domain ids."})
    balance_domains: bool = field(default=True, metadata={"help": "Let all domains count alike."})


class LatentLabelShiftTrainer(LabelTrainer):
    """Trains any stock classifier, with one label per domain, to tell domains apart; then finds the classes.

    | input | shape | use |
    | --- | --- | --- |
    | what the model takes | | `pixel_values`, `input_ids`, ... |
    | `domain` | (B,), -1 = unknown | what is learned: cross-entropy, weighted by `balance_domains` |

    A column `labels`, where there is one, is not read. [`find_classes`] does the rest in one call.

    Args:
        model, args, data_collator, train_dataset, eval_dataset, ...: As for `Trainer`. The model has r labels.

    Raises:
        KeyError: From `train()`, if there is no domain column.
        ValueError: From `train()`, for domain ids that the model has no label for, a domain without rows, or streamed
            data whose domains shall be balanced.

    Source: Roberts et al., NeurIPS 2022, arXiv:2207.13179, algorithm 1. The weights are ours: the authors make domains
    of one size.
    """

    args: LatentLabelShiftTrainingArguments
    _slug = "latent_label_shift"

    def __init__(
        self, model: Any = None, args: LatentLabelShiftTrainingArguments | None = None, *rest: Any, **kwargs: Any
    ) -> None:
        args = LatentLabelShiftTrainingArguments() if args is None else args
        super().__init__(model, args, *rest, **kwargs)
        if self.args.label_names is None:
            self.label_names = [self.args.domain_column]
        self.lls: LatentLabelShift | None = None
        self._weights: Tensor | None = None

    def label_kinds(self):
        return {self.args.domain_column: "hard"}

    def count_items(self, inputs):
        return {"rows": (inputs[self.args.domain_column] >= 0).sum()}

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        self._weights = None
        data: Any = self.train_dataset
        if getattr(data, "column_names", None) and hasattr(data, "__len__") and len(data):
            require_columns(data, [self.args.domain_column], "domain_column")
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        domain = inputs.get(self.args.domain_column)
        if domain is None:
            raise ValueError(f"The batch has no column `{self.args.domain_column}`; see `domain_column`.")
        outputs = model(**self.model_inputs(inputs))
        known = domain >= 0
        target = domain.masked_fill(~known, -100)
        logits = outputs.logits.float()
        weights = self.domain_weights().to(logits)
        # not cross_entropy(weight=...): that divides by the weights of the batch
        each = F.cross_entropy(logits, target, reduction="none", ignore_index=-100)
        total = (each * torch.where(known, weights[domain.clamp_min(0)], 0)).sum()
        loss = self.mean_over_update(total, "rows", known.sum())
        return (loss, outputs) if return_outputs else loss

    def domain_weights(self) -> Tensor:
        """`(r,)`: N / (r n_d) of the training data; ones without `balance_domains`.

        Raises:
            ValueError: If a domain has no row.
        """
        if self._weights is None:
            number, column = self.num_classes() or 0, self.args.domain_column
            weights = torch.ones(number)
            counts = self._train_counts() if self.args.balance_domains else None
            if counts is not None:
                if len(counts) > number or not counts.all():
                    raise ValueError(
                        f"Column `{column}` of the training data must show each of the {number} domains of the model, "
                        f"got rows per domain {counts.tolist()}. Number the domains 0 to r - 1, and make the model "
                        "with r labels."
                    )
                weights = torch.as_tensor(counts.sum() / (number * counts), dtype=torch.float32)
            self._weights = weights
        return self._weights

    def find_classes(
        self,
        num_classes: int,
        num_clusters: int | None = None,
        *,
        datasets: Sequence[Any] | None = None,
        class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> LLSForClassification:
        """Discretise, factorise and adjust: the steps of DDFA after the training.

        The fitted tool is kept as `lls` and written into `output_dir`, from where `push_to_hub` takes it along.

        Args:
            num_classes (`int`): K.
            num_clusters (`int`, *optional*): m; 3 K by default.
            datasets (sequence, *optional*): Rows to fit it on. By default training and evaluation data, and the rank
                is tested on the evaluation rows alone when they are of all domains: what the model has learned by
                heart looks like classes on the others. A warning says when there are none.
            class_names (sequence of `str`, *optional*): Names of the classes.
            options: Of [`LatentLabelShift`].

        Returns:
            [`LLSForClassification`]: The classifier of classes; save or push it.

        Raises:
            NotIdentifiedError: (a `ValueError`) If the domains do not show K classes.
        """
        lls = LatentLabelShift(num_classes, num_clusters, **options)  # refuse bad settings before the predictions
        domains = self.num_classes() or 0
        if num_classes > domains:
            raise NotIdentifiedError(f"{num_classes} classes cannot be told apart by {domains} domains.")
        own = datasets is None
        if datasets is None:
            held_out: Any = self.eval_dataset
            others = held_out.values() if isinstance(held_out, dict) else [held_out]
            datasets = [data for data in (self.train_dataset, *others) if data is not None]
        parts: list[Any] = [self.predict(data) for data in datasets]
        ids = np.concatenate([part.label_ids for part in parts])
        answers = (part.predictions for part in parts)
        logits = np.concatenate([one[0] if isinstance(one, tuple) else one for one in answers])
        known = ids >= 0
        balanced = self.args.balance_domains or not hasattr(self.train_dataset, "__len__")
        counts = None if balanced else self._train_counts()
        names = None if self.train_dataset is None else names_of(self.train_dataset, self.args.domain_column)
        fit_names = names if names is not None and len(names) == domains else None
        mask = None
        if own and self.train_dataset is not None:
            fresh = known & (np.arange(len(ids)) >= len(parts[0].label_ids))
            if (np.bincount(ids[fresh], minlength=domains) > 0).all():
                mask = fresh[known]
            else:
                logger.warning(
                    "The rank is tested on rows that the model was trained on, and may find classes that are not "
                    "there. Give the trainer an `eval_dataset` with rows of all %d domains.",
                    domains,
                )
        facts: dict[str, Any] = {"train_counts": counts, "domain_names": fit_names, "held_out": mask}
        lls.fit(logits[known], ids[known], from_logits=True, **facts)
        self.lls = lls
        if self.is_world_process_zero():
            lls.save_pretrained(self.args.output_dir or ".")
        return LLSForClassification.from_discriminator(self.accelerator.unwrap_model(self.model), lls, class_names)

    def _train_counts(self) -> np.ndarray | None:
        """Rows of each domain `(r,)`, or more where ids go beyond; `None` without training data."""
        if self.train_dataset is None:
            return None
        if not hasattr(self.train_dataset, "__len__"):
            raise ValueError("Domains of streamed data cannot be counted before: pass `balance_domains=False`.")
        ids = read_column(self.train_dataset, self.args.domain_column).values
        return np.bincount(ids[ids >= 0].astype(np.int64), minlength=self.num_classes() or 0)

    def card_facts(self, finetuned_from=None):
        return {"extra": card_facts(self.lls)} if self.lls is not None else {}
