import json

import pytest
import torch
import transformers as hf
from lad_toys import segformer, upernet
from torch import nn

from hf_labels.losses.lad import LabelNoiser
from hf_labels.models.lad import add_input_channel, find_stem, input_channels, saved_noiser, strip_input_channel

SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}


def beit():
    config = hf.BeitConfig(**SMALL, image_size=32, patch_size=8, num_labels=3, out_indices=[1, 2, 3, 4], vocab_size=9)
    return hf.BeitForSemanticSegmentation(config)


def dpt():
    options = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8, "reassemble_factors": [4, 2, 1, 0.5]}
    config = hf.DPTConfig(
        **SMALL, image_size=32, patch_size=8, num_labels=3, backbone_out_indices=[0, 1, 2, 3], **options
    )
    return hf.DPTForSemanticSegmentation(config)


MODELS = {
    "segformer": segformer,
    "upernet": upernet,
    "beit": beit,
    "dpt": dpt,
    "mobilenet": lambda: hf.MobileNetV2ForSemanticSegmentation(
        hf.MobileNetV2Config(num_labels=3, depth_multiplier=0.35)
    ),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_a_channel_of_zeros_changes_nothing_and_comes_out_again(name, tmp_path):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    images = torch.randn(2, 3, 32, 32)
    zeros, ones = torch.zeros(2, 1, 32, 32), torch.ones(2, 1, 32, 32)
    before = model(images).logits
    stem = find_stem(model)[1]
    assert add_input_channel(model, std=10.0, generator=torch.Generator().manual_seed(0)) is model
    assert input_channels(model) == 4 and torch.equal(find_stem(model)[1].weight[:, :3], stem.weight)
    torch.testing.assert_close(model(torch.cat([images, zeros], 1)).logits, before)
    marked = model(torch.cat([images, ones], 1)).logits
    if name != "mobilenet":  # its random logits are all but constant
        assert not torch.allclose(marked, before)
    model.save_pretrained(tmp_path / "four")
    four = type(model).from_pretrained(tmp_path / "four").eval()
    torch.testing.assert_close(four(torch.cat([images, ones], 1)).logits, marked)
    strip_input_channel(four).save_pretrained(tmp_path / "three")
    assert "label_channel" not in (tmp_path / "three" / "config.json").read_text()
    three = hf.AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "three").eval()
    torch.testing.assert_close(three(images).logits, before)


def test_new_weights_have_the_deviation_and_can_be_trained():
    model = add_input_channel(segformer(hidden_sizes=[64, 8]), std=0.1, generator=torch.Generator().manual_seed(0))
    stem = find_stem(model)[1]
    assert 0.09 < stem.weight[:, 3].std() < 0.11 and stem.weight.requires_grad  # 64 * 49 numbers
    model(torch.randn(1, 4, 16, 16)).logits.sum().backward()
    assert stem.weight.grad[:, 3].any()


def test_the_noiser_is_kept_in_the_config(tmp_path):
    noiser = LabelNoiser(3, gain=100.0)
    add_input_channel(segformer(), noiser=noiser).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["label_channel"]["gain"] == 100.0
    again = hf.AutoModelForSemanticSegmentation.from_pretrained(tmp_path)
    assert saved_noiser(again) == noiser
    assert saved_noiser(strip_input_channel(again)) is None


def test_models_without_one_stem_are_refused():
    two = segformer()
    two.second = nn.Conv2d(3, 8, 3)
    with pytest.raises(ValueError, match="one convolution that reads 3 channels.*found 2.*second"):
        add_input_channel(two)
    with pytest.raises(ValueError, match="no `num_channels`"):
        add_input_channel(hf.BertForSequenceClassification(hf.BertConfig(vocab_size=9, **SMALL)))
    with pytest.raises(ValueError, match="reads 1 channel"):
        strip_input_channel(segformer(num_channels=1))
