"""LAD for the matrix: the student, with a LAD teacher. Batch norms are held, for they mix the rows of a batch."""

from lad_toys import changed, scenes, segformer, teacher
from matrix_case import MatrixCase

from hf_labels.trainers.lad import CWDDistillTrainer, LADTrainingArguments


def _at(value):
    def change(labels):
        labels[3, 4] = value
        return labels

    return change


CASE = MatrixCase(
    trainer=CWDDistillTrainer,
    arguments=LADTrainingArguments,
    model=lambda folder: segformer(),
    data=lambda model, rows: scenes(rows),
    options={"freeze_batch_norm": True},
    trainer_options=lambda model: {"teacher": teacher()},
    extra_columns=("pixel_values", "labels"),
    broken={
        "no images": (lambda d: d.remove_columns("pixel_values"), "pixel_values"),
        "no labels": (lambda d: d.remove_columns("labels"), "labels"),
        "class id outside the model": (lambda d: changed(d, 2, _at(3)), r"\[0, 3\) or 255 .ignore., got 3 at row 2"),
        "negative class id": (lambda d: changed(d, 1, _at(-1)), "got -1 at row 1"),
        "maps of another size": (lambda d: changed(d, 4, lambda m: m[:8]), r"\(16, 16\), got \(8, 16\) at row 4"),
        "float labels": (
            lambda d: d.map(lambda row: {"labels": [[0.5] * 16] * 16}),
            "integer class ids, got float.* at row 0",
        ),
        "images of two channels": (
            lambda d: d.map(lambda row: {"pixel_values": row["pixel_values"][:2]}),
            r"shape \(3, H, W\), got \(2, 16, 16\) at row 0",
        ),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
