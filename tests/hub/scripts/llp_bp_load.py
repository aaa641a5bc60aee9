"""Loads, in a fresh process with an empty cache, what `llp_bp_push.py` has pushed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from checks import check, main

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_classifier_comes_back():
    from datasets import load_dataset

    from hf_labels.models.llp_bp import AutoModelWithBagHead

    rows = load_dataset("tester/bag-labels", split="train")
    model = AutoModelWithBagHead.from_pretrained("tester/from-bags").eval()
    with torch.no_grad():
        probs = model(features=torch.tensor(rows["features"][:])).logits.softmax(-1)[:, 1]
    np.testing.assert_allclose(probs.numpy(), np.load(SHARED / "llp.npz")["probs"], atol=1e-6)


@check
def the_pseudo_labels_come_back():
    from datasets import load_dataset

    rows, kept = load_dataset("tester/bag-labels", split="train"), np.load(SHARED / "llp2.npz")
    assert rows["pseudo_label"][:] == kept["labels"].tolist()
    np.testing.assert_allclose(np.array(rows["soft_labels"][:])[:, 1], kept["probs"], atol=1e-6)


if __name__ == "__main__":
    main()
