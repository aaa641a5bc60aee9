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
        text = datasets.Value("string")
        kinds = (text, datasets.List(text))  # the first that fits; names and ids are texts by then
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[datasets.Features({"predictions": kind, "references": kind}) for kind in kinds],
            reference_urls=["https://arxiv.org/abs/1909.00161"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Labels are compared as text; an empty first list would not tell numbers from names."""
        super().add_batch(predictions=_texts(predictions), references=_texts(references), **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """One text; as `add_batch`."""
        super().add(prediction=_text(prediction), reference=_text(reference), **kwargs)

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        scores: dict[str, Any] = zero_shot.zero_shot_f1(predictions, references, **options)
        return scores


def _texts(values: Any) -> list[Any] | None:
    return None if values is None else [_text(value) for value in values]


def _text(value: Any) -> Any:
    if isinstance(value, str) or not hasattr(value, "__len__"):
        return str(value.item() if hasattr(value, "item") else value)
    return [_text(one) for one in value]
