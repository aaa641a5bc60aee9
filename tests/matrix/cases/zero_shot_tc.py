"""The entailment trainer for the matrix: a tiny cross-encoder of two classes on pairs, no dropout."""

from matrix_case import MatrixCase
from zero_shot_toys import HYPOTHESES, nli_model, pairs, tiny_tokenizer

from hf_labels.trainers.zero_shot_tc import EntailmentTrainer, EntailmentTrainingArguments


def _with_labels(data, labels):
    return data.remove_columns("labels").add_column("labels", labels)


CASE = MatrixCase(
    trainer=EntailmentTrainer,
    arguments=EntailmentTrainingArguments,
    model=lambda folder: nli_model(spread=0.1),
    data=lambda model, rows: pairs(rows),
    trainer_options=lambda model: {"processing_class": tiny_tokenizer(), "hypotheses": HYPOTHESES},
    options={"seen_labels": "v0"},
    extra_columns=("input_ids", "labels"),
    broken={
        "neither texts nor pairs": (lambda d: d.remove_columns("premise"), "premise"),
        "no hypotheses": (lambda d: d.remove_columns("hypothesis"), "hypothesis"),
        "no labels": (lambda d: d.remove_columns("labels"), "labels"),
        "a label that is no pair label": (
            lambda d: _with_labels(d, [0, 1, 7] + [0] * (len(d) - 3)),
            r"7.*row 2",
        ),
        "entailed pairs only": (lambda d: d.filter(lambda row: row["labels"] == 0), "class"),
        "a text with an unknown label": (
            lambda d: (
                d.rename_column("premise", "text")
                .remove_columns(["hypothesis", "labels"])
                .add_column("labels", ["acne"] * 3 + ["flu"] + ["acne"] * (len(d) - 4))
            ),
            "'flu' at row 3.*acne, insomnia, migraine",
        ),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
