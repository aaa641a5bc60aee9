"""Recorded crops: drawn, written as fractions, and cut again exactly."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from hf_labels.data import images
from hf_labels.data.images import Normalizer, RandomResizedCrop, View


def _image(height=37, width=53, seed=0, channels=3):
    array = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(array if channels > 1 else array[..., 0])


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (1, 4000), (3999, 2)])
def test_crops_in_pixels_survive_float32_fractions(size):
    height, width = size
    rng = np.random.default_rng(0)
    for _ in range(500):
        h, w = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        pixels = (int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
        crop = np.float32(images.crop_fractions(pixels, height, width))
        assert images.crop_pixels(crop, height, width) == pixels


def test_draws_have_the_wanted_area_and_ratio():
    """Area share uniform in the range, ratio log-uniform: means within 4 standard errors of 4 000 draws."""
    rng = np.random.default_rng(1)
    found = [images.crop_pixels(images.draw_crop(400, 400, rng, (0.2, 0.5)), 400, 400) for _ in range(4000)]
    area = np.array([h * w / 160_000 for _, _, h, w in found])
    ratio = np.log([w / h for _, _, h, w in found])
    assert abs(area.mean() - 0.35) < 4 * 0.3 / 12**0.5 / 4000**0.5 and 0.19 < area.min() and area.max() < 0.51
    assert abs(ratio.mean()) < 4 * np.log(16 / 9) / 12**0.5 / 4000**0.5 + 1e-3
    top = np.array([t / (400 - h) for t, _, h, _ in found if h < 400])
    assert abs(top.mean() - 0.5) < 0.02


@pytest.mark.parametrize(("size", "want"), [((400, 10), (193, 0, 13, 10)), ((10, 400), (0, 193, 10, 13))])
def test_impossible_ratio_falls_back_to_the_centre(size, want):
    crop = images.draw_crop(*size, np.random.default_rng(0), scale=(0.9, 1.0))
    top, left, h, w = images.crop_pixels(crop, *size)
    assert (h, w) == want[2:] and (top, left) == ((size[0] - h) // 2, (size[1] - w) // 2)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_recorded_view_is_cut_the_same_again(channels):
    image, crop = _image(channels=channels), RandomResizedCrop(16, scale=(0.1, 1.0))
    rng = np.random.default_rng(3)
    for _ in range(20):
        first, view = crop(image, rng)
        stored = View(tuple(np.float32(view.crop).tolist()), view.flip)
        assert first.shape == (channels, 16, 16) and 0 <= first.min() and first.max() <= 1
        assert torch.equal(crop.cut(image, stored), first)


def test_cut_is_crop_resize_flip():
    image = _image()
    view = View(images.crop_fractions((5, 7, 20, 31), 37, 53), flip=True)
    part = image.crop((7, 5, 38, 25)).resize((16, 16), Image.Resampling.BILINEAR)
    want = torch.from_numpy(np.asarray(part).copy()).permute(2, 0, 1).float() / 255
    assert torch.equal(images.cut_view(image, view, 16), want.flip(-1))
    tensor = images.to_tensor(image)
    resized = F.interpolate(tensor[None, :, 5:25, 7:38], size=16, mode="bilinear", antialias=True)[0].flip(-1)
    torch.testing.assert_close(images.cut_view(tensor, view, 16), resized)
    assert (resized - want.flip(-1)).abs().max() < 0.01  # PIL rounds to whole grey values
    whole = images.cut_view(tensor, View(), (37, 53))
    assert torch.equal(whole, tensor)
    bytes_ = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    torch.testing.assert_close(images.cut_view(bytes_, view, 16), resized)


def test_batch_cut_is_affine_sampling_and_differentiable():
    x = torch.randn(2, 3, 12, 20, dtype=torch.float64, requires_grad=True)
    crops = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.5, 0.25]])
    out = images.cut_batch(x, crops, torch.tensor([False, True]), (12, 20))
    torch.testing.assert_close(out[0], x[0], rtol=0, atol=1e-5)
    small = images.cut_batch(x, crops, torch.tensor([False, True]), (6, 5))  # one sample per source pixel
    torch.testing.assert_close(small[1], x[1, :, 3:9, 10:15].flip(-1), rtol=0, atol=1e-5)
    small[1].sum().backward()
    assert x.grad[1].sum() == pytest.approx(90) and not x.grad[0].any()


def test_centre_crop_and_boxes():
    tensor = images.to_tensor(_image(40, 60))
    assert torch.equal(images.center_crop(tensor, 40), tensor[:, :, 10:50])
    assert images.center_crop(_image(40, 60), 16, 20).shape == (3, 16, 16)
    boxes = images.crops_to_boxes(torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0]]))
    torch.testing.assert_close(boxes, torch.tensor([[0.2, 0.1, 0.6, 0.4], [0.0, 0.0, 1.0, 1.0]]))


def test_normaliser_follows_a_processor_and_undoes():
    from transformers import ViTImageProcessorPil

    processor = ViTImageProcessorPil(
        image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7], size={"height": 8, "width": 8}
    )
    image = _image(8, 8)
    ours = Normalizer.from_processor(processor)(images.to_tensor(image))
    theirs = processor([image], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(ours, theirs)
    norm = Normalizer.from_processor(processor)
    torch.testing.assert_close(norm.undo(ours), images.to_tensor(image))
    assert norm(torch.zeros(1, 4, 4)).shape == (3, 4, 4)
    processor.do_normalize = False
    assert torch.equal(Normalizer.from_processor(processor)(ours), ours)
    with pytest.raises(ValueError, match="4 channels, the normalisation 3"):
        norm(torch.zeros(4, 8, 8))


def test_palette_and_black_and_white_images():
    assert images.to_tensor(_image().convert("P")).shape == (3, 37, 53)
    black = images.to_tensor(_image().convert("1"))
    assert black.shape == (1, 37, 53) and set(black.unique().tolist()) <= {0.0, 1.0}


def test_bad_input_is_named():
    for wrong in ({"scale": (0.5, 0.1)}, {"scale": (0, 1)}, {"ratio": (0, 1)}, {"flip": 2}, {"interpolation": "area"}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
            RandomResizedCrop(8, **wrong)
    with pytest.raises(ValueError, match="at least 1 x 1"):
        RandomResizedCrop(0)
    with pytest.raises(ValueError, match=r"fractions \(top, left, height, width\) in \[0, 1\]"):
        images.crop_pixels((0, 0, 20, 20), 40, 40)
    with pytest.raises(TypeError, match="PIL image or a tensor"):
        images.image_size(np.zeros((3, 3)))
