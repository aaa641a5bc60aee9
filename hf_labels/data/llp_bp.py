"""Bags as rows: instances that belong together reach the model in one batch (LLP-BP)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.labels.columns import require_columns
from hf_labels.labels.llp_bp import read_bags

INPUTS = ("features", "input_ids", "attention_mask", "token_type_ids", "pixel_values")


def bag_dataset(dataset: Any, bag_ids: Any, bag_counts: Mapping[Any, float] | Any, targets: Any = None) -> Any:
    """One row per bag, so that a batch holds whole bags.

    Args:
        dataset (`datasets.Dataset`): Instances with `features` (numbers), `input_ids` (and masks) or `pixel_values`,
            as columns or made by its transform.
        bag_ids (`(N,)`), bag_counts: As in [`~hf_labels.labels.llp_bp.llp_pseudo_labels`]; rows in no bag are left
            out.
        targets (`(N,)`, *optional*): Pseudo-labels, 0 or 1 or between.

    Returns:
        `datasets.Dataset` with the inputs as lists of rows, `target` (lists), `proportion` and `index` (lists of the
        rows in `dataset`). `pixel_values`, and what a transform makes, are read when a bag is asked for.

    Raises:
        KeyError: If there is no column of inputs. ValueError: As in [`~hf_labels.labels.llp_bp.read_bags`].
    """
    import datasets

    columns = input_names(dataset)
    if not columns:
        require_columns(dataset, ["features"])
    later = [name for name in columns if name == "pixel_values" or name not in dataset.column_names]
    bag, counts, _ = read_bags(bag_ids, bag_counts)
    members = _members(bag, len(counts))
    inputs = {name: dataset[name][:] for name in columns if name not in later}
    found: dict[str, list[Any]] = {
        name: [[values[i] for i in rows] for rows in members] for name, values in inputs.items()
    }
    if targets is not None:
        soft = np.asarray(targets, dtype=np.float64)
        found["target"] = [soft[rows].tolist() for rows in members]
    found["proportion"] = [float(c) / max(len(rows), 1) for c, rows in zip(counts, members, strict=True)]
    found["index"] = [rows.tolist() for rows in members]
    bags = datasets.Dataset.from_dict(found)
    return bags.with_transform(_Later(dataset, later)) if later else bags


class _Later:
    """Reads inputs of the rows of bags when the bags are asked for."""

    def __init__(self, dataset: Any, names: Sequence[str]) -> None:
        self.dataset, self.names = dataset, list(names)

    def __call__(self, bags: dict[str, list[Any]]) -> dict[str, list[Any]]:
        parts = [read_inputs(self.dataset.select(rows), self.names) for rows in bags["index"]]
        return {**bags, **{name: [part[name] for part in parts] for name in self.names}}


def input_names(dataset: Any) -> list[str]:
    """What a model can read of a data set: its columns, or what its transform makes."""
    there = dataset.column_names
    if not any(name in there for name in INPUTS) and len(dataset):
        there = list(dataset[0])
    return [name for name in INPUTS if name in there]


def read_inputs(dataset: Any, names: Sequence[str]) -> dict[str, Any]:
    """Inputs of all rows, `name -> list`."""
    if all(name in dataset.column_names for name in names):
        return {name: dataset[name][:] for name in names}
    made = dataset[:]
    return {name: made[name] for name in names}


def _members(bag: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows of each bag, in their order; -1 is no bag."""
    order = np.argsort(bag, kind="stable")
    order = order[np.searchsorted(bag[order], 0) :]
    return np.split(order, np.cumsum(np.bincount(bag[order], minlength=count))[:-1])


class BagCollator:
    """Batches of bags: the rows of all of them in one tensor, and the bag of each. Texts get an `attention_mask`."""

    def __call__(self, bags: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        name = next(one for one in INPUTS if one in bags[0])
        sizes = [len(bag[name]) for bag in bags]
        batch: dict[str, Tensor] = {}
        for column in (one for one in INPUTS if one in bags[0]):
            rows = [row for bag in bags for row in bag[column]]
            if column in ("features", "pixel_values"):
                batch[column] = torch.tensor(np.asarray(rows, dtype=np.float32))
            else:
                width = max(len(row) for row in rows)
                batch[column] = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
        if "input_ids" in bags[0] and "attention_mask" not in bags[0]:
            lengths = torch.tensor([len(row) for bag in bags for row in bag["input_ids"]])
            batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        batch["bag"] = torch.repeat_interleave(torch.arange(len(bags)), torch.tensor(sizes))
        if "target" in bags[0]:
            batch["target"] = torch.tensor([value for bag in bags for value in bag["target"]], dtype=torch.float32)
        batch["proportion"] = torch.tensor([float(bag["proportion"]) for bag in bags])
        return batch
