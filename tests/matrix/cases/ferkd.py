"""FerKD for the matrix: a tiny ViT on six stored crops of each image. SelfMix is off: it draws per batch."""

from matrix_case import MatrixCase
from soft_view_toys import pictures, view_store, vit

from hf_labels.trainers.ferkd import FerKDTrainer, FerKDTrainingArguments

CASE = MatrixCase(
    trainer=FerKDTrainer,
    arguments=FerKDTrainingArguments,
    model=lambda folder: vit(),
    data=lambda model, rows: pictures(rows),
    options={"self_mix_prob": 0.0, "views_per_example": 3, "quantiles": [0.1, 0.5, 0.9]},
    trainer_options=lambda model: {"soft_label_store": view_store(pictures(16))},
    extra_columns=("soft_label_region", "soft_label_mask", "soft_label_ids"),
    broken={
        "no image": (lambda d: d.remove_columns("image"), "no column `image`"),
        "no key": (lambda d: d.remove_columns("index"), "no column `index`"),
        "an image without stored labels": (
            lambda d: d.remove_columns("index").add_column("index", [5] * len(d)),
            "no soft label for example 5",
        ),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
