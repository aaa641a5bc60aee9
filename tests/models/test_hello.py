"""The label projector, its adapter, and what is checked when the two meet again."""

import json
import logging

import hello_toys as toys
import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForImageClassification

from hf_labels.data.images import Normalizer, resize
from hf_labels.losses.hello import lora_floats, projector_logits
from hf_labels.models.hello import LabelProjector, LabelProjectorConfig, SameView
from hf_labels.models.hello_adapter import (
    head_sha256,
    hello_lora_config,
    load_projector,
    projector_facts,
    save_projector,
    sketch,
)


def logits(model, pixels=None):
    with torch.no_grad():
        return model.eval()(pixel_values=toys.pixels() if pixels is None else pixels).logits


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return toys.save_clip(tmp_path_factory.mktemp("hello") / "clip")


@pytest.fixture(scope="module")
def saved(clip, tmp_path_factory):
    """An adapter that was moved away from its start, and its logits."""
    folder = tmp_path_factory.mktemp("hello") / "adapter"
    model = toys.adapted(LabelProjector.from_clip(clip, toys.NAMES), noise=0.3)
    save_projector(model, folder)
    return folder, logits(model)


# Text initialisation


def test_a_new_projector_is_zero_shot_clip():
    clip, words = toys.tiny_clip(), toys.tokenizer()
    texts = words([f"a photo of a {name}." for name in toys.NAMES], padding=True, return_tensors="pt")
    with torch.no_grad():
        want = clip(
            input_ids=texts["input_ids"], attention_mask=texts["attention_mask"], pixel_values=toys.pixels()
        ).logits_per_image
    torch.testing.assert_close(logits(toys.projector()), want)


def test_an_adapter_at_its_start_changes_no_bit():
    base = toys.projector()
    want = logits(base)
    assert torch.equal(logits(toys.adapted(base)), want)


def test_other_words_stand_for_a_class_and_the_name_stays():
    base = LabelProjector.from_clip(
        toys.tiny_clip(), {"n01": "cat", "n02": "dog", "n03": "bird"}, tokenizer=toys.tokenizer()
    )
    assert base.config.id2label == {0: "n01", 1: "n02", 2: "n03"} and base.config.class_texts == toys.NAMES
    torch.testing.assert_close(base.head.weight, toys.projector().head.weight)


def test_double_names_and_equal_embeddings_are_refused():
    with pytest.raises(ValueError, match="'cat' twice, at positions 0 and 2"):
        toys.projector(["cat", "dog", "cat"])
    with pytest.raises(
        ValueError, match="Classes 'lion' and 'tiger' have the same text embedding.*'a photo of a lion.'"
    ):
        toys.projector(["cat", "lion", "tiger"])  # both unknown to the tokenizer


def test_a_long_prompt_is_cut_with_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "hf_labels.models.hello"):
        base = toys.projector([" ".join(["very"] * 20), "dog", "bird"])
    assert "1 class prompts are longer than the 12 tokens" in caplog.text and "very very" in caplog.text
    assert base.head.weight.isfinite().all()
    caplog.clear()
    toys.projector()
    assert not caplog.records


def test_other_bad_input_is_named(clip):
    with pytest.raises(ValueError, match="exactly one `{}`"):
        toys.projector(prompt="a photo")
    with pytest.raises(ValueError, match="Pass `tokenizer` with a CLIPModel"):
        LabelProjector.from_clip(toys.tiny_clip(), toys.NAMES)
    with pytest.raises(TypeError, match="Hub id, a folder or a CLIPModel, got ViT"):
        LabelProjector.from_clip(toys.teacher(), toys.NAMES, tokenizer=toys.tokenizer())
    with pytest.raises(TypeError, match="`names` must be a list of names"):
        LabelProjector.from_clip(clip, "cat")
    with pytest.raises(ValueError, match="`logit_scale` must be above 0"):
        LabelProjectorConfig(logit_scale=0.0)
    broken = toys.tiny_clip()
    with torch.no_grad():
        broken.text_projection.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="text embedding of 'a photo of a cat.' is not finite"):
        LabelProjector.from_clip(broken, toys.NAMES, tokenizer=toys.tokenizer())


def test_the_clip_is_not_changed_and_a_missing_one_is_named(tmp_path):
    clip = toys.tiny_clip().train()
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    base = LabelProjector.from_clip(clip, toys.NAMES, tokenizer=toys.tokenizer())
    with torch.no_grad():
        base.encoder.visual_projection.weight.zero_()
    assert clip.training and all(torch.equal(before[name], value) for name, value in clip.state_dict().items())
    with pytest.raises(OSError, match="nothing-here"):
        LabelProjector.from_clip(str(tmp_path / "nothing-here"), toys.NAMES)


# Adapters of two ranks


def test_ranks_of_encoder_and_head_and_what_is_stored():
    model = toys.adapted(rank=2, head_rank=3)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    head = {name.split(".")[-3]: shape for name, shape in shapes.items() if ".head." in name}
    assert head == {"lora_A": (3, 12), "lora_B": (3, 3)}
    assert all(2 in shape for name, shape in shapes.items() if "q_proj" in name) and len(shapes) == 10
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == lora_floats(3, (3, 12)) + lora_floats(2, *[(16, 16)] * 4)


@pytest.mark.parametrize("scaling", [1.0, 0.5])
def test_adapted_head_equals_the_explicit_matrix(scaling):
    base = toys.projector()
    model = get_peft_model(base, hello_lora_config(base, 2, 3, scaling=scaling)).eval()
    head = model.get_base_model().head
    a, b = head.lora_A["default"].weight, head.lora_B["default"].weight
    with torch.no_grad():
        b.normal_()
        features = model.get_base_model().image_features(toys.pixels())
        want = projector_logits(features, head.base_layer.weight, base.config.logit_scale, a, b, scaling)
    torch.testing.assert_close(logits(model), want)


def test_convolutions_can_be_adapted():
    model = toys.adapted(noise=0.1, target_modules=("patch_embedding", "fc1"))
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad and "patch" in name}
    assert sorted(shapes.values()) == [(2, 3, 4, 4), (16, 2, 1, 1)]
    merged = logits(model)
    torch.testing.assert_close(logits(model.merge_and_unload()), merged, atol=1e-5, rtol=0)


def test_default_ranks_follow_the_number_of_classes():
    base = toys.projector()
    assert hello_lora_config(base).rank_pattern == {"head": 3} and hello_lora_config(base).r == 8
    wide = LabelProjector(
        LabelProjectorConfig(
            vision_config={"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8}
            | {"patch_size": 4, "intermediate_size": 16, "projection_dim": 256},
            id2label={i: str(i) for i in range(1000)},
        )
    )
    assert hello_lora_config(wide).rank_pattern == {"head": 128}
    wide.config.id2label = {i: str(i) for i in range(100)}
    wide.head = torch.nn.Linear(256, 100, bias=False)
    assert hello_lora_config(wide).rank_pattern == {"head": 64}


def test_bad_ranks_and_layers_are_named():
    base = toys.projector()
    with pytest.raises(ValueError, match="Ranks must be at least 1, got rank=0"):
        hello_lora_config(base, 0)
    with pytest.raises(ValueError, match="layers of the image encoder, got conv9.*default is q_proj"):
        hello_lora_config(base, target_modules=["q_proj", "conv9"])


# Saving and loading


def test_saved_files_hold_the_adapter_alone(saved):
    folder, _ = saved
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert (folder / "adapter_model.safetensors").stat().st_size < 4 * 301 + 2000
    told = json.loads((folder / "adapter_config.json").read_text())["projector"]
    assert told["class_names"] == toys.NAMES and len(told["head_sha256"]) == 64


def test_loaded_adapter_is_bit_equal(saved):
    folder, want = saved
    model = load_projector(folder)
    assert isinstance(model, PeftModel) and torch.equal(logits(model), want)
    assert not any(p.requires_grad for p in model.parameters()) and not model.training
    more = load_projector(folder, is_trainable=True)
    assert sum(p.requires_grad for p in more.parameters()) == 10
    assert torch.equal(logits(load_projector(folder, class_names=toys.NAMES)), want)


def test_one_call_loads_adapters_and_whole_models(saved, tmp_path):
    folder, want = saved
    merged = LabelProjector.from_pretrained(folder)
    assert type(merged) is LabelProjector
    torch.testing.assert_close(logits(merged), want, atol=1e-5, rtol=0)
    merged.save_pretrained(tmp_path / "whole")
    for cls in (LabelProjector, AutoModelForImageClassification):
        assert torch.equal(logits(cls.from_pretrained(tmp_path / "whole")), logits(merged))


def test_the_head_can_be_stored_and_then_no_text_is_read(clip, tmp_path, monkeypatch):
    model = toys.adapted(LabelProjector.from_clip(clip, toys.NAMES, save_head=True), noise=0.3)
    save_projector(model, tmp_path)
    assert (tmp_path / "head.safetensors").is_file()
    monkeypatch.setattr(LabelProjector, "from_clip", None)
    again = load_projector(tmp_path)
    assert torch.equal(logits(again), logits(model)) and again.get_base_model().config.save_head


def test_a_card_that_somebody_wrote_stays(saved, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    save_projector(toys.adapted(), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


# Verification


def changed(folder, tmp_path, **facts):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["projector"] |= facts
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    return tmp_path


def test_another_clip_is_refused_by_hash(saved, tmp_path):
    other = toys.save_clip(tmp_path / "other", seed=3)
    with pytest.raises(ValueError, match=r"head does not fit the adapter \(sha256 .*, wanted .*clip=.*clip_revision="):
        load_projector(saved[0], clip=other)


def test_an_image_encoder_that_was_trained_on_is_refused(saved):
    model = toys.tiny_clip()
    with torch.no_grad():
        model.visual_projection.weight.mul_(1.1)
    with pytest.raises(ValueError, match="image encoder or its scale is not that of the CLIP"):
        load_projector(saved[0], clip=model, tokenizer=toys.tokenizer())


def test_other_classes_and_prompts_are_refused(saved, tmp_path):
    with pytest.raises(ValueError, match="has the classes cat, dog, bird .3 in all., you expect cat, dog, fish"):
        load_projector(saved[0], class_names=["cat", "dog", "fish"])
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="head does not fit the adapter"):
        load_projector(changed(saved[0], tmp_path / "a", prompt_template="a drawing of a {}."))
    (tmp_path / "b").mkdir()
    names = {"class_names": ["cat", "dog", "fish"], "class_texts": ["cat", "dog", "fish"]}
    with pytest.raises(ValueError, match="head does not fit the adapter"):
        load_projector(changed(saved[0], tmp_path / "b", **names))


def test_last_bits_of_another_machine_are_no_other_clip(saved, monkeypatch):
    import hf_labels.models.hello as module

    exact = module.encode_prompts
    monkeypatch.setattr(module, "encode_prompts", lambda *a: exact(*a) + 5e-5 * torch.rand(3, 12))
    model = load_projector(saved[0])
    told = json.loads((saved[0] / "adapter_config.json").read_text())["projector"]
    assert head_sha256(model.get_base_model().head.base_layer.weight) != told["head_sha256"]
    monkeypatch.setattr(module, "encode_prompts", lambda *a: exact(*a).roll(1, 0))
    with pytest.raises(ValueError, match="head does not fit"):
        load_projector(saved[0])


def test_sketches_tell_one_class_of_a_thousand():
    torch.manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(1000, 64), dim=-1)
    other = weight.clone()
    other[500] = torch.nn.functional.normalize(torch.randn(64), dim=-1)
    far = max(abs(a - b) for a, b in zip(sketch(weight), sketch(other), strict=True))
    near = max(abs(a - b) for a, b in zip(sketch(weight), sketch(weight + 1e-6 * torch.randn(1000, 64)), strict=True))
    assert near < 1e-4 < 1e-2 < far


def test_an_adapter_of_something_else_is_named(tmp_path):
    from peft import LoraConfig

    with pytest.raises(FileNotFoundError, match="no adapter_config.json"):
        load_projector(tmp_path)
    get_peft_model(toys.projector(), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no label projector.*`projector`"):
        load_projector(tmp_path)
    (tmp_path / "x").mkdir()
    save_projector(toys.adapted(), tmp_path / "x")
    with pytest.raises(ValueError, match="does not name its CLIP. Pass `clip=`"):
        load_projector(tmp_path / "x")
    model = load_projector(tmp_path / "x", clip=toys.tiny_clip(), tokenizer=toys.tokenizer())
    assert projector_facts(model.get_base_model())["head_sha256"] == projector_facts(toys.projector())["head_sha256"]


# Views


def test_labels_are_one_per_view():
    model = toys.adapted(noise=0.3, dropout=0.5).eval()
    pixels = toys.pixels()
    assert torch.equal(logits(model, pixels), logits(model, pixels))
    assert not torch.allclose(logits(model, pixels), logits(model, pixels.flip(-1)))


def test_same_view_undoes_resizes_and_normalises_again():
    base = toys.projector()
    given, wanted = Normalizer((0.2, 0.3, 0.4), (0.5, 0.6, 0.7)), Normalizer((0.5,) * 3, (0.25,) * 3)
    raw = torch.rand(4, 3, 12, 12)
    model = SameView(base, given, wanted, size=8)
    want = logits(base, wanted(resize(raw, 8)))
    torch.testing.assert_close(logits(model, given(raw)), want, atol=1e-4, rtol=0)
    torch.testing.assert_close(
        SameView(toys.adapted(base), given, wanted, 8).image_features(given(raw)),
        base.image_features(model.view(given(raw))),
    )


def test_loss_and_tuple_of_forward():
    base, labels = toys.projector(), torch.tensor([0, 1, 2, 0, 1, 2])
    out = base(toys.pixels(), labels)
    torch.testing.assert_close(out.loss, torch.nn.functional.cross_entropy(out.logits, labels))
    assert len(base(toys.pixels(), return_dict=False)) == 1 and len(base(toys.pixels(), labels, False)) == 2
