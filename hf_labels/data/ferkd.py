"""`FerKDCalibrator`: sort the labels of a soft-label store by confidence, repair the middle, drop the extremes."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.data.soft_label_info import StoreInfo
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.data.soft_label_writer import SoftLabelWriter
from hf_labels.labels.ferkd import (
    HARD,
    REGIONS,
    UNINFORMATIVE,
    Confidence,
    calibrate_labels,
    calibrate_sparse,
    check_thresholds,
    known_regions,
    label_confidence,
    rescue_examples,
    sparse_confidence,
    view_regions,
)

logger = logging.getLogger(__name__)

_BATCH = 10_000


@dataclass
class FerKDCalibrator:
    """Sorts teacher labels by confidence: drops the extremes, replaces unreliable ones by the smoothed true label.

        calibrator = FerKDCalibrator(quantiles=(0.02, 0.15, 0.98)).fit(store)
        smaller = calibrator.apply(store)                        # offline: a new store, to train on or to publish
        collator = FerKDCollator(store, calibrator=calibrator)   # online: the same targets
        data = data.map(calibrator, batched=True)                # a data set with `soft_labels` and `labels`

    Parameters:
        t_low, t_mid, t_top (`float`, *optional*): Rising thresholds on the confidence, all three or none. None leaves
            them to [`fit`].
        epsilon (`float`, *optional*, defaults to 0.1): Smoothing of the true label in the hard region, in [0, 1).
        confidence (`str`, *optional*, defaults to `"max"`): `"max"`: the largest probability of the soft label;
            `"ground_truth"`: that of the true class.
        quantiles (`tuple[float, float, float]`, *optional*, defaults to (0.02, 0.15, 0.98)): Of the confidence over
            all views, from which [`fit`] takes the thresholds. Our choice: the paper names no values.

    Raises:
        ValueError: If thresholds or quantiles do not rise, or a setting is out of range.

    Source: FerKD (Shen, arXiv:2312.17473).
    """

    t_low: float | None = None
    t_mid: float | None = None
    t_top: float | None = None
    epsilon: float = 0.1
    confidence: Confidence = "max"
    quantiles: tuple[float, float, float] = (0.02, 0.15, 0.98)

    def __post_init__(self) -> None:
        given = (self.t_low, self.t_mid, self.t_top)
        if any(value is None for value in given) and any(value is not None for value in given):
            raise ValueError(f"Give all of `t_low`, `t_mid` and `t_top`, or none of them, got {given}.")
        check_thresholds(*(self.thresholds if self.fitted else (0.0, 0.0, 1.0)), self.epsilon)
        if self.confidence not in ("max", "ground_truth"):
            raise ValueError(f"`confidence` must be max or ground_truth, got {self.confidence!r}.")
        low, mid, top = self.quantiles
        if not 0 <= low <= mid <= top <= 1:
            raise ValueError(f"`quantiles` must rise within [0, 1], got {self.quantiles}.")

    @property
    def fitted(self) -> bool:
        """Whether there are thresholds."""
        return self.t_low is not None

    @property
    def thresholds(self) -> tuple[float, float, float]:
        """`t_low`, `t_mid`, `t_top`.

        Raises:
            ValueError: If there are none yet.
        """
        if self.t_low is None or self.t_mid is None or self.t_top is None:
            raise ValueError("The calibrator has no thresholds. Give `t_low`, `t_mid`, `t_top`, or call `fit(store)`.")
        return self.t_low, self.t_mid, self.t_top

    def fit(self, store: SoftLabelStore, labels: Mapping[Any, int] | None = None) -> "FerKDCalibrator":
        """A calibrator with thresholds at the quantiles of the store's confidence; with thresholds, itself.

        Args:
            store ([`SoftLabelStore`]): Any kind but `map` and `projector`.
            labels (mapping of key to class, *optional*): True classes, for `confidence="ground_truth"`; those in the
                store by default.
        """
        if self.fitted:
            return self
        scores = store_confidence(store, self.confidence, labels).double()
        low, mid, top = torch.quantile(scores, torch.tensor(self.quantiles, dtype=torch.float64)).tolist()
        return dataclasses.replace(self, t_low=low, t_mid=mid, t_top=top)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """For `Dataset.map(..., batched=True)`: columns `soft_labels` (N, C) and `labels` (N,).

        Returns:
            `dict`: `soft_labels` adapted (a dropped row keeps the teacher's), `soft_label_region` ("UR", "HR", "IR")
            and `soft_label_keep` (bool), by which to filter.

        Raises:
            KeyError: If a column is missing.
        """
        for name in ("soft_labels", "labels"):
            if name not in batch:
                raise KeyError(f"Column `{name}` is missing; the batch has: {', '.join(batch)}.")
        probs = torch.as_tensor(np.asarray(batch["soft_labels"], dtype=np.float32))
        labels = torch.as_tensor(np.asarray(batch["labels"], dtype=np.int64))
        low, mid, top = self.thresholds
        options: dict[str, Any] = {"epsilon": self.epsilon, "confidence": self.confidence}
        found = calibrate_labels(probs, labels, t_low=low, t_mid=mid, t_top=top, **options)
        targets = torch.where(found.keep[:, None], found.targets, probs)
        return {
            "soft_labels": targets.numpy(),
            "soft_label_region": [REGIONS[number] for number in found.regions.tolist()],
            "soft_label_keep": found.keep.tolist(),
        }

    def regions(self, store: SoftLabelStore, labels: Mapping[Any, int] | None = None) -> "StoreRegions":
        """Region of every row of a store; the same for offline and online calibration.

        An example whose views would all be dropped keeps its most confident one.

        Args:
            store, labels: As in [`fit`].
        """
        known = _true_classes(store, labels)
        scores = store_confidence(store, self.confidence, labels)
        low, mid, top = self.thresholds
        found = view_regions(scores, low, mid, top)
        numbers = np.unique(store.reader.column("example_id"), return_inverse=True)[1].reshape(-1)
        examples = torch.from_numpy(numbers.astype(np.int64))
        found, rescued = rescue_examples(found, scores, examples, low)
        unlabelled = int(((found == HARD) & (known < 0)).sum())
        if unlabelled:
            logger.warning(
                "%d views are in the hard region but have no true label: they keep the teacher's soft label.",
                unlabelled,
            )
        return StoreRegions(known_regions(found, known), known, len(rescued), unlabelled)

    def apply(
        self,
        store: SoftLabelStore,
        labels: Mapping[Any, int] | None = None,
        folder: str | Path | None = None,
        codec: str = "float32",
    ) -> SoftLabelStore:
        """Calibrate offline: a new, smaller store without the dropped views.

        Thresholds, counts per region and the number of rescued examples stand in its side-car (`info.extra["ferkd"]`).

        Args:
            store ([`SoftLabelStore`]), labels: As in [`fit`].
            folder (`str` or `Path`, *optional*): Where it is written; in memory by default.
            codec (`str`, *optional*, defaults to `"float32"`): Keeps `1 - eps` exact, so that offline and online
                targets are equal. `"float16"` halves the bytes and rounds it by up to 2.5e-4.

        Raises:
            ValueError: If labels are missing, another codec is asked for, or the store is a map or a projector.
        """
        if codec not in ("float32", "float16"):
            raise ValueError(f"`codec` of a calibrated store must be float32 or float16, got {codec!r}.")
        fitted = self.fit(store, labels)
        found = fitted.regions(store, labels)
        info = _calibrated_info(store.info, codec, fitted._facts(found))
        start = 0
        with SoftLabelWriter(folder, info) as writer:
            for rows in store.iter_batches(_BATCH):
                count = len(rows["example_id"])
                part = slice(start, start + count)
                start += count
                regions, known = found.regions[part], found.labels[part]
                keep = (regions != UNINFORMATIVE).numpy()
                columns = fitted._columns(store, rows, regions, known, codec)
                columns["label"] = known.numpy().astype(np.int32)
                writer.add_rows({name: values[keep] for name, values in (rows | columns).items()})
        return SoftLabelStore.from_writer(writer)

    def targets(self, store: SoftLabelStore, rows: Mapping[str, Any], regions: Tensor, labels: Tensor) -> Any:
        """Adapted labels of rows: ids and values, or dense targets (N, C) of a dense store.

        Args:
            store ([`SoftLabelStore`]), rows: From `store.lookup`.
            regions, labels (`Tensor` of shape `(N,)`): Regions and true classes of the rows.
        """
        classes = store.info.num_labels
        if store.info.kind == "dense":
            return calibrate_labels(store.decode(rows), labels, epsilon=self.epsilon, regions=regions).targets
        return calibrate_sparse(*store.sparse(rows), labels, classes, regions, self.epsilon)

    def _columns(self, store: SoftLabelStore, rows: Any, regions: Tensor, labels: Tensor, codec: str) -> Any:
        made = self.targets(store, rows, regions, labels)
        if torch.is_tensor(made):
            return {"dense_values": made.numpy().astype(codec)}
        ids, values = made
        return {"topk_ids": ids.numpy().astype(store.info.id_dtype), "topk_values": values.numpy().astype(codec)}

    def _facts(self, found: "StoreRegions") -> dict[str, Any]:
        low, mid, top = self.thresholds
        facts = {"t_low": low, "t_mid": mid, "t_top": top, "epsilon": self.epsilon, "confidence": self.confidence}
        return facts | {"views": found.counts(), "rescued_examples": found.rescued, "unlabelled": found.unlabelled}


@dataclass
class StoreRegions:
    """What [`FerKDCalibrator.regions`] found.

    Parameters:
        regions (`Tensor` of shape `(N,)`, int8): 0 = UR, 1 = HR, 2 = IR, in the order of the store's rows.
        labels (`Tensor` of shape `(N,)`, int64): True class of each row, -1 = missing.
        rescued (`int`): Examples that would have lost all views and kept one.
        unlabelled (`int`): Hard views that keep the teacher's label because their true class is not known.
    """

    regions: Tensor
    labels: Tensor
    rescued: int
    unlabelled: int

    def counts(self) -> dict[str, int]:
        """Views per region."""
        return {name: int((self.regions == number).sum()) for number, name in enumerate(REGIONS)}


def store_confidence(
    store: SoftLabelStore, kind: Confidence = "max", labels: Mapping[Any, int] | None = None
) -> Tensor:
    """Confidence of every row of a store, (N,), float32, in row order.

    Raises:
        ValueError: For label maps and projectors, whose rows are not labels of views.
    """
    if store.info.kind in ("map", "projector"):
        raise ValueError(
            f"FerKD adapts labels of views; a store of kind `{store.info.kind}` has none. Build one with `crop=...`."
        )
    known = _true_classes(store, labels) if kind == "ground_truth" else None
    parts, start = [], 0
    for rows in store.iter_batches(_BATCH):
        count = len(rows["example_id"])
        own = None if known is None else known[start : start + count]
        start += count
        if store.info.kind == "dense":
            parts.append(label_confidence(store.decode(rows), own, kind))
        else:
            parts.append(sparse_confidence(*store.sparse(rows), store.info.num_labels, own, kind))
    return torch.cat(parts)


def calibration_report(
    store: SoftLabelStore, calibrator: FerKDCalibrator, labels: Mapping[Any, int] | None = None
) -> dict[str, Any]:
    """Share of views and accuracy of the teacher per region. The accuracy in HR should be well below that in IR.

    Args:
        store ([`SoftLabelStore`]): Not calibrated yet.
        calibrator ([`FerKDCalibrator`]): Fitted to the store when it has no thresholds.
        labels (mapping of key to class, *optional*): True classes; those in the store by default.

    Returns:
        `dict`: `views`, `thresholds`, `rescued_examples`, and `UR`, `HR`, `IR`, each with `views`, `share` and
        `teacher_accuracy` (`None` where no view has a true class).
    """
    calibrator = calibrator.fit(store, labels)
    found = calibrator.regions(store, labels)
    tops = []
    for rows in store.iter_batches(_BATCH):
        if store.info.kind == "dense":
            tops.append(store.decode(rows).argmax(-1))
        else:
            tops.append(torch.from_numpy(np.asarray(rows["topk_ids"])[:, 0].astype(np.int64)))
    right, known = torch.cat(tops) == found.labels, found.labels >= 0
    total = len(found.regions)
    report: dict[str, Any] = {"views": total, "thresholds": calibrator.thresholds, "rescued_examples": found.rescued}
    for number, name in enumerate(REGIONS):
        mine = found.regions == number
        count, judged = int(mine.sum()), int((mine & known).sum())
        accuracy = int((right & mine & known).sum()) / judged if judged else None
        report[name] = {"views": count, "share": count / total, "teacher_accuracy": accuracy}
    return report


def _true_classes(store: SoftLabelStore, labels: Mapping[Any, int] | None) -> Tensor:
    """True class of each row of a store, -1 = missing."""
    if labels is not None and not isinstance(labels, Mapping):
        raise TypeError(
            "`labels` must map the key of each example to its class, for example "
            f"`dict(zip(data['index'], data['labels']))`, got {type(labels).__name__}."
        )
    ids = store.reader.column("example_id").tolist()
    if labels is None:
        if not store.info.has_labels:
            raise ValueError(
                "The store has no column `label`. Pass the true classes, for example "
                "`labels=dict(zip(data['index'], data['labels']))`."
            )
        found = torch.from_numpy(store.reader.column("label").astype(np.int64))
    else:
        missing = next((identity for identity in ids if identity not in labels), None)
        if missing is not None:
            raise KeyError(f"`labels` has no entry for example {missing!r}. Use -1 for a class that is not known.")
        found = torch.tensor([int(labels[identity]) for identity in ids])
    wrong = ((found >= store.info.num_labels) | (found < -1)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"The true class of example {ids[row]!r} must be in [0, {store.info.num_labels}) or -1, got "
            f"{int(found[row])}."
        )
    return found


def _calibrated_info(info: StoreInfo, codec: str, facts: dict[str, Any]) -> StoreInfo:
    dense = info.kind == "dense"
    kind = "smoothing" if info.kind == "hard" else info.kind
    changed: dict[str, Any] = {"kind": kind, "residual": "none" if dense else "smooth", "value_space": "prob"}
    changed |= {"codec": codec, "has_labels": True, "extra": {**info.extra, "ferkd": facts}}
    return dataclasses.replace(info, **changed)
