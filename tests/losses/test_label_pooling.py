"""LabelPooling against a brute-force RoIAlign and the properties of its weights."""

import math

import pytest
import torch

from hf_labels.losses.label_pooling import cell_weights, label_pooling, pooled_logits


def _roi_align(dense, box):
    """Plain RoIAlign 1 x 1, aligned=False, adaptive sampling, with the half-cell shift; (C, H, W) -> (C,)."""
    channels, rows, columns = dense.shape
    x1, y1, x2, y2 = (v * n - 0.5 for v, n in zip(box, (columns, rows, columns, rows), strict=True))
    ex, ey = max(x2 - x1, 1.0), max(y2 - y1, 1.0)
    gx, gy = math.ceil(ex - 1e-6), math.ceil(ey - 1e-6)
    total = torch.zeros(channels, dtype=dense.dtype)
    for j in range(gy):
        for i in range(gx):
            x, y = x1 + (i + 0.5) * ex / gx, y1 + (j + 0.5) * ey / gy
            if not (-1 <= x <= columns and -1 <= y <= rows):
                continue
            x, y = min(max(x, 0.0), columns - 1), min(max(y, 0.0), rows - 1)
            q, t = int(x), int(y)
            r, b = min(q + 1, columns - 1), min(t + 1, rows - 1)
            fx, fy = x - q, y - t
            top = (1 - fx) * dense[:, t, q] + fx * dense[:, t, r]
            total += (1 - fy) * top + fy * ((1 - fx) * dense[:, b, q] + fx * dense[:, b, r])
    return total / (gx * gy)


def _maps(batch=6, k=3, rows=5, columns=7, classes=9, seed=0):
    rng = torch.Generator().manual_seed(seed)
    dense = torch.randn(batch, classes, rows, columns, generator=rng, dtype=torch.float64)
    values, ids = dense.topk(k, dim=1)
    return torch.zeros_like(dense).scatter_(1, ids, values), values, ids


def _boxes(count, seed=1):
    rng = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(0, 64, (count, 2), generator=rng).double() for _ in range(2))
    low, high = torch.minimum(a, b), torch.maximum(a, b) + 1
    return torch.cat([low, high], 1) / 64


@pytest.mark.parametrize("shape", [(5, 7), (1, 4), (6, 1)])
def test_equals_brute_force_roi_align(shape):
    dense, values, ids = _maps(40, rows=shape[0], columns=shape[1])
    boxes = _boxes(40)
    want = torch.stack([_roi_align(d, box.tolist()) for d, box in zip(dense, boxes, strict=True)])
    torch.testing.assert_close(pooled_logits(values, ids, boxes, 9), want, rtol=0, atol=1e-9)
    torch.testing.assert_close(label_pooling(values, ids, boxes, 9, 2.0), (want / 2).softmax(-1))


def test_whole_box_is_the_mean_and_a_flat_map_has_no_place():
    dense, values, ids = _maps(k=9)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(6, 4)
    torch.testing.assert_close(pooled_logits(values, ids, whole, 9), dense.mean((2, 3)))
    flat = values[:, :, :1, :1].expand_as(values), ids[:, :, :1, :1].expand_as(ids)
    torch.testing.assert_close(pooled_logits(*flat, _boxes(6), 9), pooled_logits(*flat, whole, 9))


def test_transposing_map_and_box_changes_nothing_and_one_row_equals_the_batch():
    _, values, ids = _maps()
    boxes = _boxes(6)
    turned = pooled_logits(values.mT, ids.mT, boxes[:, [1, 0, 3, 2]], 9)
    torch.testing.assert_close(turned, pooled_logits(values, ids, boxes, 9))
    torch.testing.assert_close(pooled_logits(values[:1], ids[:1], boxes[:1], 9), turned[:1])


def test_weights_sum_to_one_and_move_with_the_box():
    low = torch.tensor([0.0, 0.2, 0.95, 0.5])
    high = torch.tensor([0.3, 0.8, 1.0, 0.50001])  # the last ones are smaller than a cell
    weights = cell_weights(low, high, 10)
    torch.testing.assert_close(weights.sum(1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(
        cell_weights(low[:1] + 0.3, high[:1] + 0.3, 10)[:, 4:7], weights[:1, 1:4] * 0 + weights[:1, 1:4]
    )


def test_gradient_is_the_weight():
    _, values, ids = _maps(2)
    values.requires_grad_()
    boxes = _boxes(2)
    (grad,) = torch.autograd.grad(pooled_logits(values, ids, boxes, 9).sum(), values)
    across, down = cell_weights(boxes[:, 0], boxes[:, 2], 7), cell_weights(boxes[:, 1], boxes[:, 3], 5)
    torch.testing.assert_close(grad, (down[:, :, None] * across[:, None])[:, None].expand_as(grad))


def test_bad_input_is_named():
    _, values, ids = _maps()
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(6, 1)
    for wrong in ([0.5, 0.0, 0.5, 1.0], [0.0, 0.6, 1.0, 0.4], [-0.1, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, float("nan")]):
        box = whole.clone()
        box[4] = torch.tensor(wrong)
        with pytest.raises(ValueError, match=r"A box must be .* \(row 4\)"):
            pooled_logits(values, ids, box, 9)
    broken = values.clone()
    broken[2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="`map_values` must be finite; row 2"):
        pooled_logits(broken, ids, whole, 9)
    with pytest.raises(ValueError, match=r"`map_ids` must be in \[0, 3\)"):
        pooled_logits(values, ids, whole, 3)
    with pytest.raises(ValueError, match=r"\(B, k, H, W\) and `boxes` \(B, 4\)"):
        pooled_logits(values, ids, whole[:2], 9)
