"""Replays mix-ln.json through `hf_labels.models.mix_ln` and `hf_labels.models.layer_diagnostics`."""

import torch

from hf_labels.models.layer_diagnostics import angular_distance, block_influence, gradient_norms, layer_states
from hf_labels.models.mix_ln import MixLNConfig, MixLNForCausalLM

# Names in the authors' code -> names here.
NORM_TYPES = {"post_pre": "mix", "deeppost": "deepnorm", "scale_pre": "pre", "scale_post_pre": "mix"}


def replay(function: str, inputs: dict, params: dict) -> dict:
    if "h_in" in inputs:
        h_in, h_out = (torch.tensor(inputs[key], dtype=torch.float64) for key in ("h_in", "h_out"))
        return {
            "angular": angular_distance(h_in, h_out).flatten(),
            "one_minus_cos": block_influence(h_in, h_out).flatten(),
        }
    if "weights" in inputs and "input_ids" in inputs:
        return _model(inputs, dict(params))
    raise LookupError(f"The Mix-LN adapter does not know {function!r}.")


def _model(inputs: dict, params: dict) -> dict:
    theta = params.pop("rope_theta", 10000.0)
    given = params.pop("norm_type", "post_pre")
    norm_type = NORM_TYPES.get(given, given)
    layers = params["num_hidden_layers"]
    number = params.pop("num_post_layers", None)
    config = MixLNConfig(
        **params,
        norm_type=norm_type,
        num_post_layers=number if norm_type in ("mix", "pre_post") else None,
        deepnorm_alpha=64**0.25 if given == "deeppost" else None,  # a constant in the authors' code
        num_key_value_heads=params.get("num_key_value_heads", params["num_attention_heads"]),
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        max_position_embeddings=max(64, len(inputs["input_ids"][0])),
    )
    model = MixLNForCausalLM(config).double()
    weights = {
        name if name.startswith("lm_head") else f"model.{name}": torch.tensor(value, dtype=torch.float64)
        for name, value in inputs["weights"].items()
    }
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    model.load_state_dict(weights)
    ids = torch.tensor(inputs["input_ids"])
    states, output = layer_states(model, input_ids=ids, labels=ids, use_cache=False)
    output.loss.backward()
    assert len(states) == layers + 1
    return {
        "layer_outputs": torch.stack(states[1:]),
        "logits": output.logits,
        "loss": output.loss,
        "grad_norm": gradient_norms(model),
    }
