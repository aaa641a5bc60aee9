"""MCL for the matrix: the three first courses on two tiny ELECTRA networks without dropout.

Corrections are means over a notebook that is only known after the first pass, so with them accumulated batches are not
exactly one batch; `tests/trainers/test_mcl_electra.py` runs all five.
"""

import numpy as np
from datasets import Dataset
from matrix_case import MatrixCase

from hf_labels.models.mcl_electra import MCLElectraConfig, MCLElectraForPreTraining
from hf_labels.trainers.mcl_electra import MCLElectraTrainer, MCLElectraTrainingArguments

SIZES = {
    "vocab_size": 40,
    "embedding_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def _model(folder):
    config = MCLElectraConfig(
        generator_config={**SIZES, "hidden_size": 8},
        discriminator_config={**SIZES, "hidden_size": 16},
        courses=["rtd", "std", "itd"],
        mask_token_id=4,
        special_token_ids=[0, 1, 2, 3, 4],
    )
    return MCLElectraForPreTraining(config)


def _data(model, rows):
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 40, (rows, 12))
    ids[:, 0], ids[:, -1] = 2, 3
    mask = np.ones_like(ids)
    for row in range(0, rows, 3):  # padded rows of several lengths
        length = 6 + row % 5
        ids[row, length - 1], ids[row, length:], mask[row, length:] = 3, 0, 0
    return Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": mask.tolist()})


def _with(row, ids):
    return lambda d: d.map(lambda r, i: {**r, "input_ids": ids(r["input_ids"])} if i == row else r, with_indices=True)


CASE = MatrixCase(
    trainer=MCLElectraTrainer,
    arguments=MCLElectraTrainingArguments,
    model=_model,
    data=_data,
    options={"adam_epsilon": 1e-3, "warmup_steps": 0},
    extra_columns=("input_ids", "attention_mask"),
    broken={
        "no tokens": (lambda d: d.remove_columns("input_ids"), "input_ids"),
        "empty data set": (lambda d: d.select([]), "empty"),
        "token outside the vocabulary": (_with(2, lambda ids: [*ids[:5], 40, *ids[6:]]), r"got 40 at row 2"),
        "row too long": (_with(1, lambda ids: ids * 3), "36 tokens at row 1"),
        "nothing to corrupt": (lambda d: d.map(lambda r: {"input_ids": [2] * 12}), "special"),
    },
)
