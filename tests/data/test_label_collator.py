import numpy as np
import pytest
import torch

import toys
from hf_labels.data.collators import LabelCollator


def test_missing_labels_become_ignored_and_numbers_are_stacked():
    rows = [
        {"pixel_values": torch.zeros(1, 2, 2), "labels": 2, "index": 5, "sample_weight": 0.5},
        {"pixel_values": torch.ones(1, 2, 2), "labels": -1, "index": 1, "sample_weight": 1.0},
    ]
    rows = [row | {"annotator_labels": answers} for row, answers in zip(rows, ([0, -1], [1, 1]), strict=True)]
    batch = LabelCollator()(rows)
    assert batch["labels"].tolist() == [2, -100] and batch["labels"].dtype == torch.int64
    assert batch["index"].tolist() == [5, 1] and batch["index"].dtype == torch.int64
    assert batch["sample_weight"].dtype == torch.float32 and batch["pixel_values"].shape == (2, 1, 2, 2)
    assert batch["annotator_labels"].tolist() == [[0, -1], [1, 1]]  # a marker of its own kind: not changed
    assert rows[1]["labels"] == -1


def test_kinds_of_labels_per_row():
    floats = LabelCollator()([{"labels": 0.5}, {"labels": -1.0}])["labels"]
    assert floats.tolist() == [0.5, -1.0] and floats.dtype == torch.float32
    multi = LabelCollator()([{"labels": [0, 1, -1]}, {"labels": [1, 1, 0]}])["labels"]
    assert multi.tolist() == [[0, 1, -1], [1, 1, 0]]
    named = LabelCollator()([{"label": 1}, {"label": -1}])
    assert named["labels"].tolist() == [1, -100] and "label" not in named


@pytest.mark.parametrize("side", ["right", "left"])
def test_tokens_are_padded_alike(side):
    collator = LabelCollator(toys.tiny_tokenizer(side), token_labels=True)
    rows = [
        {"input_ids": [2, 3, 4], "attention_mask": [1, 1, 1], "labels": [0, -1, 2]},
        {"input_ids": [5], "attention_mask": [1], "labels": [1]},
    ]
    batch = collator(rows)
    assert batch["labels"][0].tolist() == [0, -100, 2]
    kept = batch["attention_mask"][1].bool()
    assert batch["labels"][1][kept].tolist() == [1] and (batch["labels"][1][~kept] == -100).all()
    assert batch["input_ids"][1][kept].tolist() == [5]


@pytest.mark.parametrize("side", ["right", "left"])
def test_soft_labels_per_token_get_a_mask(side):
    rows = [
        {"input_ids": [2, 3, 4], "soft_labels": [[0.5, 0.5], [0, 0], [1, 0]]},
        {"input_ids": [5], "soft_labels": np.array([[0.2, 0.8]], dtype=np.float32)},
    ]
    batch = LabelCollator(toys.tiny_tokenizer(side))(rows)
    assert batch["soft_labels"].shape == (2, 3, 2) and batch["soft_label_mask"].dtype == torch.bool
    assert batch["soft_label_mask"][0].tolist() == [True, False, True]
    assert batch["soft_label_mask"][1].sum() == 1
    torch.testing.assert_close(batch["soft_labels"][1][batch["soft_label_mask"][1]], torch.tensor([[0.2, 0.8]]))
    given = [row | {"soft_label_mask": [True] * len(row["input_ids"])} for row in rows]
    assert LabelCollator(toys.tiny_tokenizer(side))(given)["soft_label_mask"].sum() == 4


def test_soft_labels_per_row_and_sparse():
    rows = [
        {"soft_labels": [0.5, 0.5], "soft_label_ids": [3, 1], "soft_label_values": [0.5, 0.25], "text": "a"},
        {"soft_labels": [1, 0], "soft_label_ids": [0, 1], "soft_label_values": [1, 0], "text": "b"},
    ]
    batch = LabelCollator()(rows)
    assert batch["soft_labels"].dtype == torch.float32 and batch["soft_labels"].tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert batch["soft_label_ids"].dtype == torch.int64 and "soft_label_mask" not in batch
    assert batch["text"] == ["a", "b"]


def test_an_image_processor_pads_nothing():
    from transformers import ViTImageProcessorPil

    batch = LabelCollator(ViTImageProcessorPil())([{"pixel_values": torch.ones(3, 2, 2), "labels": 1}] * 2)
    assert batch["pixel_values"].shape == (2, 3, 2, 2) and batch["labels"].tolist() == [1, 1]


def test_errors_name_column_and_row():
    with pytest.raises(KeyError, match="Row 1 .* no column `labels`"):
        LabelCollator()([{"labels": 1}, {"index": 1}])
    with pytest.raises(ValueError, match="`labels` has shape.*row 1.*token_labels=True"):
        LabelCollator()([{"labels": [1, 2]}, {"labels": [1]}])
    with pytest.raises(ValueError, match="3 entries for 2 tokens"):
        LabelCollator(toys.tiny_tokenizer(), token_labels=True)([{"input_ids": [2, 3], "labels": [0, 1, 1]}])
    with pytest.raises(ValueError, match="soft_labels"):
        LabelCollator()([{"soft_labels": [[0.5, 0.5]]}, {"soft_labels": [[1.0, 0.0, 0.0]]}])
