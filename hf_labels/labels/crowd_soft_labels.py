"""One label, hard or soft, from the annotations of several imperfect people.

    found = aggregate_annotations(table, method="average", num_labels=2)     # or "ds", "mace", "wawa", ...
    found.soft, found.labels, found.worker_skill
    train = found.to_dataset(texts)                                          # columns `soft_labels`, `labels`

Source: Wright and Augenstein, "Aggregating Soft Labels from Crowd Annotations Improves Uncertainty Estimation Under
Distribution Shift", arXiv:2212.09409.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.labels import crowd_votes as votes
from hf_labels.labels.columns import write_column
from hf_labels.labels.crowd import CrowdAnnotations, read_annotations
from hf_labels.labels.crowd_dawid_skene import dawid_skene
from hf_labels.labels.crowd_glad import glad
from hf_labels.labels.crowd_mace import mace

logger = logging.getLogger(__name__)

AVERAGED = ("normalized", "softmax", "ds", "glad", "mace", "wawa", "zbs")
METHODS = ("majority", *AVERAGED, "one_coin_ds", "average", "conflation", "js_centroid")
_MIXTURES = ("average", "conflation", "js_centroid")


@dataclass(frozen=True)
class CrowdLabels:
    """What an aggregation says.

    Parameters:
        soft (`np.ndarray` of shape `(T, K)`, float64): Distribution over the labels of each item; rows sum to 1.
        data ([`CrowdAnnotations`]): What it was made from.
        method (`str`): Name of the aggregation.
        worker_skill (`np.ndarray` of shape `(W,)`, *optional*): Chance that a worker is right, as the method sees it.
        confusion (`np.ndarray` of shape `(W, K, K)`, *optional*): p(worker says l | truth k), axes worker, said, true.
        parts (`dict[str, np.ndarray]`): Of a mixture: what each method says, `(T, K)`.
        info (`dict[str, Any]`): Numbers of the fit.
    """

    soft: np.ndarray
    data: CrowdAnnotations
    method: str
    worker_skill: np.ndarray | None = None
    confusion: np.ndarray | None = None
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """Most probable label of each item, `(T,)`; the smallest id wins ties."""
        return self.soft.argmax(1)

    @property
    def num_annotations(self) -> np.ndarray:
        """Annotations per item, `(T,)`."""
        return np.bincount(self.data.item, minlength=self.data.num_items)

    def to_dataset(self, dataset: Any = None, item_column: str | None = None) -> Any:
        """Columns `soft_labels`, `labels` and `num_annotations`, ready for [`SoftLabelTrainer`].

        Args:
            dataset (`datasets.Dataset`, *optional*): One row per item, with the inputs. Rows are matched by
                `item_column`; without it the items are row numbers (wide annotations), and counts must agree. Without
                a data set there is one row per item, with its name in `item`.
            item_column (`str`, *optional*): Column that names the items.

        Raises:
            ValueError: If a row has no annotated item, or counts differ.
        """
        import datasets

        data = self.data
        if dataset is None:
            names = data.items if data.items is not None else list(range(data.num_items))
            dataset, rows = datasets.Dataset.from_dict({"item": list(names)}), np.arange(data.num_items)
        else:
            rows = self._rows(dataset, item_column)
        kind = datasets.ClassLabel(names=list(data.names)) if data.names else datasets.Value("int64")
        row_kind = datasets.List(datasets.Value("float32"), length=data.num_labels)
        out = write_column(dataset, "soft_labels", self.soft[rows].astype(np.float32), row_kind)
        out = write_column(out, "labels", self.labels[rows], kind)
        return write_column(out, "num_annotations", self.num_annotations[rows], datasets.Value("int64"))

    def _rows(self, dataset: Any, item_column: str | None) -> np.ndarray:
        if item_column is None:
            if len(dataset) != self.data.num_items:
                raise ValueError(
                    f"The data set has {len(dataset)} rows, the annotations {self.data.num_items} items. Pass "
                    "`item_column`, which names the item of each row."
                )
            return np.arange(len(dataset))
        names = self.data.items if self.data.items is not None else range(self.data.num_items)
        place = {name: number for number, name in enumerate(names)}
        wanted = dataset[item_column][:]
        for row, name in enumerate(wanted):
            if name not in place:
                raise ValueError(
                    f"Item {name!r} at row {row} of column `{item_column}` has no annotation. Drop the row."
                )
        return np.array([place[name] for name in wanted], dtype=np.int64)

    def skills(self) -> dict[str, float]:
        """Worker -> skill.

        Raises:
            ValueError: If the method knows no workers.
        """
        if self.worker_skill is None:
            raise ValueError(
                f"Method {self.method!r} does not rate workers; use 'ds', 'glad', 'mace', 'wawa' or 'zbs'."
            )
        names = self.data.workers if self.data.workers is not None else range(self.data.num_workers)
        return {str(name): float(skill) for name, skill in zip(names, self.worker_skill, strict=True)}

    def save_skills(self, path: str | Path) -> Path:
        """Write method and skills as JSON, to lie beside the data set."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"method": self.method, "num_labels": self.data.num_labels, "worker_skill": self.skills()}
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


def aggregate_annotations(
    data: Any,
    method: str = "average",
    *,
    item_column: str = "task",
    worker_column: str | None = "worker",
    label_column: str = "label",
    num_labels: int | None = None,
    on_empty: str = "error",
    seed: int = 0,
    methods: Sequence[str] = AVERAGED,
    weights: Sequence[float] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> CrowdLabels:
    """Aggregate crowd annotations.

    Args:
        data (`datasets.Dataset`, `pandas.DataFrame`, mapping or [`CrowdAnnotations`]): One row per annotation, or one
            row per item with lists of labels in `label_column` (-1 = missing).
        method (`str`, *optional*, defaults to `"average"`): `majority` (one-hot), `normalized` (vote shares),
            `softmax` (of the counts), `ds` (Dawid-Skene), `one_coin_ds`, `glad`, `mace`, `wawa`, `zbs`; or a mix of
            `methods`: `average`, `conflation` (product), `js_centroid`.
        item_column, worker_column, label_column (`str`, *optional*): Columns.
        num_labels (`int`, *optional*): K; else from names, texts or the largest id.
        on_empty (`str`, *optional*, defaults to `"error"`): Items without annotations: refused, or `"uniform"`.
        seed (`int`, *optional*, defaults to 0): Of MACE's restarts.
        methods (sequence of `str`, *optional*): Members of a mixture.
        weights (sequence of `float`, *optional*): Of the members; for `average` and `js_centroid`.
        options (mapping, *optional*): Method -> keyword arguments, such as `{"ds": {"n_iter": 20}}`.

    Returns:
        [`CrowdLabels`]

    Raises:
        KeyError: If a column is missing.
        ValueError: For an unknown method, fewer than two labels, items without annotations, or ids out of range.

    Example:
        >>> table = {"task": [0, 0, 0, 1, 1], "worker": ["a", "b", "c", "a", "b"], "label": [1, 1, 0, 0, 0]}
        >>> aggregate_annotations(table, "normalized").soft.round(2).tolist()
        [[0.33, 0.67], [1.0, 0.0]]
    """
    for name in (method, *methods):
        if name not in METHODS or (name in _MIXTURES and name != method):
            raise ValueError(f"Method {name!r} is unknown, expected one of {', '.join(METHODS)}.")
    if on_empty not in ("error", "uniform"):
        raise ValueError(f"`on_empty` must be 'error' or 'uniform', got {on_empty!r}.")
    table = read_annotations(data, item_column, worker_column, label_column, num_labels)
    empty = table.empty_items
    if len(empty) and on_empty == "error":
        shown = ", ".join(str(table.items[i] if table.items is not None else i) for i in empty[:5])
        raise ValueError(
            f"{len(empty)} items have no annotation ({shown}{', ...' if len(empty) > 5 else ''}). Drop them, or pass "
            '`on_empty="uniform"`.'
        )
    given = options or {}
    if method not in _MIXTURES:
        return _single(table, method, seed, given.get(method, {}), empty)
    found = {name: _single(table, name, seed, given.get(name, {}), empty) for name in methods}
    stack = np.stack([one.soft for one in found.values()])
    if method == "conflation":
        soft = votes.conflation(stack)
    elif method == "js_centroid":
        soft = votes.jensen_shannon_centroid(stack, weights)
    else:
        soft = votes.average(stack, weights)
    skills = [one.worker_skill for one in found.values() if one.worker_skill is not None]
    confusion = found["ds"].confusion if "ds" in found else None
    parts = {name: one.soft for name, one in found.items()}
    return CrowdLabels(soft, table, method, np.mean(skills, 0) if skills else None, confusion, parts)


def _single(
    data: CrowdAnnotations, method: str, seed: int, options: Mapping[str, Any], empty: np.ndarray
) -> CrowdLabels:
    found = _fit(data, method, seed, options)
    if len(empty):
        found.soft[empty] = 1 / data.num_labels
    return found


def _fit(data: CrowdAnnotations, method: str, seed: int, options: Mapping[str, Any]) -> CrowdLabels:
    if method == "majority":
        labels, skill = votes.majority_vote(data)
        return CrowdLabels(np.eye(data.num_labels)[labels], data, method, skill)
    if method == "normalized":
        return CrowdLabels(votes.normalized_votes(data), data, method)
    if method == "softmax":
        return CrowdLabels(votes.softmax_votes(data), data, method)
    if method in ("ds", "one_coin_ds"):
        ds = dawid_skene(data, **{"one_coin": method == "one_coin_ds"} | dict(options))
        info = {"rounds": len(ds.history), "priors": ds.priors.tolist()}
        return CrowdLabels(ds.soft, data, method, ds.skill, ds.errors, info=info)
    if method == "glad":
        fit = glad(data, **options)
        return CrowdLabels(fit.soft, data, method, fit.skill, info={"rounds": len(fit.history)})
    if method == "mace":
        best = mace(data, **{"seed": seed} | dict(options))
        return CrowdLabels(best.soft, data, method, best.skill, info={"log_likelihood": best.log_likelihood})
    soft, skill = votes.wawa(data) if method == "wawa" else votes.zero_based_skill(data, **options)
    return CrowdLabels(soft, data, method, skill)
