"""Mean average precision of multi-label scores, also by frequent and rare classes, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate
import numpy as np

from hf_labels.metrics.functional import multilabel

_DESCRIPTION = """\
Mean average precision of multi-label scores: over classes, over cells, weighted, and over many-shot, medium-shot and
few-shot classes or groups of your own. Unknown labels are left out cell by cell; ties count as in scikit-learn.
"""

_INPUTS = """\
Args:
    predictions: rows of C scores or logits; only their order counts.
    references: rows of C labels, 0 or 1, with -1 or NaN for unknown; or lists of class ids, with num_classes.
    train_counts: C numbers of training positives; adds map_many, map_medium, map_few and map_shot_mean.
    groups: dict of name to class ids; adds map_NAME.
    label_subset: class ids that count.
    many, few (int, default to 100 and 20): limits of the shot groups.
    empty_class (str, defaults to "nan"): "nan" leaves out classes without a positive, "zero" gives them 0.
    num_classes (int): C, when the references are lists of class ids.
    per_class (bool, defaults to False): add ap, one number for each class.
    episode_ids: one id for each row; adds map_mean, map_std, map_ci95 and n_episodes over the episodes.
Returns:
    map, micro_map, weighted_map (0 to 1, higher is better), n_classes_without_positive (count), and the above.
"""


class MultilabelMap(evaluate.Metric):
    """Multi-label mAP; see [`~hf_labels.metrics.functional.multilabel_map`] for the formulas."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": row, "references": row}),
            reference_urls=[
                "https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html"
            ],
        )

    def _compute(self, predictions: Any, references: Any, episode_ids: Any = None, **options: Any) -> dict[str, Any]:
        scores = multilabel.multilabel_map(predictions, references, **options)
        if episode_ids is None:
            return scores
        ids = np.asarray(episode_ids)
        if ids.shape != (len(predictions),):
            raise ValueError(f"`episode_ids` must have shape ({len(predictions)},), got {ids.shape}.")
        if options.get("num_classes") is not None:
            raise ValueError("`episode_ids` needs multi-hot references: leave out `num_classes`.")
        predictions, references = np.asarray(predictions), np.asarray(references)
        episodes = [(predictions[ids == one], references[ids == one]) for one in np.unique(ids)]
        return scores | multilabel.episode_map(episodes, options.get("label_subset"))
