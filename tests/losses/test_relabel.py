"""LabelPooling: tiny crops, rounding of extents, k = C, types; the rest is in test_label_pooling.py."""

import pytest
import torch

from hf_labels.losses.label_pooling import cell_weights, label_pooling, pooled_logits


def _maps(rows=6, columns=9, classes=5, k=5, seed=0):
    dense = torch.randn(3, classes, rows, columns, generator=torch.Generator().manual_seed(seed))
    values, ids = dense.topk(k, 1)
    return dense, values, ids


def test_a_crop_below_a_cell_reads_one_cell_from_its_corner():
    low = torch.tensor([0.31, 0.0, 0.77])
    tiny, cell = (cell_weights(low, low + side, 10) for side in (0.01, 0.1))
    torch.testing.assert_close(tiny, cell)
    torch.testing.assert_close(tiny.sum(1), torch.ones(3, dtype=torch.float64))
    assert (tiny > 0).sum(1).max() <= 2


def test_rounding_of_the_extent_adds_no_sample_point():
    """0.8 - 0.2 of 15 cells, with ends that were float32, are 9.00000013: nine points, as in exact numbers."""
    low, high = torch.tensor([0.2]), torch.tensor([0.8])
    assert float(high.double() * 15 - low.double() * 15) > 9.0
    exact = cell_weights(low.double().round(decimals=6), high.double().round(decimals=6), 15)
    torch.testing.assert_close(cell_weights(low, high, 15), exact, rtol=0, atol=1e-5)


def test_all_classes_stored_is_the_dense_map_in_any_order():
    dense, values, ids = _maps()
    boxes = torch.tensor([[0.1, 0.2, 0.7, 0.9], [0, 0, 1, 1], [0.5, 0.5, 0.6, 0.6]])
    everything = torch.arange(5).view(1, 5, 1, 1).expand_as(dense)
    torch.testing.assert_close(pooled_logits(values, ids, boxes, 5), pooled_logits(dense, everything, boxes, 5))
    torch.testing.assert_close(pooled_logits(values, ids, boxes, 5)[1], dense[1].mean((1, 2)))


def test_classes_that_no_cell_stores_share_what_is_left():
    _, values, ids = _maps(classes=5, k=2)
    soft = label_pooling(values[:1], ids[:1], torch.tensor([[0.0, 0, 1, 1]]), 50)
    assert soft.shape == (1, 50) and soft[0, 5:].unique().numel() == 1
    torch.testing.assert_close(soft.sum(), torch.tensor(1.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    _, values, ids = _maps()
    boxes = torch.tensor([[0.1, 0.2, 0.7, 0.9]] * 3)
    found = pooled_logits(values.to(dtype), ids, boxes, 5)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, pooled_logits(values.to(dtype).float(), ids, boxes, 5))


def test_an_empty_batch():
    empty = torch.zeros(0, 2, 3, 3)
    assert label_pooling(empty, empty.long(), torch.zeros(0, 4), 7).shape == (0, 7)
