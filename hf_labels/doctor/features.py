"""Frozen features of the inputs, by the best encoder that is there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_labels.doctor.reading import Patient

logger = logging.getLogger(__name__)

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


def features_of(patient: Patient, parts: Sequence[Any], encoder: Any = None) -> tuple[list[np.ndarray], str]:
    """Unit features `(N, d)`, float32, of each part, and what made them; no features without an input.

    Args:
        patient: Whose input. parts (sequence of `datasets.Dataset`): All of them have it.
        encoder (*optional*): As in [`~hf_labels.data.encoders.make_encoder`] for texts; `"tfidf"` for none. By default
            MiniLM from its package or the Hub, and where neither can be had, TF-IDF. Images become thumbnails unless a
            function from images to vectors is given.
    """
    if patient.text is not None:
        texts = ["" if cell is None else str(cell) for part in parts for cell in part[patient.text][:]]
        found, name = _of_texts(texts, encoder)
    elif patient.image is not None:
        images = [_of_images(part, patient.image, encoder) for part in parts]
        found, name = np.concatenate([one for one, _ in images]), images[0][1]
        found = _unit(found if callable(encoder) else found - found.mean(0))
    else:
        return [], ""
    return np.split(found, np.cumsum([len(part) for part in parts])[:-1]), name


def _of_texts(texts: list[str], encoder: Any) -> tuple[np.ndarray, str]:
    from hf_labels.data.encoders import make_encoder
    from hf_labels.data.features import FeatureCache
    from hf_labels.data.offline import MINILM, minilm_path

    name = encoder
    if encoder is None:
        try:
            minilm_path()
            encoder, name = MINILM, "MiniLM"
        except ImportError:
            encoder, name = ENCODER, "MiniLM"
    if not isinstance(encoder, str) or encoder != "tfidf":
        try:
            frozen = make_encoder(encoder, None)
            found = FeatureCache(frozen.key()).get(texts, frozen.encode, desc="Features")["features"]
            return _unit(np.asarray(found, dtype=np.float32)), str(name)
        except OSError as error:
            if name != "MiniLM":
                raise
            logger.warning("MiniLM cannot be had (%s): TF-IDF is used. Name another with --encoder.", error)
    return _tfidf(texts), "TF-IDF"


def _tfidf(texts: list[str]) -> np.ndarray:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        table = TfidfVectorizer(sublinear_tf=True, max_features=20_000).fit_transform(texts)
    except ValueError:  # no word at all
        return np.zeros((len(texts), 1), np.float32)
    size = min(128, min(table.shape) - 1)
    dense = TruncatedSVD(size, random_state=0) if size >= 2 else None
    with np.errstate(invalid="ignore", divide="ignore"):  # equal texts have no variance to explain
        return _unit(np.asarray(table.toarray() if dense is None else dense.fit_transform(table), dtype=np.float32))


def _of_images(data: Any, column: str, encoder: Any) -> tuple[np.ndarray, str]:
    if callable(encoder):
        found = [np.asarray(encoder([row[column] for row in part])) for part in _batches(data)]
        return np.concatenate(found).astype(np.float32), getattr(encoder, "__name__", "given function")
    return thumbnails(data, column), "thumbnails of 16 x 16 pixels"


def thumbnails(data: Any, column: str = "image") -> np.ndarray:
    """Images as 16 x 16 pixels `(N, 768)` in [0, 1], float32: features for a first look."""
    rows = [
        np.asarray(row[column].convert("RGB").resize((16, 16)), dtype=np.float32).ravel()
        for part in _batches(data)
        for row in part
    ]
    return np.stack(rows) / 255


def _batches(data: Any, size: int = 256) -> Any:
    for start in range(0, len(data), size):
        part = data.select(range(start, min(start + size, len(data))))
        yield [part[i] for i in range(len(part))]


def _unit(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
