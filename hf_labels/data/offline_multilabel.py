"""Real multi-label data that comes in Python packages, read without importing them: films with genres, yeast genes."""

import csv
import gzip
import io
import tarfile
from typing import Any

from hf_labels.data.offline import _package_folder

FILM_GENRES = ("Action", "Animation", "Comedy", "Drama", "Documentary", "Romance", "Short")
YEAST_LABELS = tuple(f"Class{i}" for i in range(1, 15))
_FILMS = "resources/rdata/csv/ggplot2/movies.csv"


def load_films(min_votes: int = 30, limit: int = 0, seed: int = 0) -> Any:
    """Films with 7 genres, several each (IMDb, as in ggplot2); package `pydataset` (MIT).

    Args:
        min_votes (`int`, *optional*, defaults to 30): Keep films with so many votes, and at least one genre.
        limit (`int`, *optional*, defaults to 0): Draw so many of them; 0 keeps all.
        seed (`int`, *optional*, defaults to 0): Of the draw.

    Returns:
        `datasets.Dataset`: Columns `text` (the title), `facts` (year, length, rating, budget and age limit in words),
        `labels` (rows of 7 numbers, 0 or 1, in the order of `FILM_GENRES`), `index`.

    Raises:
        ImportError: If the package is not installed; names it.
    """
    import numpy as np

    with tarfile.open(_package_folder("pydataset") / "resources.tar.gz") as archive:
        member = archive.extractfile(_FILMS)
        if member is None:
            raise FileNotFoundError(f"{_FILMS} is not in the files of `pydataset`.")
        rows = list(csv.DictReader(io.StringIO(member.read().decode("utf-8", errors="replace"))))
    rows = [row for row in rows if int(row["votes"]) >= min_votes and any(row[name] == "1" for name in FILM_GENRES)]
    if limit and limit < len(rows):
        rows = [rows[i] for i in np.sort(np.random.default_rng(seed).choice(len(rows), limit, replace=False))]
    labels = [[int(row[name]) for name in FILM_GENRES] for row in rows]
    return _dataset({"text": [row["title"] for row in rows], "facts": [_facts(row) for row in rows]}, labels)


def _facts(row: dict[str, str]) -> str:
    text = f"A film of {row['year']}, {row['length']} minutes, rated {row['rating']} by {row['votes']} viewers"
    if row["mpaa"] not in ("", "NA"):
        text += f", {row['mpaa']}"
    if row["budget"] not in ("", "NA"):
        text += f", made for {int(float(row['budget']))} dollars"
    return text + "."


def load_yeast() -> Any:
    """Genes of yeast with 14 functional groups, several each (Elisseeff and Weston 2001); package `river` (BSD-3).

    Returns:
        `datasets.Dataset`: 2 417 rows with `features` (103 numbers), `labels` (rows of 14 numbers, 0 or 1, in the
        order of `YEAST_LABELS`), `index`.

    Raises:
        ImportError: If the package is not installed; names it.
    """
    with gzip.open(_package_folder("river") / "datasets" / "yeast.csv.gz", "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    features = [[float(row[f"Att{i}"]) for i in range(1, 104)] for row in rows]
    labels = [[int(float(row[name])) for name in YEAST_LABELS] for row in rows]
    return _dataset({"features": features}, labels)


def _dataset(columns: dict[str, list[Any]], labels: list[list[int]]) -> Any:
    import datasets

    kinds: dict[str, Any] = {name: datasets.Value("string") for name in columns}
    if "features" in columns:
        kinds["features"] = datasets.List(datasets.Value("float32"), length=len(columns["features"][0]))
    kinds["labels"] = datasets.List(datasets.Value("int64"), length=len(labels[0]))
    kinds["index"] = datasets.Value("int64")
    return datasets.Dataset.from_dict(
        {**columns, "labels": labels, "index": list(range(len(labels)))}, features=datasets.Features(kinds)
    )
