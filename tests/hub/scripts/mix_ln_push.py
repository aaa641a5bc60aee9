"""Mix-LN models pushed to the loopback Hub: with their card, and with the code of the architecture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from checks import check, log, main
from huggingface_hub import HfApi, ModelCard
from transformers import MistralConfig, MistralForCausalLM

from hf_labels.hub_cards import ResultRow, render_card, validate_card
from hf_labels.models.mix_ln import MixLNConfig, MixLNForCausalLM, apply_mix_ln

SIZES = {"vocab_size": 29, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 2}
IDS = torch.arange(2, 14).view(2, 6)
api = HfApi()


def remember(name: str, model: torch.nn.Module) -> None:
    path = Path(os.environ["LOOPBACK_SHARED"]) / f"{name}.json"
    path.write_text(json.dumps({"ids": IDS.tolist(), "logits": model(IDS).logits.tolist()}))


@check
def model_and_card_are_pushed():
    torch.manual_seed(0)
    model = MixLNForCausalLM(MixLNConfig(**SIZES, initializer_range=0.3)).eval()
    model.push_to_hub("tester/mix-ln")
    remember("mix_ln", model)
    card = render_card(
        "mix_ln",
        model_id="tester/mix-ln",
        datasets=["tester/articles"],
        language="en",
        training={"learning_rate": 1e-3, "post_ln_fraction": 0.25},
        results=[ResultRow("tester/articles", "test", "perplexity", 9.5, "Pre-LN", 9.4, seeds=5, stderr=0.1)],
    )
    card.push_to_hub("tester/mix-ln")
    assert log("validate_yaml")
    back = ModelCard.load("tester/mix-ln", ignore_metadata_errors=False)
    assert validate_card(str(back), slug="mix_ln") == []
    assert back.data.pipeline_tag == "text-generation" and "2412.13795" in str(back)
    assert {"hf_labels", "mix_ln"} <= set(api.model_info("tester/mix-ln").tags)


@check
def surgery_on_a_stock_model_is_pushed():
    torch.manual_seed(1)
    model = apply_mix_ln(MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)), 0.5).eval()
    model.push_to_hub("tester/mix-ln-mistral")
    remember("mix_ln_mistral", model)


@check
def architecture_travels_with_the_model():
    MixLNConfig.register_for_auto_class()
    MixLNForCausalLM.register_for_auto_class("AutoModelForCausalLM")
    torch.manual_seed(2)
    model = MixLNForCausalLM(MixLNConfig(**SIZES, norm_type="deepnorm")).eval()
    model.push_to_hub("tester/mix-ln-code")
    files = set(api.list_repo_files("tester/mix-ln-code"))
    assert {"mix_ln_families.py", "mix_ln_layers.py", "config.json", "model.safetensors"} <= files
    remember("mix_ln_code", model)


if __name__ == "__main__":
    main()
