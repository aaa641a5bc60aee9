"""FerKD's label adaptation: sort teacher labels of views by confidence, repair the middle, drop the extremes.

| region | confidence s | target |
| --- | --- | --- |
| uninformative (UR) | `s < t_low` or `s > t_top` | none: the view is dropped |
| hard (HR) | `t_low <= s < t_mid` | true class with `1 - eps`, every other class `eps / (C - 1)` |
| important (IR) | `t_mid <= s <= t_top` | the teacher's soft label |

Source: FerKD (Shen, arXiv:2312.17473). Its code is not published: which number s is, and where equal values go, is our
reading.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

UNINFORMATIVE, HARD, IMPORTANT = 0, 1, 2
REGIONS = ("UR", "HR", "IR")
Confidence = Literal["max", "ground_truth"]


class CalibratedLabels(NamedTuple):
    """What [`calibrate_labels`] returns."""

    targets: Tensor
    """(N, C): rows sum to 1; all zero where the view is dropped."""
    keep: Tensor
    """(N,), bool."""
    regions: Tensor
    """(N,), int8: 0 = UR, 1 = HR, 2 = IR."""


def check_thresholds(t_low: float, t_mid: float, t_top: float, epsilon: float = 0.0) -> None:
    """Raise `ValueError` unless `t_low <= t_mid <= t_top` and `epsilon` is in [0, 1)."""
    if not t_low <= t_mid <= t_top:
        raise ValueError(f"Thresholds must rise: `t_low <= t_mid <= t_top`, got {t_low}, {t_mid}, {t_top}.")
    if not 0 <= epsilon < 1:
        raise ValueError(f"`epsilon` must be in [0, 1), got {epsilon}.")


def view_regions(confidence: Tensor, t_low: float, t_mid: float, t_top: float) -> Tensor:
    """Region of each view.

    Args:
        confidence (`Tensor` of shape `(N,)`): s, in [0, 1].
        t_low, t_mid, t_top (`float`): Rising thresholds. A value equal to `t_low` is hard, one equal to `t_mid` or
            `t_top` important.

    Returns:
        `Tensor` of shape `(N,)`, int8: 0 = uninformative, 1 = hard, 2 = important.

    Raises:
        ValueError: If the thresholds do not rise.

    Example:
        >>> import torch
        >>> view_regions(torch.tensor([0.1, 0.2, 0.5, 0.9, 0.95]), 0.2, 0.5, 0.9).tolist()
        [0, 1, 2, 2, 0]
    """
    check_thresholds(t_low, t_mid, t_top)
    s = confidence.float() if confidence.dtype != torch.float64 else confidence
    low, mid, top = (torch.tensor(value, dtype=s.dtype, device=s.device) for value in (t_low, t_mid, t_top))
    regions = torch.where(s < mid, HARD, IMPORTANT)
    return regions.masked_fill((s < low) | (s > top), UNINFORMATIVE).to(torch.int8)


def label_confidence(probs: Tensor, labels: Tensor | None = None, kind: Confidence = "max") -> Tensor:
    """Confidence of dense soft labels.

    Args:
        probs (`Tensor` of shape `(N, C)`): Rows sum to 1.
        labels (`Tensor` of shape `(N,)`, integer, *optional*): True classes, negative = missing; for `ground_truth`.
        kind (`str`, *optional*, defaults to `"max"`): `"max"`: the largest probability; `"ground_truth"`: that of the
            true class (the largest where it is missing).

    Returns:
        `Tensor` of shape `(N,)`.

    Raises:
        ValueError: If `kind` is unknown, or `ground_truth` lacks labels.
    """
    best = probs.amax(-1)
    if _needs_labels(kind, labels) is None:
        return best
    assert labels is not None
    own = probs.gather(-1, labels.clamp_min(0).long()[:, None])[:, 0]
    return torch.where(labels >= 0, own, best)


def sparse_confidence(
    ids: Tensor, values: Tensor, num_labels: int, labels: Tensor | None = None, kind: Confidence = "max"
) -> Tensor:
    """[`label_confidence`] of sparse soft labels under the residual rule `smooth`.

    Args:
        ids, values (`Tensor` of shape `(N, k)`): Classes and probabilities; the rest is spread over C - k classes.
        num_labels (`int`): C.
        labels, kind: As in [`label_confidence`]. A true class that is not stored has its share of the rest.
    """
    rest = _rest(values, num_labels)
    best = torch.maximum(values.amax(-1), rest)
    if _needs_labels(kind, labels) is None:
        return best
    assert labels is not None
    hit = ids == labels[:, None]
    own = torch.where(hit.any(-1), (values * hit).sum(-1), rest)
    return torch.where(labels >= 0, own, best)


def smoothed_labels(labels: Tensor, num_labels: int, epsilon: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """`1 - eps` on the true class, `eps / (C - 1)` on each other one: (N, C)."""
    out = torch.full((len(labels), num_labels), epsilon / max(num_labels - 1, 1), dtype=dtype, device=labels.device)
    return out.scatter_(1, labels.long()[:, None], 1 - epsilon)


def calibrate_labels(
    probs: Tensor,
    labels: Tensor,
    *,
    t_low: float = 0.0,
    t_mid: float = 0.0,
    t_top: float = 1.0,
    epsilon: float = 0.1,
    confidence: Confidence = "max",
    regions: Tensor | None = None,
) -> CalibratedLabels:
    """Adapt dense teacher labels.

    Args:
        probs (`Tensor` of shape `(N, C)`): The teacher's soft labels.
        labels (`Tensor` of shape `(N,)`, integer): True classes. A negative one cannot repair a hard view: that view
            keeps its soft label (region IR).
        t_low, t_mid, t_top (`float`): Thresholds on the confidence.
        epsilon (`float`, *optional*, defaults to 0.1): Smoothing of the true class in the hard region, in [0, 1).
        confidence (`str`, *optional*, defaults to `"max"`): As in [`label_confidence`].
        regions (`Tensor` of shape `(N,)`, *optional*): Regions that are known already; thresholds do not count then.

    Returns:
        [`CalibratedLabels`]: `targets` (N, C), `keep` (N,), `regions` (N,).

    Raises:
        ValueError: If thresholds do not rise, `epsilon` is outside [0, 1), shapes disagree, or a label is not below C.

    Source: FerKD (Shen, arXiv:2312.17473), section on label adaptation.
    """
    check_thresholds(t_low, t_mid, t_top, epsilon)
    classes = probs.shape[-1]
    check_labels(labels, len(probs), classes)
    if regions is None:
        regions = view_regions(label_confidence(probs, labels, confidence), t_low, t_mid, t_top)
    regions = known_regions(regions, labels)
    repaired = smoothed_labels(labels.clamp_min(0), classes, epsilon, probs.dtype)
    targets = torch.where((regions == HARD)[:, None], repaired, probs)
    keep = regions != UNINFORMATIVE
    return CalibratedLabels(targets.masked_fill(~keep[:, None], 0.0), keep, regions)


def calibrate_sparse(
    ids: Tensor, values: Tensor, labels: Tensor, num_labels: int, regions: Tensor, epsilon: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Adapt sparse teacher labels, without a dense target. Both sides mean: the rest is spread (rule `smooth`).

    Args:
        ids (`Tensor` of shape `(N, k)`, int64), values (`Tensor` of shape `(N, k)`): The teacher's labels.
        labels (`Tensor` of shape `(N,)`, integer): True classes; negative ones must not be in the hard region (see
            [`known_regions`]).
        num_labels (`int`): C, at least k.
        regions (`Tensor` of shape `(N,)`): From [`view_regions`]; dropped views come back as they are.
        epsilon (`float`, *optional*, defaults to 0.1): As in [`calibrate_labels`].

    Returns:
        ids `(N, k)` and values `(N, k)` in descending order: for hard views the true class has `1 - eps`, the others
        `eps / (C - 1)`, which is also what the rest gives every class that is not stored.

    Raises:
        ValueError: If shapes disagree, k > C, a label is not below C, or a hard view has no label.
    """
    k = ids.shape[-1]
    if ids.shape != values.shape or k > num_labels:
        raise ValueError(
            f"`ids` and `values` must have one shape (N, k) with k at most C = {num_labels}, got {tuple(ids.shape)} "
            f"and {tuple(values.shape)}."
        )
    check_labels(labels, len(ids), num_labels)
    hard = regions.to(ids.device) == HARD
    if (hard & (labels < 0)).any():
        row = int((hard & (labels < 0)).nonzero()[0])
        raise ValueError(f"Row {row} is in the hard region but has no label. Call `known_regions` first.")
    own = labels.clamp_min(0).long()[:, None]
    # The true class comes first; of the stored ones it replaces itself, or the last.
    hit = ids == own
    gone = torch.where(hit.any(-1), hit.int().argmax(-1), k - 1)[:, None]
    place = torch.arange(k, device=ids.device)[None].expand_as(ids)
    others = ids.masked_select(place != gone).view(len(ids), k - 1)
    new_ids = torch.cat([own, others], 1)
    small = epsilon / max(num_labels - 1, 1)
    new_values = values.new_full(values.shape, small)
    new_values[:, 0] = 1 - epsilon
    if 1 - epsilon < small:  # descending order, always
        new_ids, new_values = new_ids.flip(1), new_values.flip(1)
    return torch.where(hard[:, None], new_ids, ids), torch.where(hard[:, None], new_values, values)


def known_regions(regions: Tensor, labels: Tensor) -> Tensor:
    """Regions in which hard views without a true class are important: they keep the teacher's label."""
    return torch.where((regions == HARD) & (labels.to(regions.device) < 0), IMPORTANT, regions).to(torch.int8)


def rescue_examples(regions: Tensor, confidence: Tensor, examples: Tensor, t_low: float) -> tuple[Tensor, Tensor]:
    """Keep the most confident view of every example that would lose all of its views.

    It is important if its confidence is above `t_top` and hard if it is below `t_low`.

    Args:
        regions, confidence (`Tensor` of shape `(N,)`): Of all views.
        examples (`Tensor` of shape `(N,)`, int in [0, E)): Example of each view.
        t_low (`float`): Lower threshold.

    Returns:
        New regions `(N,)` and the rescued rows `(R,)`, one per such example (the first among equals).
    """
    count = int(examples.max()) + 1 if len(examples) else 0
    kept = torch.zeros(count, dtype=torch.int64).scatter_add_(0, examples, (regions != UNINFORMATIVE).long())
    lost = kept[examples] == 0
    rows = lost.nonzero()[:, 0]
    best = torch.full((count,), -1.0, dtype=confidence.dtype).scatter_reduce_(0, examples, confidence, "amax")
    top = rows[confidence[rows] == best[examples[rows]]]
    first = torch.full((count,), len(regions), dtype=torch.int64).scatter_reduce_(0, examples[top], top, "amin")
    chosen = first[first < len(regions)]
    regions = regions.clone()
    low = torch.tensor(t_low, dtype=confidence.dtype)
    regions[chosen] = torch.where(confidence[chosen] < low, HARD, IMPORTANT).to(regions.dtype)
    return regions, chosen


def check_labels(labels: Tensor, rows: int, num_labels: int) -> None:
    """Raise `ValueError` unless there is one label per row, below C."""
    if labels.shape != (rows,):
        raise ValueError(f"`labels` must have shape ({rows},), one per soft label, got {tuple(labels.shape)}.")
    if rows and int(labels.max()) >= num_labels:
        row = int((labels >= num_labels).nonzero()[0])
        raise ValueError(f"`labels` must be below {num_labels}, got {int(labels[row])} at row {row}.")


def _rest(values: Tensor, num_labels: int) -> Tensor:
    """Probability of each class that is not stored."""
    return (1 - values.sum(-1)).clamp_min(0.0) / max(num_labels - values.shape[-1], 1)


def _needs_labels(kind: str, labels: Tensor | None) -> Tensor | None:
    """The labels when `kind` reads them."""
    if kind not in ("max", "ground_truth"):
        raise ValueError(f"`confidence` must be max or ground_truth, got {kind!r}.")
    if kind == "ground_truth" and labels is None:
        raise ValueError("`confidence='ground_truth'` needs `labels`.")
    return labels if kind == "ground_truth" else None
