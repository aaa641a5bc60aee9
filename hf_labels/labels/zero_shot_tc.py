"""From entailment logits to labels: probabilities, ensembles, and the decision rules of the benchmark. NumPy only.

N texts, H hypotheses, K labels, C classes of the entailment model, M models. Source of all rules: Yin, Hay and Roth,
EMNLP 2019 (arXiv:1909.00161) and their code (`yinwenpeng/BenchmarkingZeroShot`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NONE = -1
"""Id of the decision "no label"."""

SCORES = ("softmax", "max", "pipeline")
AGGREGATES = ("max", "mean")
DECISIONS = ("single_phase", "two_phase")
ENSEMBLES = ("mean", "reference")


def entailment_probs(logits: Any, entailment_id: int = 0, score: str = "softmax") -> np.ndarray:
    """Probability that a text entails a hypothesis.

    Args:
        logits (array of shape `(..., C)`): Of an entailment (NLI) model.
        entailment_id (`int`, *optional*, defaults to 0): Class of entailment.
        score (`str`, *optional*, defaults to `"softmax"`): `"softmax"` over all classes; `"max"`: entailment against
            the strongest other class only. With two classes they agree.

    Returns:
        `np.ndarray` of shape `(...)`, float64. Above 0.5 is "entailed" (with two classes: the greater logit).

    Raises:
        ValueError: Fewer than two classes, an id outside them, an unknown score, or logits that are not finite (names
            the text).
    """
    values = _checked_logits(logits, entailment_id)
    if score not in ("softmax", "max"):
        raise ValueError(f"`score` must be 'softmax' or 'max' here, got {score!r}.")
    others = np.delete(values, entailment_id, axis=-1)
    top = others.max(-1)
    rest = top if score == "max" else top + np.log(np.exp(others - top[..., None]).sum(-1))
    return _sigmoid(values[..., entailment_id] - rest)


def pipeline_scores(logits: Any, entailment_id: int, multi_label: bool = False) -> np.ndarray:
    """Scores of the stock `zero-shot-classification` pipeline, without its overflow for logits above 88.

    Single label: softmax of the entailment logits over the labels. Multi-label, or one label: softmax of
    (contradiction, entailment), where the pipeline takes the last class as contradiction when entailment is class 0,
    else class 0.

    Args:
        logits (array of shape `(N, K, C)`): One hypothesis per label, labels in order.
        entailment_id (`int`): Class of entailment.
        multi_label (`bool`, *optional*, defaults to `False`): Labels are independent.

    Returns:
        `np.ndarray` of shape `(N, K)`, float64, in the order of the labels.
    """
    values = _checked_logits(logits, entailment_id)
    if values.ndim != 3 or not values.shape[1]:
        raise ValueError(f"`logits` must be (N, K, C) with at least one label, got shape {values.shape}.")
    entail = values[..., entailment_id]
    if multi_label or values.shape[1] == 1:
        return _sigmoid(entail - values[..., -1 if entailment_id == 0 else 0])
    weights = np.exp(entail - entail.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def ensemble_probs(probs: Any, ensemble: str = "mean") -> np.ndarray:
    """One probability from M models.

    Args:
        probs (array of shape `(M, ...)`): Entailment probability of each model.
        ensemble (`str`, *optional*, defaults to `"mean"`): `"mean"`, or `"reference"`: their code sums the softmax
            outputs and applies softmax again. The order is the same, above 0.5 stays above 0.5, but the values are
            squeezed ([.047, .953] for three models), which moves the 0.6 threshold and the margin.

    Returns:
        `np.ndarray` of shape `(...)`, float64.
    """
    values = np.asarray(probs, dtype=np.float64)
    if values.ndim < 1 or not len(values):
        raise ValueError("`probs` must hold at least one model's probabilities.")
    if ensemble not in ENSEMBLES:
        raise ValueError(f"`ensemble` must be one of {', '.join(ENSEMBLES)}, got {ensemble!r}.")
    return values.mean(0) if ensemble == "mean" else _sigmoid((2 * values - 1).sum(0))


@dataclass(frozen=True)
class DecisionRule:
    """How probabilities of hypotheses become labels. Every comparison is strict; the first maximum wins ties.

    | | single label | multi-label |
    | --- | --- | --- |
    | `single_phase` | the best hypothesis | all labels above `threshold` |
    | `two_phase` | see below | seen labels above `seen_threshold`, unseen ones above `threshold` |

    Two phases, single label: when hypotheses of both groups (or of neither) are above `threshold`, the best seen label
    is taken only if it leads the best unseen one by more than `seen_margin`; when one group alone has one, its best.
    With `reject`, a text without any hypothesis above `threshold` gets no label (the emotion rule; the topic rule
    never rejects). Multi-label texts without a label have none.

    Parameters:
        decision (`str`, *optional*, defaults to `"single_phase"`): `"single_phase"` or `"two_phase"`.
        multi_label (`bool`, *optional*, defaults to `False`): A text may have several labels.
        reject (`bool`, *optional*, defaults to `False`): Single label: none when nothing is entailed.
        aggregate (`str`, *optional*, defaults to `"max"`): Score of a label over its hypotheses: `"max"` (paper) or
            `"mean"`.
        threshold (`float`, *optional*, defaults to 0.5): Entailed means above it, in `[0, 1]`.
        seen_margin (`float`, *optional*, defaults to 0.1): 0.1 for topics, 0.05 for emotions; in `[0, 1]`.
        seen_threshold (`float`, *optional*, defaults to 0.6): In `[0, 1]`.

    Raises:
        ValueError: A value out of its range.
    """

    decision: str = "single_phase"
    multi_label: bool = False
    reject: bool = False
    aggregate: str = "max"
    threshold: float = 0.5
    seen_margin: float = 0.1
    seen_threshold: float = 0.6

    def __post_init__(self) -> None:
        for name, allowed in (("decision", DECISIONS), ("aggregate", AGGREGATES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        for name in ("threshold", "seen_margin", "seen_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], got {getattr(self, name)}.")


def decide(
    probs: Any, hypothesis_to_label: Sequence[int], seen: Sequence[int] = (), rule: DecisionRule | None = None
) -> np.ndarray:
    """Labels of texts.

    Args:
        probs (array of shape `(N, H)`): Entailment probabilities in `[0, 1]`.
        hypothesis_to_label (H ints): Label of each hypothesis; every label in `[0, K)` has at least one.
        seen (ints, *optional*): Labels with training texts.
        rule ([`DecisionRule`], *optional*): The default is the best hypothesis.

    Returns:
        `np.ndarray`: `(N,)` int64 label ids with `-1` for none; `(N, K)` bool when the rule is multi-label.

    Raises:
        ValueError: Shapes that disagree, a label without hypothesis, a seen label that is none, or NaN (names the
            text).
    """
    rule = rule or DecisionRule()
    values, owner, groups = _checked(probs, hypothesis_to_label, seen)
    if rule.aggregate == "mean":
        values, owner = label_scores(values, owner, "mean"), np.arange(len(groups))
    if rule.multi_label:
        bars = np.where(groups & (rule.decision == "two_phase"), rule.seen_threshold, rule.threshold)
        return label_scores(values, owner, "max") > bars
    entailed_none = ~(values > rule.threshold).any(1)
    best = owner[values.argmax(1)] if len(values) else np.zeros(0, np.int64)
    if rule.decision == "two_phase":
        best = _two_phase(values, owner, groups, rule)
    return np.where(entailed_none, NONE, best) if rule.reject else best


def label_scores(probs: Any, hypothesis_to_label: Sequence[int] | np.ndarray, aggregate: str = "max") -> np.ndarray:
    """Scores `(N, K)` of labels from those `(N, H)` of their hypotheses: the greatest, or the mean."""
    values, owner, groups = _checked(probs, hypothesis_to_label, ())
    pick: Any = np.max if aggregate == "max" else np.mean
    parts = [pick(values[:, owner == label], axis=1) for label in range(len(groups))]
    return np.stack(parts, axis=1)


def alternate_labels(names: Sequence[str], version: str = "v0") -> tuple[str, ...]:
    """The labels that count as seen: positions 0, 2, 4, ... (`"v0"`) or 1, 3, 5, ... (`"v1"`) of the label list.

    Raises:
        ValueError: Another version, or fewer than two labels.
    """
    if version not in ("v0", "v1"):
        raise ValueError(f"`version` must be 'v0' or 'v1', got {version!r}.")
    if len(names) < 2:
        raise ValueError(f"Splitting labels in halves needs at least two, got {len(names)}.")
    return tuple(names[int(version[1]) :: 2])


def _two_phase(values: np.ndarray, owner: np.ndarray, groups: np.ndarray, rule: DecisionRule) -> np.ndarray:
    is_seen = groups[owner]
    seen, unseen = np.where(is_seen, values, -np.inf), np.where(is_seen, -np.inf, values)
    top_seen, top_unseen = seen.max(1), unseen.max(1)
    alike = (top_seen > rule.threshold) == (top_unseen > rule.threshold)
    with np.errstate(invalid="ignore"):
        leads = top_seen - top_unseen > rule.seen_margin
    take_seen = np.where(alike, leads, top_seen > rule.threshold)
    return owner[np.where(take_seen, seen.argmax(1), unseen.argmax(1))]


def _checked(probs: Any, hypothesis_to_label: Any, seen: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    values, owner = np.asarray(probs, dtype=np.float64), np.asarray(hypothesis_to_label, dtype=np.int64)
    if values.ndim != 2 or owner.shape != values.shape[1:] or not len(owner):
        raise ValueError(
            f"`probs` must be (N, H) for {owner.size} hypotheses of `hypothesis_to_label` (at least one), "
            f"got shape {values.shape}."
        )
    bad = ~np.isfinite(values).all(1)
    if bad.any():
        raise ValueError(f"`probs` of text {int(bad.argmax())} hold NaN or infinity. Score that text again.")
    count = int(owner.max()) + 1
    without = sorted(set(range(count)) - set(owner.tolist()))
    if without or owner.min() < 0:
        raise ValueError(f"Labels must be 0 to K - 1 with a hypothesis each; {without or owner.min()} has none.")
    groups = np.zeros(count, dtype=bool)
    for label in seen:
        if not 0 <= label < count:
            raise ValueError(f"`seen` names label {label}, and labels are 0 to {count - 1}.")
        groups[label] = True
    return values, owner, groups


def _checked_logits(logits: Any, entailment_id: int) -> np.ndarray:
    values = np.asarray(logits.detach().float().cpu() if hasattr(logits, "detach") else logits, dtype=np.float64)
    if values.ndim < 1 or values.shape[-1] < 2:
        raise ValueError(f"`logits` must have at least two classes in the last place, got shape {values.shape}.")
    if not 0 <= entailment_id < values.shape[-1]:
        raise ValueError(f"`entailment_id` must be in [0, {values.shape[-1]}), got {entailment_id}.")
    if not np.isfinite(values).all():
        text = int(np.argwhere(~np.isfinite(values))[0][0])
        raise ValueError(f"`logits` of text {text} hold NaN or infinity. Run the model in float32 on that text.")
    return values


def _sigmoid(values: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1 / (1 + small), small / (1 + small))
