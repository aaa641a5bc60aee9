"""HeLlO for the matrix: a tiny CLIP on disk, adapters of two ranks, two weak teachers."""

import hello_toys as toys
from datasets import ClassLabel, Dataset
from matrix_case import MatrixCase

from hf_labels.models.hello import LabelProjector
from hf_labels.trainers.hello import ProjectorTrainer, ProjectorTrainingArguments


def _model(folder):
    clip = toys.save_clip(folder / "clip")
    return toys.adapted(LabelProjector.from_clip(clip, toys.NAMES))


def _data(model, rows):
    columns = {"pixel_values": toys.pixels(rows).tolist(), "labels": [row % 3 for row in range(rows)]}
    columns |= {"sample_weight": [1.0 + row % 2 for row in range(rows)]}
    return Dataset.from_dict(columns).cast_column("labels", ClassLabel(names=toys.NAMES))


def _labels(values):
    return lambda d: d.remove_columns("labels").add_column("labels", values + [0] * (len(d) - len(values)))


CASE = MatrixCase(
    trainer=ProjectorTrainer,
    arguments=ProjectorTrainingArguments,
    model=_model,
    data=_data,
    trainer_options=lambda model: {"teachers": [toys.teacher(5), toys.teacher(6)]},
    frozen=tuple(name for name, parameter in toys.adapted().named_parameters() if not parameter.requires_grad),
    extra_columns=("sample_weight",),
    loads_as=LabelProjector,
    broken={
        "no labels": (lambda d: d.remove_columns("labels"), "labels"),
        "label id outside the classes": (_labels([0, 1, 7]), r"7.*row 2"),
        "classes in another order": (
            lambda d: d.cast_column("labels", ClassLabel(names=["dog", "cat", "bird"])),
            "Class 0 is 'dog' in column `labels` and 'cat' in the projector",
        ),
        "one class only": (lambda d: d.filter(lambda row: row["labels"] == 0), "class"),
        "empty data set": (lambda d: d.select([]), "empty"),
        "pixels that are not finite": (
            lambda d: d.map(lambda row: {"pixel_values": [[[float("inf")] * 8] * 8] * 3}),
            "The loss is nan",
        ),
    },
)
