"""Multinomial logistic regression on frozen features, in torch alone."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

logger = logging.getLogger(__name__)

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class LinearHead:
    """A softmax on standardised features.

    Parameters:
        weight (`Tensor` of shape `(N, d)`), bias (`Tensor` of shape `(N,)`): -inf for a class that was never seen.
        mean, scale (`Tensor` of shape `(d,)`): Features are `(x - mean) / scale`.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def logits(self, features: Any) -> Tensor:
        """Scores `(n, N)`, float64."""
        values = torch.as_tensor(np.asarray(features, dtype=np.float64))
        return (values - self.mean) / self.scale @ self.weight.T + self.bias

    def probs(self, features: Any) -> np.ndarray:
        """Probabilities `(n, N)`; 0 for a class that was never seen."""
        return self.logits(features).softmax(-1).numpy()


def fit_linear_head(
    features: Any,
    labels: Any,
    num_classes: int | None = None,
    l2: float | Literal["auto"] = 1.0,
    max_iter: int = 200,
) -> LinearHead:
    """Fit by L-BFGS: `sum_i CE_i + l2 / 2 * |W|^2`, the objective of scikit-learn with `C = 1 / l2`.

    Args:
        features (array of shape `(n, d)`): Standardised here, by column.
        labels (array of shape `(n,)`): Class ids.
        num_classes (`int`, *optional*): N; the largest label + 1 by default.
        l2 (`float` or `"auto"`, *optional*, defaults to `1.0`): Strength, above 0, or [`choose_l2`] on these rows.
        max_iter (`int`, *optional*, defaults to 200): Steps at most.

    Raises:
        ValueError: If shapes disagree, features are not finite, or a label is not in [0, N); names the row.

    A class without a labelled row cannot be predicted: its probability is 0, and a warning names it.
    """
    values, truth = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or truth.shape != (len(values),) or not len(values):
        raise ValueError(f"Need features (n, d) and labels (n,), got {values.shape} and {truth.shape}.")
    bad = np.flatnonzero(~np.isfinite(values).all(1))
    if len(bad):
        raise ValueError(f"`features` hold NaN or infinity at row {bad[0]}.")
    count = int(truth.max()) + 1 if num_classes is None else num_classes
    wrong = np.flatnonzero((truth < 0) | (truth >= count))
    if len(wrong):
        raise ValueError(f"`labels` must be in [0, {count}), got {truth[wrong[0]]} at row {wrong[0]}.")
    if l2 != "auto" and (isinstance(l2, str) or not l2 > 0):
        raise ValueError(f"`l2` must be above 0, or 'auto'; got {l2!r}.")
    absent = sorted(set(range(count)) - set(truth.tolist()))
    if absent:
        logger.warning("No labelled row of class %s: it gets probability 0.", ", ".join(map(str, absent)))
    strength = choose_l2(values, truth) if l2 == "auto" else float(l2)
    return _fit(values, truth, count, strength, max_iter)


def choose_l2(
    features: Any, labels: Any, strengths: Sequence[float] = STRENGTHS, max_rows: int = 2000, seed: int = 0
) -> float:
    """The strength whose head has the smallest log-loss on a third of the rows that it has not seen.

    Few rows, many columns and noisy labels want a strong one: a head that is too weakly held learns the noise, and is
    sure of it.

    Args:
        features (array of shape `(n, d)`), labels (`(n,)`): As in [`fit_linear_head`].
        strengths (sequence of `float`, *optional*): Candidates; the largest of equally good ones is taken.
        max_rows (`int`, *optional*, defaults to 2000): Look at so many rows, drawn by class. The strength is that of a
            prior, so it does not grow with the rows.
        seed (`int`, *optional*, defaults to 0): Of the draws.

    Returns:
        `float`: One of `strengths`; the smallest when no class has two rows to compare.
    """
    values, truth = np.asarray(features, dtype=np.float64), np.asarray(labels)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    if len(order) > max_rows:
        order = order[np.linspace(0, len(order) - 1, max_rows).astype(np.int64)]
    part = np.arange(len(order)) % 3
    fit, held = order[part != 0], order[part == 0]
    known = held[np.isin(truth[held], truth[fit])]
    if not len(known) or (truth[fit] == truth[fit[:1]]).all():
        return min(strengths)
    losses = {}
    for strength in sorted(strengths, reverse=True):
        head = _fit(values[fit], truth[fit], int(truth.max()) + 1, strength)
        own = head.logits(values[known]).log_softmax(-1).numpy()[np.arange(len(known)), truth[known]]
        losses[strength] = -float(own.mean())
    return min(losses, key=losses.__getitem__)


def _fit(values: np.ndarray, truth: np.ndarray, count: int, l2: float, max_iter: int = 200) -> LinearHead:
    seen = np.unique(truth)
    mean, deviation = values.mean(0), values.std(0)
    scale = np.where(deviation > 1e-12, deviation, 1.0)
    x = torch.from_numpy((values - mean) / scale)
    y = torch.from_numpy(np.searchsorted(seen, truth))
    weight = torch.zeros(len(seen), x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(seen), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iter,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight.T + bias, y, reduction="sum") + 0.5 * l2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    whole = torch.zeros(count, x.shape[1], dtype=torch.float64)
    offsets = torch.full((count,), float("-inf"), dtype=torch.float64)
    whole[seen], offsets[seen] = weight.detach(), bias.detach()
    return LinearHead(whole, offsets, torch.from_numpy(mean), torch.from_numpy(scale))


def cross_validated_accuracy(features: Any, labels: Any, folds: int = 5, l2: float = 1.0, seed: int = 0) -> float:
    """Accuracy of [`fit_linear_head`] on rows that it has not seen, times 100.

    Args:
        features (array of shape `(n, d)`), labels (`(n,)`): Rows.
        folds (`int`, *optional*, defaults to 5): Parts; the rows of each class are spread over them.
        l2 (`float`, *optional*): As in [`fit_linear_head`].
        seed (`int`, *optional*, defaults to 0): Of the parts.

    Returns:
        `float`: 0 to 100.
    """
    values, truth = np.asarray(features, dtype=np.float64), np.asarray(labels)
    folds = max(2, min(folds, len(truth)))
    order = np.random.default_rng(seed).permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    part = np.empty(len(truth), dtype=np.int64)
    part[order] = np.arange(len(truth)) % folds
    right, count = 0, int(truth.max()) + 1
    for fold in range(folds):
        head = _fit(values[part != fold], truth[part != fold], count, l2)
        right += int((head.probs(values[part == fold]).argmax(1) == truth[part == fold]).sum())
    return 100.0 * right / len(truth)
