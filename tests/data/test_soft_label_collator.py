"""Batches of stored views: the right crop beside the right label, every view once, any number of workers."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch.utils.data import DataLoader

from hf_labels.data import Normalizer, RandomResizedCrop, SoftLabelCollator, SoftLabelStore, StoreInfo
from hf_labels.data.images import to_tensor
from hf_labels.mixing import SelfMix

NORM = Normalizer((0.2, 0.3, 0.4), (0.5, 0.6, 0.7))


def _data(count=6):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (24, 20 + n, 3), dtype=np.uint8)) for n in range(count)]
    return Dataset.from_dict({"image": images, "index": [5 * n for n in range(count)], "labels": [0, 1, -1, 1, 0, 1]})


def _teacher(inputs):
    """Tells from the pixels alone, so that a label belongs to one view."""
    pixels = inputs["pixel_values"].flatten(1)
    return torch.stack([torch.sin(37 * (n + 1) * pixels.mean(1) + pixels[:, n]) * 3 for n in range(4)], 1)


class _Processor:
    image_mean, image_std, do_normalize = NORM.mean, NORM.std, True


def _store(data, views=6, **options):
    settings = dict(views=views, crop=RandomResizedCrop(8, (0.2, 1)), image_processor=_Processor, codec="float32", k=4)
    return SoftLabelStore.build(_teacher, data, **settings | options)


@pytest.mark.parametrize("dense", [False, True])
def test_labels_belong_to_the_pixels_of_their_view(dense):
    data = _data()
    store = _store(data)
    collate = SoftLabelCollator(store, _Processor, views_per_example=3, dense=dense)
    batch = collate([data[n] for n in (4, 1, 2)])
    want = _teacher(batch).softmax(-1)
    if dense:
        found = batch["soft_labels"]
    else:
        found = torch.zeros(9, 4).scatter_(1, batch["soft_label_ids"], batch["soft_label_values"])
    torch.testing.assert_close(found, want, rtol=0, atol=1e-5)
    assert batch["index"].tolist() == [20, 5, 10] * 3  # view-major
    assert batch["labels"].tolist() == [0, 1, -100] * 3
    assert batch["view"].view(3, 3).T.unique(dim=1).shape == (3, 3)


def test_every_view_is_shown_once_before_one_returns():
    data = _data()
    collate = SoftLabelCollator(_store(data), views_per_example=2)
    for start in (0, 3):  # 6 views in 3 epochs, then in another order
        seen = []
        for epoch in range(start, start + 3):
            collate.set_epoch(epoch)
            seen.append(collate([data[n] for n in range(6)])["view"].view(2, 6))
        assert torch.cat(seen).sort(0).values.tolist() == [[v] * 6 for v in range(6)]
        orders = torch.cat(seen).T
        assert len(orders.unique(dim=0)) > 1
    collate.set_epoch(1)
    again = collate([data[3], data[0]])["view"]
    collate.set_epoch(1)
    assert torch.equal(collate([data[0], data[3]])["view"].view(2, 2).flip(1).flatten(), again)


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_draw_the_views_of_the_epoch(persistent):
    data = _data()
    collate = SoftLabelCollator(_store(data), views_per_example=2)
    alone = DataLoader(data, batch_size=2, collate_fn=collate)
    worked = DataLoader(data, batch_size=2, collate_fn=collate, num_workers=2, persistent_workers=persistent)
    for epoch in range(2):
        collate.set_epoch(epoch)
        views = [[batch["view"].tolist() for batch in loader] for loader in (alone, worked)]
        assert views[0] == views[1]


def test_without_an_epoch_views_come_from_torch():
    data = _data()
    collate = SoftLabelCollator(_store(data), views_per_example=2)
    torch.manual_seed(0)
    draws = [collate([data[0]])["view"].tolist() for _ in range(10)]
    torch.manual_seed(0)
    assert [collate([data[0]])["view"].tolist() for _ in range(10)] == draws
    assert len({tuple(draw) for draw in draws}) > 3 and all(len(set(draw)) == 2 for draw in draws)


def test_self_mix_mixes_pixels_and_labels_alike():
    data = _data()
    store = _store(data)
    plain = SoftLabelCollator(store, views_per_example=3, dense=True)
    mixed = SoftLabelCollator(store, views_per_example=3, self_mix=SelfMix(prob=1.0, kind="mixup", seed=0))
    for collate in (plain, mixed):
        collate.set_epoch(0)
    rows = [data[n] for n in range(3)]
    clean, mix = plain(rows), mixed(rows)
    plan = SelfMix(prob=1.0, kind="mixup", seed=0).draw(torch.arange(3).repeat(3))
    lam = plan.lam[:, None]
    want = lam * clean["soft_labels"] + (1 - lam) * clean["soft_labels"][plan.perm]
    torch.testing.assert_close(mix["soft_labels"], want)
    torch.testing.assert_close(mix["pixel_values"], plan.apply(clean["pixel_values"]))
    assert torch.equal(clean["index"][plan.perm], clean["index"]) and torch.equal(mix["labels"], clean["labels"])


def test_evaluation_shows_whole_images():
    data = _data()
    batch = SoftLabelCollator(_store(data), _Processor).evaluation_collator([data[0], data[2]])
    assert set(batch) == {"pixel_values", "labels"} and batch["labels"].tolist() == [0, -100]
    assert batch["pixel_values"].shape == (2, 3, 8, 8)
    small = Image.new("RGB", (8, 8), (10, 200, 30))
    batch = SoftLabelCollator(_store(data), _Processor).evaluation_collator([{"image": small, "labels": 1}])
    torch.testing.assert_close(batch["pixel_values"][0], NORM(to_tensor(small)))


def test_bad_input_is_named():
    data = _data()
    store = _store(data, views=2)
    with pytest.raises(ValueError, match="Example 15 has 1 views, 2 are asked for"):
        few = store.filter(lambda rows: (rows["example_id"] != 15) | (rows["view"] == 0))
        SoftLabelCollator(few, views_per_example=2)([data[0], data[3]])
    batch = SoftLabelCollator(few, views_per_example=2, allow_fewer=True)([data[0], data[3]])
    assert batch["index"].tolist() == [0, 15, 0]
    with pytest.raises(KeyError, match="no soft label for example 99"):
        SoftLabelCollator(store)([data[0] | {"index": 99}])
    with pytest.raises(KeyError, match="Rows have no column `index`"):
        SoftLabelCollator(store)([{"image": data[0]["image"]}])
    info = StoreInfo("topk", 4)
    with pytest.raises(ValueError, match="no column `crop`"):
        SoftLabelCollator(SoftLabelStore.from_arrays(info, example_ids=[0], logits=torch.zeros(1, 4)))
    with pytest.raises(ValueError, match="`views_per_example` must be at least 1"):
        SoftLabelCollator(store, views_per_example=0)
