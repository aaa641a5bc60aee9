"""Rows of Jacobi trajectories as batches of tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.nn import functional as F

from hf_labels.data.collators import LabelCollator
from hf_labels.labels.kinds import IGNORE_INDEX, require_columns

_OWN = ("prompt_ids", "trajectory", "fixed_point", "labels")


@dataclass
class DataCollatorForJacobi:
    """Records of [`collect_jacobi_trajectories`] to a batch; prompts are padded on the left, blocks on the right.

    | in the batch | shape | |
    | --- | --- | --- |
    | `input_ids`, `attention_mask` | (B, P + n) | prompt and fixed point |
    | `position_ids` | (B, P + n) | when wanted |
    | `fixed_point` | (B, n) | |
    | `block_mask` | (B, n) | 1 = a token of the block |
    | `trajectory` | (B, K + 1, n) | shorter ones repeat their fixed point |
    | `trajectory_length` | (B,) | K of the row; at least 1 |
    | `labels` | (B, n), -100 = none | when the rows have them |
    | other columns | stacked | |

    Parameters:
        position_ids (`bool`, *optional*, defaults to `True`): Count positions from the first real token. Off for
            models that make their own from the mask.
        pad_token_id (`int`, *optional*, defaults to `0`): Filler; never read.
    """

    position_ids: bool = True
    pad_token_id: int = 0

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        blocks = [torch.as_tensor(row["fixed_point"]).long() for row in features]
        paths = [torch.as_tensor(row["trajectory"]).long() for row in features]
        prompts = [torch.as_tensor(row["prompt_ids"]).long() for row in features]
        width, longest, steps = max(map(len, blocks)), max(map(len, prompts)), max(map(len, paths))
        ends = [width - len(block) for block in blocks]
        lefts = [longest - len(prompt) for prompt in prompts]
        tokens = torch.stack([self._pad(row, 0, end) for row, end in zip(blocks, ends, strict=True)])
        ids = torch.stack([self._pad(row, left, 0) for row, left in zip(prompts, lefts, strict=True)])
        block_mask = torch.arange(width) < torch.tensor([len(block) for block in blocks])[:, None]
        mask = torch.arange(longest) >= torch.tensor(lefts)[:, None]
        batch: dict[str, Any] = {
            "input_ids": torch.cat([ids, tokens], dim=1),
            "attention_mask": torch.cat([mask, block_mask], dim=1).long(),
            "fixed_point": tokens,
            "block_mask": block_mask.long(),
            "trajectory": torch.stack([self._path(path, steps, end) for path, end in zip(paths, ends, strict=True)]),
            "trajectory_length": torch.tensor([max(len(path) - 1, 1) for path in paths]),
        }
        if self.position_ids:
            batch["position_ids"] = (batch["attention_mask"].cumsum(dim=1) - 1).clamp_min(0)
        if features[0].get("labels") is not None:
            batch["labels"] = torch.stack([_labels(row["labels"], width) for row in features])
        others = [{name: value for name, value in row.items() if name not in _OWN} for row in features]
        return batch | (LabelCollator()(others) if others[0] else {})

    def _pad(self, row: Tensor, left: int, right: int) -> Tensor:
        return F.pad(row, (left, right), value=self.pad_token_id)

    def _path(self, path: Tensor, steps: int, end: int) -> Tensor:
        path = self._pad(path, 0, end)
        return torch.cat([path, path[-1:].expand(steps - len(path), -1)])


@dataclass
class AnchorCollator:
    """Rows with `prompt_ids` and `labels` to a batch like that of [`DataCollatorForJacobi`], the labels as block."""

    collator: Any

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        rows = [{**row, "fixed_point": row["labels"], "trajectory": [list(row["labels"])]} for row in features]
        batch = self.collator(rows)
        batch["block_mask"] = batch["block_mask"] * (batch["labels"] != IGNORE_INDEX)
        for name in ("trajectory", "trajectory_length", "labels"):
            batch.pop(name)
        return batch


def join_rows(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Several batches of model inputs as one; token tensors are padded on the left to one width.

    Raises:
        ValueError: If they do not have the same inputs.
    """
    if len(parts) == 1:
        return parts[0]
    names = set(parts[0])
    for part in parts[1:]:
        if set(part) != names:
            raise ValueError(f"Inputs differ between the records and the anchor rows: {sorted(names ^ set(part))}.")
    width = max(part["input_ids"].shape[1] for part in parts)
    joined = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if name in ("input_ids", "attention_mask", "position_ids"):
            values = [F.pad(value, (width - value.shape[1], 0)) for value in values]
        joined[name] = torch.cat(values)
    return joined


def check_tokens(data: Any, name: str, vocabulary: int, allowed: Tensor | None) -> None:
    """Check trajectories, or anchor rows, once before training.

    Raises:
        KeyError: If anchor rows lack a column.
        ValueError: Iterates of another length than the fixed point, or a token outside the vocabulary or `allowed`.
    """
    if not isinstance(data, datasets.Dataset) or not len(data):
        return
    if name == "anchor_dataset":
        require_columns(data, ["prompt_ids", "labels"])
    columns = [c for c in _OWN if c in data.column_names]
    known = None if allowed is None else set(allowed.tolist())
    for number, row in enumerate(data.select_columns(columns)):
        for column in columns:
            values = row[column]
            flat = [i for path in values for i in path] if column == "trajectory" else list(values)
            real = [i for i in flat if i != IGNORE_INDEX] if column == "labels" else flat
            bad = next((i for i in real if not 0 <= i < vocabulary), None)
            if bad is not None:
                raise ValueError(
                    f"Column `{column}` of `{name}` must be in [0, {vocabulary}), got {bad} at row {number}."
                )
            if known is not None and column in ("labels", "fixed_point") and not known.issuperset(real):
                other = next(i for i in real if i not in known)
                raise ValueError(
                    f"Column `{column}` of `{name}` has {other} at row {number}: not in `label_token_ids`."
                )
        _check_lengths(row, name, number)


def _check_lengths(row: Mapping[str, Any], name: str, number: int) -> None:
    if not row["prompt_ids"]:
        raise ValueError(f"Column `prompt_ids` of `{name}` is empty at row {number}: start with the BOS token.")
    if "fixed_point" not in row or "trajectory" not in row:
        return
    n = len(row["fixed_point"])
    if not n or not row["trajectory"] or any(len(path) != n for path in row["trajectory"]):
        raise ValueError(
            f"`trajectory` of `{name}` must hold iterates as long as `fixed_point` ({n}), which row {number} does not."
        )
    if list(row["trajectory"][-1]) != list(row["fixed_point"]):
        raise ValueError(f"The last iterate of `trajectory` is not `fixed_point` at row {number} of `{name}`.")
    if row.get("labels") is not None and len(row["labels"]) > n:
        raise ValueError(f"`labels` of `{name}` has {len(row['labels'])} tokens for a block of {n} at row {number}.")


def _labels(values: Any, width: int) -> Tensor:
    row = torch.as_tensor(values).long()
    return F.pad(row, (0, width - len(row)), value=IGNORE_INDEX)
