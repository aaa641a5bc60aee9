"""Loads, in a fresh process with an empty cache, what `mix_ln_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from checks import check, main, raises
from transformers import AutoModelForCausalLM


def compare(name: str, model: Any) -> None:
    kept = json.loads((Path(os.environ["LOOPBACK_SHARED"]) / f"{name}.json").read_text())
    with torch.no_grad():
        logits = model(torch.tensor(kept["ids"])).logits
    torch.testing.assert_close(logits, torch.tensor(kept["logits"]))


@check
def code_from_the_hub_needs_consent_and_no_hf_labels():
    raises(ValueError, AutoModelForCausalLM.from_pretrained, "tester/mix-ln-code", trust_remote_code=False)
    sys.modules["hf_labels"] = None  # type: ignore[assignment]  # as if it were not installed
    model = AutoModelForCausalLM.from_pretrained("tester/mix-ln-code", trust_remote_code=True)
    del sys.modules["hf_labels"]
    assert type(model).__module__.startswith("transformers_modules.")
    assert all(layer.placement == "deepnorm" for layer in model.model.layers)
    compare("mix_ln_code", model)


@check
def loading_code_of_the_card_gives_the_model():
    from huggingface_hub import ModelCard

    from hf_labels.hub_cards import method_text

    code = method_text("mix_ln").loading_code("tester/mix-ln")
    assert code in ModelCard.load("tester/mix-ln").text
    names: dict[str, Any] = {}
    exec(compile(code, "loading", "exec"), names)
    assert type(names["model"]).__name__ == "MixLNForCausalLM"
    compare("mix_ln", names["model"])


@check
def surgery_is_loaded_by_the_auto_class():
    model = AutoModelForCausalLM.from_pretrained("tester/mix-ln-mistral")
    assert type(model).__name__ == "MixLNMistralForCausalLM" and model.config.num_post_layers == 2
    compare("mix_ln_mistral", model)


if __name__ == "__main__":
    main()
