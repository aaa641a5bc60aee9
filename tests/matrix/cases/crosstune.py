"""CrossTune for the matrix: three labels, a tiny frozen BERT that is saved to disk first, no dropout."""

from matrix_case import MatrixCase

from hf_labels.models.crosstune import CrossTuneForSequenceClassification
from hf_labels.trainers.crosstune import CrossTuneTrainer, CrossTuneTrainingArguments
from tiny_text import DESCRIPTIONS, save_backbone, text_dataset


def _model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    path = save_backbone(folder)
    return CrossTuneForSequenceClassification.from_backbone(path, DESCRIPTIONS, num_heads=4, dropout=0.0)


def _data(model, rows):
    return text_dataset(rows).add_column("sample_weight", [1.0 + i % 2 for i in range(rows)])


CASE = MatrixCase(
    trainer=CrossTuneTrainer,
    arguments=CrossTuneTrainingArguments,
    model=_model,
    data=_data,
    options={"select_by": "none"},
    frozen=("key.bias",),
    extra_columns=("features", "sample_weight"),
    broken={
        "no text": (lambda d: d.remove_columns("text"), "text"),
        "no labels": (lambda d: d.remove_columns("labels"), "labels"),
        "label strings that are not among the descriptions": (
            lambda d: d.remove_columns("labels").add_column("labels", ["flu"] * len(d)),
            "'flu' at row 0.*acne, insomnia, migraine",
        ),
        "label id outside the classes": (
            lambda d: d.remove_columns("labels").add_column("labels", [0, 1, 7] + [0] * (len(d) - 3)),
            r"7.*row 2",
        ),
        "one class only": (lambda d: d.filter(lambda row: row["labels"] == 0), "class"),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
