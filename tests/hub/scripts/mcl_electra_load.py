"""Loads, in a fresh process with an empty cache, what `mcl_electra_push.py` has pushed to the loopback Hub."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from checks import check, main
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer


def kept(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    found = json.loads((Path(os.environ["LOOPBACK_SHARED"]) / f"{name}.json").read_text())
    return torch.tensor(found["ids"]), torch.tensor(found["hidden"])


@check
def stock_classes_load_the_parts_without_hf_labels():
    assert not any(name.split(".")[0] == "hf_labels" for name in sys.modules)
    sys.modules["hf_labels"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        for name in ("mcl", "mcl-discriminator"):
            ids, hidden = kept(name)
            classifier = AutoModelForSequenceClassification.from_pretrained(f"tester/{name}", num_labels=3).eval()
            assert type(classifier).__name__ == "ElectraForSequenceClassification"
            with torch.no_grad():
                torch.testing.assert_close(classifier.electra(ids)[0], hidden)
                torch.testing.assert_close(AutoModel.from_pretrained(f"tester/{name}").eval()(ids)[0], hidden)
        ids, logits = kept("mcl-generator")
        with torch.no_grad():
            torch.testing.assert_close(
                AutoModelForMaskedLM.from_pretrained("tester/mcl-generator")(ids).logits, logits
            )
        assert AutoTokenizer.from_pretrained("tester/mcl").mask_token_id == 4
    finally:
        del sys.modules["hf_labels"]


@check
def the_whole_model_is_loaded_to_train_on():
    from hf_labels.models.mcl_electra import MCLElectraForPreTraining

    ids, logits = kept("mcl-both")
    model = MCLElectraForPreTraining.from_pretrained("tester/mcl-both").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, logits)


@check
def loading_code_of_the_card_runs():
    from huggingface_hub import ModelCard

    from hf_labels.hub_cards import method_text

    code = method_text("mcl_electra").loading_code("tester/mcl")
    assert code in ModelCard.load("tester/mcl").text
    names: dict = {}
    exec(compile(code, "loading", "exec"), names)
    assert type(names["model"]).__name__ == "ElectraModel"


if __name__ == "__main__":
    main()
