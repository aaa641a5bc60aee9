"""DistillNearest and DistillWeighted: weights of source models, and the loss of the student."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.losses.soft_targets import soft_cross_entropy


def source_weights(similarities: Any, power: float = 12.0, fallback: str = "error") -> Any:
    """Weights of the sources: `max(e_s, 0)^p / sum_t max(e_t, 0)^p`.

    Args:
        similarities (mapping of name to `float`, or array of shape `(S,)`): Higher fits better.
        power (`float`, *optional*, defaults to `12`): p. 0: all sources alike, also those below 0; 1: in proportion;
            `inf`: all weight on the best (DistillNearest), shared by equals. With few probe rows take a small one.
        fallback (`str`, *optional*, defaults to `"error"`): When no similarity is above 0: `"error"` or `"uniform"`.

    Returns:
        A dict, or a float64 array, as the similarities came; sums to 1.

    Raises:
        ValueError: If there is no source, one is not finite (named), `power` is negative, or all are 0 or less.

    Example:
        >>> source_weights({"a": 40.0, "b": 20.0, "c": -5.0}, power=1)
        {'a': 0.6666666666666666, 'b': 0.3333333333333333, 'c': 0.0}

    Source: Borup et al., arXiv:2304.12314, section 3.3 (from memory: p and its default are not certain).
    """
    named = isinstance(similarities, Mapping)
    names = list(similarities) if named else None
    values = np.array(list(similarities.values()) if named else similarities, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError("`similarities` is empty: at least one source is needed.")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        which = names[bad[0]] if names is not None else int(bad[0])
        raise ValueError(f"The similarity of source {which!r} is {values[bad[0]]}. Leave that source out.")
    if not power >= 0:
        raise ValueError(f"`power` must be 0 or more, got {power}.")
    if fallback not in ("error", "uniform"):
        raise ValueError(f"`fallback` must be error or uniform, got {fallback!r}.")
    positive = np.maximum(values, 0.0)
    top = positive.max()
    if power == 0 or top == 0:
        if power != 0 and fallback == "error":
            raise ValueError(
                f"No source has a similarity above 0 (the best is {values.max():.4g}). Choose other sources or "
                "another metric, or pass `fallback='uniform'`. LEEP and NCE are logarithms: pass `exp` of them."
            )
        weights = np.full(len(values), 1.0 / len(values))
    elif math.isinf(power):
        weights = (positive == top) / np.count_nonzero(positive == top)
    else:
        with np.errstate(divide="ignore"):
            weights = np.exp(power * np.log(positive / top))
        weights = weights / weights.sum()
    return dict(zip(names, weights.tolist(), strict=True)) if names is not None else weights


def with_capacity(similarities: Mapping[str, float], layers: Mapping[str, int], weight: float) -> dict[str, float]:
    """Add a bonus for deep sources: z-score of the similarity over the sources, plus `weight * layers / 50`.

    Raises:
        KeyError: If the layers of a source are missing.
        ValueError: If there is no source.

    Source: code of PARC (Bolya et al., NeurIPS 2021).
    """
    if not similarities:
        raise ValueError("`similarities` is empty: at least one source is needed.")
    values = np.array(list(similarities.values()), dtype=np.float64)
    spread = values.std()
    scores = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return {name: float(s + weight * layers[name] / 50) for name, s in zip(similarities, scores, strict=True)}


def mix_sources(probs: Any, weights: Any) -> Tensor:
    """The mixture `sum_s w_s q_s`: its cross-entropy with a student is the weighted sum of all cross-entropies.

    Args:
        probs (`Tensor` of shape `(S, n, N)`): Probabilities of each source.
        weights (`Tensor` of shape `(S,)`): Sum to 1.

    Returns:
        `Tensor` of shape `(n, N)`.

    Raises:
        ValueError: If the shapes disagree, or the weights are negative or do not sum to 1.
    """
    values, share = torch.as_tensor(probs), torch.as_tensor(weights)
    if values.dim() != 3 or share.shape != values.shape[:1]:
        raise ValueError(
            f"`probs` must be (S, n, N) and `weights` (S,), got {tuple(values.shape)} and {tuple(share.shape)}."
        )
    check_weights(share)
    return torch.einsum("s,snc->nc", share.to(values.dtype), values)


def check_weights(weights: Tensor) -> None:
    """Raise `ValueError` unless weights `(S,)` are 0 or more and sum to 1."""
    if bool((weights < 0).any()) or not abs(float(weights.sum()) - 1) <= 1e-6:
        raise ValueError(f"`weights` must be 0 or more and sum to 1, got {weights.tolist()}. Use `source_weights`.")


def weighted_distillation_loss(
    labeled_logits: Tensor,
    labels: Tensor,
    unlabeled_logits: Tensor,
    targets: Tensor,
    label_weight: float = 0.8,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """`label_weight * CE(labels) + (1 - label_weight) * CE(targets)`, each a mean over its rows.

    Args:
        labeled_logits (`Tensor` of shape `(B, N)`): Student, on labelled rows.
        labels (`Tensor` of shape `(B,)`): Class ids, -100 = does not count.
        unlabeled_logits (`Tensor` of shape `(U, N)`): Student, on the distillation rows.
        targets (`Tensor` of shape `(U, N)`): Mixture of the sources, see [`mix_sources`].
        label_weight (`float`, *optional*, defaults to `0.8`): lambda in the paper, in [0, 1].
        temperature (`float`, *optional*, defaults to `1.0`): Divides the student's logits in the second term.

    Returns:
        `tuple`: Loss, cross-entropy with the labels, cross-entropy with the targets; shape `()` each. A part without
        rows is 0.

    Raises:
        ValueError: If `label_weight` is outside [0, 1] or shapes disagree.

    Source: Borup et al., arXiv:2304.12314, eq. 3 (from memory).
    """
    if not 0 <= label_weight <= 1:
        raise ValueError(f"`label_weight` must be in [0, 1], got {label_weight}.")
    count = (labels != -100).sum().clamp_min(1)
    scores = labeled_logits if labeled_logits.dtype == torch.float64 else labeled_logits.float()
    hard = F.cross_entropy(scores, labels, ignore_index=-100, reduction="sum") / count
    soft = soft_cross_entropy(unlabeled_logits, targets, temperature=temperature)
    return label_weight * hard + (1 - label_weight) * soft, hard, soft


def probe_rows(labels: Any, size: int = 500, seed: int = 0) -> np.ndarray:
    """Rows for comparing sources: all labelled rows, or `size` of them, spread over the classes as evenly as possible.

    Args:
        labels (array of shape `(n,)`): Class ids; -1 = missing.
        size (`int`, *optional*, defaults to 500): Rows at most.
        seed (`int`, *optional*, defaults to 0): Of the choice within a class.

    Returns:
        `np.ndarray`: Sorted row numbers.
    """
    ids = np.asarray(labels)
    known = np.flatnonzero(ids >= 0)
    if len(known) <= size:
        return known
    order = np.random.default_rng(seed).permutation(known)
    place = np.empty(len(order), dtype=np.int64)  # the how-maniest row of its class
    for label in np.unique(ids[order]):
        mine = np.flatnonzero(ids[order] == label)
        place[mine] = np.arange(len(mine))
    return np.sort(order[np.argsort(place, kind="stable")[:size]])
