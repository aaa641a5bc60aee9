"""The code on the pages of `soft_label_store` and `mixing` runs as it stands, with tiny local models and pictures."""

import re

import numpy as np
import pytest
import torch

from hf_labels.hub_cards import method_text

NAMES = ("cat", "dog", "owl")


def _pictures(folder):
    from PIL import Image

    rng = np.random.default_rng(0)
    for number, name in enumerate(NAMES):
        (folder / "pictures" / name).mkdir(parents=True)
        for picture in range(3):
            pixels = rng.integers(60 * number, 60 * number + 90, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{picture}.png")


def _model(folder, classes=NAMES) -> str:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = dict(enumerate(classes))
    config = ViTConfig(image_size=16, patch_size=8, id2label=names, label2id={n: i for i, n in names.items()}, **sizes)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("slug", "names"), [("soft_label_store", ("teacher_id", "student_id")), ("mixing", ("backbone",))]
)
def test_usage_and_loading_run_as_written(slug, names, tmp_path, monkeypatch, capsys):
    _pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    method = method_text(slug)
    code = method.usage_code
    for name in names:
        folder = _model(tmp_path / name, NAMES if name == "teacher_id" else ("a", "b", "c", "d"))
        code, places = re.subn(rf'(?m)^{name} = "[^"]+"', f"{name} = {folder!r}", code)
        assert places == 1
    run: dict = {}
    exec(compile(code, "usage", "exec"), run)
    losses = [entry["train_loss"] for entry in run["trainer"].state.log_history if "train_loss" in entry]
    assert losses and np.isfinite(losses[0])
    printed = capsys.readouterr().out
    if slug == "mixing":
        assert "eval_loss" in printed
    else:
        assert "8.0 bytes per label" in printed and len(run["store"]) == 36
        assert (tmp_path / "soft_labels" / "soft_label_store.json").is_file()
    exec(compile(method.loading_code("out/final"), "loading", "exec"), {})
    assert re.search(r"'label': '(cat|dog|owl)'", capsys.readouterr().out)
