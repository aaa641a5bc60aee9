"""Zero-shot classes on the loopback Hub: classes that stand on a propagation model, with their card; embeddings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from checks import check, log, main
from huggingface_hub import HfApi, ModelCard

from hf_labels.data.kg_zero_shot import KnowledgeGraph
from hf_labels.models.kg_zero_shot import KGZeroShotClassifier
from hf_labels.models.kg_zero_shot_embedding import KGEmbeddingModel
from hf_labels.trainers.kg_zero_shot import KGEmbeddingTrainer, KGEmbeddingTrainingArguments

SHARED = Path(os.environ["LOOPBACK_SHARED"])
api = HfApi()
KG = KnowledgeGraph.from_triples([("cat", "isa", "pet"), ("dog", "isa", "pet"), ("lynx", "isa", "pet")])
RNG = np.random.default_rng(0)


@check
def the_classes_are_pushed_with_their_graph_and_card():
    known = {node: RNG.normal(size=4) for node in KG.nodes}
    x, y = RNG.normal(size=(12, 5)), ["cat", "dog"] * 6
    model = KGZeroShotClassifier.fit(
        x,
        y,
        kg=KG,
        class_nodes=["cat", "dog", "lynx"],
        semantics=known,
        method="dgp",
        hidden_sizes=[6],
        steps=3,
        progress=False,
    )
    model.push_to_hub("tester/kg-classes")
    files = set(api.list_repo_files("tester/kg-classes"))
    assert {"README.md", "config.json", "model.safetensors"} <= files
    assert log("validate_yaml")
    card = str(ModelCard.load("tester/kg-classes", ignore_metadata_errors=False))
    assert "2112.10006" in card and "lynx" in card
    np.savez(SHARED / "kg.npz", x=x, scores=model.scores(x))


@check
def the_embeddings_are_pushed_by_their_trainer():
    model = KGEmbeddingModel.from_graph(KG, hidden_size=8)
    args = KGEmbeddingTrainingArguments(
        str(SHARED / "kg-run"), max_steps=2, use_cpu=True, report_to="none", hub_model_id="tester/kg-embeddings"
    )
    trainer = KGEmbeddingTrainer(model, args, train_dataset=KG.to_dataset())
    trainer.train()
    trainer.push_to_hub()
    assert "2112.10006" in str(ModelCard.load("tester/kg-embeddings"))
    np.savez(SHARED / "kg2.npz", ranks=model.ranks(KG.triples))


if __name__ == "__main__":
    main()
