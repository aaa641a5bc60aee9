"""`EntityMetricTrainer`: name tagging with a metric loss between entities, on a source and then on a target."""

import copy
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_labels.data.name_tagging_metric import EntityMetricCollator
from hf_labels.labels.kinds import IGNORE_INDEX
from hf_labels.labels.name_tagging_metric import check_tag_names, pseudo_tags
from hf_labels.losses.name_tagging_metric import MultiSimilarity, multi_similarity_loss, pool_entities
from hf_labels.metrics import make_entity_metrics
from hf_labels.models.heads import find_head, head_inputs, new_head
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments

logger = logging.getLogger(__name__)

FACTS_FILE = "entity_metric.json"
STAGES = ("grouping", "discrimination")


@dataclass
class EntityMetricTrainingArguments(LabelTrainingArguments):
    """Arguments of [`EntityMetricTrainer`].

    Parameters:
        stage (`str`, *optional*, defaults to `"discrimination"`):
            `"grouping"` on the source (entities of one type together), or `"discrimination"` on the target (source
            entities that another tagger saw apart from target entities).
        metric_weight (`float`, *optional*):
            Weight of the metric loss (lambda); 0 is plain token classification. By default 1.2 when grouping and 0.1
            when discriminating, as in the authors' configuration.
        ms_alpha (`float`, *optional*):
            Sharpness of positive pairs: 4 when grouping, 2 when discriminating.
        ms_beta (`float`, *optional*):
            Sharpness of negative pairs: 3 when grouping, 5 when discriminating.
        ms_alpha_weight (`float`, *optional*, defaults to `8.0`):
            Weight of the similarity matrix in the exponents of positive pairs.
        ms_beta_weight (`float`, *optional*, defaults to `6.0`):
            The same for negative pairs.
        ms_threshold (`float`, *optional*, defaults to `0.5`):
            Cosine at which a pair is neutral.
        ms_margin (`float`, *optional*, defaults to `0.1`):
            Margin of the mining.
        exclude_self (`bool`, *optional*, defaults to `False`):
            An entity is not its own positive.
        ce_normalization (`str`, *optional*, defaults to `"words"`):
            `"words"`: cross-entropy over the labelled words; `"padded"`: over all positions, as the authors' code
            does, with which a `metric_weight` of 0.1 is 0.1 * positions / words here.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: none. The authors use `learning_rate=1e-4`
    > with adapters (5e-5 for full training), `weight_decay=1e-5`, batches of 64 (source) and 16 (target).
    """

    stage: Literal["grouping", "discrimination"] = field(
        default="discrimination", metadata={"help": "grouping (source) or discrimination (target)."}
    )
    metric_weight: float | None = field(default=None, metadata={"help": "Weight of the metric loss; 0 or more."})
    ms_alpha: float | None = field(default=None, metadata={"help": "Sharpness of positive pairs; above 0."})
    ms_beta: float | None = field(default=None, metadata={"help": "Sharpness of negative pairs; above 0."})
    ms_alpha_weight: float = field(default=8.0, metadata={"help": "Weight of the similarity, positive pairs."})
    ms_beta_weight: float = field(default=6.0, metadata={"help": "Weight of the similarity, negative pairs."})
    ms_threshold: float = field(default=0.5, metadata={"help": "Cosine at which a pair is neutral."})
    ms_margin: float = field(default=0.1, metadata={"help": "Margin of the mining."})
    exclude_self: bool = field(default=False, metadata={"help": "An entity is not its own positive."})
    ce_normalization: Literal["words", "padded"] = field(
        default="words", metadata={"help": "Cross-entropy over labelled words, or over all positions."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.stage not in STAGES:
            raise ValueError(f"`stage` must be grouping or discrimination, got {self.stage!r}.")
        if self.ce_normalization not in ("words", "padded"):
            raise ValueError(f"`ce_normalization` must be words or padded, got {self.ce_normalization!r}.")
        grouping = self.stage == "grouping"
        defaults = {"metric_weight": (1.2, 0.1), "ms_alpha": (4.0, 2.0), "ms_beta": (3.0, 5.0)}
        for name, (first, second) in defaults.items():
            if getattr(self, name) is None:
                setattr(self, name, first if grouping else second)
        if not self.metric_weight >= 0:  # type: ignore[operator]
            raise ValueError(f"`metric_weight` must be 0 or more, got {self.metric_weight}.")
        for name in ("ms_alpha", "ms_beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be above 0, got {getattr(self, name)}.")


class EntityMetricTrainer(LabelTrainer):
    """Trains a tagger with `CE + metric_weight * MS`, MS over the entities of a batch.

    Inputs: those of the model | `labels` (B, T), tags O = 0, B- odd, I- even at first tokens of words, else -100 |
    `pseudo_tags` (B, T), 1, 2 or 0 (discrimination) | `entity_ids` (B, T), rows of `similarity` or of `clusters`,
    -1 = not known (grouping, optional).

    Grouping pulls source entities of one type (or of one cluster) together. Discrimination merges all target entities
    and pushes apart from them what a source tagger saw elsewhere in the sentence ([`pseudo_source_tags`]); the
    cross-entropy of those words stays that of O.

    The features are what goes into the tag head, after dropout. The mean over entities is that of the whole update.

    Args:
        model, args, data_collator, train_dataset, eval_dataset, ...: As for `Trainer`; `args` are
            [`EntityMetricTrainingArguments`], the model any for token classification. The default collator pads all
            columns; the default metric is [`~hf_labels.metrics.make_entity_metrics`].
        similarity (array of shape `(n, n)`, *optional*): Of entities, from
            [`~hf_labels.labels.name_tagging_metric.event_similarity`]. Needs the column `entity_ids`.
        clusters (sequence of `int`, *optional*): Metric label of each entity id, in place of its tag.

    Raises:
        TypeError: If `args` are others.
        ValueError: For tags of the model that are not in the order O, B-X, I-X; a matrix that is not square or holds
            NaN; from `train()`, for tags out of range.

    Source: Liu et al., NAACL 2024, arXiv:2401.10472, sections 3.2 and 3.3; losses as in the authors' code.
    """

    args: EntityMetricTrainingArguments
    _slug = "name_tagging_metric"
    _extra_columns: ClassVar[tuple[str, ...]] = ("pseudo_tags", "entity_ids")
    _required_columns: ClassVar[tuple[str, ...]] = ("labels",)

    def __init__(
        self,
        model: Any = None,
        args: EntityMetricTrainingArguments | None = None,
        data_collator: Any = None,
        *rest: Any,
        similarity: Any = None,
        clusters: Any = None,
        **kwargs: Any,
    ) -> None:
        args = EntityMetricTrainingArguments() if args is None else args
        if not isinstance(args, EntityMetricTrainingArguments):
            raise TypeError(f"`args` must be EntityMetricTrainingArguments, got {type(args).__name__}.")
        if data_collator is None:
            data_collator = EntityMetricCollator(kwargs.get("processing_class"))
        own = kwargs.get("compute_metrics") is None and getattr(model, "config", None) is not None
        if own:
            names = [model.config.id2label[number] for number in range(model.config.num_labels)]
            kwargs |= {"compute_metrics": make_entity_metrics(names), "preprocess_logits_for_metrics": _best}
        super().__init__(model, args, data_collator, *rest, **kwargs)
        config: Any = self.bare_model.config
        check_tag_names([config.id2label[number] for number in range(config.num_labels)])
        self.similarity = _square(similarity)
        self.clusters = None if clusters is None else torch.as_tensor(np.asarray(clusters), dtype=torch.int64)

    @property
    def bare_model(self) -> Any:
        """The model without wrappers."""
        return self.accelerator.unwrap_model(self.model)

    def train(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None):
        self._check_columns()
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def count_items(self, inputs):
        labels = inputs["labels"]
        counts = {"words": (labels != IGNORE_INDEX).sum(), "positions": labels.numel()}
        if self._with_metric(inputs):
            one = torch.ones(*labels.shape, 1, device=labels.device)
            counts["entities"] = self._keep(pool_entities(one, labels, *self._extra(inputs)))[0].sum()
        return counts

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs["labels"]
        training = self._eval_rows is None
        if not training or not self._with_metric(inputs):
            outputs = model(**self.model_inputs(inputs))
            loss = self._cross_entropy(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss
        with head_inputs(self.bare_model) as seen:
            outputs = model(**self.model_inputs(inputs))
        assert seen.features is not None
        loss = self._cross_entropy(outputs.logits, labels)
        found, count = self._metric(seen.features, inputs)
        term = self.mean_over_update(found.loss * count, "entities", count)
        pairs = (found.positives + found.negatives).sum()
        self.log_terms(ce=loss.detach(), metric=term.detach(), entities=float(count), pairs=pairs.float())
        loss = loss + float(self.args.metric_weight or 0.0) * term
        return (loss, outputs) if return_outputs else loss

    def _with_metric(self, inputs: Mapping[str, Any]) -> bool:
        grouping = self.args.stage == "grouping"
        return bool(self.args.metric_weight) and (grouping or inputs.get("pseudo_tags") is not None)

    def _extra(self, inputs: Mapping[str, Any]) -> tuple[Tensor | None, Tensor | None]:
        """Pseudo tags and entity ids, as the stage reads them."""
        if self.args.stage == "discrimination":
            return inputs["pseudo_tags"], None
        needed = self.similarity is not None or self.clusters is not None
        return None, inputs["entity_ids"] if needed else None

    def _keep(self, entities: Any) -> tuple[Tensor, Tensor]:
        """Which entities count, and their metric labels."""
        if self.args.stage == "discrimination":
            return torch.ones_like(entities.is_pseudo), entities.is_pseudo.long()
        if self.clusters is None:
            return torch.ones_like(entities.is_pseudo), entities.labels
        labels = self.clusters.to(entities.ids.device)[entities.ids]
        return labels >= 0, labels

    def _metric(self, features: Tensor, inputs: Mapping[str, Any]) -> tuple[MultiSimilarity, int]:
        entities = pool_entities(features, inputs["labels"], *self._extra(inputs))
        kept, labels = self._keep(entities)
        known = None
        if self.similarity is not None and self.args.stage == "grouping":
            ids = entities.ids[kept].cpu()
            known = self.similarity[ids][:, ids].to(features.device)
        args: Any = self.args
        found = multi_similarity_loss(
            entities.features[kept],
            labels[kept],
            known,
            alpha=args.ms_alpha,
            beta=args.ms_beta,
            alpha_weight=args.ms_alpha_weight,
            beta_weight=args.ms_beta_weight,
            threshold=args.ms_threshold,
            margin=args.ms_margin,
            exclude_self=args.exclude_self,
        )
        return found, int(kept.sum())

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        total = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )
        if self.args.ce_normalization == "padded":
            return self.mean_over_update(total, "positions", labels.numel())
        return self.mean_over_update(total, "words", (labels != IGNORE_INDEX).sum())

    def _check_columns(self) -> None:
        columns = getattr(self.train_dataset, "column_names", None)
        if columns is None or "labels" not in columns:
            return  # a stream, or `train` says what is missing
        if not len(self.train_dataset):  # type: ignore[arg-type]
            raise ValueError("The training data set is empty.")
        _check_tags(self.train_dataset, self.num_classes() or 0)
        if self.args.stage == "discrimination":
            seen = "pseudo_tags" in columns and any(any(t) for t in self.train_dataset["pseudo_tags"])  # type: ignore
            if not seen and self.args.metric_weight:
                logger.warning(
                    "There is no pseudo entity in the training data: discrimination is plain token classification. "
                    "Make the column `pseudo_tags` with `pseudo_source_tags`."
                )
        elif (self.similarity is not None or self.clusters is not None) and "entity_ids" not in columns:
            raise KeyError(
                f"Column `entity_ids` is missing; the data set has: {', '.join(columns)}. `similarity` and `clusters` "
                "are about entity ids."
            )

    def card_facts(self, finetuned_from: str | None = None) -> dict[str, Any]:
        """Stage and metric."""
        return {"extra": {"stage": self.args.stage, "metric weight": self.args.metric_weight}}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        names = [name for name in asdict(self.args) if name.startswith("ms_")]
        facts = {name: getattr(self.args, name) for name in ("stage", "metric_weight", "ce_normalization", *names)}
        columns = getattr(self.train_dataset, "column_names", None) or ()
        if "pseudo_tags" in columns:
            tags = [tag for row in self.train_dataset["pseudo_tags"] for tag in row]  # type: ignore[index]
            facts |= {"pseudo_entities": tags.count(1), "pseudo_words": len(tags) - tags.count(0)}
        path = Path(output_dir or self.args.output_dir or ".") / FACTS_FILE
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        os.replace(draft, path)


def pseudo_source_tags(model: nn.Module, dataset: Any, *, collator: Any = None, batch_size: int = 32) -> Any:
    """Tag target sentences with a source tagger; adds the column `pseudo_tags`.

    Args:
        model (`nn.Module`): The tagger of stage 1 with its source head.
        dataset (`datasets.Dataset`): Tokenized target sentences with `labels` (target tags).
        collator (*optional*), batch_size (`int`, *optional*): Of the forward passes.

    Returns:
        `datasets.Dataset`: `pseudo_tags`: 1 and 2 at words whose gold tag is O and whose predicted source tag begins
        or goes on with an entity, else 0. Gold target words are never pseudo.
    """
    config: Any = model.config
    check_tag_names([config.id2label[number] for number in range(config.num_labels)])
    collate = EntityMetricCollator() if collator is None else collator
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    found: list[list[int]] = []
    try:
        for start in range(0, len(dataset), batch_size):
            rows = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
            batch = collate([{k: v for k, v in row.items() if k not in ("pseudo_tags", "entity_ids")} for row in rows])
            labels = batch.pop("labels")
            inputs = {name: value.to(device) for name, value in batch.items() if torch.is_tensor(value)}
            with torch.no_grad():
                best = model(**inputs).logits.argmax(-1).cpu()
            left = getattr(getattr(collate, "tokenizer", None), "padding_side", "right") == "left"
            for row, gold, guess in zip(rows, labels.tolist(), best.tolist(), strict=True):
                size = len(row["labels"])
                part = slice(len(gold) - size, None) if left else slice(0, size)
                found.append(pseudo_tags(gold[part], guess[part]))
    finally:
        model.train(training)
    if "pseudo_tags" in dataset.column_names:
        dataset = dataset.remove_columns("pseudo_tags")
    if not any(any(row) for row in found):
        logger.warning("The source tagger sees no entity outside the gold ones: nothing is there to discriminate.")
    return dataset.add_column("pseudo_tags", found)


def transfer_encoder(model: nn.Module, names: list[str]) -> Any:
    """The encoder of a trained tagger with a fresh head for other tags: a copy.

    Args:
        model (`nn.Module`): The tagger of stage 1.
        names (list of `str`): Tags of the target: `O`, `B-X`, `I-X`, ...

    Raises:
        ValueError: For tags in another order.
    """
    check_tag_names(names)
    find_head(model)
    fresh: Any = copy.deepcopy(model)
    new_head(fresh, len(names))
    fresh.config.id2label = dict(enumerate(names))
    fresh.config.label2id = {name: number for number, name in enumerate(names)}
    return fresh


def _best(logits: Any, labels: Tensor) -> Tensor:
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)


def _square(similarity: Any) -> Tensor | None:
    if similarity is None:
        return None
    matrix = torch.as_tensor(np.asarray(similarity), dtype=torch.float32)
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1] or not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"`similarity` must be a square matrix of finite numbers, got {tuple(matrix.shape)}.")
    return matrix


def _check_tags(dataset: Any, count: int) -> None:
    for row, tags in enumerate(dataset.with_format(None)["labels"]):
        wrong = [tag for tag in tags if not (tag == IGNORE_INDEX or -1 <= tag < count)]
        if wrong:
            raise ValueError(
                f"Column `labels` has tag {wrong[0]} at row {row}; the model has the tags 0 to {count - 1}."
            )
