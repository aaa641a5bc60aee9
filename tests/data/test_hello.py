"""Selection, tiling, update and views of distilled images."""

import hello_toys as toys
import numpy as np
import pytest
import torch

from hf_labels.data.hello import cell_sides, distill_images, pad_to, rded_select, rded_tile, update_patches
from hf_labels.data.hello_views import DistilledCollator, shuffle_tiles
from hf_labels.data.images import Normalizer, resize, to_tensor


def teacher_of_channels(batch):
    """Logits: how bright each channel is."""
    return batch["pixel_values"].mean((-1, -2)) * 20


@pytest.mark.parametrize("seed", [0, 1])
def test_selection_is_the_slow_one(seed):
    scores = torch.rand(9, 4, generator=torch.Generator().manual_seed(seed))
    pairs = sorted((min(row.tolist()), i, row.tolist().index(min(row.tolist()))) for i, row in enumerate(scores))
    assert rded_select(scores, 5) == [(i, crop) for _, i, crop in pairs[:5]]


def test_repeating_goes_on_with_the_other_crops_then_from_the_start():
    scores = torch.tensor([[0.3, 0.1], [0.2, 0.9]])
    assert rded_select(scores, 3, allow_repeat=True) == [(0, 1), (1, 0), (0, 0)]
    assert rded_select(scores, 6, allow_repeat=True) == [(0, 1), (1, 0), (0, 0), (1, 1), (0, 1), (1, 0)]
    with pytest.raises(ValueError, match="3 patches are wanted of 2 images.*allow_repeat"):
        rded_select(scores, 3)
    with pytest.raises(ValueError, match="image 1, crop 0 is not finite"):
        rded_select(torch.tensor([[0.3], [float("nan")]]), 1)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_cutting_the_cells_gives_the_patches_back(factor):
    n, side = 2, 4
    patches = torch.randn(n * factor**2, 3, side, side)
    images = rded_tile(patches, side * factor, factor)
    assert images.shape == (n, 3, side * factor, side * factor)
    for t in range(n):
        for i in range(factor):
            for j in range(factor):
                cell = images[t, :, i * side : (i + 1) * side, j * side : (j + 1) * side]
                assert torch.equal(cell, patches[(i * factor + j) * n + t])
    best = images[:, :, :side, :side]  # the best n patches all lie in the first cell
    assert torch.equal(best, patches[:n])


def test_sizes_that_the_factor_does_not_divide():
    assert cell_sides(8, 3) == [3, 3, 2] and cell_sides(7, 2) == [4, 3]
    values = torch.arange(9.0).view(9, 1, 1, 1).expand(9, 1, 2, 2)
    image = rded_tile(values, 8, 3)[0, 0]
    assert image.shape == (8, 8)
    assert [image[r, c].item() for r in (0, 3, 6) for c in (0, 3, 6)] == list(range(9))
    assert image[2, 2] == 0 and image[3, 2] == 3 and image[7, 7] == 8


def test_bad_tilings_are_refused():
    with pytest.raises(ValueError, match="`factor` must be in .*factor=3 and size=2"):
        rded_tile(torch.zeros(9, 3, 1, 1), 2, 3)
    with pytest.raises(ValueError, match="5 patches do not fill images of 2 x 2"):
        rded_tile(torch.zeros(5, 3, 2, 2), 4, 2)


def test_padding_is_centred():
    padded = pad_to(torch.ones(1, 2, 3), 6)
    assert padded.shape == (1, 6, 6) and padded.sum() == 6
    assert padded[0, 2:4, 1:4].sum() == 6


def test_images_hold_the_crops_that_the_teacher_likes_best():
    data = toys.images(rows=30)
    made = distill_images(data, teacher_of_channels, ipc=2, factor=2, size=8, num_crop=3, seed=1)
    assert made["labels"][:] == [0, 0, 1, 1, 2, 2] and made.features["labels"].names == toys.NAMES
    assert made["index"][:] == list(range(6)) and made[0]["image"].size == (8, 8)
    for row in made:
        assert all(data[i]["labels"] == row["labels"] for i in row["source"]) and len(row["source"]) == 4
        assert np.asarray(row["image"]).mean((0, 1)).argmax() == row["labels"]
    patches = [i for row in made.filter(lambda r: r["labels"] == 0) for i in row["source"]]
    assert len(set(patches)) == 8  # one crop of each image
    again = distill_images(data, teacher_of_channels, ipc=2, factor=2, size=8, num_crop=3, seed=1)
    other = distill_images(data, teacher_of_channels, ipc=2, factor=2, size=8, num_crop=3, seed=2)
    first = [np.asarray(row["image"]) for row in made]
    assert all(np.array_equal(a, np.asarray(b["image"])) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, np.asarray(b["image"])) for a, b in zip(first, other, strict=True))


def test_scores_are_those_of_the_padded_normalised_crop():
    seen = []

    def teacher(batch):
        seen.append(batch["pixel_values"])
        return torch.zeros(len(batch["pixel_values"]), 3)

    data, norm = toys.images(rows=6), Normalizer((0.5,) * 3, (0.25,) * 3)
    made = distill_images(data, teacher, ipc=1, factor=2, size=8, num_crop=1, image_processor=norm, allow_repeat=True)
    assert len(made) == 3 and all(x.shape[1:] == (3, 8, 8) for x in seen)
    edge = torch.ones(8, 8, dtype=torch.bool)
    edge[2:6, 2:6] = False
    assert all((x[..., edge] == 0).all() for x in seen)
    assert any((x[..., ~edge] != 0).any() for x in seen)


@pytest.mark.parametrize(
    "change, options, message",
    [
        (lambda d: d.filter(lambda r: r["labels"] != 1), {}, "Class 'dog' has no image in column `labels`"),
        (lambda d: d, {"ipc": 3}, r"Class 'cat' has 8 usable images, and ipc=3 with factor=2 needs 12.*allow_repeat"),
        (lambda d: d, {"max_images": 3}, "Class 'cat' has 3 usable images.*raise `max_images`"),
        (lambda d: d, {"factor": 9}, "`factor` must be in .*factor=9 and size=8"),
        (lambda d: d, {"ipc": 0}, "`ipc` must be at least 1, got 0"),
        (lambda d: d.select([]), {}, "no rows: the data set is empty"),
        (
            lambda d: d.rename_column("labels", "label"),
            {},
            "Column `labels` is missing; the data set has: image, label",
        ),
        (lambda d: d, {"image_update_steps": 2}, "`image_update_steps` needs `encoder`"),
    ],
)
def test_bad_input_is_named(change, options, message):
    with pytest.raises(ValueError, match=message):
        distill_images(change(toys.images()), teacher_of_channels, **{"ipc": 1, "factor": 2, "size": 8} | options)


def test_a_teacher_that_fails_or_lacks_classes_is_named():
    data = toys.images()
    with pytest.raises(ValueError, match="Class 'cat': The teacher's score of image 0, crop 0 is not finite"):
        distill_images(data, lambda b: b["pixel_values"].mean((-1, -2)) * float("nan"), ipc=1, size=8)
    with pytest.raises(ValueError, match="teacher has 2 classes, the data has class 2"):
        distill_images(data, lambda b: b["pixel_values"].mean((-1, -2))[:, :2], ipc=1, size=8)


def test_too_few_images_are_repeated_when_asked_and_missing_labels_left_out():
    data = toys.images(rows=9)
    data = data.remove_columns("labels").add_column("labels", [0, 1, 2, 0, 1, 2, -1, -1, -1])
    made = distill_images(data, teacher_of_channels, ipc=2, factor=2, size=8, allow_repeat=True)
    assert len(made) == 6 and {i for row in made for i in row["source"]} == set(range(6))


def test_update_lowers_the_loss_and_keeps_pixels_in_range():
    model = toys.adapted(noise=0.5).get_base_model()
    originals = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    small = resize(originals, 4)

    def loss(values):
        with torch.no_grad():
            return (model.image_features(resize(values, 8)) - model.image_features(originals)).square().mean()

    updated = update_patches(small, originals, model.image_features, steps=20)
    assert loss(updated) < 0.8 * loss(small)
    assert updated.min() >= 0 and updated.max() <= 1 and not torch.equal(updated, small)
    assert torch.equal(small, resize(originals, 4))  # not in place
    assert torch.equal(update_patches(originals, originals, model.image_features), originals)
    assert torch.equal(update_patches(small, originals, model.image_features, steps=0), small)
    with pytest.raises(ValueError, match="loss of the image update is nan at step 0"):
        update_patches(small, originals, lambda x: x.flatten(1) * float("nan"), steps=1)


def test_update_is_part_of_the_distillation_and_leaves_the_encoder_as_it_was():
    data, model = toys.images(), toys.adapted(noise=0.5).train()
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    options = {"ipc": 1, "factor": 2, "size": 8}
    plain = distill_images(data, teacher_of_channels, **options)
    updated = distill_images(data, teacher_of_channels, encoder=model, image_update_steps=5, **options)
    far = [
        np.abs(np.asarray(a["image"], int) - np.asarray(b["image"], int)).max()
        for a, b in zip(plain, updated, strict=True)
    ]
    assert min(far) > 0 and plain["source"][:] == updated["source"][:]
    assert model.training and trainable == [name for name, p in model.named_parameters() if p.requires_grad]
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("side, factor", [(8, 2), (7, 3)])
def test_shuffling_moves_whole_cells(side, factor):
    marked = torch.arange(side * side).view(1, side, side)
    seen = set()
    for seed in range(30):
        mixed = shuffle_tiles(marked, factor, np.random.default_rng(seed))
        assert sorted(mixed.flatten().tolist()) == list(range(side * side))
        seen.add(tuple(mixed.flatten().tolist()))
    assert len(seen) == min(30, {2: 4, 3: 36}[factor]) or (factor == 3 and len(seen) > 15)


def test_collator_follows_torchs_generator_and_evaluates_whole_images():
    rows = [toys.images()[i] for i in range(4)]
    rows[3] = rows[3] | {"labels": -1}
    collate = DistilledCollator(8, Normalizer((0.5,) * 3, (0.5,) * 3))
    torch.manual_seed(0)
    one, two = collate(rows), collate(rows)
    torch.manual_seed(0)
    again = collate(rows)
    assert torch.equal(one["pixel_values"], again["pixel_values"])
    assert not torch.equal(one["pixel_values"], two["pixel_values"])
    assert one["labels"].tolist() == [0, 1, 2, -100] and one["index"].tolist() == [0, 1, 2, 3]
    plain = collate.evaluation_collator(rows)
    want = collate.normalizer(resize(to_tensor(rows[0]["image"]), 8))
    torch.testing.assert_close(plain["pixel_values"][0], want, atol=0.02, rtol=0)
    with pytest.raises(KeyError, match="no column `image`. They have: labels"):
        collate([{"labels": 0}])
    with pytest.raises(ValueError, match="`factor` must be at least 1"):
        DistilledCollator(8, factor=0)
