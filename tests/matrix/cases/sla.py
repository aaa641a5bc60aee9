"""SLA for the matrix: a tiny ViT with joint and plain head, rotations, no dropout."""

from matrix_case import MatrixCase
from sla_toys import images, sla_model, with_labels

from hf_labels.trainers.sla import SLATrainer, SLATrainingArguments


def _data(model, rows):
    data = images(rows)
    return with_labels(data, [-1 if i == 5 else label for i, label in enumerate(data["labels"])])


CASE = MatrixCase(
    trainer=SLATrainer,
    arguments=SLATrainingArguments,
    model=lambda folder: sla_model(),
    data=_data,
    options={"sd_temperature": 2.0},
    extra_columns=("pixel_values", "labels"),
    broken={
        "no images": (lambda d: d.remove_columns("pixel_values"), "pixel_values"),
        "no labels": (lambda d: d.remove_columns("labels"), "labels"),
        "float labels": (
            lambda d: with_labels(d, [0.5] * len(d)),
            "SLA needs integer single labels.*float64",
        ),
        "multi-label targets": (
            lambda d: with_labels(d, [[0, 1, 1]] * len(d)),
            "SLA needs integer single labels.*List",
        ),
        "class id outside the model": (
            lambda d: with_labels(d, [0, 1, 7] + [0] * (len(d) - 3)),
            r"7.*row 2",
        ),
        "one class only": (lambda d: d.filter(lambda row: row["labels"] == 0), "class"),
        "empty data set": (lambda d: d.select([]), "empty"),
        "images that are not square": (
            lambda d: d.map(lambda row: {"pixel_values": [c[:4] for c in row["pixel_values"]]}),
            r"`rotation` needs square images, got 4 x 8",
        ),
    },
)
