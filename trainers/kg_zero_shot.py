"""Training of graph embeddings: negatives for each triple, and filtered ranks as the evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.labels.columns import require_columns
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments

COLUMNS = ("h", "r", "t")


def triple_dataset(triples: Any) -> Any:
    """A `datasets.Dataset` with the columns `h`, `r`, `t` from numbers `(T, 3)`."""
    import datasets

    array = np.asarray(triples, dtype=np.int64).reshape(-1, 3)
    return datasets.Dataset.from_dict({name: array[:, i] for i, name in enumerate(COLUMNS)})


def head_shares(triples: Any, num_relations: int) -> np.ndarray:
    """How often the head is corrupted, by relation: tails per head / (tails per head + heads per tail).

    Source: Wang et al., AAAI 2014 (Bernoulli sampling): fewer negatives that are true.
    """
    array = np.asarray(triples, dtype=np.int64).reshape(-1, 3)
    shares = np.full(num_relations, 0.5)
    for relation in np.unique(array[:, 1]):
        part = array[array[:, 1] == relation]
        per_head = len(part) / len(np.unique(part[:, 0]))
        per_tail = len(part) / len(np.unique(part[:, 2]))
        shares[relation] = per_head / (per_head + per_tail)
    return shares


class NegativeSamplingCollator:
    """Batches of triples with entities that take the place of head or tail.

    Args:
        num_entities (`int`): They are drawn from all, uniformly.
        num_negatives (`int`, *optional*, defaults to 8): K for each triple.
        shares (`(relations,)`, *optional*): How often the head is replaced; see [`head_shares`]. Half by default.

    Returns (when called):
        `h`, `r`, `t` `(B,)`, `neg` `(B, K)` and `corrupt_head` `(B, K)`.
    """

    def __init__(self, num_entities: int, num_negatives: int = 8, shares: Any = None) -> None:
        if num_entities < 2 or num_negatives < 1:
            raise ValueError(
                f"Negatives need two entities and at least one draw, got {num_entities} and {num_negatives}."
            )
        self.num_entities, self.num_negatives = num_entities, num_negatives
        self.shares = None if shares is None else torch.as_tensor(np.asarray(shares), dtype=torch.float32)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = {name: torch.tensor([int(row[name]) for row in rows]) for name in COLUMNS}
        shape = (len(rows), self.num_negatives)
        share = torch.full((len(rows),), 0.5) if self.shares is None else self.shares[batch["r"]]
        heads = torch.rand(shape) < share[:, None]
        right = torch.where(heads, batch["h"][:, None], batch["t"][:, None])
        drawn = torch.randint(self.num_entities - 1, shape)
        return {**batch, "neg": drawn + (drawn >= right), "corrupt_head": heads}  # never the right one itself


@dataclass
class KGEmbeddingTrainingArguments(LabelTrainingArguments):
    """Arguments of [`KGEmbeddingTrainer`].

    Parameters:
        num_negatives (`int`, *optional*, defaults to 8): For each triple.
        bernoulli (`bool`, *optional*, defaults to `False`): Choose the end that is replaced by [`head_shares`].

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: `learning_rate` 1e-2,
    > `per_device_train_batch_size` 512, `lr_scheduler_type` "constant", `weight_decay` 0, `max_grad_norm` 0.
    """

    num_negatives: int = field(default=8, metadata={"help": "Negatives for each triple."})
    bernoulli: bool = field(default=False, metadata={"help": "Replace heads and tails as often as suits a relation."})
    learning_rate: float = field(default=1e-2, metadata={"help": "Of Adam."})
    per_device_train_batch_size: int = field(default=512, metadata={"help": "Triples."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "As in `TrainingArguments`."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "0 for no clipping."})


class KGEmbeddingTrainer(LabelTrainer):
    """Trains a [`~hf_labels.models.kg_zero_shot_embedding.KGEmbeddingModel`].

    Rows hold `h`, `r`, `t` (numbers: [`triple_dataset`]), or `head`, `relation`, `tail` (texts that the model's config
    names). Evaluation adds filtered realistic ranks: `eval_mrr`, `eval_hits@1`, `eval_hits@3`, `eval_hits@10`.

    Args:
        model, args, train_dataset, eval_dataset: As in `Trainer`.
        known (`(M, 3)` integers, *optional*): Further true triples that are no rivals in the ranks (a test part);
            those of the training and of the evaluated data are known anyway.

    Raises:
        KeyError: If a column is missing.
        ValueError: If a triple names an entity or relation that the model does not have; names the row.
    """

    _slug = "kg_zero_shot"
    _min_classes = 1

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        known: Any = None,
        **kwargs: Any,
    ) -> None:
        train, evaluated = (self._numbered(model, part) for part in (train_dataset, eval_dataset))
        if data_collator is None:
            args = KGEmbeddingTrainingArguments("out") if args is None else args
            shares = None
            if args.bernoulli and train is not None:
                shares = head_shares(_array(train), model.config.num_relations)
            data_collator = NegativeSamplingCollator(model.config.num_entities, args.num_negatives, shares)
        super().__init__(model, args, data_collator, train, evaluated, **kwargs)
        if self.args.label_names is None:
            self.label_names = ["t"]  # what `compute_metrics` gets beside the scores
        self._known = np.empty((0, 3), np.int64) if known is None else np.asarray(known, np.int64).reshape(-1, 3)

    @staticmethod
    def _numbered(model: Any, dataset: Any) -> Any:
        if dataset is None or isinstance(dataset, Mapping):
            return dataset
        if "h" not in dataset.column_names:
            require_columns(dataset, ["head", "relation", "tail"])
            dataset = triple_dataset(_by_name(model.config, dataset))
        require_columns(dataset, list(COLUMNS))
        top = np.array([model.config.num_entities, model.config.num_relations, model.config.num_entities])
        triples = _array(dataset)
        bad = np.flatnonzero(((triples < 0) | (triples >= top)).any(1))
        if len(bad):
            raise ValueError(
                f"Row {bad[0]} is the triple {triples[bad[0]].tolist()}, but the model has {top[0]} entities and "
                f"{top[1]} relations."
            )
        return dataset

    def num_classes(self) -> int | None:
        return None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**{name: inputs[name] for name in (*COLUMNS, "neg", "corrupt_head")})
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        test = _array(dataloader.dataset)
        parts = [self._known, test] + ([] if self.train_dataset is None else [_array(self.train_dataset)])
        model: Any = self.accelerator.unwrap_model(self.model)
        scores = model.evaluate_ranks(test, np.concatenate(parts))
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in scores.items() if name != "n"})
        return output


def _array(dataset: Any) -> np.ndarray:
    return np.stack([np.asarray(dataset[name][:], dtype=np.int64) for name in COLUMNS], 1)


def _by_name(config: Any, dataset: Any) -> np.ndarray:
    entity, relation = (
        {name: i for i, name in enumerate(names or ())} for names in (config.entities, config.relations)
    )
    found = []
    for column, known in (("head", entity), ("relation", relation), ("tail", entity)):
        values = dataset[column][:]
        strange = [(row, value) for row, value in enumerate(values) if value not in known]
        if strange:
            raise ValueError(f"`{column}` at row {strange[0][0]} is {strange[0][1]!r}, which the model does not know.")
        found.append([known[value] for value in values])
    return np.stack(found, 1)
