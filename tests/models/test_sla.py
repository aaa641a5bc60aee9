import json

import fresh
import pytest
import torch
from sla_toys import NAMES, resnet_config, sla_model, vit_config
from transformers import (
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ResNetForImageClassification,
    ViTForImageClassification,
    pipeline,
)

from hf_labels.losses.sla import transform_images
from hf_labels.models.heads import find_head
from hf_labels.models.sla import SLAConfig, SLAForImageClassification

GREY = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
COLOUR = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_single_and_aggregated_inference_by_hand():
    model = sla_model(self_distillation=False).eval()
    joint = model.joint_classifier(model.features(transform_images(GREY, "rotation")))
    torch.testing.assert_close(model(GREY).logits, joint[::4, ::4])
    want = torch.stack([torch.stack([joint[4 * i + j, j::4] for j in range(4)]).mean(0) for i in range(3)])
    torch.testing.assert_close(model.predict_aggregated(GREY), want)
    model = sla_model().eval()
    torch.testing.assert_close(model(GREY).logits, model.classifier(model.features(GREY)))
    output = model(GREY, transform=True)
    torch.testing.assert_close(output.logits, model(GREY).logits)
    torch.testing.assert_close(output.aggregated_logits, model.predict_aggregated(GREY))
    assert output.joint_logits.shape == (12, 12)


@torch.no_grad()
def test_one_transformation_aggregates_to_single_inference():
    model = sla_model(transform="identity", self_distillation=False).eval()
    torch.testing.assert_close(model.predict_aggregated(GREY), model(GREY).logits)


@torch.no_grad()
def test_aggregation_is_in_eval_mode_and_gives_the_mode_back():
    model = sla_model(resnet_config(), transform="rot_color_perm6")
    model.train()
    found = model.predict_aggregated(COLOUR)
    assert model.training
    torch.testing.assert_close(found, model.eval().predict_aggregated(COLOUR))
    torch.testing.assert_close(found[:1], model.predict_aggregated(COLOUR[:1]))  # no batch statistics


@pytest.mark.parametrize("self_distillation", [True, False])
@pytest.mark.parametrize("backbone", ["vit", "resnet"])
def test_plain_model_is_stock_and_gives_the_same_logits(self_distillation, backbone, tmp_path):
    config, pixels = (vit_config(), GREY) if backbone == "vit" else (resnet_config(), COLOUR)
    model = sla_model(config, self_distillation=self_distillation)
    model(pixels)  # moves the batch statistics
    plain = model.eval().to_plain()
    assert type(plain) in (ViTForImageClassification, ResNetForImageClassification) and not plain.training
    plain.save_pretrained(tmp_path)
    assert "hfl" not in (tmp_path / "config.json").read_text()
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(pixels).logits, model(pixels).logits)
    if backbone == "vit":
        assert [again.config.id2label[i] for i in range(3)] == list(NAMES)
    find_head(plain).module.weight.data.zero_()
    assert not torch.equal(model(pixels).logits, plain(pixels).logits), "weights are shared"


def test_saved_and_loaded_in_a_fresh_process(tmp_path):
    modes = ("sla", "baseline", "da", "mt")
    models = {mode: sla_model(mode=mode).eval() for mode in modes}
    for mode, model in models.items():
        model.save_pretrained(tmp_path / mode)
    code = (
        "import sys, json, torch, hf_labels.models.sla\n"
        "from transformers import AutoModelForImageClassification\n"
        "x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))\n"
        "for mode in sys.argv[1:]:\n"
        "    model = AutoModelForImageClassification.from_pretrained(mode).eval()\n"
        "    with torch.no_grad(): print(json.dumps([model(x).logits.tolist(), model.config.id2label]))"
    )
    done = fresh.run(["-c", code, *modes], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    for mode, line in zip(modes, done.stdout.splitlines()[-4:], strict=True):
        logits, names = json.loads(line)
        torch.testing.assert_close(torch.tensor(logits), models[mode](GREY).logits.detach())
        assert list(names.values()) == list(NAMES)


def test_heads_on_a_trained_model(tmp_path):
    torch.manual_seed(3)
    stock = ViTForImageClassification(vit_config())
    stock.save_pretrained(tmp_path)
    for source in (stock, str(tmp_path)):
        model = SLAForImageClassification.from_backbone(source, 5, transform="rotation2")
        assert model.config.num_labels == 5 and model.joint_classifier.out_features == 10
        assert str(tmp_path) not in json.dumps(model.config.to_dict())
        for name, value in stock.vit.state_dict().items():
            assert torch.equal(model.backbone.vit.state_dict()[name], value)
    assert stock.classifier.out_features == 3, "the given model was changed"
    kept = SLAForImageClassification.from_backbone(stock)
    assert list(kept.config.id2label.values()) == list(NAMES)
    named = SLAConfig.from_backbone(vit_config(), 2, id2label={0: "cat", 1: "dog"})
    assert named.num_labels == 2 and named.label2id == {"cat": 0, "dog": 1}


def test_default_config_is_whole(tmp_path):
    SLAConfig().save_pretrained(tmp_path)
    again = SLAConfig.from_pretrained(tmp_path)
    assert again.backbone_config["model_type"] == "resnet" and again.num_transformations == 4


def test_own_transformations():
    model = sla_model(transform="custom", num_custom_transforms=2).eval()
    with pytest.raises(ValueError, match="Call `set_transforms`"):
        model.predict_aggregated(GREY)
    model.set_transforms([lambda x: x, lambda x: x.flip(-1)])
    assert model.predict_aggregated(GREY).shape == (3, 3)
    model.set_transforms([lambda x: x.flip(-1), lambda x: x])
    with pytest.raises(ValueError, match="Transformation 0 must be the identity"):
        model.predict_aggregated(GREY)
    with pytest.raises(ValueError, match="made for 2 transformations .'custom'.*got 3"):
        model.set_transforms([lambda x: x] * 3)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"transform": "shear"}, "must be one of identity, rotation"),
        ({"mode": "best"}, "`mode` must be one of sla, baseline, da, mt"),
        ({"transform": "custom"}, "needs `num_custom_transforms`"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        SLAConfig(**settings)


def test_bad_input():
    model = sla_model()
    with pytest.raises(ValueError, match="square images, got 4 x 8"):
        model(GREY[:, :, :4], transform=True)
    with pytest.raises(ValueError, match="empty"):
        model(GREY[:0])
    with pytest.raises(ValueError, match=r"\[0, 3\), got 3 at row 2"):
        model(GREY, labels=torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match="integer single labels"):
        model(GREY, labels=torch.rand(3, 3))
    with pytest.raises(ValueError, match="3 colour channels, got 1"):
        sla_model(transform="color_perm3").predict_aggregated(GREY)
    with pytest.raises(ValueError, match="nothing to aggregate"):
        sla_model(mode="baseline").predict_aggregated(GREY)
    teacher = DeiTForImageClassificationWithTeacher(
        DeiTConfig(image_size=8, patch_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    with pytest.raises(ValueError, match="one block"):
        SLAForImageClassification.from_backbone(teacher)


def test_stock_pipeline_reads_the_saved_folder(tmp_path):
    import numpy as np
    from PIL import Image
    from transformers import ViTImageProcessor

    model = sla_model(vit_config(3)).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    found = pipeline("image-classification", model=str(tmp_path))(image)
    assert {row["label"] for row in found} == set(NAMES) and abs(sum(row["score"] for row in found) - 1) < 1e-5


def test_tuple_loss_and_checkpointing():
    model = sla_model()
    loss, logits = model(GREY, labels=torch.tensor([0, -100, 2]), return_dict=False)
    want = torch.nn.functional.cross_entropy(logits[[0, 2]], torch.tensor([0, 2]))
    torch.testing.assert_close(loss, want)
    loss.backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model.train()(GREY, labels=torch.tensor([0, -100, 2])).loss.backward()
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad, grads[name])
