"""Loads, in a fresh process with an empty cache, what `latent_label_shift_push.py` has pushed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from checks import check, main, raises

SHARED = Path(os.environ["LOOPBACK_SHARED"])
PIXELS = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8)


@check
@torch.no_grad()
def loading_code_of_the_card_gives_the_classifier():
    from huggingface_hub import ModelCard

    from hf_labels.hub_cards import method_text

    code = method_text("latent_label_shift").loading_code("tester/classes", "image-classification")
    assert code in ModelCard.load("tester/classes").text
    names: dict = {}
    exec(compile(code, "loading", "exec"), names)
    model = names["model"].eval()
    got = model(PIXELS, domain=torch.tensor([0, 1, 2, -1])).logits
    np.testing.assert_allclose(got.numpy(), np.load(SHARED / "lls.npy"), atol=1e-6)
    assert model.config.id2label == {0: "cat", 1: "dog | x"}


@check
def the_tool_comes_back_alone():
    from hf_labels.labels.latent_label_shift import LatentLabelShift

    found = LatentLabelShift.from_pretrained("tester/domains").class_prior
    np.testing.assert_array_equal(found, np.load(SHARED / "lls_prior.npy"))


@check
def a_model_without_a_fit_is_an_error():
    from huggingface_hub.errors import RepositoryNotFoundError

    from hf_labels.labels.latent_label_shift import LatentLabelShift

    raises(RepositoryNotFoundError, LatentLabelShift.from_pretrained, "tester/nothing-here")


if __name__ == "__main__":
    main()
