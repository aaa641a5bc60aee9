"""Scores of labels from probabilities: low = suspicious.

Source: Northcutt et al., arXiv:1911.00068 and arXiv:2103.14749; ensembles and adjusted scores as in the public
library.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.labels.confident_joint import TOLERANCE, Scan, best_other, blocks, scan
from hf_labels.labels.kinds import check_values

SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
WEIGHTS = ("uniform", "accuracy", "log_loss_search")
_TEMPERATURES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 200.0)


def check_probs(labels: Any, pred_probs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels `(N,)` as int64 and probabilities `(N, K)`, after the checks.

    Raises:
        ValueError: For other shapes, fewer than two classes, a label outside of the K classes or negative, a single
            class, NaN, or values outside of [0, 1]; names the row. Rows that do not sum to 1 are only warned about.
    """
    probs = np.asarray(pred_probs)
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise ValueError(
            f"`pred_probs` has shape {probs.shape}, expected (N, K) with K >= 2: one probability per row and class. "
            "For two classes and one probability p, pass the columns 1 - p and p."
        )
    given = np.asarray(labels)
    if given.shape != (len(probs),):
        raise ValueError(
            f"`labels` has shape {given.shape}, `pred_probs` has {len(probs)} rows; expected one label each."
        )
    if not len(given):
        raise ValueError("`labels` is empty; there is nothing to judge.")
    check_values(given, "hard", column="labels", num_labels=probs.shape[1], optional_missing=False)
    given = given.astype(np.int64)
    if (given == given[0]).all():
        raise ValueError(
            f"`labels` holds class {given[0]} only; errors show where another class is likelier. Give two."
        )
    _check_range(probs)
    return given, probs


def _check_range(probs: np.ndarray) -> None:
    off, first, ones = 0, 0, np.ones(probs.shape[1])
    for rows, part in blocks(probs):
        if not (part.min() >= -TOLERANCE and part.max() <= 1 + TOLERANCE):  # NaN too
            fine = (part >= -TOLERANCE) & (part <= 1 + TOLERANCE)
            row = rows.start + int((~fine).any(1).argmax())
            raise ValueError(
                f"`pred_probs` holds {probs[row].tolist()[:8]} at row {row}; expected numbers in [0, 1] without NaN. "
                "Apply softmax to logits."
            )
        wrong = np.flatnonzero(np.abs(part @ ones - 1) > 1e-3)
        first = rows.start + int(wrong[0]) if len(wrong) and not off else first
        off += len(wrong)
    if off:
        import warnings

        warnings.warn(
            f"{off} rows of `pred_probs` do not sum to 1 (first: row {first}, {float(probs[first].sum()):.4f}); they "
            "are used as they are. Normalise them if they should be a distribution.",
            stacklevel=3,
        )


def label_quality(
    labels: Any, pred_probs: Any, method: str = "self_confidence", adjust_pred_probs: bool = False
) -> np.ndarray:
    """How plausible each label is, `(N,)` in [0, 1]: low = suspicious.

    Args:
        labels (array of shape `(N,)`): Given class ids.
        pred_probs (array of shape `(N, K)`): Out-of-sample probabilities.
        method (`str`, *optional*): `self_confidence` (probability of the label), `normalized_margin` ((that minus the
            best other + 1) / 2), or `confidence_weighted_entropy`.
        adjust_pred_probs (`bool`, *optional*, defaults to `False`): Subtract the mean self-confidence of each class
            first; not for entropy.

    Raises:
        ValueError: For another method, or data as in [`check_probs`].
    """
    return score_rows(*check_probs(labels, pred_probs), None, method, adjust_pred_probs)


def score_rows(labels: np.ndarray, probs: np.ndarray, known: Scan | None, method: str, adjust: bool) -> np.ndarray:
    """[`label_quality`] of checked values; `known` saves the pass over them."""
    if method not in SCORES:
        raise ValueError(f"`method` is {method!r}, expected one of {', '.join(SCORES)}.")
    if adjust and method == "confidence_weighted_entropy":
        raise ValueError("`adjust_pred_probs` has no meaning for confidence_weighted_entropy; use another score.")
    known = known or scan(labels, probs)
    if method == "confidence_weighted_entropy":
        ratio = _entropy(probs) / np.maximum(known.own, 1e-6)
        scores: np.ndarray = np.log(ratio + 1) / np.maximum(ratio, 1e-6)
        return scores
    own, shown = _adjusted(labels, probs, known.thresholds) if adjust else (known.own, probs)
    return own if method == "self_confidence" else (own - best_other(labels, shown) + 1) / 2


def _entropy(probs: np.ndarray) -> np.ndarray:
    """Entropy per row over that of K equal classes."""
    from scipy.special import entr

    out = np.empty(len(probs))
    for rows, part in blocks(probs):
        out[rows] = entr(np.maximum(part, 0)).sum(1)
    return out / np.log(probs.shape[1])


def _adjusted(labels: np.ndarray, probs: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities without the thresholds, in rows that sum to 1: those of the given labels, and all."""
    moved = probs - thresholds + thresholds.max()
    moved /= moved.sum(1, keepdims=True)
    return moved[np.arange(len(probs)), labels], moved


def ensemble_label_quality(
    labels: Any,
    pred_probs_list: Sequence[Any],
    method: str = "self_confidence",
    weights: str | Any = "accuracy",
    adjust_pred_probs: bool = False,
) -> np.ndarray:
    """Weighted mean of the scores of several models, `(N,)`.

    Args:
        labels (array of shape `(N,)`): Given class ids.
        pred_probs_list (sequence of arrays of shape `(N, K)`): Out-of-sample probabilities of M models.
        method (`str`, *optional*): As in [`label_quality`].
        weights (`str` or array of shape `(M,)`, *optional*): `uniform`, `accuracy` (agreement with the labels),
            `log_loss_search` (`exp(-T log loss)`, T chosen by the log loss of the mixture; a model's own probabilities
            count as at least 1e-6 in it), or numbers.
        adjust_pred_probs (`bool`, *optional*, defaults to `False`): As in [`label_quality`], for each model.

    Raises:
        ValueError: For no model, other weights, or data as in [`check_probs`].
    """
    if not len(pred_probs_list):
        raise ValueError("`pred_probs_list` is empty; pass the probabilities of at least one model.")
    given, probs = np.asarray(labels), []
    for each in pred_probs_list:
        given, checked = check_probs(labels, each)
        probs.append(checked)
    scores = np.stack([score_rows(given, each, None, method, adjust_pred_probs) for each in probs])
    shares = _weights(given, probs, weights)
    out: np.ndarray = shares @ scores
    return out


def _weights(labels: np.ndarray, probs: list[np.ndarray], weights: Any) -> np.ndarray:
    count = len(probs)
    if not isinstance(weights, str):
        found = np.asarray(weights, dtype=np.float64)
        if found.shape != (count,) or (found < 0).any() or not found.sum() > 0:
            raise ValueError(f"`weights` must be {count} numbers of at least 0 with a positive sum, got {weights!r}.")
        return found / found.sum()
    if weights not in WEIGHTS:
        raise ValueError(f"`weights` is {weights!r}, expected one of {', '.join(WEIGHTS)} or an array.")
    if weights == "uniform":
        return np.full(count, 1 / count)
    if weights == "accuracy":
        found = np.array([(each.argmax(1) == labels).mean() for each in probs])
        return found / found.sum() if found.sum() > 0 else np.full(count, 1 / count)
    losses = np.array([_log_loss(labels, np.maximum(each, TOLERANCE)) for each in probs])  # one sure error is not all
    options = [np.exp(-t * (losses - losses.min())) for t in _TEMPERATURES]
    options = [each / each.sum() for each in options]
    found_losses = [_log_loss(labels, sum(w * p for w, p in zip(each, probs, strict=True))) for each in options]
    return options[int(np.argmin(found_losses))]


def _log_loss(labels: np.ndarray, probs: Any) -> float:
    tiny = np.finfo(np.float64).eps
    sums = probs.sum(1)
    own = probs[np.arange(len(labels)), labels] / np.where(sums > 0, sums, 1.0)
    return float(-np.log(np.clip(own, tiny, 1 - tiny)).mean())
