"""Decodes, in a fresh process without this package, with what `ceed_vla_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.modules["hf_labels"] = None  # type: ignore[assignment]  # as if it were not installed

import torch  # noqa: E402
from checks import check, main, raises  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

KEPT = json.loads((Path(os.environ["LOOPBACK_SHARED"]) / "ceed_vla.json").read_text())
IDS, WANT = torch.tensor(KEPT["ids"]), KEPT["want"]
OPTIONS = {"attention_mask": torch.tensor(KEPT["mask"]), "max_new_tokens": 9, "do_sample": False}


@check
def model_without_consent_decodes_as_ever():
    model = AutoModelForCausalLM.from_pretrained("tester/distilled")
    assert model.generate(IDS, **OPTIONS).tolist() == WANT
    raises(ValueError, model.generate, IDS, **OPTIONS, custom_generate="tester/jacobi")


@check
def recipe_of_another_repository_decodes_the_model():
    model = AutoModelForCausalLM.from_pretrained("tester/distilled")
    recipe = {"custom_generate": "tester/jacobi", "trust_remote_code": True, "block_size": 4}
    assert model.generate(IDS, **OPTIONS, **recipe).tolist() == WANT
    out = model.generate(IDS, **OPTIONS, **recipe, return_jacobi_stats=True, max_jacobi_iter=2)
    assert out.stats.forward_passes <= 6


@check
def recipe_of_its_own_repository_replaces_generate():
    model = AutoModelForCausalLM.from_pretrained("tester/distilled", trust_remote_code=True)
    out = model.generate(input_ids=IDS, **OPTIONS, block_size=4, return_jacobi_stats=True)
    assert out.sequences.tolist() == WANT and out.stats.forward_passes <= 9
    assert type(out).__module__.startswith("transformers_modules.")


if __name__ == "__main__":
    main()
