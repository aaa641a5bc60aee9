"""`FerKDCollator`: stored views whose labels are calibrated in the batch, and mixed with views of the same image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.data.ferkd import FerKDCalibrator, StoreRegions
from hf_labels.data.soft_label_collator import SoftLabelCollator
from hf_labels.data.soft_label_store import SoftLabelStore
from hf_labels.labels.ferkd import UNINFORMATIVE, calibrate_labels, calibrate_sparse
from hf_labels.mixing.self_mix import SelfMix, mixed_targets


class FerKDCollator(SoftLabelCollator):
    """[`SoftLabelCollator`] whose labels are calibrated in the batch, before SelfMix.

    It adds `soft_label_mask` (n B,): False for views that are dropped, which then count for nothing, and
    `soft_label_region` (n B,). A dropped view is nobody's partner in SelfMix.

    Args:
        store ([`SoftLabelStore`]): With crops. One that [`FerKDCalibrator.apply`] made is used as it is.
        image_processor, views_per_example, self_mix, options: As in [`SoftLabelCollator`]; 4 views by default.
        calibrator ([`FerKDCalibrator`], *optional*): Fitted to the store when it has no thresholds.
        true_labels (mapping of key to class, *optional*): True classes; those in the store by default.

    Raises:
        ValueError: As [`SoftLabelCollator`] and [`FerKDCalibrator.regions`].
    """

    def __init__(
        self,
        store: SoftLabelStore,
        image_processor: Any = None,
        views_per_example: int = 4,
        *,
        calibrator: FerKDCalibrator | None = None,
        true_labels: Mapping[Any, int] | None = None,
        self_mix: SelfMix | None = None,
        dense: bool = False,
        **options: Any,
    ) -> None:
        calibrated = "ferkd" in store.info.extra
        if calibrated:  # some views were dropped: an image may have fewer than others
            options = {"allow_fewer": True} | options
        super().__init__(store, image_processor, views_per_example, dense=dense or self_mix is not None, **options)
        self.mix = self_mix
        self.calibrator: FerKDCalibrator | None = None
        self.found: StoreRegions | None = None
        if not calibrated:
            self.calibrator = (calibrator or FerKDCalibrator()).fit(store, true_labels)
            self.found = self.calibrator.regions(store, true_labels)
        self._drawn: tuple[np.ndarray, np.ndarray] | None = None

    def draw(self, example_ids: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """As in [`SoftLabelCollator`]."""
        self._drawn = super().draw(example_ids)
        return self._drawn

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(features)
        assert self._drawn is not None
        image, numbers = self._drawn
        keep = None
        if self.calibrator is not None and self.found is not None:
            regions, labels = (part[numbers] for part in (self.found.regions, self.found.labels))
            keep = regions != UNINFORMATIVE
            batch |= {"soft_label_mask": keep, "soft_label_region": regions}
            batch |= self._adapted(batch, regions, labels)
        if self.mix is not None:
            plan = self.mix.draw(torch.from_numpy(image), (self.size, self.size), keep)
            batch["pixel_values"] = plan.apply(batch["pixel_values"])
            batch["soft_labels"] = mixed_targets(plan, batch["soft_labels"])
        return batch

    def _adapted(self, batch: Mapping[str, Any], regions: Tensor, labels: Tensor) -> dict[str, Tensor]:
        assert self.calibrator is not None
        epsilon = self.calibrator.epsilon
        if "soft_labels" in batch:
            found = calibrate_labels(batch["soft_labels"], labels, epsilon=epsilon, regions=regions)
            # A dropped view is masked; its target stays a distribution, so that nothing downstream meets a zero row.
            return {"soft_labels": torch.where(found.keep[:, None], found.targets, batch["soft_labels"])}
        ids, values = batch["soft_label_ids"], batch["soft_label_values"]
        ids, values = calibrate_sparse(ids, values, labels, self.store.info.num_labels, regions, epsilon)
        return {"soft_label_ids": ids, "soft_label_values": values}
