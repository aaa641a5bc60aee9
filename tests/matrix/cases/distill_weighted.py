"""DistillWeighted for the matrix: a tiny ViT, 16 labelled and 16 unlabelled images with stored soft labels."""

from distill_weighted_toys import images, soft_store, student
from matrix_case import MatrixCase

from hf_labels.trainers.distill_weighted import WeightedDistillTrainer, WeightedDistillTrainingArguments


def _with_labels(data, labels):
    return data.remove_columns("labels").add_column("labels", labels)


CASE = MatrixCase(
    trainer=WeightedDistillTrainer,
    arguments=WeightedDistillTrainingArguments,
    model=lambda folder: student(),
    data=lambda model, rows: images(rows),
    options={"label_weight": 0.4},
    trainer_options=lambda model: {
        "unlabeled_dataset": images(16, first=100).remove_columns("labels"),
        "soft_labels": soft_store([*range(16), *range(100, 116)]),
    },
    extra_columns=("pixel_values", "labels", "distill"),
    broken={
        "no labels": (lambda d: d.remove_columns("labels"), "labels"),
        "no key": (lambda d: d.remove_columns("index"), "index"),
        "a row without a soft label": (
            lambda d: d.remove_columns("index").add_column("index", [50 + i for i in range(len(d))]),
            "no soft label for example 50",
        ),
        "class id outside the student": (lambda d: _with_labels(d, [0, 1, 7] + [0] * (len(d) - 3)), r"7.*row 2"),
        "one class only": (lambda d: d.filter(lambda row: row["labels"] == 0), "class"),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
