"""Label maps of real architectures: their mean is the logits, places are places, and what cannot be converted."""

import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_labels.models.relabel import LabelMapAnnotator, linear_head

K = 7
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def resnet(**options):
    torch.manual_seed(0)
    settings = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "num_labels": K}
    model = ResNetForImageClassification(ResNetConfig(**settings | options))
    with torch.no_grad():
        model.classifier[1].weight.mul_(10)
    return model.eval()


def convnext():
    config = ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], num_labels=K)
    return ConvNextForImageClassification(config).eval()


def _regnet():
    config = RegNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1] * 4, groups_width=8, num_labels=K)
    return RegNetForImageClassification(config)


def _efficientnet():
    config = EfficientNetConfig(
        image_size=64, width_coefficient=0.25, depth_coefficient=0.1, hidden_dim=320, num_labels=K
    )
    return EfficientNetForImageClassification(config)


def _swin():
    config = SwinConfig(image_size=64, embed_dim=12, depths=[1, 1], num_heads=[2, 2], window_size=4, num_labels=K)
    return SwinForImageClassification(config)


@pytest.mark.parametrize("make", [resnet, _regnet, _efficientnet, _swin], ids=lambda make: make.__name__.strip("_"))
def test_the_mean_of_the_map_is_the_logits(make):
    torch.manual_seed(0)
    model = make().eval()
    annotator = LabelMapAnnotator(model)
    pixels = torch.randn(2, 3, 64, 96) if make is not _swin else torch.randn(2, 3, 64, 64)
    maps = annotator.label_maps(pixels)
    with torch.no_grad():
        logits = model(pixels).logits
    assert maps.shape[:2] == (2, K) and maps.shape[2] * maps.shape[3] > 1
    torch.testing.assert_close(maps.mean((2, 3)), logits, rtol=1e-4, atol=1e-4 * float(logits.abs().max()))
    assert annotator.check(pixels) < 1e-3


def test_rows_of_the_map_are_rows_of_the_image():
    """A change in one corner moves that corner of the map most."""
    model = resnet(hidden_sizes=[8], depths=[1])
    annotator = LabelMapAnnotator(model)
    pixels = torch.zeros(1, 3, 64, 128)
    base = annotator.label_maps(pixels)
    pixels[..., 48:, :16] = 3.0  # below, left
    moved = (annotator.label_maps(pixels) - base).abs().sum(1)[0]
    assert moved.shape == (16, 32)
    assert divmod(int(moved.argmax()), 32) > (11, -1) and int(moved.argmax()) % 32 < 6


def _data(count=5):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (40, 30 + n, 3), dtype=np.uint8)) for n in range(count)]
    return Dataset.from_dict(
        {"image": images, "index": [10 + n for n in range(count)], "labels": [0, 1, 2, -1, 3][:count]}
    )


def test_a_store_of_all_classes_holds_the_whole_map(tmp_path):
    data, model = _data(), resnet()
    annotator = LabelMapAnnotator(model)
    store = annotator.annotate(
        data, k=K, size=64, batch_size=2, folder=tmp_path / "maps", codec="float32", teacher="me/t"
    )
    assert store.info.map_shape == (8, 8) and store.info.teacher == "me/t" and store.info.num_labels == K
    assert store.reader.column("label").tolist() == [0, 1, 2, -1, 3]
    pixels = annotator._pixels(data["image"][:], (64, 64))
    with torch.no_grad():
        want = model(pixels).logits.softmax(-1)
    torch.testing.assert_close(store.decode(store.lookup(data["index"][:])), want, rtol=1e-4, atol=1e-5)
    half = annotator.annotate(data, k=2, size=(64, 32))
    assert half.info.map_shape == (8, 4) and half.reader.column("map_ids").shape == (5, 2, 8, 4)


def test_an_interrupted_run_goes_on(tmp_path):
    data, annotator = _data(), LabelMapAnnotator(resnet())
    calls = []

    def stop(count):
        calls.append(count)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        annotator.annotate(data, size=32, batch_size=2, folder=tmp_path, rows_per_file=2, progress=stop)
    asked = []
    store = annotator.annotate(data, size=32, batch_size=2, folder=tmp_path, rows_per_file=2, progress=asked.append)
    assert sum(asked) < 5 and len(store) == 5
    whole = annotator.annotate(data, size=32)
    ids = data["index"][:]
    assert np.array_equal(store.lookup(ids)["map_values"], whole.lookup(ids)["map_values"])


def test_saved_annotator_comes_back_with_its_processor(tmp_path):
    from transformers import ViTImageProcessorPil

    resnet().save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 64, "width": 64}, image_mean=[0.1] * 3, image_std=[0.2] * 3).save_pretrained(
        tmp_path
    )
    annotator = LabelMapAnnotator.from_pretrained(str(tmp_path))
    assert annotator.normalizer.mean == (0.1,) * 3
    assert annotator.annotate(_data(), k=1).info.map_shape == (8, 8)


def test_a_norm_after_the_mean_is_refused_unless_asked_for():
    torch.manual_seed(0)
    pixels = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="ConvNextForImageClassification is not its logits"):
        LabelMapAnnotator(convnext()).check(pixels)
    model = convnext()
    annotator = LabelMapAnnotator(model, approximate=True)
    assert annotator.check(pixels) > 1e-3
    flat = model.convnext(pixels).last_hidden_state
    want = model.classifier(model.convnext.layernorm(flat.movedim(1, -1))).movedim(-1, 1)
    torch.testing.assert_close(annotator.label_maps(pixels), want)


def test_a_classifier_on_a_cls_token_warns(caplog):
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(image_size=64, patch_size=16, intermediate_size=32, num_labels=K, **SMALL)
    ).eval()
    annotator = LabelMapAnnotator(model)
    pixels = torch.randn(1, 3, 64, 64)
    with caplog.at_level(logging.WARNING):
        annotator.check(pixels)
    assert "does not classify by the mean of its patches" in caplog.text
    tokens = model.vit(pixels).last_hidden_state[:, 1:]
    want = model.classifier(tokens).movedim(-1, 1).reshape(1, K, 4, 4)
    torch.testing.assert_close(annotator.label_maps(pixels), want)


class _Timm(nn.Module):
    """The interface that `TimmWrapperForImageClassification` has; timm itself needs torchvision."""

    def __init__(self, channels_last):
        super().__init__()
        self.stem, self.fc, self.last = nn.Conv2d(3, 12, 8, 8), nn.Linear(12, K), channels_last

    def forward_features(self, pixels):
        features = self.stem(pixels).relu()
        return features.movedim(1, -1) if self.last else features


class _Wrapper(nn.Module):
    def __init__(self, channels_last):
        super().__init__()
        self.timm_model = _Timm(channels_last)
        self.config = type("Config", (), {"num_labels": K, "num_channels": 3, "id2label": {}})()

    def forward(self, pixel_values):
        features = self.timm_model.forward_features(pixel_values)
        pooled = features.mean((1, 2) if self.timm_model.last else (2, 3))
        return type("Output", (), {"logits": self.timm_model.fc(pooled)})()


@pytest.mark.parametrize("channels_last", [False, True])
def test_wrapped_timm_models_of_both_layouts(channels_last):
    torch.manual_seed(0)
    annotator = LabelMapAnnotator(_Wrapper(channels_last))
    pixels = torch.randn(2, 3, 32, 48)
    assert annotator.label_maps(pixels).shape == (2, K, 4, 6) and annotator.check(pixels) < 1e-5


def test_what_cannot_be_converted_is_refused():
    model = resnet()
    model.classifier = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, K))
    with pytest.raises(ValueError, match=r"not one linear layer \(Flatten, Linear, ReLU, Linear\)"):
        LabelMapAnnotator(model)
    dino = Dinov2ForImageClassification(Dinov2Config(image_size=28, patch_size=14, num_labels=K, **SMALL)).eval()
    with pytest.raises(ValueError, match="reads 32 numbers, a cell has 16"):
        LabelMapAnnotator(dino).label_maps(torch.randn(1, 3, 28, 28))
    assert linear_head(resnet()).num_labels == K


def test_bad_input_is_named():
    data, annotator = _data(), LabelMapAnnotator(resnet())
    with pytest.raises(ValueError, match="data set is empty"):
        annotator.annotate(data.select([]), size=32)
    with pytest.raises(ValueError, match="Column `index` is missing; the data set has: image, labels"):
        annotator.annotate(data.remove_columns("index"), size=32)
    with pytest.raises(ValueError, match=r"k must be in \[1, 7\].*got 8"):
        annotator.annotate(data, k=8, size=32)
    with pytest.raises(ValueError, match="Pass `size`"):
        annotator.annotate(data)
    broken = resnet()
    with torch.no_grad():
        broken.classifier[1].bias[2] = torch.nan
    with pytest.raises(ValueError, match="map of example 10 holds NaN"):
        LabelMapAnnotator(broken, approximate=True).annotate(data, size=32)
