"""Latent label shift for the matrix: a tiny ViT that tells four domains apart, one row of an unknown domain."""

from lls_toys import images
from matrix_case import MatrixCase

import toys
from hf_labels.trainers.latent_label_shift import LatentLabelShiftTrainer, LatentLabelShiftTrainingArguments


def _with_domains(data, values):
    return data.remove_columns("domain").add_column("domain", values)


def _data(model, rows):
    data = images(rows)
    return _with_domains(data, [-1 if i == 5 else domain for i, domain in enumerate(data["domain"][:])])


def _vit():
    model = toys.tiny_vit(4)
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    return model


CASE = MatrixCase(
    trainer=LatentLabelShiftTrainer,
    arguments=LatentLabelShiftTrainingArguments,
    model=lambda folder: _vit(),
    data=_data,
    extra_columns=("pixel_values", "domain"),
    broken={
        "no domains": (lambda d: d.remove_columns("domain"), "`domain` is missing"),
        "float domains": (lambda d: _with_domains(d, [0.5] * len(d)), "domain.*0.5"),
        "a domain that the model has no label for": (
            lambda d: _with_domains(d, [0, 1, 7] + [2] * (len(d) - 3)),
            r"domain.*7.*row 2",
        ),
        "one domain only": (lambda d: _with_domains(d, [0] * len(d)), "domain"),
        "a domain without rows": (
            lambda d: _with_domains(d, [i % 3 for i in range(len(d))]),
            "class 3.*has 3 classes",
        ),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
