"""Label-powerset inductive conformal prediction: sets that hold the true label set with a promised rate.

    icp = LabelPowersetICP(names=names).calibrate(cal_logits, cal_labels, from_logits=True)
    answers = icp.predict(test_logits, epsilon=0.1)
    answers[0].label_sets(max_sets=20), answers[0].size, answers[0].required, answers[0].confidence

Source: Maltoudoglou et al., Pattern Recognition 122 (2022), arXiv:2312.09304. No code of the paper is published; the
nonconformity measure is the norm of MuLaConf (the same group), the search beyond its 2^L rows is ours.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from hf_labels.labels.lp_icp_prediction import LabelSetPrediction, Threshold, smoothed_threshold
from hf_labels.metrics.functional._inputs import check_multi_hot, check_scores, first_bad, place

logger = logging.getLogger(__name__)

MAX_POWERSET = 16
"""Largest number of labels whose whole powerset is written out."""


class LabelPowersetICP:
    """Conformal prediction over all 2^L label sets of a multi-label classifier, without enumerating them.

    The score of a label set Y under the probabilities o is `T(Y) = sum_j |y_j - o_j|^d`. Its p-value is the share of
    calibration rows whose true label set scores at least as much: `p(Y) = (#{T_i >= T(Y)} + 1) / (q + 1)`. If
    calibration and new rows are exchangeable, the true label set is outside `{Y : p(Y) > epsilon}` with probability at
    most `epsilon`. Calibrate on rows that the classifier was not trained on.

    Args:
        d (`float`, *optional*, defaults to 2): Power, above 0; 2 is the Euclidean norm.
        names (sequence of `str`, *optional*): Names of the L labels.
        max_sets (`int`, *optional*, defaults to 100000): Most label sets that are listed for one row.

    Raises:
        ValueError: If `d` is not above 0, `max_sets` below 1, or a name occurs twice.
    """

    def __init__(self, d: float = 2.0, names: Sequence[str] | None = None, max_sets: int = 100_000) -> None:
        if not 0 < d < math.inf:
            raise ValueError(f"`d` is a power and must be above 0, got {d}.")
        if max_sets < 1:
            raise ValueError(f"`max_sets` must be at least 1, got {max_sets}.")
        self.d, self.max_sets = float(d), int(max_sets)
        self.names = None if names is None else tuple(str(name) for name in names)
        if self.names is not None and len(set(self.names)) < len(self.names):
            raise ValueError(f"`names` holds a name twice: {list(self.names)}.")
        self.from_logits = False
        self._scores: np.ndarray | None = None
        self._labels = 0 if self.names is None else len(self.names)

    # calibration

    def calibrate(self, outputs: Any, labels: Any = None, *, from_logits: bool = False) -> LabelPowersetICP:
        """Learn the scores of true label sets. Replaces an earlier calibration.

        Args:
            outputs (array of shape `(q, L)` or `PredictionOutput`): Sigmoid probabilities, or logits, of rows that the
                classifier was not trained on; also what `Trainer.predict` returns.
            labels (array of shape `(q, L)`, *optional*): 0 or 1; those of the `PredictionOutput` when left out.
            from_logits (`bool`, *optional*, defaults to `False`): `outputs` are logits, here and from now on.

        Returns:
            `self`

        Raises:
            ValueError: For no rows, shapes that disagree, probabilities outside [0, 1], or labels that are not 0 or 1.
        """
        probs = self._probs(outputs, from_logits, calibrating=True)
        truth = self._truth(_labels(outputs) if labels is None else labels, probs)
        self.from_logits, self._labels = from_logits, probs.shape[1]
        self._scores = np.sort(self._score(probs, truth))
        return self

    @classmethod
    def from_scores(cls, scores: Any, num_labels: int, **options: Any) -> LabelPowersetICP:
        """A predictor with calibration scores `T_i` (shape `(q,)`) that are there already.

        Args:
            scores (array of shape `(q,)`): `sum_j |t_j - o_j|^d` of each calibration row.
            num_labels (`int`): L.
            options: `d`, `names`, `max_sets` and `from_logits`.

        Raises:
            ValueError: If there are no scores, one is negative or not finite, or `names` are not L.
        """
        from_logits = options.pop("from_logits", False)
        new = cls(**options)
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all() or (values < 0).any():
            raise ValueError(f"`scores` must be finite, not negative and of shape (q,), got shape {values.shape}.")
        new._check_width(num_labels)
        new._labels, new._scores, new.from_logits = num_labels, np.sort(values), from_logits
        return new

    @property
    def scores(self) -> np.ndarray:
        """(q,) float64: scores of the calibration rows, ascending.

        Raises:
            RuntimeError: Before calibration.
        """
        return self._need_scores()

    def _need_scores(self) -> np.ndarray:
        if self._scores is None:
            raise RuntimeError("This predictor is not calibrated: call `calibrate(outputs, labels)` first.")
        return self._scores

    @property
    def num_calibration(self) -> int:
        """q"""
        return len(self.scores)

    @property
    def num_labels(self) -> int:
        """L"""
        return self._labels

    # prediction

    def threshold(self, epsilon: float, tie: float | None = None) -> Threshold:
        """The scores whose p-value is above `epsilon`: those up to the m-th largest calibration score, with
        `m = floor(epsilon (q + 1))`; all when m is 0.

        Args:
            epsilon (`float`): Significance in (0, 1).
            tie (`float`, *optional*): Random number in [0, 1] of smoothed p-values.

        Raises:
            ValueError: If `epsilon` is not in (0, 1).
            RuntimeError: Before calibration.
        """
        if not 0 < epsilon < 1:
            raise ValueError(f"`epsilon` must be in (0, 1), got {epsilon}.")
        scores, total = self.scores, self.num_calibration
        if tie is not None:
            return smoothed_threshold(scores, epsilon, tie)
        wanted = math.floor(epsilon * (total + 1) + 1e-9)
        if wanted > total:
            return Threshold(-np.inf)
        return Threshold(float(scores[total - wanted]) if wanted else np.inf)

    @overload
    def predict(
        self, outputs: Any, epsilon: float = ..., *, smoothing: bool = ..., non_empty: bool = ..., rng: Any = ...
    ) -> list[LabelSetPrediction]: ...

    @overload
    def predict(
        self, outputs: Any, epsilon: Sequence[float], *, smoothing: bool = ..., non_empty: bool = ..., rng: Any = ...
    ) -> list[list[LabelSetPrediction]]: ...

    def predict(
        self,
        outputs: Any,
        epsilon: float | Sequence[float] = 0.1,
        *,
        smoothing: bool = False,
        non_empty: bool = False,
        rng: Any = 0,
    ) -> Any:
        """Prediction sets. Nothing is listed before it is asked for.

        Args:
            outputs (array of shape `(n, L)` or `PredictionOutput`): As in `calibrate`.
            epsilon (`float` or sequence, *optional*, defaults to 0.1): Significance in (0, 1). With several, a list of
                results, one for each.
            smoothing (`bool`, *optional*, defaults to `False`): p-values with ties broken at random, which are exactly
                uniform: `(#{T_i > T} + u (#{T_i = T} + 1)) / (q + 1)`, one u for each row.
            non_empty (`bool`, *optional*, defaults to `False`): Put the best label set into an empty set.
            rng (`int` or `np.random.Generator`, *optional*, defaults to 0): For `smoothing`.

        Returns:
            list of [`LabelSetPrediction`], one per row.

        Raises:
            ValueError: For `epsilon` outside (0, 1), another number of labels, or probabilities outside [0, 1].
            RuntimeError: Before calibration.
        """
        self._need_scores()
        probs = self._probs(outputs, self.from_logits)
        absent, present = _power(probs, self.d), _power(1 - probs, self.d)
        ties = np.random.default_rng(rng).random(len(probs)).tolist() if smoothing else [None] * len(probs)
        levels = [epsilon] if isinstance(epsilon, int | float | np.floating) else list(epsilon)
        found = []
        for level in levels:
            shared = None if smoothing else self.threshold(level)
            if shared is not None and shared.everything:
                logger.warning(
                    "%d calibration rows are too few for epsilon=%g: every label set is inside. %d are the least.",
                    self.num_calibration,
                    level,
                    math.ceil(1 / level) - 1,
                )
            rows = zip(ties, absent, present, strict=True)
            found.append(
                [
                    LabelSetPrediction(self, level, shared or self.threshold(level, u), out, into, non_empty, u)
                    for u, out, into in rows
                ]
            )
        return found[0] if isinstance(epsilon, int | float | np.floating) else found

    # p-values

    def p_of_scores(self, scores: Any, tie: float | None = None) -> np.ndarray:
        """p-values of scores, of the same shape; with `tie`, smoothed ones."""
        known, values = self.scores, np.asarray(scores, dtype=np.float64)
        at_least = len(known) - np.searchsorted(known, values, side="left")
        if tie is None:
            return (at_least + 1) / (len(known) + 1)
        above = len(known) - np.searchsorted(known, values, side="right")
        return (above + tie * (at_least - above + 1)) / (len(known) + 1)

    def p_values(self, outputs: Any, labels: Any) -> np.ndarray:
        """p-values `(n,)` of one label set for each row: `outputs` and `labels` are `(n, L)`."""
        self._need_scores()
        probs = self._probs(outputs, self.from_logits)
        return self.p_of_scores(self._score(probs, self._truth(labels, probs)))

    def p_value(self, output: Any, label_set: Sequence[Any]) -> float:
        """p-value of a label set (names or ids) for the output `(L,)` of one row.

        Raises:
            KeyError: For an unknown name.
            IndexError: For an id out of range.
        """
        self._need_scores()
        row = self.row_of(label_set)
        return float(self.p_values(np.asarray(output)[None], row[None].astype(np.int8))[0])

    def powerset_p_values(self, outputs: Any) -> np.ndarray:
        """p-values of all label sets, `(n, 2^L)`: lexicographic, the first label is the most significant bit.

        Raises:
            ValueError: For more than 16 labels.
        """
        self._need_scores()
        if self.num_labels > MAX_POWERSET:
            raise ValueError(
                f"2^{self.num_labels} label sets cannot be written out; {MAX_POWERSET} labels are the most. "
                "Use `predict`, which lists only what is inside."
            )
        probs = self._probs(outputs, self.from_logits)
        absent, present = _power(probs, self.d), _power(1 - probs, self.d)
        total = np.zeros((len(probs), 2**self.num_labels))
        number = np.arange(2**self.num_labels)
        for label in range(self.num_labels):
            member = (number >> (self.num_labels - 1 - label)) & 1 == 1
            total += np.where(member, present[:, label, None], absent[:, label, None])
        return self.p_of_scores(total)

    def row_of(self, label_set: Sequence[Any] | np.ndarray) -> np.ndarray:
        """Names or ids -> (L,) bool.

        Raises:
            KeyError: For an unknown name; says the known ones.
            IndexError: For an id out of range.
        """
        row = np.zeros(self.num_labels, dtype=bool)
        for label in [label_set] if isinstance(label_set, str) else label_set:
            if isinstance(label, str):
                if label not in (self.names or ()):
                    raise KeyError(
                        f"No label {label!r}; there are: {', '.join((self.names or ())[:20]) or 'no names'}."
                    )
                label = (self.names or ()).index(label)
            if not 0 <= label < self.num_labels:
                raise IndexError(f"Label id {label} is out of range; ids are 0 to {self.num_labels - 1}.")
            row[label] = True
        return row

    # measures

    def score(
        self,
        outputs: Any,
        labels: Any = None,
        epsilons: Sequence[float] = (0.05, 0.1, 0.2),
        *,
        non_empty: bool = False,
    ) -> list[dict[str, Any]]:
        """Validity and size on labelled rows, one dict per level.

        Args:
            outputs, labels: As in `calibrate`; other rows.
            epsilons (sequence of `float`, *optional*): Levels in (0, 1).
            non_empty (`bool`, *optional*): As in `predict`.

        Returns:
            The keys of [`~hf_labels.metrics.functional.conformal_sets`] (sizes beyond `max_sets` that could not be
            counted are lower bounds: `n_truncated`), and `epsilon`, `n`, `credibility`, `confidence`,
            `forced_accuracy`.
        """
        from hf_labels.metrics.functional.conformal import conformal_sets

        truth = self._truth(
            _labels(outputs) if labels is None else labels, self._probs(outputs, self.from_logits)
        ).astype(bool)
        out = []
        for level, answers in zip(epsilons, self.predict(outputs, list(epsilons), non_empty=non_empty), strict=True):
            base = np.array([answer.base for answer in answers])
            covered = [answer.contains(np.flatnonzero(row)) for answer, row in zip(answers, truth, strict=True)]
            cut = [not answer.size_is_exact for answer in answers]
            found = conformal_sets([answer.size for answer in answers], covered, level, self.num_labels, cut)
            found |= {"epsilon": level, "n": len(answers)}
            found["credibility"] = float(np.mean([answer.credibility for answer in answers]))
            found["confidence"] = float(np.mean([answer.confidence for answer in answers]))
            found["forced_accuracy"] = float((base == truth).all(1).mean())
            out.append(found)
        return out

    # files

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write `lp_icp.json` and `lp_icp.safetensors`, also beside a model. Returns the folder."""
        from hf_labels.labels.lp_icp_files import save_icp

        return save_icp(self, folder)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None, token: Any = None) -> LabelPowersetICP:
        """Load from a folder or the Hub; see [`~hf_labels.labels.lp_icp_files.load_icp`]."""
        from hf_labels.labels.lp_icp_files import load_icp

        return load_icp(name, revision=revision, token=token)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Add both files to a model's repository; see [`~hf_labels.labels.lp_icp_files.push_icp`]."""
        from hf_labels.labels.lp_icp_files import push_icp

        return push_icp(self, repo_id, **options)

    # inputs

    def _probs(self, outputs: Any, from_logits: bool, calibrating: bool = False) -> np.ndarray:
        values = getattr(outputs, "predictions", outputs)
        values = values[0] if isinstance(values, tuple) else values
        if not calibrating and getattr(values, "ndim", 2) == 2 and len(values) == 0:
            return np.zeros((0, self.num_labels))
        values = np.asarray(check_scores(values, "outputs"), dtype=np.float64)
        self._check_width(values.shape[1], free=calibrating)
        if from_logits:
            from scipy.special import expit

            return expit(values)
        bad = (values < 0) | (values > 1)
        if bad.any():
            index = first_bad(bad)
            raise ValueError(
                f"`outputs` must be probabilities in [0, 1], got {values[index]} at {place(index)}. If they are "
                "logits, calibrate with `from_logits=True`."
            )
        return values

    def _check_width(self, width: int, free: bool = False) -> None:
        expected = len(self.names) if self.names is not None else (0 if free else self._labels)
        if expected and width != expected:
            raise ValueError(f"`outputs` has shape (n, {width}), expected (n, {expected}): one column for each label.")

    def _truth(self, labels: Any, probs: np.ndarray) -> np.ndarray:
        if labels is None:
            raise ValueError("`labels` is missing: pass 0/1 rows, or the `PredictionOutput` of labelled rows.")
        positive, known = check_multi_hot(labels, "labels")
        if not known.all():
            raise ValueError(
                f"`labels` must be 0 or 1, got a missing one at {place(first_bad(~known))}. The score of a label set "
                "needs all its labels: leave such rows out."
            )
        if positive.shape != probs.shape:
            raise ValueError(f"`outputs` and `labels` must have one shape, got {probs.shape} and {positive.shape}.")
        return positive

    def _score(self, probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(n,): summed in the order of the labels, as for candidates, so that equal numbers are equal."""
        parts = np.where(truth, _power(1 - probs, self.d), _power(probs, self.d))
        total = np.zeros(len(probs))
        for label in range(probs.shape[1]):
            total += parts[:, label]
        return total


def _power(values: np.ndarray, d: float) -> np.ndarray:
    return values if d == 1 else values * values if d == 2 else values**d


def _labels(outputs: Any) -> Any:
    labels = getattr(outputs, "label_ids", None)
    return labels[0] if isinstance(labels, tuple) and len(labels) == 1 else labels
