"""Loads, in a fresh process with an empty cache, what `sla_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from checks import check, main
from transformers import AutoModelForImageClassification


def kept(name: str) -> dict[str, torch.Tensor]:
    found = json.loads((Path(os.environ["LOOPBACK_SHARED"]) / f"{name}.json").read_text())
    return {key: torch.tensor(value) for key, value in found.items()}


@check
@torch.no_grad()
def the_plain_model_loads_without_hf_labels():
    assert not any(name.split(".")[0] == "hf_labels" for name in sys.modules)
    sys.modules["hf_labels"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        want = kept("sla_plain")
        model = AutoModelForImageClassification.from_pretrained("tester/sla-plain").eval()
        assert type(model).__name__ == "ResNetForImageClassification" and model.config.id2label == {0: "cat", 1: "dog"}
        torch.testing.assert_close(model(want["pixels"]).logits, want["logits"])
    finally:
        del sys.modules["hf_labels"]


@check
@torch.no_grad()
def loading_code_of_the_card_gives_both_predictions():
    from huggingface_hub import ModelCard

    from hf_labels.hub_cards import method_text

    code = method_text("sla").loading_code("tester/sla")
    assert code in ModelCard.load("tester/sla").text
    names: dict = {}
    exec(compile(code, "loading", "exec"), names)
    model, want = names["model"].eval(), kept("sla")
    torch.testing.assert_close(model(want["pixels"]).logits, want["logits"])
    torch.testing.assert_close(model.predict_aggregated(want["pixels"]), want["aggregated"])


if __name__ == "__main__":
    main()
