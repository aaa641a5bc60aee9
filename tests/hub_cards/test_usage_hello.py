"""The code on the page of `hello` runs as it stands, with a tiny CLIP and a tiny network instead of Hub ids."""

import re

import hello_toys as toys
import torch
from transformers import CLIPImageProcessor, ResNetConfig, ResNetForImageClassification

from hf_labels.hub_cards import method_text, validate_card


def test_usage_and_loading_of_hello_run_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clip = toys.save_clip(tmp_path / "clip")
    side = {"height": toys.SIDE, "width": toys.SIDE}
    CLIPImageProcessor(size=side, crop_size=side).save_pretrained(clip)
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetForImageClassification(config).save_pretrained(tmp_path / "network")
    method, code = method_text("hello"), method_text("hello").usage_code
    for name, value in (("clip", str(clip)), ("network", str(tmp_path / "network")), ("size", toys.SIDE)):
        code, places = re.subn(rf'(?m)^{name} = ("[^"]+"|\d+)', f"{name} = {value!r}", code)
        assert places == 1, name
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    assert "eval_teacher_kl" in capsys.readouterr().out
    assert [len(run["distilled"]), run["distilled"][0]["image"].size] == [6, (8, 8)]
    assert run["source"].get_base_model().config.id2label == dict(enumerate(toys.NAMES))
    files = {path.name for path in (tmp_path / "out" / "final").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= files and "model.safetensors" not in files

    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert re.search(r"'label': '(cat|dog|bird)'", capsys.readouterr().out)

    run["trainer"].create_model_card(model_name="projector")
    card = (tmp_path / "projector" / "README.md").read_text(encoding="utf-8")
    assert validate_card(card, tmp_path / "projector", slug="hello") == []
    assert "teacher_kl" in card and "| `hard_label_weight` |" not in card  # a default is not a setting to tell
