"""`LLPTrainer` learns from bags; `LLPBootstrapper` alternates belief propagation and training."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits as _bce

from hf_labels.data.encoders import make_encoder
from hf_labels.data.features import FeatureCache
from hf_labels.data.llp_bp import INPUTS, BagCollator, bag_dataset, input_names, read_inputs
from hf_labels.labels.columns import read_column, require_columns
from hf_labels.labels.llp_bp import bag_proportions, llp_pseudo_labels
from hf_labels.losses.llp_bp import bag_means, probability_bce
from hf_labels.models.llp_bp import AutoModelWithBagHead
from hf_labels.trainers.base import LabelTrainer, LabelTrainingArguments
from hf_labels.trainers.rounds import RoundsResult, fit_rounds
from hf_labels.trainers.teachers import EMATeacher

OBJECTIVES = ("pseudo", "proportion")
_FIXED = (
    "objective", "bag_weight", "consistency_weight", "learning_rate", "num_train_epochs", "max_steps", "seed",
    "per_device_train_batch_size",
)  # fmt: skip
CONFIG_FILE = "llp_config.json"


@dataclass
class LLPTrainingArguments(LabelTrainingArguments):
    """Arguments of [`LLPTrainer`]; a batch of `per_device_train_batch_size` counts bags.

    Parameters:
        objective (`str`, *optional*, defaults to `"pseudo"`): `"pseudo"` learns pseudo-labels and proportions (the
            aggregate embedding loss), `"proportion"` the mean of the predictions of a bag (DLLP, the baseline).
        bag_weight (`float`, *optional*, defaults to 0.1): lambda_a, of the bag head.
        consistency_weight (`float`, *optional*, defaults to 0.0): Of the distance to an averaged teacher ("mean
            teacher of bags", with `"proportion"`); needs dropout.
        ema_decay (`float`, *optional*, defaults to 0.99): Of that teacher.

    > [!NOTE] Defaults that differ from [`~transformers.TrainingArguments`]: `learning_rate` 1e-3, as published for a
    > tabular network.
    """

    objective: str = field(default="pseudo", metadata={"help": "pseudo or proportion."})
    bag_weight: float = field(default=0.1, metadata={"help": "Weight of the bag head."})
    consistency_weight: float = field(default=0.0, metadata={"help": "Weight of the averaged teacher."})
    learning_rate: float = field(default=1e-3, metadata={"help": "Of AdamW."})
    ema_decay: float = field(default=0.99, metadata={"help": "Of the averaged teacher."})

    def __post_init__(self):
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"`objective` must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}.")
        for name in ("bag_weight", "consistency_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be 0 or more, got {getattr(self, name)}.")


class LLPTrainer(LabelTrainer):
    """Trains a [`~hf_labels.models.llp_bp.AutoModelWithBagHead`] on bags.

    | column | shape | use |
    | --- | --- | --- |
    | `features`, `input_ids`, ... | (n, ...) lists of rows | what the model reads |
    | `target` | (n,), 0 to 1 | pseudo-labels, for `objective="pseudo"` |
    | `proportion` | () | share of positives of the bag |

    Make such data with [`bag_dataset`]. Evaluation gives the same loss on other bags, and `eval_bag_proportion_error`:
    no label of an instance is read.

    Source: Havaldar et al., arXiv:2310.08056. Baseline: Ardehaly and Culotta, ICDM 2017 (DLLP).
    """

    args: LLPTrainingArguments
    _slug = "llp_bp"
    _min_classes = 1
    _required_columns = ("proportion",)
    _extra_columns = ("target", "index")

    def __init__(self, model: Any = None, args: Any = None, data_collator: Any = None, *rest: Any, **kwargs: Any):
        args = LLPTrainingArguments("out") if args is None else args
        super().__init__(model, args, data_collator or BagCollator(), *rest, **kwargs)
        if self.args.label_names is None:
            self.label_names = ["proportion"]

    def num_classes(self) -> int | None:
        return None

    def init_method_state(self) -> None:
        if self.args.consistency_weight > 0:
            self.method_state = EMATeacher(self.accelerator.unwrap_model(self.model), decay=self.args.ema_decay)

    def count_items(self, inputs):
        return {"rows": torch.as_tensor(len(inputs["bag"])), "bags": torch.as_tensor(len(inputs["proportion"]))}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        proportions, bag = inputs["proportion"], inputs["bag"]
        given = {name: inputs[name] for name in INPUTS if name in inputs}
        outputs = model(**given, bag=bag, num_bags=len(proportions))
        odds = outputs.logits.float() @ outputs.logits.new_tensor([-1.0, 1.0], dtype=torch.float32)
        probs = odds.sigmoid()
        means = bag_means(probs, bag, len(proportions))
        apart = (means.detach() - proportions).abs().sum()
        self.log_terms(bag_proportion_error=self.mean_over_update(apart, "bags", len(proportions)))
        if self.args.objective == "proportion":
            loss = self.mean_over_update(probability_bce(means, proportions).sum(), "bags", len(proportions))
        else:
            if "target" not in inputs:
                raise ValueError(
                    "The bags have no `target`: give pseudo-labels to `bag_dataset`, or train proportions."
                )
            rows = self.mean_over_update(_bce(odds, inputs["target"], reduction="sum"), "rows", len(probs))
            whole = _bce(outputs.bag_logits.float(), proportions, reduction="sum")
            bags = self.mean_over_update(whole, "bags", len(proportions))
            self.log_terms(instance_loss=rows, bag_loss=bags)
            loss = rows + self.args.bag_weight * bags
        if isinstance(self.method_state, EMATeacher) and model.training:
            with torch.no_grad():
                calm = self.method_state(**given).logits.float().softmax(-1)[:, 1]
            drift = self.mean_over_update((probs - calm).square().sum(), "rows", len(probs))
            loss = loss + self.args.consistency_weight * drift
        return (loss, outputs) if return_outputs else loss


@torch.no_grad()
def predict_instances(model: Any, dataset: Any, batch_size: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """p(y = 1) `(N,)` and embeddings `(N, d)` of instances.

    Args:
        model ([`~hf_labels.models.llp_bp.AutoModelWithBagHead`]), dataset (`datasets.Dataset`): With its inputs.
        batch_size (`int`, *optional*, defaults to 1024): Rows.
    """
    was = model.training
    model.eval()
    names = input_names(dataset)
    probs, embeddings = [], []
    for start in range(0, len(dataset), batch_size):
        part = dataset.select(range(start, min(start + batch_size, len(dataset))))
        batch = BagCollator()([{**read_inputs(part, names), "proportion": 0.0}])
        outputs = model(**{name: batch[name].to(model.device) for name in INPUTS if name in batch})
        probs.append(outputs.logits.float().softmax(-1)[:, 1].cpu().numpy())
        embeddings.append(outputs.embeddings.float().cpu().numpy())
    model.train(was)
    return np.concatenate(probs), np.concatenate(embeddings)


class LLPBootstrapper:
    """Rounds of LLP-BP: a graph on embeddings, belief propagation, a learner trained from the start on its labels.

        boot = LLPBootstrapper(lambda: AutoModelWithBagHead(BagHeadConfig(num_features=16)), args, lambda_s=1.0)
        model = boot.fit(dataset, "bag_id", {0: 3, 1: 5})

    Args:
        model_init (callable): Makes a new model for each round.
        args ([`LLPTrainingArguments`]): Of each learner; its `output_dir` holds the rounds.
        rounds (`int`, *optional*, defaults to 2): Graph, labels, learner; the first graph is on the raw inputs.
        soft_targets (`bool`, *optional*, defaults to `False`): Train on the marginals instead of rounded labels.
        text_encoder (*optional*): For texts: the frozen encoder of the first graph, an id, a folder or what else
            [`~hf_labels.data.encoders.make_encoder`] takes. Its vectors are computed once and cached.
        text_column (`str`, *optional*, defaults to `"text"`): What it reads.
        callbacks (sequence, *optional*): Of each learner's trainer.
        inference: Settings of [`~hf_labels.labels.llp_bp.llp_pseudo_labels`].

    Finished rounds are kept: called again with the same `output_dir`, the rest is done.
    """

    def __init__(
        self,
        model_init: Callable[[], AutoModelWithBagHead],
        args: LLPTrainingArguments,
        *,
        rounds: int = 2,
        soft_targets: bool = False,
        text_encoder: Any = None,
        text_column: str = "text",
        callbacks: Sequence[Any] = (),
        **inference: Any,
    ) -> None:
        if rounds < 1:
            raise ValueError(f"`rounds` must be at least 1, got {rounds}.")
        self.model_init, self.args, self.rounds = model_init, args, rounds
        self.text_encoder, self.text_column = text_encoder, text_column
        self.soft_targets, self.callbacks, self.inference = soft_targets, list(callbacks), inference
        self.result: RoundsResult | None = None

    def settings(self) -> dict[str, Any]:
        """What must not change between an interruption and its continuation."""
        plain = {name: value for name, value in self.inference.items() if isinstance(value, int | float | str)}
        named = isinstance(self.text_encoder, str | Path)
        encoder = {"text_encoder": str(self.text_encoder)} if named else {}
        return plain | encoder | {name: getattr(self.args, name) for name in _FIXED}

    def fit(
        self,
        dataset: Any,
        bag_column: str = "bag_id",
        bag_counts: Any = None,
        *,
        proportions: Any = None,
        embeddings: Any = None,
        eval_bags: Any = None,
    ) -> AutoModelWithBagHead:
        """Run the rounds.

        Args:
            dataset (`datasets.Dataset`): Instances with their inputs and `bag_column`.
            bag_column (`str`, *optional*, defaults to `"bag_id"`)
            bag_counts, proportions: Positives of each bag, or their shares; one of them.
            embeddings (`(N, d)`, *optional*): Of the first graph; by default those of `text_encoder`, without one the
                column `features`.
            eval_bags (`datasets.Dataset`, *optional*): Held-out bags from [`bag_dataset`], for early stopping by their
                loss: no label of an instance is used.

        Returns:
            The model of the last round. `result.history` has a row of numbers for each.

        Raises:
            KeyError: If a column is missing.
            OSError: If the encoder cannot be loaded.
            ValueError: If nothing gives the embeddings of the first graph; if neither or both of counts and
                proportions are given; or as in `llp_pseudo_labels`.
        """
        require_columns(dataset, [bag_column], "bag_column")
        if (bag_counts is None) == (proportions is None):
            raise ValueError("Give exactly one of `bag_counts` and `proportions`.")
        ids = read_column(dataset, bag_column).values
        counts = bag_proportions(ids, proportions) if bag_counts is None else bag_counts
        first = self._first_embeddings(dataset, embeddings)
        folder = str(self.args.output_dir)

        def estimate(model: Any, place: Any) -> dict[str, np.ndarray]:
            table = first if model is None else predict_instances(model, dataset)[1]
            found = llp_pseudo_labels(table, ids, counts, **self.inference)
            return {"probs": found.probs.astype(np.float32), "labels": found.labels.astype(np.int64)}

        def train(labels: Any, place: Any) -> tuple[Any, dict[str, float]]:
            args = copy.copy(self.args)
            args.output_dir = str(place.folder)  # where `place.checkpoint` looks after an interruption
            target = np.asarray(labels["probs"] if self.soft_targets else labels["labels"])
            bags = bag_dataset(dataset, ids, counts, target)
            torch.manual_seed(self.args.seed)
            options: dict[str, Any] = {"train_dataset": bags, "eval_dataset": eval_bags}
            trainer = LLPTrainer(self.model_init(), args, callbacks=self.callbacks, **options)
            done = trainer.train(resume_from_checkpoint=place.checkpoint)
            model = trainer.accelerator.unwrap_model(trainer.model)
            model.save_pretrained(place.folder / "model")
            positive = float(np.mean(np.asarray(labels["labels"])))
            return model.eval(), {"train_loss": float(done.training_loss), "positive_share": positive}

        def load(place: Any) -> Any:
            model: Any = AutoModelWithBagHead.from_pretrained(Path(place.folder) / "model")
            return model.to(self.args.device).eval()

        plan = {"soft_targets": self.soft_targets, "rows": len(dataset), **self.settings()}
        self.result = fit_rounds(estimate, train, self.rounds, folder, load=load, settings=plan)
        return self.result.state

    def _first_embeddings(self, dataset: Any, embeddings: Any) -> np.ndarray:
        if embeddings is not None:
            return np.asarray(embeddings)
        if self.text_encoder is not None:
            require_columns(dataset, [self.text_column], "text_column")
            encoder = make_encoder(self.text_encoder, None)
            return FeatureCache(encoder.key()).get(dataset[self.text_column][:], encoder.encode)["features"]
        if "features" not in dataset.column_names:
            raise ValueError(
                "Nothing gives the first graph: the data set has no column `features`. Pass `embeddings` to `fit`, or "
                "`text_encoder` for texts."
            )
        return read_column(dataset, "features").matrix()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model of the last round, and `llp_config.json`: settings and the numbers of each round.

        Raises:
            RuntimeError: Before `fit`.
        """
        if self.result is None:
            raise RuntimeError("There is no model yet: call `fit` first.")
        self.result.state.save_pretrained(folder)
        content = {"rounds": self.rounds, "soft_targets": self.soft_targets, **self.settings()}
        text = json.dumps(content | {"history": self.result.history}, indent=2, default=str)
        (Path(folder) / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
