"""Functions for `Trainer(compute_metrics=...)`. They take an `EvalPrediction` and return a flat dict of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hf_labels.metrics.functional._inputs import UNKNOWN, to_numpy
from hf_labels.metrics.functional.calibration import IGNORED, calibration_scores
from hf_labels.metrics.functional.entities import entity_f1, tag_rows
from hf_labels.metrics.functional.multilabel import multilabel_f1, multilabel_map, ndcg_at_k, precision_at_k


class TrainerMetrics:
    """A `compute_metrics` made of a function of `(predictions, labels)`.

    Takes item 0 of a tuple of predictions (models with further outputs). With `batch_eval_metrics=True` the
    `Trainer` calls it batch by batch; it keeps the batches and computes at the last one, so the result is that of
    one call.
    """

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], dict[str, Any]]):
        self.function = function
        self._batches: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, prediction: Any, compute_result: bool | None = None) -> dict[str, Any]:
        """
        Args:
            prediction (`EvalPrediction`): `predictions` and `label_ids`.
            compute_result (`bool`, *optional*): Given by the `Trainer` in batch mode; true at the last batch.

        Raises:
            ValueError: If there are no labels, or several label arrays.
        """
        scores, labels = prediction.predictions, prediction.label_ids
        scores = scores[0] if isinstance(scores, tuple | list) else scores
        if isinstance(labels, tuple | list):
            if len(labels) != 1:
                raise ValueError(
                    f"The batch has {len(labels)} label arrays and the metric needs one: set "
                    "`TrainingArguments(label_names=['labels'])`."
                )
            labels = labels[0]
        if labels is None:
            raise ValueError("No labels to compare with: the evaluation data set needs a column `labels`.")
        batch = to_numpy(scores, "predictions"), to_numpy(labels, "label_ids")
        if compute_result is None:
            return self.function(*batch)
        self._batches.append(batch)
        if not compute_result:
            return {}
        parts, self._batches = self._batches, []
        return self.function(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


def make_calibration_metrics(
    n_bins: int = 15, aece_mode: str = "equal_count", from_logits: bool = True
) -> TrainerMetrics:
    """Calibration of a classifier at each evaluation: `eval_ece`, `eval_nll`, `eval_brier`, `eval_accuracy`, ...

    Works for sequence and image classification, logits `(N, C)`, and for token classification, logits `(N, T, C)`;
    labels of -100 do not count. Keys, ranges and errors: [`~hf_labels.metrics.functional.calibration_scores`].

    Args:
        n_bins (`int`, *optional*, defaults to `15`): Number of bins.
        aece_mode (`str`, *optional*, defaults to `"equal_count"`): Or `"reference"`.
        from_logits (`bool`, *optional*, defaults to `True`): False when the model returns probabilities.

    Example:
        Trainer(..., compute_metrics=make_calibration_metrics(n_bins=15))
    """

    def compute(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        if scores.ndim > 2 and scores.ndim == labels.ndim + 1:
            scores, labels = scores.reshape(-1, scores.shape[-1]), labels.ravel()
        return calibration_scores(scores, labels, n_bins=n_bins, from_logits=from_logits, aece_mode=aece_mode)

    return TrainerMetrics(compute)


def multilabel_metrics(
    train_counts: Any = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    threshold: Any = 0.5,
    top_k: int | None = None,
    from_logits: bool = True,
    rank_cutoffs: Sequence[int] = (),
) -> TrainerMetrics:
    """Ranking and decision metrics of a multi-label classifier at each evaluation: `eval_map`, `eval_CF1`,
    `eval_OF1`, ...

    All keys of [`~hf_labels.metrics.functional.multilabel_map`] and [`~hf_labels.metrics.functional.multilabel_f1`]
    in one dict. Labels -1, -100 and NaN are unknown cells.

    Args:
        train_counts (array-like of shape `(C,)`, *optional*): Training positives of each class: adds `map_many`,
            `map_medium`, `map_few`, `map_shot_mean`.
        groups (`dict[str, list[int]]`, *optional*): Own groups of classes: adds `map_<name>`.
        threshold (`float` or `(C,)`, *optional*, defaults to `0.5`): After the sigmoid.
        top_k (`int`, *optional*): Decide by the k best scores instead of the threshold.
        from_logits (`bool`, *optional*, defaults to `True`): False when the model returns probabilities.
        rank_cutoffs (list of `int`, *optional*): Adds `precision_at_<k>` and `ndcg_at_<k>`.

    Example:
        Trainer(..., compute_metrics=multilabel_metrics(train_counts=counts))
    """

    def compute(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        labels = np.where(labels == IGNORED, UNKNOWN, labels)
        result = multilabel_map(scores, labels, train_counts=train_counts, groups=groups)
        result |= multilabel_f1(scores, labels, threshold=threshold, top_k=top_k, from_logits=from_logits)
        if rank_cutoffs:
            result |= precision_at_k(scores, labels, rank_cutoffs) | ndcg_at_k(scores, labels, rank_cutoffs)
        return result

    return TrainerMetrics(compute)


def make_entity_metrics(names: Sequence[str]) -> TrainerMetrics:
    """Whole entities of a tagger at each evaluation: `eval_precision`, `eval_recall`, `eval_f1`, `eval_macro_f1`.

    For token classification, logits `(N, T, K)` or tag ids `(N, T)`; labels of -100 do not count. Keys and ranges:
    [`~hf_labels.metrics.functional.entity_f1`].

    Args:
        names (sequence of `str`): Names of the K tags in the order of their ids: `O`, `B-X`, `I-X`.

    Example:
        Trainer(..., compute_metrics=make_entity_metrics(["O", "B-GENE", "I-GENE"]))
    """

    def compute(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        found = entity_f1(*tag_rows(scores, labels, names))
        return {name: found[name] for name in ("precision", "recall", "f1", "macro_f1")}

    return TrainerMetrics(compute)
