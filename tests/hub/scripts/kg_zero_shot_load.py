"""Loads, in a fresh process with an empty cache, what `kg_zero_shot_push.py` has pushed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from checks import check, main

SHARED = Path(os.environ["LOOPBACK_SHARED"])


@check
def the_classes_come_back_and_take_new_ones():
    from hf_labels.models.kg_zero_shot import KGZeroShotClassifier

    kept = np.load(SHARED / "kg.npz")
    model = KGZeroShotClassifier.from_pretrained("tester/kg-classes")
    np.testing.assert_allclose(model.scores(kept["x"]), kept["scores"], atol=1e-5)
    model.add_classes(["puma"], parents=[["pet"]])
    assert model.names == ["cat", "dog", "lynx", "puma"] and model.scores(kept["x"]).shape == (12, 4)


@check
def the_embeddings_come_back():
    from hf_labels.models.kg_zero_shot_embedding import KGEmbeddingModel

    model = KGEmbeddingModel.from_pretrained("tester/kg-embeddings")
    place = {name: number for number, name in enumerate(model.config.entities)}
    triples = [(place[name], 0, place["pet"]) for name in ("cat", "dog", "lynx")]
    np.testing.assert_allclose(model.ranks(triples), np.load(SHARED / "kg2.npz")["ranks"])


if __name__ == "__main__":
    main()
