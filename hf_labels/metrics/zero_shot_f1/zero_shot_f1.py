"""Label-wise weighted F1 on seen, unseen and all labels, as an `evaluate` module."""

from typing import Any

import datasets
import evaluate

from hf_labels.metrics.functional import zero_shot

_DESCRIPTION = """\
Label-wise weighted F1 of zero-shot classification: on the labels that had training texts (seen), on those that had
none (unseen), and on all; single-label or multi-label, with a "none" label. From "Benchmarking Zero-shot Text
Classification" (emotion and situation tasks).
"""

_INPUTS = """\
Args:
    predictions, references: one label (name or id) per text, or lists of labels; an empty list is "no label".
    seen_labels: the labels with training texts.
    labels: all labels; references outside them are refused.
    none_label: what "no label" is called; counts as unseen.
    bootstrap (int, defaults to 0), confidence (defaults to 0.95), seed (defaults to 0): intervals by resampling texts.
Returns:
    seen_f1, unseen_f1, all_f1, harmonic_mean, micro_f1, macro_f1 (0 to 1, higher is better), none_rate, n_seen,
    n_unseen; with bootstrap also ..._low and ..._high.
"""


class ZeroShotF1(evaluate.Metric):
    """Zero-shot F1; see [`~hf_labels.metrics.functional.zero_shot_f1`]."""

    def _info(self) -> evaluate.MetricInfo:
        labels = datasets.List(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": labels, "references": labels}),
            reference_urls=["https://arxiv.org/abs/1909.00161"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Takes names, ids, `None`, or lists of names or ids; they are compared as text."""
        both = [
            None if values is None else [_texts(value) for value in values] for values in (predictions, references)
        ]
        super().add_batch(predictions=both[0], references=both[1], **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """One text; as `add_batch`."""
        super().add(prediction=_texts(prediction), reference=_texts(reference), **kwargs)

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        scores: dict[str, Any] = zero_shot.zero_shot_f1(predictions, references, **options)
        return scores


def _texts(value: Any) -> list[str]:
    """The labels of one text: a name, an id or a list of them, from Python, NumPy or torch."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None:
        return []
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return [str(value)]
    return [label for one in value for label in _texts(one)]
