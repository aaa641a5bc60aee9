"""Crops and their pooled labels, published maps, and what is refused."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from soft_view_toys import map_store, pictures

from hf_labels.data import SoftLabelStore, StoreInfo
from hf_labels.data.images import View, crops_to_boxes, cut_view
from hf_labels.data.relabel import ReLabelCollator, axis_agreement, import_label_maps
from hf_labels.losses.label_pooling import label_pooling

DATA = pictures(12)


def _rows(*numbers):
    return [DATA[n] for n in numbers]


def _collator(store=None, **options):
    return ReLabelCollator(store or map_store(DATA), size=8, **{"scale": (0.2, 0.6), **options})


def test_pixels_and_labels_are_of_one_crop():
    store = map_store(DATA)
    collate = _collator(store, flip=0.0)
    batch = collate(_rows(3, 1, 8))
    rows = store.lookup([21, 7, 56])
    for place, number in enumerate((3, 1, 8)):
        crop = batch["crop"][place]
        pixels = cut_view(DATA[number]["image"], View(tuple(crop.tolist())), 8)
        torch.testing.assert_close(batch["pixel_values"][place], pixels)
        one = {
            name: torch.from_numpy(rows[name][place : place + 1].astype(np.float32)) for name in rows if "map" in name
        }
        want = label_pooling(one["map_values"], one["map_ids"].long(), crops_to_boxes(crop[None]), 3)
        torch.testing.assert_close(batch["soft_labels"][place], want[0])
    assert batch["labels"].tolist() == [0, 1, 2] and batch["soft_labels"].shape == (3, 3)
    assert len(batch["crop"].unique(dim=0)) == 3


def test_a_flip_does_not_change_the_label():
    one, two = _collator(flip=0.0), _collator(flip=1.0)
    for collate in (one, two):
        collate.set_epoch(0)
    plain, turned = one(_rows(0, 1, 2)), two(_rows(0, 1, 2))
    assert torch.equal(plain["crop"], turned["crop"]) and torch.equal(plain["soft_labels"], turned["soft_labels"])
    torch.testing.assert_close(plain["pixel_values"], turned["pixel_values"].flip(-1))


def test_crops_belong_to_seed_epoch_and_example():
    collate = _collator()
    collate.set_epoch(3)
    together, alone = collate(_rows(4, 5, 6)), collate(_rows(5))  # a batch of one works
    assert torch.equal(together["pixel_values"][1:2], alone["pixel_values"])
    assert torch.equal(together["soft_labels"][1:2], alone["soft_labels"])
    collate.set_epoch(4)
    assert not torch.equal(collate(_rows(5))["crop"], alone["crop"])
    other = _collator(seed=1)
    other.set_epoch(3)
    assert not torch.equal(other(_rows(5))["crop"], alone["crop"])
    fresh = _collator()
    torch.manual_seed(0)
    first = fresh(_rows(5))["crop"]
    assert not torch.equal(first, fresh(_rows(5))["crop"])
    torch.manual_seed(0)
    assert torch.equal(first, fresh(_rows(5))["crop"])


def test_image_pooling_ignores_the_crop():
    store = map_store(DATA)
    batch = _collator(store, pooling="image")(_rows(0, 1, 2))
    torch.testing.assert_close(batch["soft_labels"], store.decode(store.lookup([0, 7, 14])))
    local = _collator(store)(_rows(0, 1, 2))
    assert not torch.allclose(local["soft_labels"], batch["soft_labels"])


def test_cutmix_mixes_pixels_soft_and_hard_labels_and_ends():
    collate = _collator(cutmix_alpha=1.0, cutmix_epochs=2, label_smoothing=0.3)
    plain = _collator()
    for one in (collate, plain):
        one.set_epoch(1)
    torch.manual_seed(0)
    batch, clean = collate(_rows(*range(8))), plain(_rows(*range(8)))
    lam = batch["mix_lam"]
    assert (lam < 1).all() and torch.equal(batch["labels"], clean["labels"])
    changed = (batch["pixel_values"] != clean["pixel_values"]).float().mean((1, 2, 3))
    assert (changed <= 1 - lam + 1e-6).all() and changed.max() > 0
    partner = [int((clean["labels"] == b).nonzero()[0]) for b in batch["mix_labels_b"]]
    assert len(partner) == 8
    undone = (batch["soft_labels"] - 0.1) / 0.7
    gap = undone - lam[:, None] * clean["soft_labels"]
    rest = gap / (1 - lam[:, None])
    for row in rest:  # what was mixed in is the soft label of another row
        assert (clean["soft_labels"] - row).abs().amax(1).min() < 1e-4
    torch.testing.assert_close(batch["soft_labels"].sum(1), torch.ones(8))
    collate.set_epoch(2)
    assert "mix_lam" not in collate(_rows(0, 1))


def test_augmentation_sees_pixels_after_the_crop_and_the_same_random_numbers_again():
    collate = _collator(augment=lambda pixels, rng: pixels * 0 + rng.random())
    collate.set_epoch(0)
    batch = collate(_rows(0, 1))
    assert batch["pixel_values"].flatten(1).std(1).max() == 0 and len(batch["pixel_values"].unique()) == 2
    assert torch.equal(batch["pixel_values"], collate(_rows(0, 1))["pixel_values"])


def test_evaluation_shows_whole_images():
    batch = _collator(cutmix_alpha=1.0).evaluation_collator(_rows(0, 2))
    assert set(batch) == {"pixel_values", "labels"} and batch["pixel_values"].shape == (2, 1, 8, 8)


def test_bad_input_is_named():
    store = map_store(DATA)
    with pytest.raises(KeyError, match="no soft label for example 99"):
        _collator(store)([DATA[0] | {"index": 99}])
    with pytest.raises(KeyError, match="Rows have no column `index`"):
        _collator(store)([{"image": DATA[0]["image"]}])
    with pytest.raises(ValueError, match="must hold label maps"):
        _collator(SoftLabelStore.from_arrays(StoreInfo("topk", 3), example_ids=[0], logits=torch.ones(1, 3)))
    with pytest.raises(ValueError, match="`pooling` must be crop or image"):
        _collator(store, pooling="cell")
    with pytest.raises(ValueError, match=r"`label_smoothing` must be in \[0, 1\]"):
        _collator(store, label_smoothing=1.5)
    with pytest.raises(ValueError, match="`cutmix_alpha` must be 0 or more"):
        _collator(store, cutmix_alpha=-1.0)
    collate = _collator(store)
    rows = store.lookup([0, 7])
    rows["map_values"] = rows["map_values"].copy()
    rows["map_values"][1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="map of example 7 holds NaN"):
        collate.soft_labels(rows, torch.tensor([[0.0, 0, 1, 1]] * 2))
    rows = store.lookup([0, 7])
    rows["map_ids"] = rows["map_ids"] + 2
    with pytest.raises(ValueError, match=r"`map_ids` must be in \[0, 3\)"):
        collate.soft_labels(rows, torch.tensor([[0.0, 0, 1, 1]] * 2))


def test_a_map_of_equal_values_gives_what_the_formula_says():
    """k = 2 of 3 classes with one value v everywhere: softmax of (v, v, 0), whatever the crop."""
    rows = {
        "example_id": np.array([0]),
        "map_ids": np.stack([np.zeros((1, 2, 3)), np.ones((1, 2, 3))], 1).astype(np.uint16),
        "map_values": np.full((1, 2, 2, 3), 1.5, np.float32),
    }
    store = SoftLabelStore.from_rows(StoreInfo("map", 3, k=2, map_shape=(2, 3), codec="float32"), rows)
    batch = _collator(store, label_column="none")([DATA[0]])
    torch.testing.assert_close(batch["soft_labels"][0], torch.tensor([1.5, 1.5, 0.0]).softmax(0))
    assert "labels" not in batch


def _published(store, transposed):
    """Tensors as ReLabel publishes them: (2, k, H, W), values first."""
    rows = store.lookup(DATA["index"][:])
    both = np.stack([rows["map_values"].astype(np.float32), rows["map_ids"].astype(np.float32)], 1)
    return [torch.from_numpy(item.swapaxes(2, 3) if transposed else item) for item in both.copy()]


@pytest.mark.parametrize("transposed", [False, True])
def test_published_maps_come_back_with_their_axes(transposed, tmp_path):
    store = map_store(DATA)
    for key, item in zip(DATA["index"][:], _published(store, transposed), strict=True):
        (tmp_path / "in" / f"c{key % 2}").mkdir(parents=True, exist_ok=True)
        torch.save(item.clone(), tmp_path / "in" / f"c{key % 2}" / f"x_{key}.pt")
    found = import_label_maps(tmp_path / "in", 3, transposed=transposed, folder=tmp_path / "out", teacher="me/t")
    assert found.example_ids.tolist() == sorted(f"c{key % 2}/x_{key}" for key in DATA["index"][:])
    assert found.info.map_shape == (2, 4) and found.info.teacher == "me/t"
    want = store.lookup([21, 14])
    got = found.lookup(["c1/x_21", "c0/x_14"])
    assert all(np.array_equal(want[name], got[name]) for name in ("map_ids", "map_values"))


def test_axis_agreement_tells_rows_from_columns():
    """Four cells of three brightnesses: what a small crop shows can be seen, and off the diagonal the axes matter."""
    rng = np.random.default_rng(0)
    cells = rng.integers(3, size=(60, 1, 2, 2))
    pixels = (30 + 90 * cells[:, 0]).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    data = Dataset.from_dict({"image": [Image.fromarray(item) for item in pixels], "index": list(range(60))})
    pairs = [(key, torch.from_numpy(np.stack([np.full((1, 2, 2), 6.0), cells[key]]))) for key in range(60)]

    def classifier(inputs):
        levels = torch.tensor([30.0, 120.0, 210.0]) / 255
        return -(100 * (inputs["pixel_values"].mean((1, 2, 3))[:, None] - levels) ** 2)

    store, wrong = (import_label_maps(pairs, 3, transposed=turned) for turned in (False, True))
    right = axis_agreement(store, data, classifier, size=8, scale=(0.05, 0.2))
    assert right["as_stored"] > right["transposed"] + 0.1
    found = axis_agreement(wrong, data, classifier, size=8, scale=(0.05, 0.2))
    assert found == pytest.approx({"as_stored": right["transposed"], "transposed": right["as_stored"]})
    rows = SoftLabelStore.from_arrays(StoreInfo("topk", 3), example_ids=[0], logits=torch.ones(1, 3))
    with pytest.raises(ValueError, match="must hold label maps"):
        axis_agreement(rows, data, classifier)


def test_bad_published_maps_are_named(tmp_path):
    with pytest.raises(TypeError, match="transposed"):
        import_label_maps([], 3)
    with pytest.raises(ValueError, match="no label maps to import"):
        import_label_maps([], 3, transposed=False)
    with pytest.raises(FileNotFoundError, match="holds no .pt file"):
        import_label_maps(tmp_path, 3, transposed=False)
    with pytest.raises(ValueError, match=r"example 5 must have shape \(2, k, H, W\), got \(3, 1, 2, 2\)"):
        import_label_maps([(5, torch.zeros(3, 1, 2, 2))], 3, transposed=False)
    with pytest.raises(ValueError, match=r"\[0, 3\), got 7"):
        import_label_maps([(5, torch.full((2, 1, 2, 2), 7.0))], 3, transposed=False)
    broken = torch.zeros(2, 1, 2, 2)
    broken[0, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="(?s)Examples 5 to 5.*finite"):
        import_label_maps([(5, broken)], 3, transposed=False)
    with pytest.raises(ValueError, match=r"Maps of this store are"):
        import_label_maps([(5, torch.zeros(2, 1, 2, 2)), (6, torch.zeros(2, 1, 2, 3))], 3, transposed=False)
