"""Loads, in a fresh process with an empty cache, what `lad_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from checks import check, main
from transformers import AutoModelForSemanticSegmentation


def kept(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    found = json.loads((Path(os.environ["LOOPBACK_SHARED"]) / f"{name}.json").read_text())
    return torch.tensor(found["pixels"]), torch.tensor(found["logits"])


@check
@torch.no_grad()
def the_student_loads_without_hf_labels():
    assert not any(name.split(".")[0] == "hf_labels" for name in sys.modules)
    sys.modules["hf_labels"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        pixels, logits = kept("lad")
        model = AutoModelForSemanticSegmentation.from_pretrained("tester/lad").eval()
        assert model.config.num_channels == 3
        torch.testing.assert_close(model(pixels).logits, logits)
    finally:
        del sys.modules["hf_labels"]


@check
@torch.no_grad()
def the_teacher_loads_with_the_settings_of_its_channel():
    from hf_labels.losses.lad import LabelNoiser
    from hf_labels.models.lad import saved_noiser

    pixels, logits = kept("lad_teacher")
    model = AutoModelForSemanticSegmentation.from_pretrained("tester/lad-teacher").eval()
    assert saved_noiser(model) == LabelNoiser(3, gain=100.0)
    torch.testing.assert_close(model(torch.cat([pixels, pixels[:, :1]], 1)).logits, logits)


@check
def loading_code_of_the_card_runs():
    from huggingface_hub import ModelCard

    from hf_labels.hub_cards import method_text

    code = method_text("lad").loading_code("tester/lad")
    assert code in ModelCard.load("tester/lad").text
    exec(compile(code, "loading", "exec"), {})


if __name__ == "__main__":
    main()
