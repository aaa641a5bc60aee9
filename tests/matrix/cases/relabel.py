"""ReLabel for the matrix: a tiny ViT on crops with labels from 2 x 4 maps. CutMix is off: it draws per batch."""

from matrix_case import MatrixCase
from soft_view_toys import map_store, pictures, vit

from hf_labels.trainers.relabel import ReLabelTrainer, ReLabelTrainingArguments

CASE = MatrixCase(
    trainer=ReLabelTrainer,
    arguments=ReLabelTrainingArguments,
    model=lambda folder: vit(),
    data=lambda model, rows: pictures(rows),
    options={"crop_size": 8, "crop_scale": [0.2, 1.0], "label_smoothing_factor": 0.1},
    trainer_options=lambda model: {"label_maps": map_store(pictures(16))},
    extra_columns=("soft_labels", "labels", "crop"),
    broken={
        "no image": (lambda d: d.remove_columns("image"), "no column `image`"),
        "no key": (lambda d: d.remove_columns("index"), "no column `index`"),
        "an image without a map": (
            lambda d: d.remove_columns("index").add_column("index", [5] * len(d)),
            "no soft label for example 5",
        ),
        "empty data set": (lambda d: d.select([]), "empty"),
    },
)
