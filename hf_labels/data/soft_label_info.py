"""What a soft-label store says about itself: the side-car `soft_label_store.json`, and the columns of its rows."""

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.data.soft_label_codec import CODECS, RESIDUALS, check_option, id_dtype, value_dtype

SIDE_CAR = "soft_label_store.json"
FORMAT_VERSION = 1
KINDS = ("hard", "smoothing", "topk", "dense", "map", "projector")
_RESIDUAL = {"hard": "none", "smoothing": "smooth", "topk": "smooth", "dense": "none", "map": "zero_logit"}
KEY_COLUMNS = ("example_id", "view", "label")
VIEW_COLUMNS = ("crop", "flip", "mix_index", "mix_lam", "mix_box")
LABEL_COLUMNS = ("topk_ids", "topk_values", "dense_values", "map_ids", "map_values")


@dataclass
class StoreInfo:
    """Everything that rows alone do not tell. Written as JSON next to them.

    Parameters:
        kind (`str`): `"hard"` (class id), `"smoothing"` (class id and its value), `"topk"`, `"dense"`, `"map"` (k
            values per cell of a map, one row per example) or `"projector"` (no rows: a model makes the labels).
        num_labels (`int`): C.
        k (`int`, *optional*): Stored classes; 1 for `hard` and `smoothing`, C for `dense`. Defaults to min(5, C).
        residual (`str`, *optional*): `smooth`, `renorm`, `zero_logit` or `none`; by default what the kind needs.
        value_space (`str`, *optional*): `prob` or `logit`; by default what the residual rule needs.
        codec (`str`, *optional*, defaults to `"float16"`): `float32`, `float16`, `u8_linear`, `u8_log`.
        temperature (`float`, *optional*, defaults to 1.0): T of the teacher's softmax. Probabilities are stored after
            it; stored logits are divided by it when they are read.
        id2label (`dict[int, str]`, *optional*): Names of the classes, compared with the student's when training.
        views_per_example (`int`, *optional*, defaults to 1): V.
        has_crops, has_labels, has_mix (`bool`): Which optional columns the rows have.
        image_size (`int`, *optional*), interpolation (`str`, *optional*): How the teacher saw the crops.
        teacher, teacher_revision (`str`, *optional*): Hub id and revision.
        source (`dict`, *optional*): Data set of the examples: `id`, `revision`, `split`.
        map_shape (`tuple[int, int]`, *optional*): H and W of label maps.
        id_type (`str`, *optional*, defaults to `"int64"`): Type of `example_id`: `int64` or `string`.
        projector (`dict`, *optional*): `repo_id`, `revision`, `prompts` of kind `projector`.
        extra (`dict`): What tools add (thresholds, counts).

    Raises:
        ValueError: For an unknown option, k > C, or options that do not go together.
    """

    kind: str
    num_labels: int
    k: int | None = None
    residual: str | None = None
    value_space: str | None = None
    codec: str = "float16"
    temperature: float = 1.0
    id2label: dict[int, str] | None = None
    views_per_example: int = 1
    has_crops: bool = False
    has_labels: bool = False
    has_mix: bool = False
    image_size: int | None = None
    interpolation: str | None = None
    teacher: str | None = None
    teacher_revision: str | None = None
    source: dict[str, Any] | None = None
    map_shape: tuple[int, int] | None = None
    id_type: str = "int64"
    projector: dict[str, Any] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    created_by: str | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"The store has format {self.format_version}, this version reads {FORMAT_VERSION}. Update hf_labels."
            )
        check_option("kind", self.kind, KINDS)
        check_option("codec", self.codec, CODECS)
        check_option("id_type", self.id_type, ("int64", "string"))
        self._defaults()
        check_option("residual", self.residual, RESIDUALS)
        check_option("value_space", self.value_space, ("prob", "logit"))
        if self.num_labels < 2:
            raise ValueError(f"`num_labels` must be at least 2, got {self.num_labels}.")
        if self.k is not None and not 1 <= self.k <= self.num_labels:
            raise ValueError(f"`k` must be in [1, {self.num_labels}] (`num_labels`), got {self.k}.")
        if not self.temperature > 0:
            raise ValueError(f"`temperature` must be above 0, got {self.temperature}.")
        if self.views_per_example < 1:
            raise ValueError(f"`views_per_example` must be at least 1, got {self.views_per_example}.")
        if self.kind in ("topk", "map") and self.residual == "none":
            raise ValueError(f"Kind `{self.kind}` needs a residual rule: smooth, renorm or zero_logit.")
        if (self.kind in ("topk", "map")) and (self.residual == "zero_logit") != (self.value_space == "logit"):
            raise ValueError(
                f"`residual={self.residual!r}` and `value_space={self.value_space!r}` do not go together: zero_logit "
                "needs logits, smooth and renorm need probabilities."
            )
        if self.value_space == "logit" and self.codec.startswith("u8"):
            raise ValueError(f"`{self.codec}` stores probabilities only. Use `codec='float16'` for logits.")
        if self.kind == "map" and (self.residual != "zero_logit" or self.map_shape is None):
            raise ValueError("Kind `map` needs `map_shape` (H, W) and `residual='zero_logit'`.")
        if self.kind == "projector" and not (self.projector or {}).get("repo_id"):
            raise ValueError("Kind `projector` needs `projector={'repo_id': ..., 'revision': ...}`.")

    def _defaults(self) -> None:
        if self.residual is None:
            self.residual = _RESIDUAL.get(self.kind, "none")
        if self.kind in ("hard", "smoothing"):
            self.k = 1
        elif self.kind == "dense":
            self.k = self.num_labels
        elif self.kind in ("topk", "map") and self.k is None:
            self.k = min(5, self.num_labels)
        if self.value_space is None:
            self.value_space = "logit" if self.residual == "zero_logit" else "prob"
        if self.id2label is not None:
            self.id2label = {int(number): str(name) for number, name in self.id2label.items()}
        if self.map_shape is not None:
            self.map_shape = (int(self.map_shape[0]), int(self.map_shape[1]))
        if self.created_by is None:
            from hf_labels._version import __version__

            self.created_by = f"hf_labels {__version__}"

    # Columns

    @property
    def id_dtype(self) -> np.dtype:
        """Type of class ids in rows."""
        return id_dtype(self.num_labels)

    @property
    def value_dtype(self) -> np.dtype:
        """Type of values in rows."""
        return value_dtype(self.codec)

    @property
    def bytes_per_label(self) -> int:
        """Content of one row's label (ids and values, without keys and crops), in bytes."""
        if self.kind == "projector" or self.k is None:
            return 0
        cells = 1 if self.map_shape is None else self.map_shape[0] * self.map_shape[1]
        ids = 0 if self.kind == "dense" else self.id_dtype.itemsize
        values = 0 if self.kind == "hard" else self.value_dtype.itemsize
        return self.k * cells * (ids + values)

    def features(self) -> Any:
        """`datasets.Features` of the rows."""
        from datasets import Array3D, Features, List, Value

        kinds: dict[str, Any] = {"example_id": Value(self.id_type)}
        if self.kind != "map":
            kinds["view"] = Value("int32")
        if self.has_labels:
            kinds["label"] = Value("int32")
        if self.has_crops:
            kinds |= {"crop": List(Value("float32"), length=4), "flip": Value("bool")}
        ids, values = Value(self.id_dtype.name), Value(self.value_dtype.name)
        if self.kind == "dense":
            kinds["dense_values"] = List(values, length=self.num_labels)
        elif self.kind == "map":
            assert self.map_shape is not None and self.k is not None
            shape = (self.k, *self.map_shape)
            kinds |= {"map_ids": Array3D(shape, ids.dtype), "map_values": Array3D(shape, values.dtype)}
        else:
            kinds["topk_ids"] = List(ids, length=self.k)
            if self.kind != "hard":
                kinds["topk_values"] = List(values, length=self.k)
        if self.has_mix:
            kinds |= {"mix_index": Value("int64"), "mix_lam": Value("float32")}
            kinds["mix_box"] = List(Value("int16"), length=4)
        return Features(kinds)

    # Side-car

    def to_dict(self) -> dict[str, Any]:
        """JSON values, with `bytes_per_label`."""
        given = dataclasses.asdict(self) | {"bytes_per_label": self.bytes_per_label}
        if self.id2label is not None:
            given["id2label"] = {str(number): name for number, name in self.id2label.items()}
        given["map_shape"] = None if self.map_shape is None else list(self.map_shape)
        return given

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "StoreInfo":
        """From [`to_dict`].

        Raises:
            ValueError: If a field is missing, unknown or wrong.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(given) - names - {"bytes_per_label"})
        missing = [name for name in ("kind", "num_labels", "format_version") if name not in given]
        if missing or unknown:
            what = f"lacks `{missing[0]}`" if missing else f"has the unknown field `{unknown[0]}`"
            raise ValueError(f"{SIDE_CAR} {what}. It was not written by this version of hf_labels.")
        return cls(**{name: value for name, value in given.items() if name in names})

    def save(self, folder: str | Path) -> Path:
        """Write the side-car, whole or not at all."""
        path = Path(folder) / SIDE_CAR
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.tmp")
        draft.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(draft, path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> "StoreInfo":
        """Read a side-car file.

        Raises:
            FileNotFoundError: If it is not there: rows alone cannot be decoded.
            ValueError: If it is damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no {SIDE_CAR} in {path.parent}. Rows cannot be decoded without it: copy it from the place "
                "where the store was made, or give the folder of the store."
            )
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no JSON ({error}). Copy it again from where the store was made.") from error
        return cls.from_dict(given)

    def check_labels(self, num_labels: int | None, id2label: Mapping[int, str] | None) -> None:
        """Compare with a model.

        Raises:
            ValueError: If the number of classes differs, or a name; names the first differing id.
        """
        if num_labels is not None and num_labels != self.num_labels:
            raise ValueError(
                f"The store has {self.num_labels} classes, the model {num_labels}. Make the model with "
                f"`num_labels={self.num_labels}`."
            )
        if self.id2label is None or id2label is None:
            return
        for number in range(self.num_labels):
            mine, theirs = self.id2label.get(number), id2label.get(number)
            if mine != theirs:
                raise ValueError(
                    f"Class {number} is {mine!r} in the store and {theirs!r} in the model. Make the model with "
                    "`id2label=store.info.id2label`."
                )
