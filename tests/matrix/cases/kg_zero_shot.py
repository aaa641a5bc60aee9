"""Graph embeddings for the matrix: DistMult, since TransE brings its entities back to length 1 at every step."""

import datasets
import numpy as np
from matrix_case import MatrixCase

from hf_labels.models.kg_zero_shot_embedding import KGEmbeddingConfig, KGEmbeddingModel
from hf_labels.trainers.kg_zero_shot import KGEmbeddingTrainer, KGEmbeddingTrainingArguments, triple_dataset


class _Fixed:
    """Negatives that depend on the triple alone, so that any division into batches gives the same ones."""

    def __call__(self, rows):
        import torch

        batch = {name: torch.tensor([row[name] for row in rows]) for name in ("h", "r", "t")}
        neg = torch.stack([(batch["t"] + 1) % 6, (batch["h"] + 2) % 6], 1)
        return {**batch, "neg": neg, "corrupt_head": torch.tensor([[False, True]] * len(rows))}


def _model(folder):
    return KGEmbeddingModel(KGEmbeddingConfig(scoring="distmult", num_entities=6, num_relations=2, hidden_size=8))


def _data(model, rows):
    rng = np.random.default_rng(0)
    return triple_dataset(
        np.stack([rng.integers(6, size=rows), rng.integers(2, size=rows), rng.integers(6, size=rows)], 1)
    )


def _far(data):
    return datasets.Dataset.from_dict({"h": [9] * len(data), "r": data["r"][:], "t": data["t"][:]})


CASE = MatrixCase(
    trainer=KGEmbeddingTrainer,
    arguments=KGEmbeddingTrainingArguments,
    model=_model,
    data=_data,
    trainer_options=lambda model: {"data_collator": _Fixed()},
    broken={
        "a missing column": (lambda d: d.remove_columns("t"), "t"),
        "an entity that the model does not have": (_far, "Row 0.*6 entities"),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
