"""Name tagging for the matrix: discrimination of pseudo entities, a tiny BERT."""

from matrix_case import MatrixCase
from name_tagging_toys import tagged, tagger

from hf_labels.trainers.name_tagging_metric import EntityMetricTrainer, EntityMetricTrainingArguments


def _labels(change):
    return lambda d: d.map(lambda row, i: {"labels": change(row["labels"], i)}, with_indices=True)


CASE = MatrixCase(
    trainer=EntityMetricTrainer,
    arguments=EntityMetricTrainingArguments,
    model=lambda folder: tagger(),
    data=lambda model, rows: tagged(rows),
    options={"metric_weight": 0.5},
    extra_columns=("pseudo_tags",),
    row_wise={"metric_weight": 0.0},
    broken={
        "no labels": (lambda d: d.remove_columns("labels"), "labels"),
        "tag outside the model": (_labels(lambda t, i: [9, *t[1:]] if i == 2 else t), "tag 9 at row 2"),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
