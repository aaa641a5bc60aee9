import numpy as np
import pytest

from hf_labels.metrics.functional.segmentation import pixel_confusion, segmentation_scores


def test_against_counting_by_hand_and_over_batches():
    rng = np.random.default_rng(0)
    labels, found = rng.integers(0, 4, (6, 5, 5)), rng.integers(0, 4, (6, 5, 5))
    labels[0, 0], labels[1, 1] = 255, -100
    table = pixel_confusion(found, labels, 5)
    parts = sum(pixel_confusion(found[i : i + 2], labels[i : i + 2], 5) for i in (0, 2, 4))
    assert (table == parts).all() and table.sum() == 140
    counts = (labels >= 0) & (labels < 255)
    overlaps = []
    for k in range(4):  # class 4 occurs nowhere and does not count
        one, two = (labels == k) & counts, (found == k) & counts
        overlaps.append((one & two).sum() / (one | two).sum())
    scores = segmentation_scores(table)
    assert scores["mean_iou"] == pytest.approx(np.mean(overlaps))
    assert scores["overall_accuracy"] == pytest.approx((labels == found)[counts].mean())
    shares = [(found[(labels == k) & counts] == k).mean() for k in range(4)]
    assert scores["mean_accuracy"] == pytest.approx(np.mean(shares))


def test_agrees_with_torchmetrics():
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    rng = np.random.default_rng(1)
    labels, found = (torch.from_numpy(rng.integers(0, 3, (4, 9, 9))) for _ in range(2))
    labels[:, 0] = 255
    want = metrics.multiclass_jaccard_index(found, labels, 3, ignore_index=255)
    got = segmentation_scores(pixel_confusion(found, labels, 3))["mean_iou"]
    assert got == pytest.approx(want.item(), abs=1e-6)


def test_perfect_empty_and_bad():
    labels = np.array([[[0, 1]]])
    assert set(segmentation_scores(pixel_confusion(labels, labels, 2)).values()) == {1.0}
    assert np.isnan(segmentation_scores(pixel_confusion(labels, np.full_like(labels, 255), 2))["mean_iou"])
    with pytest.raises(ValueError, match="one shape"):
        pixel_confusion(labels, labels[0], 2)
    with pytest.raises(ValueError, match=r"`labels` must be in \[0, 2\), got 0 to 2"):
        pixel_confusion(labels, labels * 2, 2)
    with pytest.raises(ValueError, match="`predictions`"):
        pixel_confusion(labels * 2, labels, 2)
