"""Crowd labels for the matrix: a tiny BERT with a second head, three annotators who answer most rows."""

import numpy as np
from matrix_case import MatrixCase

import toys
from hf_labels.trainers.crowd_soft_labels import CrowdLabelTrainer, CrowdLabelTrainingArguments


def _answers(rows):
    rng = np.random.default_rng(3)
    truth = np.arange(rows) % 3
    answers = np.stack([np.where(rng.random(rows) < share, truth, (truth + 1) % 3) for share in (0.9, 0.8, 0.6)], 1)
    answers[1::4, 2] = -1
    return answers.tolist()


def _data(model, rows):
    return toys.text_dataset(rows, annotator_labels=_answers(rows)).remove_columns("labels")


def _with(answer):
    def change(data):
        answers = data["annotator_labels"][:]
        return data.remove_columns("annotator_labels").add_column(
            "annotator_labels", [*answers[:2], answer, *answers[3:]]
        )

    return change


CASE = MatrixCase(
    trainer=CrowdLabelTrainer,
    arguments=CrowdLabelTrainingArguments,
    model=lambda folder: toys.tiny_bert(dropout=0.0),
    data=_data,
    options={"objective": "multi_task", "aggregation": "ds", "class_weights": [1.0, 2.0, 0.5]},
    extra_columns=("soft_labels",),
    broken={
        "no answers": (lambda d: d.remove_columns("annotator_labels"), "soft_labels"),
        "an answer that the model has no class for": (_with([0, 7, -1]), r"annotator_labels.*7.*row 2"),
        "a row that nobody answered": (_with([-1, -1, -1]), "row 2|no annotation"),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
