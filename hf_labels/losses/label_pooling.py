"""Read the soft label of a crop from a stored label map: RoIAlign to one cell, written as separable cell weights."""

import torch
from torch import Tensor

_SLACK = 1e-6  # an extent of 9 cells must not become 10 points because of rounding


def cell_weights(low: Tensor, high: Tensor, cells: int) -> Tensor:
    """Weight of each cell of one axis for crops that span `[low, high]`.

    Args:
        low, high (`Tensor` of shape `(B,)`): Ends of the crops as fractions of the axis.
        cells (`int`): n, cells of the map along the axis.

    Returns:
        `Tensor` of shape `(B, n)`, float64: Sums to 1 for crops inside the image.

    Source: RoIAlign (He et al., arXiv:1703.06870) with `aligned=False`, adaptive sampling, output 1 x 1, after the
    shift by half a cell of ReLabel's code.
    """
    start, end = low.double() * cells - 0.5, high.double() * cells - 0.5
    extent = (end - start).clamp_min(1.0)
    points = (extent - _SLACK).ceil().clamp_min(1)
    most = int(points.max()) if len(points) else 1
    step = torch.arange(most, device=low.device, dtype=torch.float64)
    place = start[:, None] + (step + 0.5) * (extent / points)[:, None]
    used = (step < points[:, None]) & (place >= -1) & (place <= cells)
    place = place.clamp(0, cells - 1)
    left = place.floor().clamp(max=max(cells - 2, 0))
    right_share = place - left
    share = used.double() / points[:, None]
    weights = place.new_zeros(len(low), cells)
    weights.scatter_add_(1, left.long(), share * (1 - right_share))
    weights.scatter_add_(1, (left.long() + 1).clamp(max=cells - 1), share * right_share)
    return weights


def pooled_logits(map_values: Tensor, map_ids: Tensor, boxes: Tensor, num_labels: int) -> Tensor:
    """Logits of crops, pooled from sparse label maps. Classes that no cell stores have logit 0 there.

    Args:
        map_values (`Tensor` of shape `(B, k, H, W)`): The k largest logits of each cell.
        map_ids (`Tensor` of shape `(B, k, H, W)`, integer): Their classes.
        boxes (`Tensor` of shape `(B, 4)`): Crops `x1, y1, x2, y2` as fractions of width and height.
        num_labels (`int`): C.

    Returns:
        `Tensor` of shape `(B, C)`: float32 at least; gradients reach `map_values`.

    Raises:
        ValueError: If shapes disagree, an id is not in [0, C), a value is not finite, or a box is empty or leaves
            [0, 1]; names the row.

    Cost: O(B k H W); no dense map is built.
    Source: ReLabel (Yun et al., arXiv:2101.05022), LabelPooling; axes are (x = column, y = row), which the code swaps.
    """
    if map_values.dim() != 4 or map_values.shape != map_ids.shape or boxes.shape != (map_values.shape[0], 4):
        raise ValueError(
            f"`map_values` and `map_ids` must be (B, k, H, W) and `boxes` (B, 4), got {tuple(map_values.shape)}, "
            f"{tuple(map_ids.shape)} and {tuple(boxes.shape)}."
        )
    boxes = boxes.to(map_values.device)
    _check(map_values, map_ids, boxes, num_labels)
    x1, y1, x2, y2 = boxes.unbind(1)
    rows, columns = map_values.shape[2:]
    down, across = cell_weights(y1, y2, rows), cell_weights(x1, x2, columns)
    wide = map_values if map_values.dtype in (torch.float32, torch.float64) else map_values.float()
    cell = (down[:, :, None] * across[:, None, :]).to(wide.dtype)
    pooled = wide.new_zeros(len(wide), num_labels)
    return pooled.scatter_add(1, map_ids.long().flatten(1), (wide * cell[:, None]).flatten(1))


def label_pooling(
    map_values: Tensor, map_ids: Tensor, boxes_xyxy: Tensor, num_labels: int, temperature: float = 1.0
) -> Tensor:
    """Soft labels of crops: `softmax(pooled logits / temperature)` over all C classes.

    Args, errors and source as in [`pooled_logits`].

    Returns:
        `Tensor` of shape `(B, C)`: Rows sum to 1.
    """
    return torch.softmax(pooled_logits(map_values, map_ids, boxes_xyxy, num_labels) / temperature, dim=-1)


def _check(values: Tensor, ids: Tensor, boxes: Tensor, num_labels: int) -> None:
    for name, wrong, hint in (
        ("map_values", ~torch.isfinite(values).flatten(1).all(1), "must be finite"),
        ("map_ids", ((ids < 0) | (ids >= num_labels)).flatten(1).any(1), f"must be in [0, {num_labels})"),
    ):
        if wrong.any():
            raise ValueError(f"`{name}` {hint}; row {int(wrong.nonzero()[0])} is not.")
    x1, y1, x2, y2 = boxes.unbind(1)
    inside = (x1 >= 0) & (y1 >= 0) & (x2 <= 1) & (y2 <= 1) & (x1 < x2) & (y1 < y2)  # False for NaN
    if not inside.all():
        row = int((~inside).nonzero()[0])
        raise ValueError(
            f"A box must be 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1, got {boxes[row].tolist()} (row {row})."
        )
