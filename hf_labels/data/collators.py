"""One collator for all label kinds: pads, stacks, and turns the missing label -1 into -100."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_labels.labels.kinds import IGNORE_INDEX

_LABEL_NAMES = ("labels", "label", "label_ids")


@dataclass
class LabelCollator:
    """Rows of a data set to a batch of tensors.

    | column | in a row | in the batch |
    | --- | --- | --- |
    | `labels` (also `label`, `label_ids`) | int; -1 = missing | int64 (B,), -100 = missing |
    | `labels` | float | float32 (B,) |
    | `labels` | K values (multi) | (B, K), unchanged |
    | `labels`, with `token_labels` | T ints | int64 (B, T), padded with -100 |
    | `soft_labels` | K floats | float32 (B, K) |
    | `soft_labels` | T x K floats; all-zero = not labelled | float32 (B, T, K) and `soft_label_mask` bool (B, T) |
    | what the tokenizer pads | lists | padded by the tokenizer |
    | anything else with numbers of one shape | numbers | stacked: int64, float32 or bool |
    | text | str | a list |

    Parameters:
        tokenizer (`PreTrainedTokenizerBase`, *optional*): Pads its own inputs. Other processors stack.
        token_labels (`bool`, *optional*, defaults to `False`): `labels` hold one id per token.
        padding, max_length, pad_to_multiple_of: As in `tokenizer.pad`.

    Raises:
        KeyError: If a row lacks a column that the first row has; names both.
        ValueError: If values of a column differ in shape and are not padded; names column and row.
    """

    tokenizer: Any = None
    token_labels: bool = False
    padding: bool | str = True
    max_length: int | None = None
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        # image processors have a method `pad` too, for images
        if not hasattr(self.tokenizer, "pad") or hasattr(self.tokenizer, "preprocess"):
            self.tokenizer = None

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        columns = _columns(features)
        batch: dict[str, Any] = {}
        names = [name for name in columns if name in getattr(self.tokenizer, "model_input_names", ())]
        if names:
            rows = [{name: columns[name][row] for name in names} for row in range(len(features))]
            padded = self.tokenizer.pad(
                rows,
                padding=self.padding,
                max_length=self.max_length,
                pad_to_multiple_of=self.pad_to_multiple_of,
                return_tensors="pt",
            )
            batch.update(padded)
        for name, values in columns.items():
            if name in names:
                continue
            if name in _LABEL_NAMES:
                batch["labels"] = self._labels(name, values, batch)
            elif name == "soft_labels":
                batch.update(self._soft_labels(values, columns.get("soft_label_mask"), batch))
            elif name != "soft_label_mask" or "soft_labels" not in columns:
                batch[name] = _stack(name, values)
        return batch

    def _width(self, lengths: list[int], batch: Mapping[str, Any]) -> int:
        tokens = batch.get("input_ids")
        return tokens.shape[1] if tokens is not None and tokens.dim() == 2 else max(lengths)

    def _place(self, length: int, width: int) -> slice:
        """Where a row of `length` stands in a padded row of `width`."""
        left = getattr(self.tokenizer, "padding_side", "right") == "left"
        return slice(width - length, width) if left else slice(0, length)

    def _labels(self, name: str, values: list[Any], batch: Mapping[str, Any]) -> Tensor:
        if not self.token_labels:
            labels = _stack(name, values, hint=" Labels per token need `LabelCollator(token_labels=True)`.")
            is_id = labels.dim() == 1 and not labels.is_floating_point()
            return labels.long().masked_fill(labels == -1, IGNORE_INDEX) if is_id else labels
        rows = [torch.as_tensor(value) for value in values]
        width = self._width([len(row) for row in rows], batch)
        labels = torch.full((len(rows), width), IGNORE_INDEX, dtype=torch.int64)
        for place, row in zip(labels, rows, strict=True):
            place[self._place(_fits(name, len(row), width), width)] = row.masked_fill(row == -1, IGNORE_INDEX)
        return labels

    def _soft_labels(self, values: list[Any], masks: list[Any] | None, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        rows = [torch.as_tensor(np.asarray(value), dtype=torch.float32) for value in values]
        if rows[0].dim() == 1:
            given = {} if masks is None else {"soft_label_mask": _stack("soft_label_mask", masks).bool()}
            return {"soft_labels": _stack("soft_labels", rows), **given}
        if rows[0].dim() != 2 or any(row.shape[1:] != rows[0].shape[1:] for row in rows):
            raise ValueError("Column `soft_labels` must hold K floats per row, or K floats per token (T x K).")
        width = self._width([len(row) for row in rows], batch)
        soft = torch.zeros(len(rows), width, rows[0].shape[1])
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for number, row in enumerate(rows):
            place = self._place(_fits("soft_labels", len(row), width), width)
            soft[number, place] = row
            mask[number, place] = row.sum(-1) > 0 if masks is None else torch.as_tensor(masks[number]).bool()
        return {"soft_labels": soft, "soft_label_mask": mask}


def _columns(features: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in features[0]}
    for row, feature in enumerate(features):
        for name, values in columns.items():
            if name not in feature:
                raise KeyError(f"Row {row} of the batch has no column `{name}`, row 0 has it.")
            values.append(feature[name])
    return {name: values for name, values in columns.items() if values[0] is not None}


def _fits(name: str, length: int, width: int) -> int:
    if length > width:
        raise ValueError(f"A row of column `{name}` has {length} entries for {width} tokens. Truncate both alike.")
    return length


def _stack(name: str, values: list[Any], hint: str = "") -> Any:
    if isinstance(values[0], str):
        return values
    try:
        tensors = [value if torch.is_tensor(value) else torch.as_tensor(np.asarray(value)) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"Column `{name}` cannot be made a tensor: {error}") from error
    for row, tensor in enumerate(tensors):
        if tensor.shape != tensors[0].shape:
            raise ValueError(
                f"Column `{name}` has shape {tuple(tensors[0].shape)} in row 0 of the batch and {tuple(tensor.shape)} "
                f"in row {row}.{hint}"
            )
    batch = torch.stack(tensors)
    if batch.is_floating_point():
        return batch.float()
    return batch if batch.dtype == torch.bool else batch.long()
