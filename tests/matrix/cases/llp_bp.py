"""Bags of four rows for the matrix: pseudo-labels, proportions and a tiny tabular network."""

import datasets
import numpy as np
from matrix_case import MatrixCase

from hf_labels.data.llp_bp import bag_dataset
from hf_labels.models.llp_bp import AutoModelWithBagHead, BagHeadConfig
from hf_labels.trainers.llp_bp import LLPTrainer, LLPTrainingArguments


def _model(folder):
    return AutoModelWithBagHead(BagHeadConfig(num_features=3, hidden_sizes=[6, 4], bag_size=4))


def _data(model, rows):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4 * rows, 3))
    y = (x[:, 0] > 0).astype(int)
    bag = np.arange(4 * rows) // 4
    data = datasets.Dataset.from_dict({"features": x.tolist()})
    return bag_dataset(data, bag, np.bincount(bag, weights=y), y).remove_columns("index")


CASE = MatrixCase(
    trainer=LLPTrainer,
    arguments=LLPTrainingArguments,
    model=_model,
    data=_data,
    extra_columns=("target", "proportion"),
    broken={
        "no proportions": (lambda d: d.remove_columns("proportion"), "proportion"),
        "no pseudo-labels": (lambda d: d.remove_columns("target"), "target"),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
